"""What was counted, as numbers that people and programs read."""

from collections.abc import Mapping

from pydantic import Field

from persona_mcp.server import metric_families as metrics
from persona_mcp.server.limits import Limits
from persona_mcp.server.metrics import Samples, quantile
from persona_mcp.server.operations.registry import Result

Labels = Mapping[str, str]


class Durations(Result):
    """How long something took, in seconds; estimates, between the ends of buckets."""

    count: int
    total: float
    p50: float | None
    p95: float | None
    p99: float | None


class MeasuredOperation(Durations):
    """Calls of one operation."""

    errors: dict[str, int] = Field(description="How many failed, by code")


class MeasuredModel(Durations):
    """Replies of the language model."""

    errors: dict[str, int] = Field(description="How many failed, by code")
    tokens: int = Field(description="Of its replies, as its server counts them")
    input_tokens: int = Field(description="Of the prompts")
    first_token: Durations = Field(description="Wait for the first words")


class MeasuredEmbedder(Durations):
    """Calls of the embedder."""

    errors: dict[str, int] = Field(description="How many failed, by code")
    texts: int


class MeasuredNode(Durations):
    """Runs of a node of a graph."""

    errors: int


class MeasuredTransactions(Durations):
    """Transactions that read, or that write."""

    errors: int = Field(description="Those that the database did not carry out")
    wait: Durations = Field(description="For their thread")


class MeasuredSizes(Result):
    """How much there is, at the last count."""

    memories: dict[str, int] = Field(description="Of all worlds: active, archived")
    batches: dict[str, int] = Field(description="Of all worlds, by status")
    database_bytes: int
    checkpoint_bytes: int
    disk_free_bytes: int


class Measured(Result):
    """Everything that a process has counted since its start."""

    operations: dict[str, MeasuredOperation] = Field(description="Those that were called")
    model: MeasuredModel
    queue: dict[str, int] = Field(
        description="memories: to be indexed; given_up: not to be embedded; replies, calls, "
        "streams: under way; calls_waiting: for a place; model: replies that wait for a place at it"
    )
    connections: dict[str, int] = Field(description="Open ones now: http, websocket")
    requests: dict[str, dict[str, int]] = Field(description="By door, then by HTTP status")
    exchanges: dict[str, int] = Field(description="done, waiting, failed, cancelled")
    embedder: MeasuredEmbedder
    nodes: dict[str, dict[str, MeasuredNode]] = Field(description="By graph, then by node")
    transactions: dict[str, MeasuredTransactions] = Field(description="read, write")
    pool: dict[str, int] = Field(description="Connections: size, open, used")
    upkeeps: dict[str, int] = Field(description="whole, faulty, partial")
    event_loop_lag: Durations = Field(description="How late the process is; what blocks it")
    sizes: MeasuredSizes


class Limited(Result):
    """What callers have used of what they may, and what they were refused."""

    counted_by: str = Field(description="memory or redis, and what is wrong with that, if so")
    refused: dict[str, int] = Field(
        description="How often, since the start of this process, by the setting that says so"
    )
    tokens_day: int | None = Field(
        description="Tokens that the model may write for one caller in a day; null for any number"
    )
    tokens_today: dict[str, int] = Field(
        description="Those that it wrote today (UTC) in all processes, by caller"
    )


async def limited(limits: Limits) -> Limited:
    """Gather what limits have counted."""
    return Limited(
        counted_by=limits.counted_by,
        refused=dict(limits.refused),
        tokens_day=limits.tokens_day,
        tokens_today=await limits.spending.today(),
    )


