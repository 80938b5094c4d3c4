"""The statements that every exchange runs on its own row and on its conversation's lease."""

from functools import cache
from typing import Any

from sqlalchemy import BindParameter, String, bindparam, func, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.prepared import Prepared

T = tables.Exchange
C = tables.Conversation
WORLD, KEY = bindparam("world", type_=String), bindparam("key", type_=String)
HOLDER = bindparam("holder", type_=String)

BY_ID = Prepared(select(T).where(T.world_id == WORLD, T.id == KEY))
BY_REQUEST = Prepared(select(T).where(T.world_id == WORLD, T.request_id == KEY))
LAST_NUMBER = Prepared(
    select(func.coalesce(func.max(T.number), 0)).where(
        T.world_id == WORLD, T.conversation_id == KEY
    )
)
ACCEPT = Prepared(insert(T))
LEASE = Prepared(
    select(C.lease_owner, C.lease_until, C.status).where(C.world_id == WORLD, C.id == KEY)
)
INTERRUPT = Prepared(
    update(T)
    .where(T.world_id == WORLD, T.conversation_id == KEY, T.status == "running")
    .values(status="interrupted", finished_at=bindparam("now"))
)
TAKE = Prepared(
    update(C)
    .where(C.world_id == WORLD, C.id == KEY)
    .values(lease_owner=HOLDER, lease_until=bindparam("until"))
)
RELEASE = Prepared(
    update(C)
    .where(C.world_id == WORLD, C.id == KEY, C.lease_owner == HOLDER)
    .values(lease_owner=None, lease_until=None)
)
RUN = Prepared(
    update(T)
    .where(T.world_id == WORLD, T.id == KEY)
    .values(
        status="running",
        attempts=T.attempts + 1,
        owner=bindparam("process"),
        follows_id=select(C.head_exchange_id)
        .where(C.world_id == WORLD, C.id == bindparam("conversation"))
        .scalar_subquery(),
        partial=None,
        error=None,
        finished_at=None,
    )
)
HELD_TURNS = Prepared(
    select(C.turn_count).where(C.world_id == WORLD, C.id == KEY, C.lease_owner == HOLDER)
)
STATUS = Prepared(select(T.status).where(T.world_id == WORLD, T.id == KEY))
MOVES = (
    update(C)
    .where(C.world_id == WORLD, C.id == KEY)
    .values(
        head_exchange_id=bindparam("head"),
        turn_count=bindparam("turns"),
        updated_at=bindparam("now"),
    )
)
MOVE_HEAD = Prepared(MOVES)
MOVE_HEAD_AND_RELEASE = Prepared(MOVES.values(lease_owner=None, lease_until=None))


@cache
def done(columns: tuple[str, ...]) -> Prepared:
    """Return the statement that ends an exchange, with these columns of its report (`its_...`)."""
    report: dict[str, BindParameter[Any]] = {
        column: bindparam(f"its_{column}") for column in columns
    }
    return Prepared(
        update(T)
        .where(T.world_id == WORLD, T.id == KEY)
        .values(status="done", finished_at=bindparam("now"), **report)
    )
