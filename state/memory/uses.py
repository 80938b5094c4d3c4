"""How often memories were used: a row for each that was in the prompt of an exchange."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, bindparam, func, insert, select

from persona_mcp.state import tables
from persona_mcp.state.prepared import Prepared, listed

M = tables.Memory
U = tables.MemoryUse
WORLD = bindparam("world", type_=String)
IDS = listed("ids")
THERE = Prepared(select(M.id).where(M.world_id == WORLD, M.id.in_(IDS)).order_by(M.seq))
ADD_USES = Prepared(insert(U))


def uses_of(*which: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Return the query for how often memories were used, and when last.

    A memory counts once a conversation, at its first use there: else what is recalled would be
    recalled the more for it.
    """
    first = (
        select(U.memory_id, func.min(U.at).label("at"))
        .where(U.world_id == WORLD, U.active, *which)
        .group_by(U.memory_id, U.conversation_id)
        .subquery()
    )
    times, last = func.count().label("times"), func.max(first.c.at).label("last")
    return select(first.c.memory_id, times, last).group_by(first.c.memory_id)


USED = Prepared(uses_of(U.memory_id.in_(IDS)))


def add_uses(
    connection: Connection,
    world_id: str,
    memory_ids: Sequence[str],
    conversation_id: str,
    exchange_id: str,
    now: float,
) -> None:
    """Write that memories were in the prompt of an exchange, inside its transaction.

    One that was deleted meanwhile is passed over: the exchange is not lost over it.
    """
    there = THERE.all(connection, world=world_id, ids=memory_ids)
    if there:
        ADD_USES.run(
            connection,
            [
                {
                    "world_id": world_id,
                    "memory_id": memory_id,
                    "exchange_id": exchange_id,
                    "conversation_id": conversation_id,
                    "at": now,
                }
                for (memory_id,) in there
            ],
        )