def measured(samples: Samples) -> Measured:
    """Gather what was counted."""
    names = sorted({labels["operation"] for labels, _ in samples.get(f"{metrics.CALLS}_count", ())})
    return Measured(
        operations={name: of_operation(samples, name) for name in names},
        model=MeasuredModel(
            **durations(samples, metrics.REPLIES, {}).model_dump(),
            errors=by_label(samples, f"{metrics.FAULTS}_total", "code", {}),
            tokens=int(value(samples, f"{metrics.TOKENS}_total", {})),
            input_tokens=int(value(samples, f"{metrics.TOKENS_IN}_total", {})),
            first_token=durations(samples, metrics.FIRST, {}),
        ),
        queue=by_label(samples, metrics.QUEUE, "what", {}),
        connections=by_label(samples, metrics.CONNECTIONS, "kind", {}),
        requests={
            door: by_label(samples, f"{metrics.REQUESTS}_total", "status", {"door": door})
            for door in values_of(samples, f"{metrics.REQUESTS}_total", "door", {})
        },
        exchanges=by_label(samples, f"{metrics.EXCHANGES}_total", "outcome", {}),
        embedder=MeasuredEmbedder(
            **durations(samples, metrics.EMBEDDINGS, {}).model_dump(),
            errors=by_label(samples, f"{metrics.EMBEDDING_FAULTS}_total", "code", {}),
            texts=int(value(samples, f"{metrics.EMBEDDED}_total", {})),
        ),
        nodes=of_nodes(samples),
        transactions={kind: of_transactions(samples, kind) for kind in ("read", "write")},
        pool=by_label(samples, metrics.POOL, "state", {}),
        upkeeps=by_label(samples, f"{metrics.UPKEEPS}_total", "outcome", {}),
        event_loop_lag=durations(samples, metrics.LAG, {}),
        sizes=MeasuredSizes(
            memories=by_label(samples, metrics.MEMORIES, "state", {}),
            batches=by_label(samples, metrics.BATCHES, "status", {}),
            database_bytes=int(value(samples, metrics.DATABASE_BYTES, {})),
            checkpoint_bytes=int(value(samples, metrics.CHECKPOINT_BYTES, {})),
            disk_free_bytes=int(value(samples, metrics.DISK_BYTES, {})),
        ),
    )


def of_nodes(samples: Samples) -> dict[str, dict[str, MeasuredNode]]:
    """Gather what was counted of the nodes of each graph."""
    series = f"{metrics.NODES}_count"
    return {
        graph: {
            node: MeasuredNode(
                **durations(samples, metrics.NODES, its).model_dump(),
                errors=int(value(samples, f"{metrics.NODE_FAULTS}_total", its)),
            )
            for node in values_of(samples, series, "node", {"graph": graph})
            for its in ({"graph": graph, "node": node},)
        }
        for graph in values_of(samples, series, "graph", {})
    }


def of_transactions(samples: Samples, kind: str) -> MeasuredTransactions:
    """Gather what was counted of transactions."""
    its = {"kind": kind}
    return MeasuredTransactions(
        **durations(samples, metrics.SQL, its).model_dump(),
        errors=int(value(samples, f"{metrics.SQL_FAULTS}_total", its)),
        wait=durations(samples, metrics.SQL_WAITS, its),
    )


def values_of(samples: Samples, name: str, label: str, its: Labels) -> list[str]:
    """Return the values of a label, in their order."""
    found = {labels[label] for labels, _ in samples.get(name, ()) if its.items() <= labels.items()}
    return sorted(found)


def of_operation(samples: Samples, name: str) -> MeasuredOperation:
    """Gather what was counted of an operation."""
    its = {"operation": name}
    return MeasuredOperation(
        **durations(samples, metrics.CALLS, its).model_dump(),
        errors=by_label(samples, f"{metrics.ERRORS}_total", "code", its),
    )


def durations(samples: Samples, name: str, its: Labels) -> Durations:
    """Gather a histogram; those of further labels together."""
    below: dict[float, float] = {}
    for labels, number in samples.get(f"{name}_bucket", ()):
        if its.items() <= labels.items():
            end = float(labels["le"])
            below[end] = below.get(end, 0.0) + number
    ends = sorted(below.items())
    return Durations(
        count=int(value(samples, f"{name}_count", its)),
        total=value(samples, f"{name}_sum", its),
        p50=quantile(ends, 0.5),
        p95=quantile(ends, 0.95),
        p99=quantile(ends, 0.99),
    )


def value(samples: Samples, name: str, its: Labels) -> float:
    """Return one number, or the sum of those with further labels; 0 where nothing was counted."""
    found = samples.get(name, ())
    return sum((number for labels, number in found if its.items() <= labels.items()), 0.0)


def by_label(samples: Samples, name: str, label: str, its: Labels) -> dict[str, int]:
    """Return numbers by one of their labels, summed over the others."""
    found: dict[str, int] = {}
    for labels, number in samples.get(name, ()):
        if its.items() <= labels.items():
            found[labels[label]] = found.get(labels[label], 0) + int(number)
    return found
