"""What a persona keeps to itself: personal memories are for those whom it is close to.

This is enforced and not only asked for: what is held back never stands in the prompt.
"""

from collections.abc import Collection

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
)
from sqlalchemy.orm import aliased

from persona_mcp.state import tables
from persona_mcp.state.dialect import members
from persona_mcp.state.memories import READER, reading, visible
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.relationship import Shown
from persona_mcp.state.summarising import SUMMARY

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
    its conversation: which of them it tells of is in its words alone.
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
    return or_(
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
