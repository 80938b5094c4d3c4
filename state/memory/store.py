"""Memories in SQL: written with their witnesses and outbox rows, read, counted, and used."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    String,
    and_,
    bindparam,
    case,
    func,
    insert,
    select,
)

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, NotFound
from persona_mcp.state.ids import new_id
from persona_mcp.state.index.work import Vectors, add_work, learn
from persona_mcp.state.memory.memory import Memory, NewMemory, Revision, WholeMemory
from persona_mcp.state.memory.uses import USED, add_uses, uses_of
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.prepared import Prepared, listed

M = tables.Memory
W = tables.MemoryWitness
R = tables.MemoryRevision
WORLD = bindparam("world", type_=String)
IDS = listed("ids")
IMPORTANT = 0.7
ROW_ONLY = ("accessed_count", "used_at")
Order = Literal["created", "importance", "accessed"]

COLUMNS = tuple(name for name in Memory.__dataclass_fields__ if name not in ROW_ONLY)
RELATED = COLUMNS.index("related_personas")
BY_IDS = Prepared(
    select(*(getattr(M, name) for name in COLUMNS))
    .where(M.world_id == WORLD, M.id.in_(IDS))
    .order_by(M.id)
)
REST = Prepared(
    select(M.importance_terms, M.details, M.origin).where(M.world_id == WORLD, M.id.in_(IDS))
)
REVISIONS = Prepared(
    select(R.version, R.before, R.replaced_at)
    .where(R.world_id == WORLD, R.memory_id.in_(IDS))
    .order_by(R.version)
)
WITNESSES = Prepared(select(W.party_id).where(W.world_id == WORLD, W.memory_id.in_(IDS)))
ADD = Prepared(insert(M))
ADD_WITNESSES = Prepared(insert(W))


@dataclass(frozen=True)
class Source:
    """Where memories come from.

    Attributes:
        conversation_id: Where it was said.
        exchange_id: The exchange that made it.
        numbers: Of the turns in the conversation, by their ids.
    """

    conversation_id: str
    exchange_id: str
    numbers: Mapping[str, int]


@dataclass(frozen=True)
class Wanted:
    """Which memories of a persona are listed.

    Attributes:
        memory_type: Only of this type.
        visibility: Only with this one.
        archived: Those that are archived, in place of the others.
        since: Made at this time or later, seconds since the epoch, UTC.
        until: Made before this time.
        private: Those too that are private.
    """

    memory_type: str | None = None
    visibility: str | None = None
    archived: bool = False
    since: float | None = None
    until: float | None = None
    private: bool = True

    def conditions(self, world_id: str, persona_id: str) -> list[ColumnElement[bool]]:
        """Return them as conditions on the table of memories."""
        archived = M.archived_at.is_not(None) if self.archived else M.archived_at.is_(None)
        found: list[ColumnElement[bool]] = [
            M.world_id == world_id,
            M.persona_id == persona_id,
            M.active.is_(True),
            archived,
        ]
        if self.memory_type is not None:
            found.append(M.memory_type == self.memory_type)
        if not self.private:
            found.append(M.visibility != "private")
        if self.visibility is not None:
            found.append(M.visibility == self.visibility)
        if self.since is not None:
            found.append(M.created_at >= self.since)
        if self.until is not None:
            found.append(M.created_at < self.until)
        return found


@dataclass(frozen=True)
class MemoryCounts:
    """What a persona remembers, in numbers; archived memories count in `archived` alone."""

    total: int
    average_importance: float
    important: int
    today: int
    pinned: int
    archived: int
    types: dict[str, int]


class MemoryStore:
    """Writes, reads and counts memories."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def add(self, world_id: str, memory: NewMemory, now: float) -> WholeMemory:
        """Store a memory that comes from no conversation; the same one again changes nothing.

        Raises:
            Conflict: Another one is stored under its id.
        """

        def write(connection: Connection) -> WholeMemory:
            known = read_whole(connection, world_id, memory.id)
            if known is not None:
                return known
            add_memories(connection, world_id, [memory], now)
            return whole_of(connection, world_id, memory.id)

        found = await self._database.write(write)
        if not is_of(found, memory):
            raise Conflict(
                "request_id: it was used to store something else; use a new one",
                field="request_id",
            )
        return found

    async def get(self, world_id: str, memory_id: str) -> WholeMemory:
        """Return a memory.

        Raises:
            NotFound: It is not there.
        """
        return await self._database.read(whole_of, world_id, memory_id)

    async def begun(self, world_id: str, start: str, limit: int) -> tuple[list[str], int]:
        """Return ids that start so, the newest memory's first, and how many there are."""
        query = (
            select(M.id, func.count().over())
            .where(M.world_id == world_id, M.active, M.archived_at.is_(None))
            .where(M.id.startswith(start, autoescape=True))
            .order_by(M.created_at.desc(), M.id)
            .limit(limit)
        )
        rows = await self._database.read(Prepared(query).all)
        return [id for id, _ in rows], rows[0][1] if rows else 0

    async def page(
        self, world_id: str, persona_id: str, wanted: Wanted, order: Order, limit: int, after: int
    ) -> tuple[list[Memory], int]:
        """Return memories of a persona from behind the first `after`, and how many there are."""
        conditions = wanted.conditions(world_id, persona_id)
        uses = uses_of().subquery()
        times = func.coalesce(uses.c.times, 0)
        by = {"created": M.created_at, "importance": M.importance, "accessed": times}[order]
        query = (
            select(M.id)
            .outerjoin(uses, uses.c.memory_id == M.id)
            .where(*conditions)
            .order_by(by.desc(), M.seq.desc())
            .offset(after)
            .limit(limit)
        )

        def read(connection: Connection) -> tuple[list[Memory], int]:
            total = connection.scalar(select(func.count()).where(*conditions)) or 0
            ids = list(connection.scalars(query, {"world": world_id}))
            found = {memory.id: memory for memory in read_memories(connection, world_id, ids)}
            return [found[id] for id in ids], total

        return await self._database.read(read)

    async def count(self, world_id: str, persona_id: str, now: float) -> MemoryCounts:
        """Count what a persona remembers."""
        its = (M.world_id == world_id, M.persona_id == persona_id, M.active)
        kept = M.archived_at.is_(None)
        today = now - now % DAY_S

        def number(condition: ColumnElement[bool]) -> ColumnElement[int]:
            return func.coalesce(func.sum(case((and_(kept, condition), 1), else_=0)), 0)

        numbers = select(
            number(kept),
            func.avg(case((kept, M.importance))),
            number(M.importance >= IMPORTANT),
            number(M.created_at >= today),
            number(M.pinned.is_(True)),
            func.coalesce(func.sum(case((kept, 0), else_=1)), 0),
        ).where(*its)
        types = select(M.memory_type, func.count()).where(*its, kept).group_by(M.memory_type)

        def read(connection: Connection) -> MemoryCounts:
            total, average, important, new, pinned, archived = connection.execute(numbers).one()
            found = {row[0]: row[1] for row in connection.execute(types.order_by(M.memory_type))}
            return MemoryCounts(total, average or 0.0, important, new, pinned, archived, found)

        return await self._database.read(read)

    async def use(self, world_id: str, memory_ids: Sequence[str], now: float) -> None:
        """Count memories as used once more, outside of any conversation."""
        occasion = new_id()
        await self._database.write(add_uses, world_id, memory_ids, occasion, occasion, now)


