"""What was counted, as numbers that people and programs read."""

from collections.abc import Mapping

from pydantic import Field

from persona_mcp.server import metric_families as metrics
from persona_mcp.server.metrics import Samples, quantile
from persona_mcp.server.operations import Result

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
    tokens: int = Field(description="As its server counts them")
    first_token: Durations = Field(description="Wait for the first words")


class Measured(Result):
    """Everything that a process has counted since its start."""

    operations: dict[str, MeasuredOperation] = Field(description="Those that were called")
    model: MeasuredModel
    queue: dict[str, int] = Field(
        description="memories: to be indexed; given_up: not to be embedded; replies: under way"
    )
    connections: dict[str, int] = Field(description="Open ones now: http, websocket")


def measured(samples: Samples) -> Measured:
    """Gather what was counted."""
    names = sorted({labels["operation"] for labels, _ in samples.get(f"{metrics.CALLS}_count", ())})
    return Measured(
        operations={name: of_operation(samples, name) for name in names},
        model=MeasuredModel(
            **durations(samples, metrics.REPLIES, {}).model_dump(),
            errors=by_label(samples, f"{metrics.FAULTS}_total", "code", {}),
            tokens=int(value(samples, f"{metrics.TOKENS}_total", {})),
            first_token=durations(samples, metrics.FIRST, {}),
        ),
        queue=by_label(samples, metrics.QUEUE, "what", {}),
        connections=by_label(samples, metrics.CONNECTIONS, "kind", {}),
    )


def of_operation(samples: Samples, name: str) -> MeasuredOperation:
    """Gather what was counted of an operation."""
    its = {"operation": name}
    return MeasuredOperation(
        **durations(samples, metrics.CALLS, its).model_dump(),
        errors=by_label(samples, f"{metrics.ERRORS}_total", "code", its),
    )


def durations(samples: Samples, name: str, its: Labels) -> Durations:
    """Gather a histogram."""
    ends = sorted(
        (float(labels["le"]), number)
        for labels, number in samples.get(f"{name}_bucket", ())
        if its.items() <= labels.items()
    )
    return Durations(
        count=int(value(samples, f"{name}_count", its)),
        total=value(samples, f"{name}_sum", its),
        p50=quantile(ends, 0.5),
        p95=quantile(ends, 0.95),
        p99=quantile(ends, 0.99),
    )


def value(samples: Samples, name: str, its: Labels) -> float:
    """Return one number; 0 where nothing was counted."""
    found = (number for labels, number in samples.get(name, ()) if its.items() <= labels.items())
    return next(found, 0.0)


def by_label(samples: Samples, name: str, label: str, its: Labels) -> dict[str, int]:
    """Return numbers by one of their labels."""
    return {
        labels[label]: int(number)
        for labels, number in samples.get(name, ())
        if its.items() <= labels.items()
    }
