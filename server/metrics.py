"""What is counted, timed and traced of a process: calls, the model's work, nodes, transactions.

```
Metrics     what is counted, in a registry of its own for each service (metric_families.py)
└── Timed   one step: timed, counted and, where the settings ask for it, a span of a trace
```
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from types import TracebackType
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from persona_mcp.server import metric_families as names
from persona_mcp.state.errors import InternalError, PersonaError, StorageUnavailable
from persona_mcp.state.watching import Access, Tracer

BUCKETS = names.SECONDS
CANCELLED, OK = "cancelled", "ok"
OPERATION, NODE, TRANSACTION = "persona.operation", "persona.node", "db.operation.name"
"""Names of attributes of spans."""
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""By the name of a number: the labels and value of each."""
MADE = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a number was first counted: half of all lines


class Metrics:
    """Counts, in one registry; is the `Watch` of what runs below the operations.

    Attributes:
        registry: What is counted, as Prometheus takes it.
        tracer: Writes spans of the same steps; None to write none.
        embedded_at: When the embedder last answered, of `time.monotonic`; -inf before.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        """Begin with nothing counted."""
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self.tracer = tracer
        self.embedded_at = -math.inf
        self._its: dict[str, Any] = {}
        for family in names.FAMILIES:
            more = {"buckets": family.ends} if family.kind == "histogram" else {}
            make: Any = MADE[family.kind]
            made = make(family.name, family.about, list(family.labels), registry=registry, **more)
            self._its[family.name] = made
        ProcessCollector(registry=registry)
        self._labelled = cache(lambda name, *labels: self._its[name].labels(*labels))
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Make what alerts look at be there from the start, or its first step would not be seen."""
        for kind in ("read", "write"):
            for name in (names.SQL, names.SQL_WAITS, names.SQL_FAULTS):
                self._its[name].labels(kind)
        for outcome in ("whole", "faulty", "partial"):
            self._its[names.UPKEEPS].labels(outcome)
        self._its[names.EXCHANGES].labels("done", OK)

    def call(self, operation: str) -> "Timed":
        """Watch a call of an operation while the block lasts."""
        span = None
        if self.tracer is not None:
            span = self.tracer.span(operation, "internal", {OPERATION: operation})
        return Timed(partial(self.called, operation), span)

    def called(self, operation: str, seconds: float, error: BaseException | None) -> None:
        """Count a call that took so long, and failed with this error, if it did."""
        self._labelled(names.CALLS, operation).observe(seconds)
        if error is not None:
            self._labelled(names.ERRORS, operation, code_of(error)).inc()

    def node(self, graph: str, node: str) -> "Timed":
        """Watch a node of a graph; see `Watch`."""
        span = None
        if self.tracer is not None:
            span = self.tracer.span(f"{graph} {node}", "internal", {NODE: node})
        return Timed(partial(self._ran, graph, node), span)

    def _ran(self, graph: str, node: str, seconds: float, error: BaseException | None) -> None:
        self._labelled(names.NODES, graph, node).observe(seconds)
        if isinstance(error, Exception):
            self._labelled(names.NODE_FAULTS, graph, node).inc()

    def transaction(self, kind: Access, asked: float) -> "Timed":
        """Watch a transaction; see `Watch`."""
        waited = max(0.0, time.perf_counter() - asked)
        self._labelled(names.SQL_WAITS, kind).observe(waited)
        span = None
        if self.tracer is not None:
            span = self.tracer.span(f"sql {kind}", "client", {TRANSACTION: kind})
        return Timed(partial(self._transacted, kind), span)

    def _transacted(self, kind: Access, seconds: float, error: BaseException | None) -> None:
        self._labelled(names.SQL, kind).observe(seconds)
        if isinstance(error, StorageUnavailable):
            self._labelled(names.SQL_FAULTS, kind).inc()
            if isinstance(error.__cause__, PoolTimeout):
                self._its[names.SQL_TIMEOUTS].inc()

    def exchanged(self, outcome: str, error: BaseException | None = None) -> None:
        """Count an exchange that came to its end, or to where it waits."""
        code = OK if error is None else code_of(error)
        self._labelled(names.EXCHANGES, outcome, code).inc()

    def replied(
        self, seconds: float, first: float | None, tokens: tuple[int, int], code: str | None
    ) -> None:
        """Count a reply of the model.

        Args:
            seconds: It took.
            first: Until its first words; None where none came.
            tokens: Of the prompt, and of the reply.
            code: Of the error that it failed with; None if it did not.
        """
        self._its[names.REPLIES].observe(seconds)
        if first is not None:
            self._its[names.FIRST].observe(first)
        self._its[names.TOKENS_IN].inc(tokens[0])
        self._its[names.TOKENS].inc(tokens[1])
        if code is not None:
            self._its[names.FAULTS].labels(code).inc()

    def embedded(self, kind: str, texts: int, seconds: float, error: BaseException | None) -> None:
        """Count a call of the embedder."""
        self._labelled(names.EMBEDDINGS, kind).observe(seconds)
        if error is None:
            self.embedded_at = time.monotonic()
            self._labelled(names.EMBEDDED, kind).inc(texts)
        else:
            self._its[names.EMBEDDING_FAULTS].labels(code_of(error)).inc()

    def kept_up(self, outcome: str, seconds: float) -> None:
        """Count an upkeep of a world: whole, faulty or partial."""
        self._labelled(names.UPKEEPS, outcome).inc()
        self._its[names.UPKEEP].observe(seconds)

    def late(self, seconds: float) -> None:
        """Note by how much the event loop was late."""
        self._its[names.LAG].observe(seconds)

    def answered(self, door: str, status: int) -> None:
        """Count a request that was answered."""
        self._labelled(names.REQUESTS, door, str(status)).inc()

    def connected(self, kind: str, change: int) -> None:
        """Count a connection that is opened (1) or closed (-1)."""
        self._its[names.CONNECTIONS].labels(kind).inc(change)

    def waiting(self, numbers: Mapping[str, int]) -> None:
        """Note how much waits now, by what it is."""
        for what, number in numbers.items():
            self._its[names.QUEUE].labels(what).set(number)

    def well(self, parts: Mapping[str, bool]) -> None:
        """Note which parts were well when they were checked."""
        for part, ok in parts.items():
            self._its[names.PART].labels(part).set(ok)

    def note(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        gauge = self._its[name]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def missed(self) -> None:
        """Count that numbers could not be gathered."""
        self._its[names.MISSED].inc()

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
    """Watches one step."""

    __slots__ = ("_done", "_span", "_started")

    def __init__(self, done: Any, span: AbstractContextManager[Any] | None) -> None:
        """Watch a step.

        Args:
            done: Called with how long it took in seconds, and with its error or None.
            span: Written of it.
        """
        self._done = done
        self._span = span
        self._started = 0.0

    def __enter__(self) -> None:
        """Begin."""
        self._started = time.perf_counter()
        if self._span is not None:
            self._span.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Count the step and how it ended."""
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        self._done(time.perf_counter() - self._started, error)


def code_of(error: BaseException) -> str:
    """Return the code that an error is counted under."""
    if isinstance(error, PersonaError):
        return error.code
    return InternalError.code if isinstance(error, Exception) else CANCELLED


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
