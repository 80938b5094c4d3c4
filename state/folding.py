"""What a dialogue added to its small world, and how it becomes part of another one.

Turns, memories and whatever nobody else can change are put in as they are. Effects are appended
through the laws once more, in the order of the dialogues, so that two that share a persona add up
as if one had been after the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy import JSON, Connection, Integer, bindparam, func, literal_column, select

from persona_mcp.state import conversations, dialogues, personas
from persona_mcp.state.arrow import Priors
from persona_mcp.state.batch.values import Outcome
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.effects import EffectParams, RelationshipChange, add_relationship_change
from persona_mcp.state.emotion import Impulses
from persona_mcp.state.errors import NotFound
from persona_mcp.state.feelings import COOLDOWNS, FeelingChange, add_feeling_change
from persona_mcp.state.inline_database import InlineDatabase
from persona_mcp.state.memory.uses import THERE
from persona_mcp.state.persona import Persona
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.relationship_store import to_logged
from persona_mcp.state.small_world import WORLD, complete
from persona_mcp.state.snapshots.load import embed_missing
from persona_mcp.state.snapshots.rows import Row, Rows, write_rows
from persona_mcp.state.snapshots.tables import KEPT, PLACE

EFFECTS = ("relationship_events", "mood_impulses", "energy_spent")
AS_THEY_ARE = (
    *("conversations", "exchanges", "turns", "turn_witnesses"),
    *("memories", "memory_witnesses", "memory_uses", "memory_vectors"),
)
ADDED = tuple(kept for kept in KEPT if kept.name in (*AS_THEY_ARE, *EFFECTS))
"""Tables that a dialogue adds rows to; what is a cache is made anew."""
row_number = literal_column("rowid", Integer)
NEW = {
    kept.name: Prepared(
        select(*kept.columns)
        .where(row_number > bindparam("after", type_=INTEGER))
        .order_by(row_number)
    )
    for kept in ADDED
}
MARKS = Prepared(
    select(
        *(select(func.max(row_number)).select_from(kept.table).scalar_subquery() for kept in ADDED)
    )
)
OBJECTS = {
    kept.name: tuple(
        column.name
        for column in kept.columns
        if isinstance(column.type, JSON) and column.name not in kept.pairs
    )
    for kept in ADDED
}
"""Columns of JSON whose keys stand in no order that counts."""
MEASURED = "processing_s"
"""How long a reply took: another one each time, so it is no part of what came of a dialogue."""
NO_PRIORS = Priors(0.0, 0.0)
Marks = tuple[int, ...]


def marks(connection: Connection) -> Marks:
    """Return where each table of a small world ends now, for `delta`."""
    return tuple(mark or 0 for mark in MARKS.first(connection))


def delta(connection: Connection, since: Marks) -> Rows:
    """Return the rows that were added to a small world, by table, in order of writing.

    They are as `snapshots.rows.read_rows` has them, with their places; caches are left out.
    """
    rows: Rows = {}
    for kept, mark in zip(ADDED, since, strict=True):
        found = [dict(row._mapping) for row in NEW[kept.name].all(connection, after=mark)]
        if kept.ordered:
            found = [{**row, PLACE: place} for place, row in enumerate(found, start=1)]
        rows[kept.name] = [plain(kept.name, row) for row in found]
    return rows


def plain(table: str, row: Row) -> Row:
    """Take what was measured out of a row, and give the keys of objects one order, in place.

    A row is then the same whether it came straight from a dialogue or was read from a file.
    """
    for name in OBJECTS[table]:
        row[name] = in_order(row[name])
    if MEASURED in row:
        row[MEASURED] = None
    return row


def in_order(value: Any) -> Any:
    """Sort the keys of objects in a JSON value."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return [in_order(one) for one in value] if isinstance(value, list) else value


def fold(frozen: bytes, outcomes: Iterable[Outcome], laws: EffectParams) -> bytes:
    """Make dialogues part of the frozen world that they were held in.

    Args:
        frozen: The world as it stood before.
        outcomes: In any order; what counts is their number.
        laws: The constants that they were held with.

    Returns:
        The world after them, frozen.
    """
    with InlineDatabase(frozen) as database:
        with database.writing() as connection:
            add_outcomes(connection, WORLD, outcomes, laws)
        return database.freeze()


