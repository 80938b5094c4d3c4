"""What is counted: calls of operations, the model's work, what waits, and who is connected.

Each service counts for itself, in a registry of its own.
"""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import cache
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from persona_mcp.state.errors import InternalError, PersonaError
from persona_mcp.state.model import ChatModel, Chunk, Message, ModelInfo, Offer, Sampling

BUCKETS = tuple(step * 10.0**power for power in range(-3, 3) for step in (1, 2, 5))
"""Upper ends in seconds: 0.001, 0.002, 0.005, ... 500."""
CALLS, ERRORS = "persona_operation_seconds", "persona_operation_errors"
REPLIES, FIRST = "persona_model_seconds", "persona_model_first_token_seconds"
TOKENS, FAULTS = "persona_model_tokens", "persona_model_errors"
QUEUE, CONNECTIONS = "persona_queue", "persona_connections"
CANCELLED = "cancelled"
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""By the name of a number: the labels and value of each."""


class Metrics:
    """Counts, in one registry.

    Attributes:
        registry: What is counted, as Prometheus takes it.
    """

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self.registry = registry = CollectorRegistry(auto_describe=True)
        its: dict[str, Any] = {"registry": registry}
        timed = {**its, "buckets": BUCKETS}
        self._calls = Histogram(CALLS, "Calls of operations", ["operation"], **timed)
        self._errors = Counter(ERRORS, "Calls that failed", ["operation", "code"], **its)
        self._replies = Histogram(REPLIES, "Replies of the language model", **timed)
        self._first = Histogram(FIRST, "Wait for the first words of a reply", **timed)
        self._tokens = Counter(TOKENS, "Tokens that the model's server counted", **its)
        self._faults = Counter(FAULTS, "Replies that failed", ["code"], **its)
        self._queue = Gauge(QUEUE, "What waits, or is under way", ["what"], **its)
        self._connections = Gauge(CONNECTIONS, "Open requests and sockets", ["kind"], **its)
        self._timer = cache(lambda name: self._calls.labels(name))  # labels() costs a look each

    def call(self, operation: str) -> "Timed":
        """Count a call of an operation while the block lasts."""
        return Timed(self, operation)

    def called(self, operation: str, seconds: float, code: str | None) -> None:
        """Count a call that took so long, and failed with this code, if it did."""
        self._timer(operation).observe(seconds)
        if code is not None:
            self._errors.labels(operation, code).inc()

    def replied(self, seconds: float, first: float | None, tokens: int, code: str | None) -> None:
        """Count a reply of the model."""
        self._replies.observe(seconds)
        if first is not None:
            self._first.observe(first)
        self._tokens.inc(tokens)
        if code is not None:
            self._faults.labels(code).inc()

    def waiting(self, numbers: Mapping[str, int]) -> None:
        """Note how much waits now, by what it is."""
        for what, number in numbers.items():
            self._queue.labels(what).set(number)

    def connected(self, kind: str, change: int) -> None:
        """Count a connection that is opened (1) or closed (-1)."""
        self._connections.labels(kind).inc(change)

    def text(self) -> str:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def samples(self) -> Samples:
        """Return every number, by its name."""
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found


class Timed:
    """Counts one call."""

    def __init__(self, metrics: Metrics, operation: str) -> None:
        """Count it here, under this name."""
        self._metrics = metrics
        self._operation = operation
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Count the call and how it ended."""
        seconds = time.perf_counter() - self._started
        self._metrics.called(self._operation, seconds, None if error is None else code_of(error))


def code_of(error: BaseException) -> str:
    """Return the code that an error is counted under."""
    if isinstance(error, PersonaError):
        return error.code
    return InternalError.code if isinstance(error, Exception) else CANCELLED


class MeasuredModel:
    """A `ChatModel` whose replies are counted."""

    def __init__(self, model: ChatModel, metrics: Metrics) -> None:
        """Count the replies of this model here."""
        self._model = model
        self._metrics = metrics

    async def info(self) -> ModelInfo:
        """Say which model answers; see `ChatModel`."""
        return await self._model.info()

    async def offered(self) -> Offer:
        """Say which models there are; see `ChatModel`."""
        return await self._model.offered()

    async def check(self) -> str:
        """Say whether it is there; see `ChatModel`."""
        return await self._model.check()

    async def aclose(self) -> None:
        """Close the model; see `ChatModel`."""
        await self._model.aclose()

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply as it is made; see `ChatModel`. One that is closed early is no error."""
        started, first, tokens, code = time.perf_counter(), None, 0, None
        try:
            async with aclosing(self._model.stream(messages, sampling)) as chunks:
                async for chunk in chunks:
                    if first is None and chunk.text:
                        first = time.perf_counter() - started
                    tokens = chunk.output_tokens or tokens
                    yield chunk
        except Exception as error:
            code = code_of(error)
            raise
        finally:
            self._metrics.replied(time.perf_counter() - started, first, tokens, code)


class CountingConnections:
    """Counts the requests and sockets that are open; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an app whose state has the service."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count it while it lasts."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        metrics: Metrics = scope["app"].state.service.metrics
        metrics.connected(scope["type"], 1)
        try:
            await self._app(scope, receive, send)
        finally:
            metrics.connected(scope["type"], -1)


def quantile(ends: Sequence[tuple[float, float]], share: float) -> float | None:
    """Estimate below which value a share of what was observed lies; None where nothing was.

    Args:
        ends: Upper end of each bucket and how many lie below it, rising; the last end is infinite.
        share: 0..1.
    """
    total = ends[-1][1] if ends else 0.0
    if not total:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for high, number in ends:
        if number >= wanted and number > below:
            if high == float("inf"):
                return low
            return low + (high - low) * (wanted - below) / (number - below)
        low, below = high, number
    return low
