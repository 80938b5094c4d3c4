"""A run of a graph as a task that we own: it emits events, any number of callers follow them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.state.errors import Cancelled, PersonaError

EventKind = Literal["started", "recalled", "prompt", "token", "restart", "done", "failed"]


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
        session_id: The caller's handle, None if it sent none.
        current_id: The handle's conversation, which is gone on with when none is named, and begun
            if it is not there yet; None if the handle has nothing to do with this message.
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

    @property
    def may_start(self) -> bool:
        """Whether the conversation may be one that is still to be begun."""
        return self.conversation_id in (None, self.current_id)

    @property
    def parameters(self) -> dict[str, Any]:
        """What else two calls share that are the same, beside who says what to whom."""
        given = {**self.context.model_dump(), "conversation_id": self.conversation_id}
        return given if self.session_id is None else {**given, "session_id": self.session_id}


@dataclass(frozen=True)
class Event:
    """Something that a run tells.

    Attributes:
        seq: 0, 1, 2, ... within the run.
        kind: What it is; done or failed is the last.
        data: What goes with it.
    """

    seq: int
    kind: EventKind
    data: dict[str, Any] = field(default_factory=dict)


class Run:
    """One exchange under way.

    Attributes:
        exchange_id: Which one.
        partial: What has been said since the start or the last restart.
        prompt: The prompt of the last attempt.
        waiting: How many callers wait for its end in `joined`.
    """

    def __init__(self, exchange_id: str) -> None:
        """Make a run that has not begun."""
        self.exchange_id = exchange_id
        self.partial = ""
        self.prompt: list[dict[str, str]] = []
        self._events: list[Event] = []
        self._more = asyncio.Event()
        self._begun = asyncio.Event()
        self._ended = False
        self.waiting = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, dict[str, Any]], on_end: Callable[[], None]) -> None:
        """Begin the work as a task; its result goes with the last event."""
        self._task = asyncio.create_task(self._go(work), name=f"exchange {self.exchange_id}")
        self._task.add_done_callback(lambda _: on_end())

    def emit(self, kind: EventKind, **data: Any) -> None:
        """Tell followers something."""
        match kind:
            case "token":
                self.partial += data["text"]
            case "restart":
                self.partial = ""
            case "prompt":
                self.prompt = data["messages"]
            case "done" | "failed":
                self._ended = True
        self._events.append(Event(len(self._events), kind, data))
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self, after: int = -1) -> AsyncIterator[Event]:
        """Yield events from behind number `after` to the last one, as they come."""
        position = after + 1
        while True:
            while position < len(self._events):
                yield self._events[position]
                position += 1
            if self._ended:
                return
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
    async def joined(self) -> AsyncIterator[None]:
        """Wait for the run in a block; when the last one who waits is cancelled, the work stops."""
        self.waiting += 1
        try:
            yield
        except asyncio.CancelledError:
            if self.waiting == 1:
                await self.cancel()
            raise
        finally:
            self.waiting -= 1

    async def cancel(self) -> None:
        """Stop the work, the model's too, and wait until it has stopped."""
        if self._task is not None and not self._task.done():
            await self._begun.wait()  # cancelled before its first step, it would tell nobody
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _go(self, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        self._begun.set()
        try:
            self.emit("done", **await work)
        except PersonaError as error:
            self.emit("failed", error=error)
        except asyncio.CancelledError:
            self.emit("failed", error=Cancelled("the exchange was stopped before its end"))


async def guarded(work: Coroutine[Any, Any, None], guard: Coroutine[Any, Any, None]) -> None:
    """Do the work while the guard runs; a guard that fails stops the work, and its error is raised.

    Raises:
        PersonaError: What the work or the guard failed with.
    """
    tasks = asyncio.create_task(work), asyncio.create_task(guard)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
