"""Near duplicates merged in SQL: one memory for several, which are archived and can come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    String,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)

from persona_mcp.state import tables
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.embedding import unpack
from persona_mcp.state.errors import Conflict
from persona_mcp.state.ids import derived_id
from persona_mcp.state.index.work import hide, reveal
from persona_mcp.state.memory.changes import purge_memories, stored
from persona_mcp.state.memory.consolidation import Mergeable, groups_of
from persona_mcp.state.memory.disclosure import BESIDE, beside
from persona_mcp.state.memory.memory import NewMemory, WholeMemory
from persona_mcp.state.memory.params import ConsolidationParams
from persona_mcp.state.memory.store import add_memories, whole_of
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.turns import short_turns

M = tables.Memory
V = tables.MemoryVector
W = tables.MemoryWitness
U = tables.MemoryUse
WORLD, PERSONA = bindparam("world", type_=String), bindparam("persona", type_=String)
IDS = listed("ids")
ITS = (M.world_id == WORLD, M.persona_id == PERSONA, M.active, M.archived_at.is_(None))
ITS_OWN = (*ITS, M.pinned.is_(False))
MERGEABLE = Prepared(
    select(
        M.id,
        M.version,
        M.memory_type,
        M.visibility,
        M.related_personas,
        M.speaker_id,
        M.source_id,
        M.importance,
        M.created_at,
        V.vector,
    )
    .join(
        V,
        and_(
            V.world_id == M.world_id,
            V.memory_id == M.id,
            V.model_id == bindparam("model", type_=String),
            V.version == M.version,
        ),
    )
    .where(*ITS_OWN)
    .order_by(M.created_at.desc(), M.id)
    .limit(bindparam("newest", type_=INTEGER))
)
PRESENT = Prepared(
    select(W.memory_id, W.party_id)
    .where(W.world_id == WORLD, W.memory_id.in_(IDS))
    .order_by(W.memory_id, W.party_id)
)
THERE = Prepared(
    select(M.id, M.version).where(
        M.world_id == WORLD,
        M.id.in_(IDS),
        M.active,
        M.archived_at.is_(None),
        M.pinned.is_(False),
    )
)
SOURCES = Prepared(
    select(M.id)
    .where(M.world_id == WORLD, M.id.in_(IDS), M.archived_at == bindparam("at"))
    .order_by(M.seq)
)
BACK = Prepared(
    update(M).where(M.world_id == WORLD, M.id.in_(IDS)).values(archived_at=None, pinned=True)
)


@dataclass(frozen=True)
class Merge:
    """Memories that are, or would be, one.

    Attributes:
        id: Of the merged memory.
        sources: What it is made of; the first one's words are kept.
        versions: Of the sources, as they were compared.
    """

    id: str
    sources: tuple[str, ...]
    versions: tuple[int, ...]


@dataclass(frozen=True)
class Merging:
    """What is merged: by whose vectors, and how near is near enough."""

    model_id: str
    params: ConsolidationParams


@short_turns()
def plan_merges(
    connection: Connection, world_id: str, persona_id: str, merging: Merging
) -> list[Merge]:
    """Find the near duplicates among a persona's newest memories, in a transaction that reads.

    Only memories of one type, visibility and speaker that the same parties know are merged; a
    pinned one is left alone, and so is one without a vector.

    Args:
        connection: An open transaction.
        world_id: Where.
        persona_id: Whose memories.
        merging: What is near.
    """
    rows = MERGEABLE.all(
        connection,
        world=world_id,
        persona=persona_id,
        model=merging.model_id,
        newest=merging.params.newest,
    )
    versions = {row.id: row.version for row in rows}
    present: dict[str, list[str]] = {}
    for memory_id, party in PRESENT.all(connection, world=world_id, ids=list(versions)):
        present.setdefault(memory_id, []).append(party)
    memories = [
        Mergeable(
            row.id,
            kind_of(row, present.get(row.id, [])),
            row.importance,
            row.created_at,
            unpack(row.vector),
        )
        for row in rows
    ]
    return [
        Merge(derived_id(world_id, "merged", *sorted(ids)), ids, tuple(versions[id] for id in ids))
        for ids in groups_of(memories, merging.params.similarity)
    ]


def merge(
    connection: Connection, world_id: str, merges: Sequence[Merge], now: float
) -> list[Merge]:
    """Merge what was planned, inside a transaction that writes; planned again, it is nothing.

    The merged memory is as weighty as the weightiest, as old as the newest, and was used whenever
    one of them was. They are archived, and `take_apart` brings them back.

    Returns:
        What was merged: not that of which a source has changed, or is archived, since.
    """
    done = []
    for one in merges:
        there = THERE.all(connection, world=world_id, ids=one.sources)
        wanted = dict(zip(one.sources, one.versions, strict=True))
        if {row.id: row.version for row in there} == wanted:
            write_merge(connection, world_id, one, now)
            done.append(one)
    return done


def kind_of(row: Row[Any], witnesses: Sequence[str]) -> tuple[Any, ...]:
    """Return what memories must share to be merged; else the merged one would tell somebody."""
    open_to = (row.visibility, *sorted(row.related_personas))
    return row.memory_type, open_to, row.speaker_id, row.source_id, tuple(witnesses)


def write_merge(connection: Connection, world_id: str, merge: Merge, now: float) -> None:
    """Write the merged memory and archive its sources."""
    sources = [whole_of(connection, world_id, id) for id in merge.sources]
    kept = sources[0]
    marks = beside(connection, world_id, merge.sources)
    kinds = sorted(set[str]().union(*marks.values()))
    add_memories(connection, world_id, [merged(merge, sources, kinds, now)], now)
    its = (M.world_id == world_id, M.id == merge.id)
    newest = max(source.memory.created_at for source in sources)
    words = {"indexed_text": kept.memory.indexed_text, "created_at": newest}
    connection.execute(update(M).where(*its).values(**words))
    of_sources = (M.world_id == world_id, M.id.in_(merge.sources))
    connection.execute(update(M).where(*of_sources).values(archived_at=now))
    hide(connection, world_id, {s.memory.id: s.memory.version for s in sources}, now)
    used = (
        select(
            U.world_id,
            bindparam("merged", merge.id, type_=String),
            U.exchange_id,
            U.conversation_id,
            U.active,
            func.min(U.at),
        )
        .where(U.world_id == world_id, U.memory_id.in_(merge.sources))
        .group_by(U.world_id, U.exchange_id, U.conversation_id, U.active)
    )
    columns = ["world_id", "memory_id", "exchange_id", "conversation_id", "active", "at"]
    connection.execute(insert(U).from_select(columns, used))


def merged(
    merge: Merge, sources: Sequence[WholeMemory], kinds: Sequence[str], now: float
) -> NewMemory:
    """Return the memory that stands for several: no turn any more, though it says what one said.

    Args:
        merge: What was planned.
        sources: What it stands for, the one that is kept first.
        kinds: Types of the memories that stood beside them in prompts.
        now: Seconds since the epoch, UTC.
    """
    kept = sources[0]
    from_where = {"sources": list(merge.sources), "merged_at": now}
    if kinds:
        from_where[BESIDE] = list(kinds)
    return NewMemory(
        id=merge.id,
        persona_id=kept.memory.persona_id,
        content=kept.memory.content,
        importance=max(source.memory.importance for source in sources),
        importance_terms=kept.importance_terms,
        witnesses=kept.witnesses,
        speaker_id=kept.memory.speaker_id,
        memory_type=kept.memory.memory_type,
        visibility=kept.memory.visibility,
        emotional_valence=kept.memory.emotional_valence,
        related_personas=kept.memory.related_personas,
        details=kept.details,
        source_id=kept.memory.source_id,
        origin={**(kept.origin or {}), **from_where},
    )


@dataclass(frozen=True)
class Apart:
    """Merged memories that were, or would be, taken apart.

    Attributes:
        merged: Which ones; they are deleted for good.
        sources: What they were merged from, and is found again; one that was archived otherwise
            stays so.
        not_found: Ids of no memory.
    """

    merged: tuple[str, ...]
    sources: tuple[str, ...]
    not_found: tuple[str, ...]


def plan_apart(connection: Connection, world_id: str, ids: Sequence[str]) -> Apart:
    """Find what would be taken apart.

    Args:
        connection: An open transaction.
        world_id: Where.
        ids: Of merged memories; unknown ones are passed over.

    Raises:
        Conflict: One is no merged memory, or was itself merged or archived.
    """
    ids = list(dict.fromkeys(ids))
    there = {row.id for row in stored(connection, world_id, ids)}
    merged = tuple(id for id in ids if id in there)
    sources = (id for one in merged for id in sources_of(connection, world_id, one))
    return Apart(merged, tuple(sources), tuple(id for id in ids if id not in there))


def sources_of(connection: Connection, world_id: str, merged_id: str) -> list[str]:
    """Return what comes back when a merged memory is taken apart, in the order it was stored.

    Raises:
        Conflict: It is no merged memory, or was itself merged or archived.
    """
    whole = whole_of(connection, world_id, merged_id)
    origin = whole.origin or {}
    if "sources" not in origin:
        raise Conflict(f"memory '{merged_id}' was not merged from others; nothing to take apart")
    if whole.memory.archived_at is not None:
        raise Conflict(f"memory '{merged_id}' is archived; undo first what archived it")
    back = SOURCES.all(connection, world=world_id, ids=origin["sources"], at=origin["merged_at"])
    return [id for (id,) in back]


def take_apart(connection: Connection, world_id: str, ids: Sequence[str], now: float) -> Apart:
    """Bring back what was merged, and delete the merged memories, inside a transaction that writes.

    What is back is as it was, but pinned: the next upkeep would merge it again.

    Raises:
        Conflict: One is no merged memory, or was itself merged or archived; nothing is changed.
    """
    apart = plan_apart(connection, world_id, ids)
    BACK.run(connection, {"world": world_id, "ids": list(apart.sources)})
    reveal(connection, world_id, apart.sources, now)
    purge_memories(connection, world_id, apart.merged, now)
    return apart
