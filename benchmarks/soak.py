"""Tens of thousands of exchanges with one server, and what grows meanwhile.

    python -m benchmarks.soak --exchanges 20000

Chroma is a server of its own, as for `benchmarks.load`. Watched are memory in use, file handles,
tasks and threads of the process, MCP sessions, and rows and bytes of each table. Prints a table of
looks and what grew. Rows grow by what an exchange leaves behind; nothing else may grow. Exits with
1 if something else did.
"""

import argparse
import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.faults.load import Load, loaded
from benchmarks.faults.looking import look
from benchmarks.faults.site import Site
from benchmarks.load import CALL_S, INDEXES, MB, SLOPE_BAR, Point, served, slope

SESSIONS = 20
LOOKS = 20
PATIENCE_S = 3600.0
METRICS = "/metrics"
WARM_UP = 0.3
LEAST_EXCHANGES = 3000
"""Until then caches fill, which looks like a leak."""
FILES_MORE, THREADS_MORE = 20, 8
"""How many more a process may hold at the end than after the warm-up."""
KEPT = ("persona.db", "checkpoints.db")
NAMES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
    "AND sql NOT LIKE 'CREATE VIRTUAL%'"
)


@dataclass(frozen=True)
class Look:
    """What there was at one moment.

    Attributes:
        exchanges: Acknowledged so far.
        memory: In use (resident), in bytes.
        files: Open file handles, sockets too.
        threads: Of the process.
        metrics: Gauges that the server shows of itself: tasks, sessions and so on.
        rows: By table.
        bytes: Of each database with its log.
    """

    exchanges: int
    memory: int
    files: int
    threads: int
    metrics: dict[str, float]
    rows: dict[str, int]
    bytes: dict[str, int]


async def look_at(one: Site, load: Load) -> Look:
    """Look at the server and its tables."""
    rows, sizes = await asyncio.to_thread(tables_of, one.data)
    async with one.client() as client:
        told = await client.get(one.url + METRICS)
    return Look(
        exchanges=len(load.said),
        memory=one.memory(),
        files=one.open_files(),
        threads=one.threads(),
        metrics=gauges(told.text),
        rows=rows,
        bytes=sizes,
    )


def gauges(text: str) -> dict[str, float]:
    """Read the gauges of Prometheus' format; counters grow by their nature."""
    kinds: dict[str, str] = {}
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            if kinds.get(name.partition("{")[0]) == "gauge":
                found[name] = float(value)
    return found


def tables_of(data: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Count rows by table, and bytes by file."""
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for file in KEPT:
        with closing(sqlite3.connect(f"file:{data / file}?mode=ro", uri=True)) as connection:
            for (name,) in connection.execute(NAMES).fetchall():
                query = f'SELECT count(*) FROM "{name}"'
                rows[f"{file}: {name}"] = connection.execute(query).fetchone()[0]
        sizes[file] = sum(part.stat().st_size for part in data.glob(f"{file}*"))
    return rows, sizes


async def soak(
    folder: Path, exchanges: int, sessions: int = SESSIONS, index: str = INDEXES[0]
) -> list[Look]:
    """Talk until so many exchanges were acknowledged, and look now and then.

    Args:
        folder: An empty one.
        exchanges: How many.
        sessions: How many at once.
        index: Which dense index, as for `benchmarks.load`.

    Raises:
        RuntimeError: Something was lost or doubled.
    """
    looks: list[Look] = []
    async with served(folder, index) as one:
        async with loaded(one, sessions, limit_s=CALL_S) as load:
            for number in range(1, LOOKS + 1):
                wanted = exchanges * number // LOOKS
                await load.until(
                    lambda wanted=wanted: len(load.said) >= wanted, "exchanges", PATIENCE_S
                )
                looks.append(await look_at(one, load))
        found = await look(one.settings, load.said)
    if found.faults:
        raise RuntimeError("; ".join(found.faults))
    return looks


def grown(looks: Sequence[Look]) -> list[str]:
    """Say what grew that may not."""
    later = looks[round(WARM_UP * len(looks)) :]
    first, last = later[0], later[-1]
    found = []
    rise = slope([Point(look.exchanges, look.memory, 0.0) for look in later])
    if rise >= SLOPE_BAR:
        found.append(f"memory: {rise:.2f} MB per 1,000 exchanges")
    if last.files - first.files > FILES_MORE:
        found.append(f"file handles: from {first.files} to {last.files}")
    if last.threads - first.threads > THREADS_MORE:
        found.append(f"threads: from {first.threads} to {last.threads}")
    return found


def show(looks: Sequence[Look]) -> None:
    """Print the looks, then the tables that grew and by how much an exchange."""
    table = Table("exchanges", "memory MB", "files", "threads", *(f"{file} MB" for file in KEPT))
    for one in looks:
        table.add_row(
            *(f"{one.exchanges:,}", f"{one.memory / MB:.0f}", str(one.files), str(one.threads)),
            *(f"{one.bytes[file] / MB:.1f}" for file in KEPT),
        )
    Console(width=100).print(table)
    first, last = looks[0], looks[-1]
    more = max(1, last.exchanges - first.exchanges)
    growth = Table("what", "at first", "at last", "an exchange")
    before: dict[str, float] = {**first.rows, **first.metrics}
    after: dict[str, float] = {**last.rows, **last.metrics}
    for name, value in after.items():
        if value != before.get(name, 0):
            rise = (value - before.get(name, 0)) / more
            growth.add_row(name, f"{before.get(name, 0):,.0f}", f"{value:,.0f}", f"{rise:.3f}")
    Console(width=100).print(growth)


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--exchanges", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--index", choices=INDEXES, default=INDEXES[0], help="dense index")
    given = parser.parse_args()
    if given.exchanges < LEAST_EXCHANGES:
        parser.error(f"--exchanges: at least {LEAST_EXCHANGES}, since caches fill until then")
    with tempfile.TemporaryDirectory(prefix="persona-soak-") as folder:
        work = soak(Path(folder), given.exchanges, given.sessions, given.index)
        looks = asyncio.run(work)
    show(looks)
    wrong = grown(looks)
    print("\n".join(f"GREW: {one}" for one in wrong) or "nothing grew that may not")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
