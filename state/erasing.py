"""Taking away for good what a persona, or a whole world, has: in SQL and in every index."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)

from persona_mcp.state import tables
from persona_mcp.state.index.work import add_work
from persona_mcp.state.memory.changes import purge_memories
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.table_base import Base

M = tables.Memory
O = tables.OutboxEntry  # noqa: E741 - the table's letter, as in the other stores
P = tables.Persona
R = tables.RelationshipState
E = tables.RelationshipEvent
V = tables.VisualContext
X = tables.Exchange
WORLD, PERSONA = bindparam("world", type_=String), bindparam("persona", type_=String)

STAYS = frozenset(
    {"snapshots", "answers", "batches", "sessions", "upkeep", "outbox", "memory_stamps"}
)
"""Tables that are about a world and are no part of it: they are not erased with what is in it."""


def of_persona(table: type[Base], column: str = "persona_id") -> ColumnElement[bool]:
    """Return the condition for the rows of a table that are a persona's."""
    columns = table.__table__.c
    return and_(columns.world_id == WORLD, columns[column] == PERSONA)


def of_arrows(table: type[E] | type[R]) -> ColumnElement[bool]:
    """Return the condition for the rows of arrows from a persona, and to it."""
    return and_(table.world_id == WORLD, or_(table.from_id == PERSONA, table.to_id == PERSONA))


ITS_ROWS: Mapping[str, tuple[type[Base], ColumnElement[bool]]] = {
    "memories": (M, of_persona(M)),
    "vectors": (tables.MemoryVector, of_persona(tables.MemoryVector)),
    "relationships": (R, of_arrows(R)),
    "relationship_events": (E, of_arrows(E)),
    "mood_impulses": (tables.MoodImpulse, of_persona(tables.MoodImpulse)),
    "energy_spent": (tables.EnergySpent, of_persona(tables.EnergySpent)),
    "persona_states": (tables.PersonaState, of_persona(tables.PersonaState)),
    "prune_runs": (tables.PruneRun, of_persona(tables.PruneRun)),
    "decay_runs": (tables.DecayRun, of_persona(tables.DecayRun)),
    "persona_versions": (tables.PersonaVersion, of_persona(tables.PersonaVersion)),
    "persona_cards": (tables.PersonaCard, of_persona(tables.PersonaCard)),
    "visual_contexts": (V, and_(of_persona(V, "target"), V.target_kind == "persona")),
}
"""What goes with a persona: by its name in an answer, the table and which of its rows."""
BY_MEMORY = frozenset({"memories", "vectors"})
"""Of these, what goes by way of the memories, so that every index hears of it."""
COUNTS = {
    name: Prepared(select(func.count()).select_from(table).where(its))
    for name, (table, its) in ITS_ROWS.items()
}
DELETES = [
    Prepared(delete(table).where(its))
    for name, (table, its) in ITS_ROWS.items()
    if name not in BY_MEMORY
]
ITS_MEMORIES = Prepared(select(M.id).where(of_persona(M)))
BLANK: dict[str, Any] = {
    "name": "",
    "name_key": None,
    "description": "",
    "personality_traits": {},
    "topic_preferences": {},
    "current_priority": "none",
    "tags": [],
    "system_prompt": "",
    "exit_lines": {},
    "examples": [],
}
EMPTY = Prepared(
    update(P)
    .where(P.world_id == WORLD, P.id == bindparam("persona_key"))
    .values(**BLANK, deleted_at=func.coalesce(P.deleted_at, bindparam("now")))
)
FORGET_PROMPTS = Prepared(update(X).where(of_persona(X), X.prompt.is_not(None)).values(prompt=None))
WORLD_MEMORIES = Prepared(select(M.id, M.version).where(M.world_id == WORLD))
WORLD_WORK = Prepared(delete(O).where(O.world_id == WORLD, O.operation == "upsert"))


def count_persona(connection: Connection, world_id: str, persona_id: str) -> dict[str, int]:
    """Count the rows that `erase_persona` takes away, by what they are."""
    its = {"world": world_id, "persona": persona_id}
    return {name: count.scalar(connection, **its) for name, count in COUNTS.items()}


def erase_persona(
    connection: Connection, world_id: str, persona_id: str, now: float
) -> dict[str, int]:
    """Take away for good what is a persona's, inside a transaction, and have every index forget it.

    Its row stays, deleted and with nothing in it, so that its id is never another party's. What was
    said in its talks stays, as do the memories that others have of it: those are theirs.

    Returns:
        How many rows went, by what they are.
    """
    its = {"world": world_id, "persona": persona_id}
    counts = count_persona(connection, world_id, persona_id)
    ids = [id for (id,) in ITS_MEMORIES.all(connection, **its)]
    purge_memories(connection, world_id, ids, now)
    for statement in DELETES:
        statement.run(connection, its)
    FORGET_PROMPTS.run(connection, its)
    EMPTY.run(connection, {"world": world_id, "persona_key": persona_id, "now": now})
    return counts


def erase_world(connection: Connection, world_id: str, now: float) -> dict[str, int]:
    """Take away for good everything that is in a world, inside a transaction; the world stays.

    Every index is told to forget its memories. What is written again under the same ids in the
    same transaction is found again: an index looks at what is there by then. Saved states, session
    handles, answers that are given again, and the switch of the upkeep stay, and so do the stamps
    that tell whoever holds its memories that they are gone.

    Returns:
        How many rows went, by table.
    """
    versions = {row.id: row.version for row in WORLD_MEMORIES.all(connection, world=world_id)}
    WORLD_WORK.run(connection, {"world": world_id})
    counts = {
        table.name: connection.execute(delete(table).where(table.c.world_id == world_id)).rowcount
        for table in reversed(world_tables())
    }
    add_work(connection, world_id, "delete", versions, now)
    return counts


def world_tables() -> list[Table]:
    """Return the tables of what is in a world; each stands behind those that it refers to."""
    return [
        table
        for table in Base.metadata.sorted_tables
        if "world_id" in table.c and table.name not in STAYS
    ]