def is_of(stored: WholeMemory, new: NewMemory) -> bool:
    """Tell whether a stored memory is the one that was to be stored."""
    same = ("persona_id", "content", "memory_type", "visibility", "related_personas", "source_id")
    of_one = [(one or {}).get("source_memory_id") for one in (stored.origin, new.origin)]
    return (
        stored.details == new.details
        and of_one[0] == of_one[1]
        and all(getattr(stored.memory, name) == getattr(new, name) for name in same)
    )


def add_memories(
    connection: Connection,
    world_id: str,
    memories: Sequence[NewMemory],
    now: float,
    source: Source | None = None,
    vectors: Vectors | None = None,
) -> bool:
    """Write memories, their witnesses and vectors or the work for the index, in a transaction.

    Args:
        connection: That transaction.
        world_id: Where.
        memories: None of which is there yet.
        now: Seconds since the epoch, UTC.
        source: The exchange that they come from, if one.
        vectors: Of their texts, where they were embedded before.

    Returns:
        Whether there is work left for the index.
    """
    if not memories:
        return False
    rows = [values_of(world_id, memory, now, source) for memory in memories]
    ADD.run(connection, rows)
    ADD_WITNESSES.run(
        connection,
        [
            {"world_id": world_id, "memory_id": m.id, "party_id": party}
            for m in memories
            for party in sorted({m.persona_id, *m.witnesses})
        ],
    )
    known = learn(connection, rows, vectors) if vectors else set[str]()
    work = {row["id"]: row["version"] for row in rows if row["id"] not in known}
    add_work(connection, world_id, "upsert", work, now)
    return bool(work)


