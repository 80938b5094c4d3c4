"""What a persona keeps to itself: personal memories are for those whom it is close to.

This is enforced and not only asked for: what is held back never stands in the prompt.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import aliased

from persona_mcp.state import tables
from persona_mcp.state.dialect import members
from persona_mcp.state.memory.memories import READER, reading, visible
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.relationship import Shown
from persona_mcp.state.summarising import SUMMARY

WORLD = bindparam("world", type_=String)
BESIDE = "beside"
"""Where a memory's origin says what types of memories stood beside it in prompts."""
M = tables.Memory
U = tables.MemoryUse
X = tables.Exchange


def confides(shown: Shown | None, params: PromptParams) -> bool:
    """Tell whether a persona tells another what is personal: it is intimate with and trusts it.

    Args:
        shown: How it sees the other now; None before they have met.
        params: The two borders. Source: chosen here; ten long warm meetings make a friend, who
            is told nothing yet (intimacy .14), ten deep talks make one who is (.4).
    """
    if shown is None:
        return False
    return shown.intimacy >= params.confide_intimacy and shown.trust >= params.confide_trust


def held_back(
    connection: Connection,
    world_id: str,
    partner: str,
    memory_ids: Collection[str],
    params: PromptParams,
) -> frozenset[str]:
    """Find which memories are personal and not for a partner whom the persona is not close to.

    What the partner may know by the witness rule is not held back: it told it, it was there, or it
    is shared with it. Personal is also what was said when a personal memory was in the prompt, and
    a summary of a talk in which one was: else a secret told to a friend would be told to everybody.

    Args:
        connection: An open transaction.
        world_id: Where.
        partner: Whom the persona talks to.
        memory_ids: Of what was recalled.
        params: Which types are personal.
    """
    rows = HELD_BACK.all(
        connection,
        ids=list(memory_ids),
        types=list(params.personal_types),
        **reading(world_id, partner),
    )
    return frozenset(row.id for row in rows)


def told_from() -> ColumnElement[bool]:
    """Return the condition that a memory comes from an exchange whose prompt held a personal one.

    What was merged comes from the exchanges of its sources. A summary comes from all exchanges of
    its conversation: which of them it tells of is in its words alone. Of what is gone since, the
    memory itself says what stood beside it (`keep_marks`).
    """
    used, source = aliased(M), aliased(M)
    personal = (
        select(U.memory_id)
        .join(used, and_(used.world_id == U.world_id, used.id == U.memory_id))
        # With `active`, which the primary key lacks, SQLite goes by the index of exchanges, and not
        # through all uses of the world.
        .where(U.world_id == M.world_id, U.active, used.memory_type.in_(listed("types")))
    )
    merged = members(M.origin, "sources")
    of_sources = (
        select(source.exchange_id)
        .where(source.world_id == M.world_id, source.id.in_(select(merged)))
        .correlate(M)
    )
    of_talk = (
        select(X.id)
        .where(X.world_id == M.world_id, X.conversation_id == M.conversation_id)
        .correlate(M)
    )
    beside = members(M.origin, BESIDE)
    return or_(
        select(beside).where(beside.in_(listed("types"))).exists(),
        personal.where(U.exchange_id == M.exchange_id).exists(),
        personal.where(U.exchange_id.in_(of_sources)).exists(),
        and_(M.memory_type == SUMMARY, personal.where(U.exchange_id.in_(of_talk)).exists()),
    )


def held_back_query() -> Select[str]:
    """Return the query for those of some memories that are held back."""
    return select(M.id).where(
        M.world_id == bindparam("world", type_=String),
        M.id.in_(listed("ids")),
        func.coalesce(M.source_id, "") != READER,
        # Before what it was told from, which takes longest: most often the partner was there.
        ~visible(),
        or_(M.memory_type.in_(listed("types")), told_from()),
    )


