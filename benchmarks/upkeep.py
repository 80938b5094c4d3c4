"""What fading and pruning cost with many memories, and whether the event loop feels it.

    uv run python benchmarks/upkeep.py --memories 100000

Once as the memories of one persona, once of 50 in one world, on the loop that `persona serve` runs
on. A stall is how much later than asked the event loop wakes up. The longest stall of each turn is
taken, and of these the median; the work takes turns with two controls, each for as long:

- `idle`: nothing happens at all;
- `woken`: nothing is done either, but threads that only sleep wake the loop as often as the work's.

Timers of the loop are whole milliseconds, so that one that is woken before they are due wakes up to
1 ms late. That is no stall of ours: what the work adds is what it has over the loop that is woken
as often, and that is held against the bar. Both are printed.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, insert

if __name__ == "__main__":  # run as a file, too; its folder has a module that is named as Python's
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.exchange import bar
from benchmarks.instant import sentence
from persona_mcp.config.database import ready_database
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings, Settings
from persona_mcp.server.event_loop import busy_runner
from persona_mcp.state.database import Database
from persona_mcp.state.memory.columns import read_columns
from persona_mcp.state.memory.prune_store import PruneStore
from persona_mcp.state.memory.pruning import days_since
from persona_mcp.state.memory.retention import retention
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.tables import Memory, MemoryUse

NOW = 1_700_000_000.0
TICK_S = 0.001
ROUNDS = 21
AT_ONCE = 5000
OLDEST_DAYS, USED_EACH = 500, 5
RETENTION_BAR_S, RECOMMENDATION_BAR_S, STALL_BAR = 1.0, 2.0, 2.0


@dataclass(frozen=True)
class Figures:
    """What it costs, medians over the rounds.

    Attributes:
        memories: How many.
        personas: Of how many.
        read_s: Reading the numbers of all from SQL.
        retention_s: Computing what is left of all.
        recommendation_s: Recommending for all, reading included.
        stall_ms: Longest stall meanwhile.
        idle_ms: Longest stall of the idle loop.
        woken_ms: Longest stall of the idle loop that is woken as often.
    """

    memories: int
    personas: int
    read_s: float
    retention_s: float
    recommendation_s: float
    stall_ms: float
    idle_ms: float
    woken_ms: float


async def longest_stall(work: Awaitable[object]) -> float:
    """Wait for some work, and return the longest stall of the event loop meanwhile, in seconds."""
    task, longest = asyncio.ensure_future(work), 0.0
    while not task.done():
        began = time.perf_counter()
        await asyncio.sleep(TICK_S)
        longest = max(longest, time.perf_counter() - began - TICK_S)
    await task
    return longest


def fill(connection: Connection, world_id: str, memories: int, personas: int) -> None:
    """Store memories of ages and importance of all kinds; every fifth was used."""
    draw = random.Random(7)
    same = {
        "world_id": world_id,
        "memory_type": "conversation",
        "importance_terms": {},
        "related_personas": [],
        "details": {},
    }
    for start in range(0, memories, AT_ONCE):
        rows, uses = [], []
        for number in range(start, min(memories, start + AT_ONCE)):
            text, made = sentence(draw), NOW - draw.random() * OLDEST_DAYS * DAY_S
            id = f"{draw.getrandbits(128):032x}"
            rows.append(
                {
                    **same,
                    "id": id,
                    "persona_id": f"p{number % personas}",
                    "content": text,
                    "indexed_text": text,
                    "importance": draw.random(),
                    "created_at": made,
                    "updated_at": made,
                }
            )
            if number % USED_EACH == 0:
                use = {"world_id": world_id, "memory_id": id, "exchange_id": f"x{number}"}
                uses.append({**use, "conversation_id": f"c{number % 97}", "at": made + 1})
        connection.execute(insert(Memory), rows)
        connection.execute(insert(MemoryUse), uses)


async def measure(database: Database, settings: Settings, memories: int, personas: int) -> Figures:
    """Store, and take turns between the work and nothing."""
    world_id = f"world-{personas}"
    await PersonaStore(database).ensure_world(world_id, world_id, [], NOW)
    await database.write(fill, world_id, memories, personas)
    store = PruneStore(database, settings.retention, settings.pruning)
    whose = [f"p{number}" for number in range(personas)]

    def retained(connection: Connection) -> tuple[float, float]:
        began = time.perf_counter()
        read = [read_columns(connection, world_id, persona) for persona in whose]
        computing = time.perf_counter()
        for one in read:
            age = days_since(one.created_at, NOW)
            retention(age, one.importance, one.accesses, one.pinned, settings.retention)
        return computing - began, time.perf_counter() - computing

    async def recommended() -> None:
        for persona in whose:
            await store.plan(world_id, persona, NOW, forced=False)

    async def slept(seconds: float) -> None:
        for _ in whose:
            await database.read(lambda _: time.sleep(seconds / personas))

    reading, computing, took, stalls, idle, woken = [], [], [], [], [], []
    for _ in range(ROUNDS):
        read_s, retention_s = await database.read(retained)
        reading.append(read_s)
        computing.append(retention_s)
        began = time.perf_counter()
        stalls.append(await longest_stall(recommended()))
        took.append(time.perf_counter() - began)
        idle.append(await longest_stall(asyncio.sleep(took[-1])))
        woken.append(await longest_stall(slept(took[-1])))
    return Figures(
        memories=memories,
        personas=personas,
        read_s=median(reading),
        retention_s=median(computing),
        recommendation_s=median(took),
        stall_ms=median(stalls) * 1000,
        idle_ms=median(idle) * 1000,
        woken_ms=median(woken) * 1000,
    )


async def all_of(settings: Settings, memories: int) -> list[Figures]:
    """Measure as one persona's, and as those of 50."""
    database = await ready_database(settings)
    try:
        return [await measure(database, settings, memories, personas) for personas in (1, 50)]
    finally:
        await database.aclose()


