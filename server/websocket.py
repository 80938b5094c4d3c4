"""The WebSocket door: JSON-RPC, many requests of a connection at once, answered as they finish."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from persona_mcp.server.call_order import Touch, clash, touch_of
from persona_mcp.server.door_watch import watched_call
from persona_mcp.server.json_rpc import (
    Entry,
    Refused,
    Request,
    answer,
    batch,
    failure,
    key_of,
    parse,
)
from persona_mcp.server.operations.registry import Caller
from persona_mcp.server.outbox import MOST_BYTES, Close, Outbox
from persona_mcp.server.rpc_methods import CANCEL, STREAM, Methods
from persona_mcp.server.service import Service
from persona_mcp.state.correlation import correlation, new_correlation_id
from persona_mcp.state.errors import (
    InternalError,
    InvalidRequest,
    LimitExceeded,
    PersonaError,
    RateLimited,
)

log = structlog.get_logger(__name__)

PLAIN = "persona-mcp"
"""Who offers sub-protocols, as a page must to show its token, has to be answered with one."""
LEGACY = "persona-mcp.legacy"
"""Who asks for this sub-protocol gets result and error in every answer, as from the original."""
LARGE = 64 * 1024
"""Characters; a longer frame is read in a thread, so that it holds nobody up."""
CLOSE_S = 2.0
"""For the last words of a connection."""
STOP_S = 2.0
"""For what is still under way when the server stops; its replies had their time before."""
RETRY_S = 1.0
DOOR = "websocket"
IDLE = Close(1000, "nothing was asked for too long")
STOPPED = Close(1001, "the server is going down")
FULL = Close(1013, "too many connections; try again later")
FOREIGN = Close(1008, "Host or Origin is not one that this server answers")

Turn = Callable[[], Awaitable[None]]


async def at_once() -> None:
    """Wait for nothing: the turn of a request that came alone."""


class WebSocketDoor:
    """Lets connections in and, when the server stops, out."""

    def __init__(self, most: int, service: Callable[[], Service]) -> None:
        """Serve at most so many connections at once; the service is asked for at the first."""
        self._most = most
        self._service = service
        self._open: dict[asyncio.Task[Any], Connection] = {}
        self._stopping = False

    def __len__(self) -> int:
        """Count the open connections."""
        return len(self._open)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve a connection to its end."""
        if self._stopping or len(self._open) >= self._most:
            await turn_away(websocket, STOPPED if self._stopping else FULL)
            return
        task = asyncio.current_task()
        assert task is not None
        connection = self._open[task] = Connection(websocket, self._service())
        try:
            await connection.serve()
        finally:
            del self._open[task]

    async def stop(self) -> None:
        """Let what is under way end for a little while, then close every connection."""
        self._stopping = True
        for connection in self._open.values():
            connection.end(STOPPED)
        if self._open:
            await asyncio.wait(self._open, timeout=STOP_S + 2 * CLOSE_S)


async def turn_away(websocket: WebSocket, why: Close) -> None:
    """Accept a connection only to say why not; one that is refused is told nothing."""
    with suppress(WebSocketDisconnect):
        await websocket.accept()
        await websocket.close(why.code, why.reason)