HELD_BACK = Prepared(held_back_query())
USED = aliased(M)
USED_BESIDE = Prepared(
    select(M.id, USED.memory_type)
    .join(U, and_(U.world_id == M.world_id, U.exchange_id == M.exchange_id))
    .join(USED, and_(USED.world_id == U.world_id, USED.id == U.memory_id))
    .where(M.world_id == WORLD, M.id.in_(listed("ids")))
    .distinct()
    .order_by(M.id, USED.memory_type)
)
"""What kinds of memories were in the prompts of the exchanges that some memories come from."""
USES = Prepared(
    select(U.exchange_id, M.memory_type)
    .join(M, and_(M.world_id == U.world_id, M.id == U.memory_id))
    .where(U.world_id == WORLD, U.memory_id.in_(listed("ids")))
    .distinct()
)
COME_FROM = Prepared(
    select(M.id, M.exchange_id).where(M.world_id == WORLD, M.exchange_id.in_(listed("exchanges")))
)
SUM_UP = Prepared(
    select(M.id, X.id)
    .join(X, and_(X.world_id == M.world_id, X.conversation_id == M.conversation_id))
    .where(M.world_id == WORLD, M.memory_type == SUMMARY, X.id.in_(listed("exchanges")))
)
PART = members(M.origin, "sources")
MERGED_FROM = Prepared(
    select(M.id, PART)
    .select_from(M)
    .join(PART.table, true())
    .where(M.world_id == WORLD, M.origin.is_not(None), PART.in_(listed("ids")))
)
ORIGINS = Prepared(select(M.id, M.origin).where(M.world_id == WORLD, M.id.in_(listed("ids"))))
MARK = Prepared(
    update(M)
    .where(M.world_id == WORLD, M.id == bindparam("key", type_=String))
    .values(origin=bindparam("marked"))
)
Marks = dict[str, set[str]]
"""By memory, the types of what stood beside it in prompts."""


def beside(connection: Connection, world_id: str, ids: Collection[str]) -> Marks:
    """Return what types of memories were in the prompts that some memories come from."""
    its: dict[str, Any] = {"world": world_id, "ids": list(ids)}
    found: Marks = {}
    for id, kind in USED_BESIDE.all(connection, **its):
        found.setdefault(id, set()).add(kind)
    for id, origin in ORIGINS.all(connection, **its):
        if kinds := (origin or {}).get(BESIDE):
            found.setdefault(id, set()).update(kinds)
    return found


def keep_marks(connection: Connection, world_id: str, gone: Collection[str]) -> None:
    """Have memories say themselves what stood beside them, before that is deleted.

    Else what was told with a secret in mind would be told to everybody once the secret is gone, and
    what was merged once its sources are.

    Args:
        connection: A transaction that writes, and deletes these memories next.
        world_id: Where.
        gone: Ids of what is deleted.
    """
    used: Marks = {}
    for exchange, kind in USES.all(connection, world=world_id, ids=list(gone)):
        used.setdefault(exchange, set()).add(kind)
    marks: Marks = {}
    of_exchanges: dict[str, Any] = {"world": world_id, "exchanges": list(used)}
    for query in (COME_FROM, SUM_UP) if used else ():
        for id, exchange in query.all(connection, **of_exchanges):
            marks.setdefault(id, set()).update(used[exchange])
    sources = beside(connection, world_id, gone)
    for id, kinds in marks.items():
        sources.setdefault(id, set()).update(kinds)
    while sources:  # what was merged may have been merged again
        merged: Marks = {}
        for id, source in MERGED_FROM.all(connection, world=world_id, ids=list(sources)):
            if not sources[source] <= marks.get(id, set()):
                merged.setdefault(id, set()).update(sources[source])
        for id, kinds in merged.items():
            marks.setdefault(id, set()).update(kinds)
        sources = merged
    kept = list(marks.keys() - set(gone))
    for id, origin in ORIGINS.all(connection, world=world_id, ids=kept):
        told = sorted(marks[id].union((origin or {}).get(BESIDE, ())))
        marked = {**(origin or {}), BESIDE: told}
        MARK.run(connection, {"world": world_id, "key": id, "marked": marked})
