"""Session handles in SQL: what is current for one client, and for nobody else.

A handle is its maker's, as long as its world is open to them: to every other caller it is one that
was never made.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, true, update

from persona_mcp.state.callers import current_caller
from persona_mcp.state.database import Database
from persona_mcp.state.errors import NotFound
from persona_mcp.state.ids import new_id
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.tables import Session as T

RANDOM_BYTES = 32
"""Of a handle: nobody guesses it, and none is ever made twice."""
NOTED_SHARE = 0.01
"""Share of a handle's life after which a use is noted anew, so that calls seldom write."""


@dataclass(frozen=True)
class Session:
    """What a handle stands for.

    Attributes:
        id: The handle.
        world_id: Where its calls work.
        persona_id: Who is meant when a call names nobody; None before the first switch.
        conversation_id: Where its chat goes on; the first message begins it if it is not there.
        used_at: Last use that was noted, seconds since the epoch, UTC.
    """

    id: str
    world_id: str
    persona_id: str | None
    conversation_id: str | None
    used_at: float


class SessionStore:
    """Makes, binds and ends handles."""

    def __init__(self, database: Database, kept_s: float) -> None:
        """Work on this database.

        Args:
            database: Where the rows are.
            kept_s: How long an unused handle lives, in seconds.
        """
        self._database = database
        self._kept_s = kept_s

    async def create(self, world_id: str, persona_id: str | None, now: float) -> Session:
        """Make a handle, bound to a persona or to none yet; ended ones are deleted in passing."""
        made = Session(
            id=secrets.token_urlsafe(RANDOM_BYTES),
            world_id=world_id,
            persona_id=persona_id,
            conversation_id=new_id() if persona_id else None,
            used_at=now,
        )

        def write(connection: Connection) -> Session:
            connection.execute(delete(T).where(T.used_at < self._ended_before(now)))
            its = {"caller_id": current_caller().id, "created_at": now}
            connection.execute(insert(T).values(**vars(made), **its))
            return made

        return await self._database.write(write)

    async def use(self, id: str, now: float) -> Session:
        """Find a handle and keep it alive.

        Raises:
            NotFound: It was never made, is another caller's, or has ended.
        """
        row = await self._database.read(Prepared(select(T).where(*self._alive(id, now))).first)
        if row is None:
            raise gone(id)
        if now - row.used_at > self._kept_s * NOTED_SHARE:
            await self._set(id, now)
        return to_session(row)

    async def switch(self, id: str, persona_id: str, now: float) -> Session:
        """Bind a handle to a persona, and reserve the conversation that its next message begins.

        Raises:
            NotFound: It was never made, is another caller's, or has ended.
        """
        await self._set(id, now, persona_id=persona_id, conversation_id=new_id())
        return await self.use(id, now)

    async def clear(self, id: str, now: float) -> Session:
        """Bind a handle to nobody, as it was when it was made.

        Raises:
            NotFound: It was never made, is another caller's, or has ended.
        """
        await self._set(id, now, persona_id=None, conversation_id=None)
        return await self.use(id, now)

    async def go_on(self, session: Session, conversation_id: str) -> None:
        """Make a conversation the handle's current one, unless it was switched meanwhile."""
        change = (
            update(T)
            .where(T.id == session.id, T.persona_id == session.persona_id)
            .where(T.conversation_id == session.conversation_id)
            .values(conversation_id=conversation_id)
        )
        await self._database.write(Prepared(change).run)

    async def _set(self, id: str, now: float, **values: Any) -> None:
        change = update(T).where(*self._alive(id, now)).values(used_at=now, **values)
        await self._database.write(Prepared(change).run)

    def _alive(self, id: str, now: float) -> tuple[ColumnElement[bool], ...]:
        caller, alive = current_caller(), T.used_at >= self._ended_before(now)
        worlds = true() if caller.worlds is None else T.world_id.in_(sorted(caller.worlds))
        return T.id == id, T.caller_id == caller.id, worlds, alive

    def _ended_before(self, now: float) -> float:
        return now - self._kept_s * (1 + NOTED_SHARE)


def gone(id: str) -> NotFound:
    """Say that there is no such handle, and how to get one."""
    return NotFound(
        f"session '{id}' not found, or ended; persona_switch without session_id makes a new one",
        kind="session",
        id=id,
        suggestions=[],
    )


def to_session(row: Row[Any]) -> Session:
    """Read a row."""
    return Session(**{name: getattr(row, name) for name in Session.__dataclass_fields__})
