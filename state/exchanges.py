"""Exchanges in SQL: accepted before they run, run under the conversation's lease, ended once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, null, or_, select, update

from persona_mcp.state import exchange_statements as statements
from persona_mcp.state import host_prompts, tables
from persona_mcp.state.callers import current_caller
from persona_mcp.state.database import Database
from persona_mcp.state.errors import NotFound
from persona_mcp.state.exchange import UNFINISHED, Exchange, ExchangeStatus
from persona_mcp.state.request import Request, check_same, ended, enter_conversation

T = tables.Exchange
C = tables.Conversation
OUTCOME = (
    "response_type",
    "continue_score",
    "score_terms",
    "trimmed",
    "tokens_used",
    "tokens_estimated",
    "finish_reason",
    "processing_s",
    "model",
    "persona_version",
)


@dataclass(frozen=True)
class Lease:
    """The right to run a conversation's exchange.

    Attributes:
        owner: The process, as `Liveness` names it, a colon, and the exchange.
    """

    world_id: str
    conversation_id: str
    exchange_id: str
    process: str

    @property
    def owner(self) -> str:
        """Return what stands in the conversation's row."""
        return f"{self.process}:{self.exchange_id}"


class ExchangeStore:
    """Accepts, leases and ends exchanges."""

    def __init__(self, database: Database, is_gone: Callable[[str], bool]) -> None:
        """Work on this database.

        Args:
            database: Where the rows are.
            is_gone: Tells whether a process is known to have ended.
        """
        self._database = database
        self._is_gone = is_gone
        self._left_over: set[str] = set()
        """Owners of leases whose runs ended while the database could not be told."""

    async def accept(
        self,
        request: Request,
        exchange_id: str,
        process: str,
        correlation_id: str | None,
        now: float,
    ) -> Exchange:
        """Write the exchange as pending, or return the one that has this request id already.

        Raises:
            NotFound: The conversation that it goes on is not there.
            InvalidParams: That is the conversation of others.
            Conflict: The request id was used for something else.
        """
        lease = Lease(request.world_id, request.conversation_id, exchange_id, process)
        return await self._database.write(accept, request, lease, correlation_id, now)

    async def get(self, world_id: str, exchange_id: str) -> Exchange:
        """Return an exchange.

        Raises:
            NotFound: It is not there.
        """
        return await self._database.read(get, world_id, exchange_id)

    async def find(self, world_id: str, request_id: str) -> Exchange | None:
        """Return the caller's exchange that has this request id, None if none has."""
        return await self._database.read(callers_own, world_id, request_id)

    async def by_prompt(self, world_id: str, prompt_id: str) -> Exchange:
        """Return the exchange of a prompt.

        Raises:
            NotFound: There is none, or it was made for another caller.
        """
        row = await self._database.read(host_prompts.BY_PROMPT.first, world=world_id, key=prompt_id)
        if row is None or row.caller_id != current_caller().id:
            raise host_prompts.no_prompt(prompt_id)
        return to_exchange(row)

    async def claim(
        self,
        lease: Lease,
        lease_s: float,
        now: float,
        prompt_id: str | None = None,
        after: Lease | None = None,
    ) -> Exchange | None:
        """Take the conversation's lease and mark the exchange as running, if nobody holds it.

        A run that the last holder left behind is marked as interrupted.

        Args:
            lease: What is taken.
            lease_s: For how long, in seconds, unless it is renewed.
            now: Seconds since the epoch, UTC.
            prompt_id: The prompt whose reply has come; None to begin, which withdraws a prompt that
                is no longer open.
            after: The lease that it takes over from, where the caller holds it still.

        Returns:
            The exchange as it runs; as it is, when it is done already, or to begin and its prompt
            is open; None if somebody holds the lease.

        Raises:
            NotFound: The conversation, the exchange or an open prompt is not there.
            Conflict: The conversation has ended.
        """

        def write(connection: Connection) -> Exchange | None:
            owner, until, status = holder_of(connection, lease)
            found = get(connection, lease.world_id, lease.exchange_id)
            if found.status == "done":
                return found
            if prompt_id is not None:
                host_prompts.check_open(connection, lease.world_id, found, prompt_id, now)
            elif found.status == "waiting" and not host_prompts.fault_of(
                connection, lease.world_id, found, now
            ):
                return found
            mine = after is not None and owner == after.owner
            if not mine and not self.is_free(owner, until, now):
                return None
            if status == "ended":
                raise ended(lease.conversation_id)
            if owner is not None:
                its = {"world": lease.world_id, "key": lease.conversation_id, "now": now}
                statements.INTERRUPT.run(connection, its)
            self._left_over.discard(lease.owner)
            if found.prompt_id is not None and prompt_id is None:
                exchange = {"world": lease.world_id, "key": lease.exchange_id}
                host_prompts.WITHDRAW.run(connection, exchange)
            return take(connection, lease, now + lease_s)

        # After a power cut nobody holds a lease, since all processes are gone.
        return await self._database.write_unsynced(write)

    async def must_wait(self, lease: Lease, now: float) -> bool:
        """Tell whether a claim would get nothing, without the write that would hold others up.

        Raises:
            NotFound: The conversation or the exchange is not there.
        """
        exchange = lease.world_id, lease.exchange_id

        def read(connection: Connection) -> bool:
            owner, until, _ = holder_of(connection, lease)
            free = self.is_free(owner, until, now)
            return not free and get(connection, *exchange).status != "done"

        return await self._database.read(read)

    async def renew(self, lease: Lease, lease_s: float, now: float) -> bool:
        """Show that the run is alive; False if somebody else took the lease before it was done."""

        def write(connection: Connection) -> bool:
            its = C.world_id == lease.world_id, C.id == lease.conversation_id
            mine = update(C).where(*its, C.lease_owner == lease.owner)
            if connection.execute(mine.values(lease_until=now + lease_s)).rowcount == 1:
                return True
            which = {"world": lease.world_id, "key": lease.exchange_id}
            return bool(statements.STATUS.scalar(connection, **which) == "done")

        return await self._database.write_unsynced(write)

    async def end(
        self,
        lease: Lease,
        status: ExchangeStatus,
        now: float,
        error: dict[str, Any] | None = None,
        partial: str | None = None,
    ) -> None:
        """Mark a run that did not become done, and let go of the lease; one may wait again."""
        finished_at = None if status == "waiting" else now

        def write(connection: Connection) -> None:
            connection.execute(
                update(T)
                .where(
                    T.world_id == lease.world_id,
                    T.id == lease.exchange_id,
                    T.owner == lease.process,
                    T.status.in_(UNFINISHED),
                )
                .values(
                    status=status, error=error, partial=partial or None, finished_at=finished_at
                )
            )
            release(connection, lease)

        await self._database.write(write)

    def leave(self, lease: Lease) -> None:
        """Note that a run has ended though its lease could not be given back: it holds nobody up.

        Other processes wait until it runs out.
        """
        self._left_over.add(lease.owner)

    async def let_go(self, lease: Lease) -> Exchange:
        """Let go of the lease after a run that did not, and return what became of it."""

        def write(connection: Connection) -> Exchange:
            release(connection, lease)
            return get(connection, lease.world_id, lease.exchange_id)

        return await self._database.write_unsynced(write)

    async def sweep(self, world_id: str, now: float, conversation_id: str | None = None) -> int:
        """Mark as interrupted what a process that has ended left unfinished.

        What waits for the reply to a prompt that is not open any more is marked as cancelled.

        Returns:
            How many were marked.
        """
        query = (
            select(T.id, T.status, T.owner, C.lease_owner, C.lease_until)
            .join(C, and_(C.world_id == T.world_id, C.id == T.conversation_id))
            .where(T.world_id == world_id)
            .where(or_(T.status.in_(UNFINISHED), host_prompts.lapsed(now)))
        )
        if conversation_id is not None:
            query = query.where(T.conversation_id == conversation_id)
        if not await self._database.read(self._left, query, now):
            return 0

        # Looked at again inside the write: a lease may have been renewed or taken in between.
        def write(connection: Connection) -> int:
            left = self._left(connection, query, now)
            connection.execute(
                update(T)
                .where(T.world_id == world_id, T.id.in_(left))
                .values(
                    status=case((T.status == "waiting", "cancelled"), else_="interrupted"),
                    prompt=case((T.status == "waiting", null()), else_=T.prompt),
                    finished_at=now,
                )
            )
            return len(left)

        return await self._database.write(write)

    def _left(
        self, connection: Connection, query: Select[*tuple[Any, ...]], now: float
    ) -> list[str]:
        rows = connection.execute(query).all()
        return [row.id for row in rows if self._is_left(row, now)]

    def _is_left(self, row: Any, now: float) -> bool:
        if row.status == "waiting" or self._is_gone(row.owner):
            return True
        if row.status != "running":
            return False
        mine = row.lease_owner == f"{row.owner}:{row.id}"
        return not mine or self.is_free(row.lease_owner, row.lease_until, now)

    def is_free(self, owner: str | None, until: float | None, now: float) -> bool:
        """Tell whether a lease holds nobody up: there is none, it is over, or its process is."""
        if owner is None or until is None or until < now or owner in self._left_over:
            return True
        return self._is_gone(owner.split(":")[0])