def values_of(
    world_id: str, memory: NewMemory, now: float, source: Source | None
) -> dict[str, Any]:
    """Write a new memory as a row."""
    return {
        "world_id": world_id,
        "id": memory.id,
        "version": 1,
        "persona_id": memory.persona_id,
        "content": memory.content,
        "indexed_text": memory.indexed_text(now),
        "memory_type": memory.memory_type,
        "speaker_id": memory.speaker_id,
        "importance": memory.importance,
        "importance_terms": memory.importance_terms,
        "emotional_valence": memory.emotional_valence,
        "visibility": memory.visibility,
        "related_personas": list(memory.related_personas),
        "details": memory.details,
        "pinned": memory.pinned,
        "source_id": memory.source_id,
        "origin": memory.origin,
        "conversation_id": source.conversation_id if source else None,
        "exchange_id": source.exchange_id if source else None,
        "turn_id": memory.turn_id,
        "turn_number": source.numbers.get(memory.turn_id or "") if source else None,
        "created_at": now,
        "updated_at": now,
    }


def read_memories(
    connection: Connection, world_id: str, ids: Collection[str], uses: bool = True
) -> list[Memory]:
    """Read memories by id, in order of their ids; who may see them is the caller's to know.

    Without `uses` they look unused.
    """
    its = {"world": world_id, "ids": list(ids)}
    used = {u.memory_id: u[1:] for u in (USED.all(connection, **its) if uses else ())}
    return [to_memory(row, *used.get(row.id, (0, None))) for row in BY_IDS.all(connection, **its)]


def read_whole(connection: Connection, world_id: str, memory_id: str) -> WholeMemory | None:
    """Read everything of a memory; None if it is not there."""
    found = read_memories(connection, world_id, [memory_id])
    if not found:
        return None
    its: dict[str, Any] = {"world": world_id, "ids": [memory_id]}
    terms, details, origin = REST.first(connection, **its)
    witnesses = tuple(sorted(party for (party,) in WITNESSES.all(connection, **its)))
    revisions = tuple(Revision(**row._mapping) for row in REVISIONS.all(connection, **its))
    return WholeMemory(found[0], terms, details, witnesses, origin, revisions)


def whole_of(connection: Connection, world_id: str, memory_id: str) -> WholeMemory:
    """Read everything of a memory.

    Raises:
        NotFound: It is not there.
    """
    found = read_whole(connection, world_id, memory_id)
    if found is None:
        raise NotFound.of("memory", memory_id)
    return found


def to_memory(row: Row[Any], times: int, last: float | None) -> Memory:
    """Read a row, and how often it was used and when last."""
    values: list[Any] = [*row[:-1], times, last, row[-1]]
    values[RELATED] = tuple(values[RELATED])
    return Memory(*values)
