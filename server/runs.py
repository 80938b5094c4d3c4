"""A run of a graph as a task that we own: it emits events, any number of callers follow them."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.stopping import going_down
from persona_mcp.state.callers import current_caller
from persona_mcp.state.errors import Cancelled, DeadlineExceeded, PersonaError
from persona_mcp.state.ids import new_id

T = TypeVar("T")
StopReason = Literal["client", "disconnect", "shutdown", "deleted"]
STOPPED: dict[StopReason, str] = {
    "client": "the exchange was stopped before its end",
    "disconnect": "the exchange was stopped: its caller was gone and did not come back",
    "deleted": "the exchange was stopped: the persona was deleted while it answered",
    "shutdown": "the exchange was stopped: the server is going down; send it again with the same "
    "request_id",
}
EventKind = Literal["started", "speaks", "recalled", "prompt", "token", "restart", "done", "failed"]


@dataclass(frozen=True)
class ChatRequest:
    """A message to a persona.

    Attributes:
        world_id: Where.
        persona: Its id or name.
        user_id: Who says it.
        message: What is said.
        conversation_id: Where it goes on; None starts a new conversation.
        request_id: The caller's name for it; None makes one.
        context: Knobs of the run.
        session_id: The caller's handle, None if it sent none that stands for this persona.
        current_id: The handle's conversation, which is gone on with when none is named, and begun
            if it is not there yet; None if the handle has nothing to do with this message.
        scene: Where the conversation takes place that this message begins; None for anywhere.
    """

    world_id: str
    persona: str
    user_id: str
    message: str
    conversation_id: str | None = None
    request_id: str | None = None
    context: ChatContext = field(default_factory=ChatContext)
    session_id: str | None = None
    current_id: str | None = None
    scene: str | None = None

    @property
    def may_start(self) -> bool:
        """Whether the conversation may be one that is still to be begun."""
        return self.conversation_id in (None, self.current_id)

    @property
    def parameters(self) -> dict[str, Any]:
        """What else two calls share that are the same, beside who says what to whom."""
        given = {**self.context.model_dump(), "conversation_id": self.conversation_id}
        named = {"session_id": self.session_id, "scene": self.scene}
        return given | {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Event:
    """Something that a run tells.

    Attributes:
        seq: 0, 1, 2, ... within the run.
        kind: What it is; done or failed is the last.
        at: When, in seconds since the epoch, UTC.
        data: What goes with it.
    """

    seq: int
    kind: EventKind
    at: float
    data: dict[str, Any] = field(default_factory=dict)


class Run:
    """One exchange under way, or several turns of a talk between personas.

    Attributes:
        exchange_id: Which one; for several, what they are asked for under.
        world_id: Where.
        stream_id: Names this run outside; another run of the exchange has another one.
        caller_id: Who asked for it.
        partial: What has been said since the start or the last restart.
        prompt: The prompt of the last attempt.
        held_back: Ids of memories that the persona kept to itself.
        waiting: How many callers wait for its end.
        repeats: It tells of a reply that another run has made.
        start_told: What streams tell at their start, once one has; the same for all who follow.
    """

    def __init__(self, exchange_id: str, world_id: str) -> None:
        """Make a run that has not begun."""
        self.exchange_id = exchange_id
        self.world_id = world_id
        self.stream_id = new_id()
        self.caller_id = current_caller().id
        self.partial = ""
        self.prompt: list[dict[str, str]] = []
        self.held_back: list[str] = []
        self._events: list[Event] = []
        self._more = asyncio.Event()
        self._begun = asyncio.Event()
        self._ended = False
        self.waiting = 0
        self._left = asyncio.Event()
        self.repeats = False
        self.start_told: Any = None
        self._task: asyncio.Task[None] | None = None
        self._why: StopReason = "client"
        self._last_call: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether its last event has come."""
        return self._ended

    @property
    def failed(self) -> bool:
        """Whether it has ended without a result."""
        return self._ended and self._events[-1].kind == "failed"

    def start(self, work: Coroutine[Any, Any, dict[str, Any]], on_end: Callable[[], None]) -> None:
        """Begin the work as a task; its result goes with the last event."""
        self._task = asyncio.create_task(self._go(work), name=f"exchange {self.exchange_id}")
        self._task.add_done_callback(lambda _: on_end())

    def emit(self, kind: EventKind, **data: Any) -> None:
        """Tell followers something."""
        match kind:
            case "token":
                self.partial += data["text"]
            case "started" | "restart":
                self.partial = ""
            case "recalled":
                self.held_back = data["held_back"]
            case "prompt":
                self.prompt = data["messages"]
            case "done" | "failed":
                self._ended = True
        self._events.append(Event(len(self._events), kind, time.time(), data))
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self, after: int = -1) -> AsyncGenerator[Event]:
        """Yield events from behind number `after` to the last one, as they come."""
        position = after + 1
        while True:
            while position < len(self._events):
                yield self._events[position]
                position += 1
            if self._ended:
                return
            await self._more.wait()

    async def wait(self) -> None:
        """Wait for the last event."""
        while not self._ended:
            await self._more.wait()

    async def outcome(self) -> dict[str, Any]:
        """Wait for the end and return its result; giving up the wait does not stop the run.

        Raises:
            PersonaError: What the run failed with.
        """
        async for event in self.follow():
            if event.kind == "failed":
                error: PersonaError = event.data["error"]
                raise error
            if event.kind == "done":
                return event.data
        raise AssertionError("a run ends with done or failed")

    @asynccontextmanager
    async def joined(
        self, lost: asyncio.Event | None = None, grace_s: float = 0.0
    ) -> AsyncIterator[None]:
        """Wait for the run in a block; when the last one who waits gives up, the work stops.

        At once, if it wished so; `grace_s` later, if it was `lost` and nobody comes back.
        """
        self.join()
        try:
            yield
        except (asyncio.CancelledError, Cancelled):
            is_lost = lost is not None and lost.is_set()
            if self.waiting == 1 and not is_lost:
                await self.cancel()
            self.leave(grace_s if is_lost else None)
            raise
        except BaseException:
            self.leave()
            raise
        self.leave()

    def join(self) -> None:
        """Count one more who waits; a run that was left alone is kept."""
        self.waiting += 1
        self._left.clear()
        if self._last_call is not None:
            self._last_call.cancel()
            self._last_call = None

    def leave(self, grace_s: float | None = None) -> None:
        """Count one less who waits; if nobody is left, the work stops `grace_s` later.

        Args:
            grace_s: None for one who means to come back: the work goes on to its end.
        """
        self.waiting -= 1
        if not self.waiting:
            self._left.set()
        if grace_s is not None and not self.waiting and not self._ended:
            loop = asyncio.get_running_loop()
            self._last_call = loop.call_later(grace_s, self._give_up)

    async def left(self) -> None:
        """Wait until nobody waits for it any more."""
        while self.waiting:
            await self._left.wait()

    def _give_up(self) -> None:
        self._stopping = asyncio.create_task(self.cancel("disconnect"))

    async def cancel(self, why: StopReason = "client") -> None:
        """Stop the work, the model's too, and wait until it has stopped."""
        if self._task is not None and not self._task.done():
            await self._begun.wait()  # cancelled before its first step, it would tell nobody
            self._why = why
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _go(self, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        self._begun.set()
        try:
            self.emit("done", **await work)
        except PersonaError as error:
            self.emit("failed", error=error)
        except asyncio.CancelledError:
            again = self._why == "shutdown" or None
            stopped = Cancelled(STOPPED[self._why], reason=self._why, retryable=again)
            self.emit("failed", error=stopped)


class Runs:
    """The runs of this process: those under way, and for a while those that have ended.

    Attributes:
        closing: No new run begins.
    """

    def __init__(self, kept_s: float, kept_most: int) -> None:
        """Keep ended runs for `kept_s` seconds, and no more than `kept_most` of them."""
        self.closing = False
        self._kept_s = kept_s
        self._kept_most = kept_most
        self._active: dict[tuple[str, str], Run] = {}
        self._ended: dict[str, Run] = {}

    def __len__(self) -> int:
        """Count the runs under way."""
        return len(self._active)

    def __iter__(self) -> Iterator[Run]:
        """Go through the runs under way."""
        return iter(list(self._active.values()))

    def start(
        self, world_id: str, exchange_id: str, work: Callable[[Run], Coroutine[Any, Any, Any]]
    ) -> Run:
        """Return the exchange's run that is under way, or begin one.

        Raises:
            StorageUnavailable: The server is going down.
        """
        key = (world_id, exchange_id)
        run = self._active.get(key)
        if run is not None:
            return run
        if self.closing:
            raise going_down()
        run = self._active[key] = Run(exchange_id, world_id)
        run.start(work(run), lambda: self._keep(key, run))
        return run

    def find(self, stream_id: str) -> Run | None:
        """Return the run of a stream, if it is under way or kept."""
        for run in self:
            if run.stream_id == stream_id:
                return run
        return self._ended.get(stream_id)

    def latest(self, world_id: str, exchange_id: str) -> Run | None:
        """Return the last run of an exchange, if it is under way or kept."""
        return next(iter(self.of(world_id, exchange_id)), None)

    def of(self, world_id: str, exchange_id: str) -> list[Run]:
        """Return the runs of an exchange that are under way or kept, the last one first."""
        known = [*self._ended.values(), *self._active.values()]
        key = (world_id, exchange_id)
        return [run for run in reversed(known) if (run.world_id, run.exchange_id) == key]

    async def stop(self, limit_s: float = 0.0, told_s: float = 0.0) -> None:
        """Begin no new run, let the others end within a limit, stop those that do not.

        Args:
            limit_s: For the runs, in seconds.
            told_s: Then for those who wait for them, to be told how they ended.
        """
        self.closing = True
        runs = [*self._ended.values(), *self]
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for run in self:
                    await run.wait()
        await asyncio.gather(*(run.cancel("shutdown") for run in self))
        with suppress(TimeoutError):
            async with asyncio.timeout(told_s):
                for run in runs:
                    await run.left()

    def _keep(self, key: tuple[str, str], run: Run) -> None:
        del self._active[key]
        self._ended[run.stream_id] = run
        if len(self._ended) > self._kept_most:
            self._ended.pop(next(iter(self._ended)))
        loop = asyncio.get_running_loop()
        loop.call_later(self._kept_s, self._ended.pop, run.stream_id, None)


async def unless_lost(work: Coroutine[Any, Any, T], lost: asyncio.Event | None) -> T:
    """Do the work for a caller; give it up when the caller is lost.

    Raises:
        Cancelled: The caller was lost.
    """
    if lost is None:
        return await work
    tasks = asyncio.create_task(work), asyncio.create_task(lost.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise Cancelled(STOPPED["disconnect"], reason="disconnect")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def guarded(work: Coroutine[Any, Any, T], guard: Coroutine[Any, Any, object]) -> T:
    """Do the work while the guard runs; a guard that fails stops the work, and its error is raised.

    Raises:
        PersonaError: What the work or the guard failed with.
    """
    tasks = asyncio.create_task(work), asyncio.create_task(guard)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            tasks[1].result()
        return await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def within(limit_s: float) -> AsyncIterator[None]:
    """Limit a block that carries out an exchange.

    Raises:
        DeadlineExceeded: It took longer.
    """
    try:
        async with asyncio.timeout(limit_s) as clock:
            yield
    except TimeoutError as error:
        if not clock.expired():
            raise
        raise DeadlineExceeded(
            f"the exchange was not done within {limit_s:g} s; ask for a shorter reply, or raise "
            "PERSONA_CONVERSATION__TOTAL_S",
            limit="total_s",
            seconds=limit_s,
        ) from error