def accept(
    connection: Connection,
    request: Request,
    lease: Lease,
    correlation_id: str | None,
    now: float,
    until: float | None = None,
) -> Exchange:
    """Write an exchange, inside a transaction; see `ExchangeStore.accept`.

    With `until` it runs from now on, and the lease is taken, where nobody holds the conversation.
    """
    known = by_request(connection, request.world_id, request.request_id)
    if known is not None:
        check_same(request, known.request_hash)
        return known
    enter_conversation(connection, request, now)
    number = statements.LAST_NUMBER.scalar(
        connection, world=request.world_id, key=request.conversation_id
    )
    statements.ACCEPT.run(
        connection,
        {
            "world_id": request.world_id,
            "id": lease.exchange_id,
            "conversation_id": request.conversation_id,
            "request_id": request.request_id,
            "request_hash": request.hash,
            "number": number + 1,
            "status": "pending",
            "persona_id": request.persona_id,
            "user_id": request.user_id,
            "message": request.message,
            "owner": lease.process,
            "caller_id": current_caller().id,
            "correlation_id": correlation_id,
            "created_at": now,
        },
    )
    if until is not None and holder_of(connection, lease)[0] is None:
        return take(connection, lease, until)
    return get(connection, request.world_id, lease.exchange_id)


def take(connection: Connection, lease: Lease, until: float) -> Exchange:
    """Write down who holds a lease, until when, and that its exchange runs; return that."""
    taken = {"holder": lease.owner, "until": until}
    conversation = {"world": lease.world_id, "key": lease.conversation_id}
    statements.TAKE.run(connection, {**conversation, **taken})
    run = {"process": lease.process, "conversation": lease.conversation_id}
    statements.RUN.run(connection, {"world": lease.world_id, "key": lease.exchange_id, **run})
    return get(connection, lease.world_id, lease.exchange_id)