def fold_into(
    connection: Connection,
    world_id: str,
    outcomes: Iterable[Outcome],
    laws: EffectParams,
    model_id: str,
    now: float,
) -> list[str]:
    """Make dialogues part of a world of a data folder, inside a transaction that writes.

    A dialogue whose conversation is there already is left alone, so a repeated call changes
    nothing.

    Args:
        connection: That transaction.
        world_id: Where; its personas have the ids of the batch's.
        outcomes: In any order; what counts is their index.
        laws: The constants.
        model_id: Of the folder's embedder; memories without a vector of it are asked for.
        now: Seconds since the epoch, UTC.

    Returns:
        Ids of the conversations that were added.

    Raises:
        NotFound: One of the personas is not in that world.
    """
    added = add_outcomes(connection, world_id, outcomes, laws)
    for outcome in added:
        embed_missing(connection, world_id, complete(outcome.rows), model_id, now)
    return [outcome.job.id for outcome in added]


def add_outcomes(
    connection: Connection, world_id: str, outcomes: Iterable[Outcome], laws: EffectParams
) -> list[Outcome]:
    """Add dialogues that are not there yet, in order, and return them.

    Raises:
        NotFound: One of the personas is not there.
    """
    added = []
    for outcome in sorted(outcomes, key=lambda one: one.job.place.index):
        there = conversations.find(connection, world_id, outcome.job.id)
        if there is None and outcome.rows.get("conversations"):
            add_outcome(connection, world_id, outcome.rows, laws)
            added.append(outcome)
    return added


def add_outcome(
    connection: Connection, world_id: str, rows: Mapping[str, Sequence[Row]], laws: EffectParams
) -> None:
    """Add what one dialogue added, and let it bear on those who were there."""
    given = complete({name: rows.get(name, ()) for name in AS_THEY_ARE})
    used = [row["memory_id"] for row in given["memory_uses"]]
    known = {row.id for row in THERE.all(connection, world=world_id, ids=used)}
    known |= {row["id"] for row in given["memories"]}
    given["memory_uses"] = [row for row in given["memory_uses"] if row["memory_id"] in known]
    write_rows(connection, world_id, given)
    for row in rows.get("relationship_events", ()):
        add_relationship_change(
            connection, world_id, row["exchange_id"], change_of(row), laws.relationships
        )
    people = those_who_felt(connection, world_id, rows)
    for push, costs in moments(rows):
        change = FeelingChange(
            people[push["persona_id"]],
            Impulses(**push["impulse"]),
            tuple((row["talk_s"], row["share"]) for row in costs),
            push["why"],
            push["absolute"],
        )
        ids = (push["id"], *(row["id"] for row in costs))
        add_feeling_change(connection, world_id, push["exchange_id"], change, ids, push["at"], laws)
    for talk in given["conversations"]:
        for persona_id, until in ((talk["plan"] or {}).get(COOLDOWNS) or {}).items():
            dialogues.rest_until(connection, world_id, persona_id, until)


def change_of(row: Row) -> RelationshipChange:
    """Read an event as it is appended."""
    logged = to_logged(SimpleNamespace(**row))
    return RelationshipChange(
        id=logged.id,
        from_id=row["from_id"],
        to_id=row["to_id"],
        event=logged.event,
        priors=logged.event.priors or NO_PRIORS,
        why=logged.why,
        origin=logged.origin,
    )


def those_who_felt(
    connection: Connection, world_id: str, rows: Mapping[str, Sequence[Row]]
) -> dict[str, Persona]:
    """Read the personas whose feelings were moved.

    Raises:
        NotFound: One is not there.
    """
    ids = sorted({row["persona_id"] for row in rows.get("mood_impulses", ())})
    found = {one.id: one for one in personas.those(connection, world_id, ids)}
    for id in ids:
        if id not in found:
            raise NotFound.of("persona", id)
    return found


def moments(rows: Mapping[str, Sequence[Row]]) -> Iterator[tuple[Row, list[Row]]]:
    """Give each push on a persona's emotions with the costs of the same moment, in order."""
    costs: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows.get("energy_spent", ()):
        costs.setdefault((row["exchange_id"], row["persona_id"], row["at"]), []).append(row)
    for push in rows.get("mood_impulses", ()):
        yield push, costs.pop((push["exchange_id"], push["persona_id"], push["at"]), [])
