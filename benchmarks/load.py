"""Hundreds of sessions at once, with a model that answers at once: errors, processor time, memory.

    python -m benchmarks.load --sessions 500 --minutes 10

All sessions talk to one `persona serve` process, before and after them one session alone: what is
remembered grows meanwhile, and a search in it costs more at the end, however many talk. Chroma is a
server of its own, as docs/running.md sets it up for many callers: vectors are kept in memory by
their nature, and here not by the process whose memory is watched (`--index embedded` and
`--index exact` keep them in it). Exits with 1 if a caller was told of an error other than a stated
limit, if an exchange costs more than 1.3 times the processor time that it costs one session, if
memory in use rises by 1 MB or more per 1,000 exchanges after the warm-up (until all windows are
full; it comes before the minutes), or if anything that was acknowledged is lost or doubled.
"""

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.faults.load import Load, loaded
from benchmarks.faults.looking import look
from benchmarks.faults.site import Site, site
from tests.chroma_server import HOST, chroma_server, free_port

LIMITS = ("rate_limited", "limit_exceeded")
"""Errors that state a limit and say when to come back."""
CPU_BAR, SLOPE_BAR = 1.3, 1.0
ALONE = 60
"""Exchanges of the one session."""
WARM_UP = 10
"""Exchanges of each session: what a run holds grows until a prompt shows its 20 turns."""
EVERY_S = 2.0
WARMED_S, INDEXED_S, QUIET_S = 3600.0, 600.0, 0.05
MB = 1e6
THOUSAND = 1000
LEAST_POINTS = 3
READY = "/health/ready"
INDEXES = ("server", "embedded", "exact")
"""Chroma in a server of its own, Chroma in the process, and vectors from SQL in the process."""
GIVEN = {
    "PERSONA_LLM__QUEUE_S": "600",
    "PERSONA_CONVERSATION__REPLY_WAIT_S": "300",
    "PERSONA_CONVERSATION__BUSY_WAIT_S": "60",
    "PERSONA_DATABASE__BUSY_S": "60",
}
"""All of them wait for the same two processors: waits may be long, none is refused for it."""
CALL_S = 330.0
"""Longest wait of a caller for an answer, in seconds."""


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
        before_ms: Processor time of an exchange of one session before the others come, in
            milliseconds.
        after_ms: The same when they are gone.
        cpu_ms: Of one of all sessions.
        slope_mb: Growth of memory in use per 1,000 exchanges after the warm-up, in MB.
        memory_mb: In use at the end, in MB.
        refused: Errors by code.
        faults: What was lost, doubled or half there.
    """

    sessions: int
    seconds: float
    exchanges: int
    before_ms: float
    after_ms: float
    cpu_ms: float
    slope_mb: float
    memory_mb: float
    refused: dict[str, int]
    faults: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Processor time of an exchange, as a multiple of that of one session before and after."""
        return self.cpu_ms / mean((self.before_ms, self.after_ms))

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


@contextmanager
def index_beside(folder: Path, index: str) -> Iterator[dict[str, str]]:
    """Start a Chroma server, if that is the index, and give the settings of who uses it."""
    if index != "server":
        yield {"PERSONA_INDEX__KIND": "exact" if index == "exact" else "chroma"}
        return
    port = free_port()
    with chroma_server(folder, port):
        yield {"PERSONA_INDEX__KIND": "chroma", "PERSONA_INDEX__URL": f"http://{HOST}:{port}"}


@asynccontextmanager
async def served(folder: Path, index: str) -> AsyncIterator[Site]:
    """Start the server with one of `INDEXES`.

    Raises:
        RuntimeError: It uses another one, so that another thing would be measured.
    """
    with index_beside(folder / "chroma", index) as beside:
        async with site(folder, {**GIVEN, **beside}, word_s=0.0) as one:
            async with one.client() as client:
                checks = (await client.get(one.url + READY)).json()["checks"]
            used = checks["vector_index"]["detail"].partition(";")[0]
            if used != beside["PERSONA_INDEX__KIND"]:
                raise RuntimeError(f"the server's dense index is {used}, not {index}")
            yield one


async def indexed(one: Site, load: Load) -> Point:
    """Look at the server when all that was said is in the index: that work is part of the cost."""
    with closing(sqlite3.connect(one.data / "persona.db")) as connection:
        async with asyncio.timeout(INDEXED_S):
            while connection.execute("SELECT EXISTS (SELECT 1 FROM outbox)").fetchone()[0]:
                await asyncio.sleep(QUIET_S)
    return point_of(one, load)


async def alone(one: Site, name: str, exchanges: int) -> tuple[Load, float]:
    """Talk in one session, and return what it did and the processor time of an exchange."""
    async with loaded(one, 1, name, limit_s=CALL_S) as single:
        await single.more(exchanges // 2)  # warm
        began = await indexed(one, single)
        await single.more(exchanges)
    return single, cost_ms(began, await indexed(one, single))


async def measure(
    folder: Path,
    sessions: int,
    seconds: float,
    exchanges: int = ALONE,
    every_s: float = EVERY_S,
    index: str = INDEXES[0],
    warm_up: int = WARM_UP,
) -> Result:
    """Talk alone, then all at once, then alone again.

    Args:
        folder: An empty one.
        sessions: How many at once.
        seconds: For how long.
        exchanges: Of the one session.
        every_s: Wait between two looks, in seconds.
        index: Which dense index, of `INDEXES`.
        warm_up: Exchanges of each session before it is looked at.
    """
    async with served(folder, index) as one:
        before, before_ms = await alone(one, "before", exchanges)
        async with loaded(one, sessions, limit_s=CALL_S) as load:
            full = sessions * warm_up
            await load.until(lambda: len(load.said) >= full, "full windows", WARMED_S)
            points = await watched(one, load, seconds, every_s)
        all_done = await indexed(one, load)
        after, after_ms = await alone(one, "after", exchanges)
        found = await look(one.settings, [*before.said, *load.said, *after.said])
    return Result(
        sessions=sessions,
        seconds=seconds,
        exchanges=len(load.said),
        before_ms=before_ms,
        after_ms=after_ms,
        cpu_ms=cost_ms(points[0], all_done),
        slope_mb=slope(points),
        memory_mb=points[-1].memory / MB,
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
    table.add_row("processor time alone, before", f"{result.before_ms:.1f} ms", "")
    table.add_row("processor time alone, after", f"{result.after_ms:.1f} ms", "")
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
    parser.add_argument("--index", choices=INDEXES, default=INDEXES[0], help="dense index")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="persona-load-") as folder:
        work = measure(Path(folder), given.sessions, given.minutes * 60, index=given.index)
        result = asyncio.run(work)
    show(result)
    sys.exit(1 if result.missed else 0)


if __name__ == "__main__":
    main()