def holder_of(connection: Connection, lease: Lease) -> tuple[str | None, float | None, str]:
    """Return who holds the conversation's lease, until when, and whether it is active or ended.

    Raises:
        NotFound: The conversation is not there.
    """
    row = statements.LEASE.first(connection, world=lease.world_id, key=lease.conversation_id)
    if row is None:
        raise NotFound.of("conversation", lease.conversation_id)
    return row.lease_owner, row.lease_until, row.status


def release(connection: Connection, lease: Lease) -> None:
    """Let go of the lease, if it is still ours."""
    mine = {"world": lease.world_id, "key": lease.conversation_id, "holder": lease.owner}
    statements.RELEASE.run(connection, mine)


def by_request(connection: Connection, world_id: str, request_id: str) -> Exchange | None:
    """Return the exchange that has this request id."""
    row = statements.BY_REQUEST.first(connection, world=world_id, key=request_id)
    return to_exchange(row) if row else None


def callers_own(connection: Connection, world_id: str, request_id: str) -> Exchange | None:
    """Return the caller's exchange that has this request id, None if none has."""
    found = by_request(connection, world_id, request_id)
    return found if found is not None and found.caller_id == current_caller().id else None


def get(connection: Connection, world_id: str, exchange_id: str) -> Exchange:
    """Return an exchange inside a transaction.

    Raises:
        NotFound: It is not there.
    """
    row = statements.BY_ID.first(connection, world=world_id, key=exchange_id)
    if row is None:
        raise NotFound.of("exchange", exchange_id)
    return to_exchange(row)


def to_exchange(row: Row[Any]) -> Exchange:
    """Read a row."""
    names = (n for n in Exchange.__dataclass_fields__ if n != "outcome")
    return Exchange(
        **{name: getattr(row, name) for name in names},
        outcome={name: getattr(row, name) for name in OUTCOME},
    )
