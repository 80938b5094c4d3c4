"""What is told of the steps of a call while they are taken, to count, time and trace them.

```
Watch    counts and times what runs below the operations: nodes of graphs, transactions
Tracer   writes spans, where the settings ask for it
Span     one of them
```
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

Access = Literal["read", "write"]
Fact = str | int | float | bool | tuple[str, ...]
Facts = Mapping[str, Fact]
"""By the name of an attribute; never a text that somebody said, nor a path or a key."""
SpanKind = Literal["server", "client", "internal"]
NOTHING = nullcontext()


class Watch(Protocol):
    """Watches steps; each method gives a block that lasts as long as its step."""

    def node(self, graph: str, node: str) -> AbstractContextManager[None]:
        """Watch a node of a graph."""
        ...

    def transaction(self, kind: Access, asked: float) -> AbstractContextManager[None]:
        """Watch a transaction, in the thread that it runs in.

        Args:
            kind: Whether it writes.
            asked: When it was asked for, in seconds of `time.perf_counter`.
        """
        ...


class Unwatched:
    """Watches nothing."""

    def node(self, graph: str, node: str) -> AbstractContextManager[None]:
        """Let a node run."""
        return NOTHING

    def transaction(self, kind: Access, asked: float) -> AbstractContextManager[None]:
        """Let a transaction run."""
        return NOTHING


class Span(Protocol):
    """One step of a trace."""

    def note(self, facts: Facts) -> None:
        """Add attributes."""
        ...

    def end(self, fault: str | None = None) -> None:
        """End it; with the code of the error that it failed with, if it did."""
        ...


class Tracer(Protocol):
    """Writes spans.

    Attributes:
        servers: What a span of a call to a provider of models says of its server, by the provider.
    """

    servers: Mapping[str, Facts]

    def call(
        self, name: str, carrier: Mapping[str, str], facts: Facts
    ) -> AbstractContextManager[Span]:
        """Begin a trace at a door, or go on with the caller's; log lines have its id meanwhile.

        Args:
            name: Of a bounded set.
            carrier: The caller's headers, by names in lower case: `traceparent`, `tracestate`.
            facts: Attributes.
        """
        ...

    def inside(self, span: Span) -> AbstractContextManager[None]:
        """Go on below a span that another task began."""
        ...

    def span(self, name: str, kind: SpanKind, facts: Facts) -> AbstractContextManager[Span]:
        """Write a step below the present one; it has failed if the block raises."""
        ...

    def begin(self, name: str, kind: SpanKind, facts: Facts) -> Span:
        """Begin a step below the present one that its holder ends; nothing is below it."""
        ...