def bars(found: Figures) -> list[str]:
    """Compare the figures with what the product holds itself to."""
    ratio, to_idle = found.stall_ms / found.woken_ms, found.stall_ms / found.idle_ms
    return [
        bar(
            found.retention_s <= RETENTION_BAR_S,
            f"retention of all in {found.retention_s:.3f} s, at most {RETENTION_BAR_S:g}",
        ),
        bar(
            found.recommendation_s <= RECOMMENDATION_BAR_S,
            f"a recommendation in {found.recommendation_s:.2f} s, at most {RECOMMENDATION_BAR_S:g}",
        ),
        bar(
            ratio <= STALL_BAR,
            f"longest stall {ratio:.2f} times that of an idle loop that is woken as often, at most "
            f"{STALL_BAR:g} ({to_idle:.2f} times that of one that is not)",
        ),
    ]


def show(found: list[Figures]) -> None:
    """Print the table and what it says of the bars."""
    table = Table("memories", "personas", "read s", "retention s", "recommend s")
    for name in ("stall", "idle", "woken"):
        table.add_column(name)
    for f in found:
        seconds = (f"{value:.3f}" for value in (f.read_s, f.retention_s, f.recommendation_s))
        stalls = (f"{value:.1f} ms" for value in (f.stall_ms, f.idle_ms, f.woken_ms))
        table.add_row(f"{f.memories:,}", str(f.personas), *seconds, *stalls)
    Console(width=100).print(table)
    for f in found:
        print(f"of {f.personas} persona{'s' if f.personas > 1 else ''}:")
        print("\n".join(bars(f)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/upkeep.py", description=__doc__)
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="figures as JSON, without bars")
    given = parser.parse_args()
    configure_logging(LogSettings())
    with tempfile.TemporaryDirectory(prefix="persona-upkeep-") as folder:
        settings = load_settings(data_dir=Path(folder))
        with busy_runner() as runner:  # as `persona serve` runs
            found = runner.run(all_of(settings, given.memories))
    if given.json:
        print(json.dumps([asdict(f) for f in found]))
    else:
        show(found)


if __name__ == "__main__":
    main()
