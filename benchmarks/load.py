"""Hundreds of sessions at once, with a model that answers at once: errors, processor time, memory.

    python -m benchmarks.load --sessions 500 --minutes 10

First one session alone, then all of them, against one `persona serve` process. Exits with 1 if a
caller was told of an error other than a stated limit, if an exchange costs more than 1.3 times the
processor time that it costs one session, if memory in use rises by 1 MB or more per 1,000 exchanges
after the warm-up, or if anything that was acknowledged is lost or doubled.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.faults.load import Load, loaded
from benchmarks.faults.looking import look
from benchmarks.faults.site import Site, site

LIMITS = ("rate_limited", "limit_exceeded")
"""Errors that state a limit and say when to come back."""
CPU_BAR, SLOPE_BAR = 1.3, 1.0
ALONE = 60
"""Exchanges of the one session."""
WARM_UP = 0.3
"""Share of the run that comes before memory is looked at."""
EVERY_S = 2.0
MB = 1e6
THOUSAND = 1000
LEAST_POINTS = 3
GIVEN = {
    "PERSONA_LLM__QUEUE_S": "600",
    "PERSONA_CONVERSATION__BUSY_WAIT_S": "60",
    "PERSONA_DATABASE__BUSY_S": "60",
}
"""All of them wait for the same two processors: waits may be long, none is refused for it."""


@dataclass(frozen=True)
class Point:
    """A look at the server.

    Attributes:
        exchanges: Acknowledged so far.
        memory: In use (resident), in bytes.
        cpu_s: Processor time used so far, in seconds.
    """

    exchanges: int
    memory: int
    cpu_s: float


@dataclass(frozen=True)
class Result:
    """What came of a load.

    Attributes:
        sessions: At once.
        seconds: How long.
        exchanges: Acknowledged.
        alone_ms: Processor time of an exchange of one session, in milliseconds.
        cpu_ms: Of one of all sessions.
        slope_mb: Growth of memory in use per 1,000 exchanges after the warm-up, in MB.
        memory_mb: In use at the end, in MB.
        refused: Errors by code.
        faults: What was lost, doubled or half there.
    """

    sessions: int
    seconds: float
    exchanges: int
    alone_ms: float
    cpu_ms: float
    slope_mb: float
    memory_mb: float
    refused: dict[str, int]
    faults: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Processor time of an exchange, as a multiple of that of one session."""
        return self.cpu_ms / self.alone_ms

    @property
    def missed(self) -> list[str]:
        """Say which bars were missed."""
        errors = {code: count for code, count in self.refused.items() if code not in LIMITS}
        found = [f"errors that state no limit: {errors}"] if errors else []
        if self.ratio > CPU_BAR:
            found.append(f"an exchange costs {self.ratio:.2f} times that of one session")
        if self.slope_mb >= SLOPE_BAR:
            found.append(f"memory rises by {self.slope_mb:.2f} MB per 1,000 exchanges")
        return [*found, *self.faults]


def slope(points: Sequence[Point]) -> float:
    """Fit a line through memory over exchanges; its rise in MB per 1,000 exchanges."""
    exchanges = np.array([point.exchanges for point in points], dtype=float)
    memory = np.array([point.memory for point in points], dtype=float)
    if len(points) < LEAST_POINTS or exchanges[0] == exchanges[-1]:
        return 0.0
    return float(np.polyfit(exchanges, memory, 1)[0]) * THOUSAND / MB


def point_of(one: Site, load: Load) -> Point:
    """Look at the server."""
    return Point(len(load.said), one.memory(), one.processor_s())


async def watched(one: Site, load: Load, seconds: float, every_s: float) -> list[Point]:
    """Look at the server now and then for so long."""
    ends = time.monotonic() + seconds
    points = [point_of(one, load)]
    while time.monotonic() < ends:
        await asyncio.sleep(min(every_s, max(0.0, ends - time.monotonic())))
        points.append(point_of(one, load))
    return points


async def measure(
    folder: Path, sessions: int, seconds: float, alone: int = ALONE, every_s: float = EVERY_S
) -> Result:
    """Talk alone, then all at once.

    Args:
        folder: An empty one.
        sessions: How many at once.
        seconds: For how long.
        alone: Exchanges of the one session.
        every_s: Wait between two looks, in seconds.
    """
    async with site(folder, GIVEN, word_s=0.0) as one:
        async with loaded(one, 1, "warm") as warm:
            await warm.more(alone // 2)
        async with loaded(one, 1, "alone") as single:
            began = point_of(one, single)
            await single.more(alone)
            ended = point_of(one, single)
        async with loaded(one, sessions) as load:
            await load.more(sessions)  # each has its conversation
            points = await watched(one, load, seconds, every_s)
        found = await look(one.settings, [*warm.said, *single.said, *load.said])
    later = points[round(WARM_UP * len(points)) :]
    first, last = later[0], later[-1]
    return Result(
        sessions=sessions,
        seconds=seconds,
        exchanges=len(load.said),
        alone_ms=cost_ms(began, ended),
        cpu_ms=cost_ms(first, last),
        slope_mb=slope(later),
        memory_mb=last.memory / MB,
        refused=dict(load.refused),
        faults=found.faults,
    )


def cost_ms(first: Point, last: Point) -> float:
    """Return the processor time of an exchange between two looks, in milliseconds."""
    return (last.cpu_s - first.cpu_s) * THOUSAND / max(1, last.exchanges - first.exchanges)


def show(result: Result) -> None:
    """Print what was measured."""
    table = Table("what", "value", "bar")
    table.add_row("sessions", f"{result.sessions:,}", "")
    table.add_row("exchanges", f"{result.exchanges:,} in {result.seconds:,.0f} s", "")
    table.add_row("errors", str(result.refused or "none"), "stated limits only")
    table.add_row("processor time alone", f"{result.alone_ms:.1f} ms", "")
    table.add_row("processor time of all", f"{result.cpu_ms:.1f} ms", "")
    table.add_row("ratio", f"{result.ratio:.2f}", f"at most {CPU_BAR:g}")
    table.add_row("memory, rise per 1,000", f"{result.slope_mb:.2f} MB", f"below {SLOPE_BAR:g} MB")
    table.add_row("memory at the end", f"{result.memory_mb:.0f} MB", "")
    table.add_row("lost, doubled, half there", str(len(result.faults)), "0")
    Console(width=100).print(table)
    for missed in result.missed:
        print(f"MISSED: {missed}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="persona-load-") as folder:
        result = asyncio.run(measure(Path(folder), given.sessions, given.minutes * 60))
    show(result)
    sys.exit(1 if result.missed else 0)


if __name__ == "__main__":
    main()
