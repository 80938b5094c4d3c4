"""Rows as the product writes them: exchanges, what they leave behind, memories."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from persona_mcp.state import emotion, tables
from persona_mcp.state.commit import Commit, NewTurn
from persona_mcp.state.database import Database
from persona_mcp.state.effects import EffectParams, RelationshipChange
from persona_mcp.state.emotion import EmotionParams
from persona_mcp.state.exchanges import ExchangeStore, Lease
from persona_mcp.state.feelings import FeelingChange
from persona_mcp.state.ids import derived_id
from persona_mcp.state.index.work import Vectors
from persona_mcp.state.interaction import InteractionParams
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import Source, add_memories
from persona_mcp.state.persona import Persona, PersonaSpec
from persona_mcp.state.relationship import Appraisal, Deltas, Event, Priors
from persona_mcp.state.relationship_params import RelationshipParams
from persona_mcp.state.request import Request

NOW = 1_700_000_000.0
LEASE_S = 15.0
PROCESS = "host-1"
PARAMS = EffectParams(RelationshipParams(), EmotionParams(), InteractionParams())
TABLES = (
    tables.Turn,
    tables.TurnWitness,
    tables.RelationshipEvent,
    tables.RelationshipState,
    tables.MoodImpulse,
    tables.EnergySpent,
    tables.PersonaState,
    tables.Memory,
    tables.MemoryWitness,
    tables.MemoryUse,
    tables.OutboxEntry,
)
"""Everything that an exchange writes when it is done."""


def spec(name: str, **more: Any) -> PersonaSpec:
    return PersonaSpec.model_validate({"name": name, **more})


def request(request_id: str = "r1", **more: Any) -> Request:
    values: dict[str, Any] = {
        "world_id": "main",
        "conversation_id": "c1",
        "persona_id": "mara",
        "user_id": "ann",
        "request_id": request_id,
        "message": "What happened that winter?",
        "parameters": {},
        "starts": True,
    }
    return Request(**{**values, **more})


def lease_of(exchange_id: str = "x1", process: str = PROCESS, conversation_id: str = "c1") -> Lease:
    return Lease("main", conversation_id, exchange_id, process)


def nobody_is_gone(_: str) -> bool:
    return False


async def begin(
    database: Database, number: int = 1, now: float = NOW, conversation_id: str = "c1"
) -> Lease:
    """Accept exchange `x<number>` and take its lease."""
    store = ExchangeStore(database, nobody_is_gone)
    asked = request(f"r{number}", conversation_id=conversation_id, starts=number == 1)
    await store.accept(asked, f"x{number}", PROCESS, None, now)
    lease = lease_of(f"x{number}", conversation_id=conversation_id)
    assert await store.claim(lease, LEASE_S, now)
    return lease


def event(at: float, warmth: float = 0.5, change: Deltas | None = None) -> Event:
    return Event(
        at=at,
        seq=0,
        deltas=change or Deltas(affinity=0.1, trust=0.05, respect=0.02, contact=0.1),
        appraisal=Appraisal(warmth=warmth),
        minutes=0.5,
    )


def relationship_change(
    lease: Lease, at: float, number: int = 0, change: Deltas | None = None, warmth: float = 0.5
) -> RelationshipChange:
    return RelationshipChange(
        id=derived_id(lease.world_id, lease.exchange_id, "relationship", number),
        from_id="mara",
        to_id="ann",
        event=event(at, warmth, change),
        priors=Priors(0.1, 0.02),
        why="kind words",
    )


def feeling_change(
    persona: Persona,
    impulse: emotion.Impulses | None = None,
    talk: tuple[tuple[float, float], ...] = ((5.0, 0.5), (12.0, 1.0)),
) -> FeelingChange:
    return FeelingChange(persona, impulse or emotion.Impulses(mood=0.1), talk, "kind words")


def new_memory(id: str, content: str = "The harbour froze.", **more: Any) -> NewMemory:
    values: dict[str, Any] = {
        "persona_id": "mara",
        "speaker_id": "ann",
        "speaker_name": "Ann",
        "witnesses": ("ann", "mara"),
        "importance": 0.5,
        "importance_terms": {"base": 0.5},
        "turn_id": f"turn-of-{id}",
    }
    return NewMemory(id=id, content=content, **{**values, **more})


def commit_of(lease: Lease, persona: Persona, at: float = NOW, **more: Any) -> Commit:
    """Everything that an ordinary exchange leaves behind."""
    key = lease.exchange_id
    heard = ("ann", "mara")
    values: dict[str, Any] = {
        "turns": (
            NewTurn(f"{key}-0", "ann", None, "What happened that winter?", heard),
            NewTurn(f"{key}-1", "mara", persona.version, "The harbour froze.", heard),
        ),
        "relationships": (relationship_change(lease, at),),
        "feelings": (feeling_change(persona),),
        "memories": (new_memory(f"m-{key}", turn_id=f"{key}-0"),),
        "used_memories": (),
        "report": {"response": "The harbour froze.", "tokens_used": 12},
    }
    return Commit(lease=lease, at=at, **{**values, **more})


async def remember(
    database: Database,
    id: str,
    content: str,
    *,
    related: Sequence[str] = (),
    values: dict[str, Any] | None = None,
    now: float = NOW,
    world_id: str = "main",
    vectors: Vectors | None = None,
    **more: Any,
) -> None:
    """Store a memory with its witnesses, and its vector or its outbox row; then set `values`."""
    with database.writing() as connection:
        memory = new_memory(id, content, **more)
        add_memories(connection, world_id, [memory], now, Source("c1", "x1", {}), vectors)
        connection.execute(
            update(tables.Memory)
            .where(tables.Memory.world_id == world_id, tables.Memory.id == id)
            .values(related_personas=list(related), **(values or {}))
        )


async def rows_of(database: Database, table: Any, *order: Any) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(table).order_by(*order)).all())


async def counts(database: Database) -> dict[str, int]:
    """Count the rows of everything that an exchange writes."""
    with database.reading() as connection:
        return {table.__tablename__: await count(connection, table) for table in TABLES}


async def count(connection: Connection, table: Any) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


def fill(
    database: Database, count: int, *, persona_id: str = "mara", first: int = 0, **more: Any
) -> list[str]:
    """Store memories that nothing protects, the first one the least; return their ids.

    `more` are columns, the same for all.
    """
    ids = [f"{persona_id}-{number:05}" for number in range(first, first + count)]
    made = NOW - 100 * 86_400.0
    values: dict[str, Any] = {
        "world_id": "main",
        "persona_id": persona_id,
        "content": "x",
        "indexed_text": "x",
        "memory_type": "fact",
        "importance_terms": {},
        "related_personas": [],
        "details": {},
        "created_at": made,
        "updated_at": made,
    }
    rows = [
        {**values, "id": id, "importance": 0.2 + 0.4 * place / count, **more}
        for place, id in enumerate(ids)
    ]
    with database.writing() as connection:
        connection.execute(insert(tables.Memory), rows)
    return ids
