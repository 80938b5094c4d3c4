"""What an update of a relationship costs at its 10,000th, and a list in a world where all have met.

    python -m benchmarks.relationships --updates 10000

Two personas meet so many times through `relationship_update`. Then they go on, in turn with a pair
that has hardly met, in the same process: the median processor time of the two is compared, which a
noisy machine leaves alone. Then 200 personas have met each other, 39,800 views, and the list of one
of them is timed. Exits with 1 if a bar is missed.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from benchmarks.instant import HashEmbedder, InstantModel
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import IndexSettings, LogSettings, Settings
from persona_mcp.server.operations import catalogue
from persona_mcp.server.operations.registry import REGISTRY, call_operation
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import personas
from persona_mcp.state.effects import RelationshipChange, add_relationship_change
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.relationship import Appraisal, Deltas, Event, Priors, RelationshipParams

MS = 1000.0
WORLD = "main"
COMPARED = 300
"""Updates of each of the two pairs that are compared."""
SOCIETY = 200
LISTS = 30
LIST = "relationship_list"
RATIO_BAR, LIST_BAR_MS = 1.1, 20.0


@dataclass(frozen=True)
class Figures:
    """What was measured; processor time of all threads, medians, in milliseconds.

    Attributes:
        updates: Meetings of the pair before it was compared.
        first_ms: Of its first hundreds.
        last_ms: Of those after so many, in turn with a fresh pair.
        fresh_ms: Of the fresh pair's.
        ratio: last_ms / fresh_ms.
        views: Views in the world of the list.
        list_ms: Of one persona's list; None while there is no such operation.
    """

    updates: int
    first_ms: float
    last_ms: float
    fresh_ms: float
    ratio: float
    views: int
    list_ms: float | None


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Service]:
    """Open a service without models, in a folder of its own."""
    index = IndexSettings(kind="exact")
    settings = Settings(_env_file=None, data_dir=folder, index=index)
    async with open_service(settings, model=InstantModel(), embedder=HashEmbedder()) as service:
        yield service


async def update_ms(service: Service, one: str, other: str, number: int) -> float:
    """Let two meet, and return the processor time of it."""
    given = {"persona1_id": one, "persona2_id": other, "interaction_quality": (-1) ** number * 0.5}
    began = time.process_time()
    await call_operation(service, "relationship_update", given)
    return (time.process_time() - began) * MS


async def growth(folder: Path, updates: int) -> tuple[float, float, float]:
    """Return the cost of the pair's first updates, of its last ones, and of a fresh pair's."""
    async with opened(folder) as service:
        with service.database.writing() as connection:
            meet(connection, 4)
        compared = min(COMPARED, updates)
        first = [await update_ms(service, "p0", "p1", n) for n in range(updates)][:compared]
        last, fresh = [], []
        for number in range(compared):
            last.append(await update_ms(service, "p0", "p1", number))
            fresh.append(await update_ms(service, "p2", "p3", number))
    return median(first), median(last), median(fresh)


def meet(connection: Connection, count: int) -> int:
    """Make so many personas, each of which has met each other one; return how many views."""
    laws, now = RelationshipParams(), time.time()
    deltas = Deltas(affinity=0.2, trust=0.1, respect=0.1, disclosure=0.1, contact=0.1)
    event = Event(at=now, seq=0, deltas=deltas, appraisal=Appraisal(warmth=0.5), minutes=5)
    names = [f"p{number}" for number in range(count)]
    for name in names:
        personas.add(connection, WORLD, PersonaSpec.model_validate({"name": name}), now)
    pairs = list(permutations(names, 2))
    for one, other in pairs:
        change = RelationshipChange(f"{one}-{other}", one, other, event, Priors(), "they met")
        add_relationship_change(connection, WORLD, None, change, laws)
    return len(pairs)


async def listing(folder: Path, count: int) -> tuple[int, float | None]:
    """Return how many views there are in a world of so many personas, and what one's list costs."""
    async with opened(folder) as service:
        with service.database.writing() as connection:
            views = meet(connection, count)
        if LIST not in REGISTRY:
            return views, None
        costs = []
        for _ in range(LISTS):
            began = time.process_time()
            await call_operation(service, LIST, {"persona_id": "p7", "limit": 200})
            costs.append((time.process_time() - began) * MS)
        return views, median(costs)


async def measure(updates: int, count: int) -> Figures:
    """Measure both, each in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="persona-relationships-") as folder:
        first, last, fresh = await growth(Path(folder) / "pair", updates)
        views, list_ms = await listing(Path(folder) / "society", count)
    return Figures(updates, first, last, fresh, last / fresh, views, list_ms)


def show(found: Figures) -> bool:
    """Print the table and the bars; tell whether they hold."""
    table = Table("processor time of", "ms, median")
    table.add_row(f"an update, the first of {found.updates:,}", f"{found.first_ms:.2f}")
    table.add_row(f"an update after {found.updates:,}", f"{found.last_ms:.2f}")
    table.add_row("an update of a fresh pair, in turn with it", f"{found.fresh_ms:.2f}")
    if found.list_ms is not None:
        table.add_row(f"a list of one's views, of {found.views:,}", f"{found.list_ms:.2f}")
    Console(width=100).print(table)
    bars = [("ratio", found.ratio, RATIO_BAR)]
    bars += [("list, ms", found.list_ms, LIST_BAR_MS)] if found.list_ms is not None else []
    for what, value, bar in bars:
        print(f"{'held  ' if value <= bar else 'MISSED'} {what} {value:.3f}, at most {bar:g}")
    return all(value <= bar for _, value, bar in bars)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relationships")
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--personas", type=int, default=SOCIETY)
    parser.add_argument("--json", action="store_true", help="figures as JSON, without bars")
    given = parser.parse_args()
    configure_logging(LogSettings(level="ERROR"))
    catalogue.operations()
    found = asyncio.run(measure(given.updates, given.personas))
    if given.json:
        print(json.dumps(asdict(found)))
        return
    sys.exit(0 if show(found) else 1)


if __name__ == "__main__":
    main()