class Connection:
    """One client."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        """Begin; `serve` does the work."""
        self._limits = service.settings.websocket
        self._websocket = websocket
        self._service = service
        offered = websocket.scope["subprotocols"]
        self._legacy = LEGACY in offered
        self._chosen = LEGACY if self._legacy else PLAIN if PLAIN in offered else None
        self._methods = Methods(service)
        self._outbox = Outbox(websocket, service.settings.server.send_s)
        self._lost = asyncio.Event()
        self._caller = Caller(lost=self._lost)
        self._places = asyncio.Semaphore(self._limits.in_flight)
        self._open = 0
        self._ids: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[Close | None] = asyncio.get_running_loop().create_future()

    def end(self, why: Close) -> None:
        """Ask for the end."""
        if not self._end.done():
            self._end.set_result(why)

    async def serve(self) -> None:
        """Read requests until the client is gone, idle, or takes too little; or until `end`."""
        await self._websocket.accept(self._chosen)
        reader = asyncio.create_task(self._read(), name="WebSocket reader")
        writer = asyncio.create_task(self._outbox.send_all(), name="WebSocket writer")
        ways = (self._end, self._outbox.full, reader, writer)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            why = next(way.result() for way in ways if way.done())
            reader.cancel()
            if why is STOPPED:
                await self._finish()
            self._let_go()
            writer.cancel()
            if why is not None:
                await self._close(why)
            await asyncio.gather(*self._work, return_exceptions=True)
        finally:
            left = [reader, writer, *self._work, *self._streams]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _let_go(self) -> None:
        """Tell calls that their caller is gone; most of them come to their end all the same."""
        self._lost.set()
        for task in self._streams:
            task.cancel()

    async def _finish(self) -> None:
        """Give what is under way a little time, and its answers too."""
        under_way = self._work | self._streams
        if under_way:
            await asyncio.wait(under_way, timeout=STOP_S)
        for task in under_way:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._outbox.flushed()

    async def _close(self, why: Close) -> None:
        log.info("connection closed", code=why.code, reason=why.reason)
        with suppress(TimeoutError, WebSocketDisconnect):
            async with asyncio.timeout(CLOSE_S):
                await self._websocket.close(why.code, why.reason)

    async def _read(self) -> Close | None:
        """Take frames as they come; None when the client is gone."""
        while True:
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    message = await self._websocket.receive()
            except TimeoutError:
                if not self._open:
                    return IDLE
                continue
            if message["type"] == "websocket.disconnect":
                return None
            await self._take(message.get("text"))

    async def _take(self, text: str | None) -> None:
        """Begin what a frame asks for."""
        if text is None:
            wrong = InvalidRequest("a binary frame: allowed are text frames")
            self._outbox.put(failure(None, wrong, both=self._legacy))
            return
        most = self._limits.frame_bytes
        message = (
            await asyncio.to_thread(parse, text, most) if len(text) > LARGE else parse(text, most)
        )
        entries = [self._admitted(entry, message.is_batch) for entry in message.entries]
        if message.is_batch:
            self._start(self._batch(entries), self._work)
        elif isinstance(entries[0], Request) and entries[0].method == STREAM:
            self._start(self._stream(entries[0]), self._streams)
        else:
            self._start(self._single(entries[0]), self._work)

    def _start(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work, name="WebSocket request")
        among.add(task)
        task.add_done_callback(among.discard)

    def _admitted(self, entry: Entry, in_batch: bool) -> Entry:
        """Count a request in, or refuse it."""
        if isinstance(entry, Refused):
            return entry
        error = self._refusal(entry, in_batch)
        if error is not None:
            return Refused(entry.id, error, entry.notification)
        self._open += 1
        if entry.id is not None:
            self._ids.add(key_of(entry.id))
        return entry

    def _refusal(self, request: Request, in_batch: bool) -> PersonaError | None:
        if request.id is not None and key_of(request.id) in self._ids:
            return InvalidRequest("id: allowed is one that no request under way has", field="id")
        if request.method == STREAM and in_batch:
            return InvalidRequest(f"{STREAM} in a batch: send it in a frame of its own")
        if request.method == STREAM and request.notification:
            return InvalidRequest(f"{STREAM} without an id: nobody could be told of the reply")
        most = self._limits.in_flight + self._limits.queued
        if self._open >= most and request.method != CANCEL:
            return RateLimited(
                f"this connection has {most} requests under way, which is the most; wait for an "
                "answer, or raise PERSONA_WEBSOCKET__QUEUED",
                retry_after_seconds=RETRY_S,
            )
        return None

    def _done(self, request: Request) -> None:
        """Count a request out."""
        self._open -= 1
        if request.id is not None:
            self._ids.discard(key_of(request.id))

    async def _single(self, entry: Entry) -> None:
        told = await self._answer(entry)
        if told is not None:
            self._outbox.put(told)

    async def _batch(self, entries: list[Entry]) -> None:
        """Carry the members out, those of one persona in their order, and answer all in one."""
        touches = asyncio.create_task(self._touches(entries), name="WebSocket batch order")
        tasks: list[asyncio.Task[str | None]] = []

        async def turn(position: int) -> None:
            found = await touches
            mine = found[position]
            for task, other in zip(tasks[:position], found[:position], strict=True):
                if mine is not None and other is not None and clash(other, mine):
                    await task

        async with asyncio.TaskGroup() as group:
            tasks.extend(
                group.create_task(self._answer(entry, partial(turn, position)))
                for position, entry in enumerate(entries)
            )
        told = [text for task in tasks if (text := task.result()) is not None]
        if told:
            self._outbox.put(batch(told))

    async def _touches(self, entries: list[Entry]) -> list[Touch | None]:
        """Find out what each member has to do with; None for one that is not carried out."""
        return [
            await touch_of(self._service, self._methods, entry)
            if isinstance(entry, Request)
            else None
            for entry in entries
        ]

    async def _answer(self, entry: Entry, turn: Turn = at_once) -> str | None:
        """Carry a request out when it is its turn, and write its answer; None for a notification.

        Whatever goes wrong, also while it waits, it is answered and counted out.
        """
        with correlation(new_correlation_id()):
            try:
                given = entry.params if isinstance(entry, Request) else {}
                with watched_call(self._service.metrics, DOOR, given):
                    told = await self._result(entry, turn)
            except PersonaError as error:
                told = failure(entry.id, error, both=self._legacy)
                if entry.notification:
                    log.warning("notification failed", code=error.code, error=error.message)
        return None if entry.notification else told

    async def _result(self, entry: Entry, turn: Turn) -> str:
        if isinstance(entry, Refused):
            raise entry.error
        try:
            with defects_hidden(entry.method):
                await turn()
                async with self._place(entry):
                    result = await self._methods.call(entry.method, entry.params, self._caller)
                told = answer(entry.id, both=self._legacy, result=result)
        finally:
            self._done(entry)
        if len(told) > MOST_BYTES:
            raise LimitExceeded(
                f"the answer has {len(told)} bytes, allowed are {MOST_BYTES}; ask for less at "
                "once, or over HTTP"
            )
        return told

    @asynccontextmanager
    async def _place(self, request: Request) -> AsyncIterator[None]:
        """Wait for a free place; to stop a stream needs none."""
        if request.method == CANCEL:
            yield
            return
        async with self._places:
            yield

    async def _stream(self, request: Request) -> None:
        """Answer with the events of a reply while it is made."""

        def tell(event: dict[str, Any]) -> None:
            error = {"error": event["error"]} if "error" in event else {}
            told = {key: value for key, value in event.items() if key != "error"}
            self._outbox.put(answer(request.id, both=self._legacy, result=told, **error))

        with correlation(new_correlation_id()):
            try:
                watch = watched_call(self._service.metrics, DOOR, request.params)
                with watch, defects_hidden(STREAM):
                    async with self._places:
                        await self._methods.stream(request.params, tell)
            except PersonaError as error:
                self._outbox.put(failure(request.id, error, both=self._legacy))
            finally:
                self._done(request)


@contextmanager
def defects_hidden(method: str) -> Iterator[None]:
    """Turn a defect of ours into an error that can be told; the log has the cause.

    Raises:
        PersonaError: What the block raised, or what is told of it.
    """
    try:
        yield
    except PersonaError:
        raise
    except Exception as error:
        log.exception("request failed", method=method[:64])
        raise InternalError from error
