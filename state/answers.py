"""Answers that are given again: a call with a request_id is carried out once.

The call's row is there before its work begins, and gets the answer when it has ended. The answer
and what the work wrote are two transactions. A process that dies between them leaves a row without
an answer, so the same call is carried out again; that it does nothing twice is then the operation's
own matter: the ids of what it makes come from the request_id (`Call.made_id`), or what it does is
refused or empty the second time, as with a name that is taken.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import JSON, Connection, Float, String, bindparam, delete, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.callers import current_caller, signed
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, PersonaError
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.prepared import Prepared

log = structlog.get_logger(__name__)

T = tables.Answer
KEPT_S = DAY_S
"""How long an answer is given again, in seconds."""
GIVEN_UP_S = 3600.0
"""A call without an answer counts as dead after this, where nothing is known of its process."""
LOOK_S, LONGEST_LOOK_S = 0.05, 0.4
"""How often a call that another process carries out is looked at, at first and at last, in s."""
ITS_OWN = (
    T.world_id == bindparam("world", type_=String),
    T.request_id == bindparam("key", type_=String),
)
READ = Prepared(
    select(T.operation, T.request_hash, T.owner, T.answer, T.created_at).where(*ITS_OWN)
)
REMOVE = Prepared(delete(T).where(*ITS_OWN))
REMOVE_OLD = Prepared(delete(T).where(T.created_at < bindparam("until", type_=Float)))
ADD = Prepared(insert(T))
OURS = (*ITS_OWN, T.owner == bindparam("process", type_=String))
FORGET = Prepared(delete(T).where(*OURS))
KEEP = Prepared(update(T).where(*OURS).values(answer=bindparam("its_answer", type_=JSON)))


@dataclass(frozen=True)
class Asked:
    """A call: where, what the caller calls it, of which operation, with what, and whose."""

    world_id: str
    request_id: str
    operation: str
    given: dict[str, Any]
    caller_id: str = field(default_factory=lambda: current_caller().id)

    @cached_property
    def hash(self) -> str:
        """Return what two calls of an operation share when they ask for the same.

        Those of two callers never do: whoever finds a request id taken learns nothing of that call.
        """
        asked = json.dumps([self.given, *signed()] if signed() else self.given, sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()


class AnswerStore:
    """Carries calls out once, over all processes on one database."""

    def __init__(
        self, database: Database, process: str, is_gone: Callable[[str], bool], wait_s: float
    ) -> None:
        """Work on this database.

        Args:
            database: Where the rows are.
            process: The name of this process.
            is_gone: Tells whether a process is known to have ended.
            wait_s: How long a call waits for the same one that is carried out, in seconds.
        """
        self._database = database
        self._process = process
        self._is_gone = is_gone
        self._wait_s = wait_s
        self._alone: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def once(
        self,
        world_id: str,
        request_id: str,
        operation: str,
        given: dict[str, Any],
        work: Callable[[], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        """Return the answer that the call was given within the last day, else carry it out.

        A call that fails or is stopped leaves nothing, and may be sent again.

        Args:
            world_id: Where it works.
            request_id: What the caller calls it; unique in the world.
            operation: Its name.
            given: Its arguments as JSON; with others it is another call.
            work: Carries it out, and returns the answer.

        Raises:
            Conflict: The request id was used for another call, or the same one takes too long.
            PersonaError: What the work raises.
        """
        asked = Asked(world_id, request_id, operation, given)
        deadline = time.monotonic() + self._wait_s
        lock = self._alone.setdefault((world_id, request_id), asyncio.Lock())
        try:
            async with asyncio.timeout(self._wait_s):
                await lock.acquire()
        except TimeoutError:
            raise self._takes_long(asked) from None
        try:
            kept = await self._taken(asked, deadline)
            return kept if kept is not None else await self._carried_out(asked, work)
        finally:
            lock.release()

    async def _carried_out(
        self, asked: Asked, work: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        its = {"world": asked.world_id, "key": asked.request_id, "process": self._process}
        try:
            answer = await work()
        except BaseException:
            await asyncio.shield(self._write(FORGET, its))
            raise
        await asyncio.shield(self._write(KEEP, {**its, "its_answer": answer}))
        return answer

    async def _write(self, change: Prepared, its: dict[str, Any]) -> None:
        """Write how the call ended; what came of its work stands, whether this is kept or not."""
        try:
            await self._database.write(change.run, its)
        except PersonaError as error:
            log.warning("answer not kept", request_id=its["key"], reason=error.message)

    async def _taken(self, asked: Asked, deadline: float) -> dict[str, Any] | None:
        """Wait for the answer of another process; None makes it ours to give."""
        look_s = LOOK_S
        while (known := await self._database.write(self._begin, asked, time.time())) is not None:
            while known is not None:
                if known.answer is not None:
                    found: dict[str, Any] = known.answer
                    return found
                if time.monotonic() >= deadline:
                    raise self._takes_long(asked)
                await asyncio.sleep(look_s)
                look_s = min(2 * look_s, LONGEST_LOOK_S)
                known = await self._database.read(self._known, asked, time.time())
        return None

    def _begin(self, connection: Connection, asked: Asked, now: float) -> Any:
        """Return the row of the same call, None if it was written anew."""
        known = self._known(connection, asked, now)
        if known is None:
            REMOVE.run(connection, {"world": asked.world_id, "key": asked.request_id})
            REMOVE_OLD.run(connection, {"until": now - KEPT_S})
            row = {
                "world_id": asked.world_id,
                "request_id": asked.request_id,
                "operation": asked.operation,
                "request_hash": asked.hash,
                "owner": self._process,
                "caller_id": asked.caller_id,
                "answer": None,
                "created_at": now,
            }
            ADD.run(connection, row)
        return known

    def _known(self, connection: Connection, asked: Asked, now: float) -> Any:
        """Return the row of a call that was answered or is carried out, None if there is none.

        Raises:
            Conflict: It is the row of another call.
        """
        row = READ.first(connection, world=asked.world_id, key=asked.request_id)
        if row is None or self._is_over(row, now):
            return None
        if (row.operation, row.request_hash) != (asked.operation, asked.hash):
            raise Conflict(
                f"request_id '{asked.request_id}' was used for another call; "
                "use a new one, or repeat that call unchanged",
                field="request_id",
                given=asked.request_id,
            )
        return row

    def _is_over(self, row: Any, now: float) -> bool:
        """Tell whether a row counts no more: it is old, or nobody is there to answer it."""
        if row.answer is not None:
            return bool(row.created_at < now - KEPT_S)
        # Whoever asks holds the lock of the call, so of this process nobody else is at it.
        mine = row.owner == self._process
        return mine or self._is_gone(row.owner) or row.created_at < now - GIVEN_UP_S

    def _takes_long(self, asked: Asked) -> Conflict:
        return Conflict(
            f"request_id '{asked.request_id}': the same call has been carried out for "
            f"{self._wait_s:g} s; send it again to wait on",
            field="request_id",
            given=asked.request_id,
        )
