"""What a search and a write cost when there is much to remember, on disk and in memory too.

    uv run python benchmarks/memory.py --sizes 1000 10000

1,000 memories of one persona, 10,000 of 20, 100,000 of 50 in one world. They are written through
the product's tables, with made-up vectors around real ones; what is measured embeds its texts for
real, with one thread on one core. Each case is measured in a process of its own, as after a start.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, delete, insert

if __name__ == "__main__":  # run as a file, too; its folder has a module that is named as Python's
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.instant import InstantModel, sentence
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.server.operations import catalogue
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.embedding import Vector, pack
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import Source, add_memories
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.persona import PersonaSpec

WORLD = "main"
USER = "sam"
PERSONAS = {1_000: 1, 10_000: 20, 100_000: 50}
BARS_MS = {10_000: 30.0, 100_000: 100.0}
KINDS = ("held", "chroma", "exact")
BATCH = 2000
TALK = 20
"""Turns of one conversation."""
OPEN_EVERY = 50
"""One memory of so many is public."""
CENTRES, NOISE = 400, 0.7
SEARCHES, WRITES, RESULTS = 200, 60, 8
LOOK_S = 0.004
MS, MB = 1000.0, 1e6
SEED = 5


@dataclass(frozen=True)
class Figures:
    """What one case costs.

    Attributes:
        memories: How many there are.
        personas: Of how many; all in one world.
        index: held in memory beside Chroma, or chroma or exact alone.
        search_p50_ms: A search, its embedding included; each persona was searched once before.
        search_p95_ms: Likewise.
        search_cpu_ms: Processor time of a search, the mean, all threads.
        cold_ms: A persona's first search after the start, the median over personas.
        write_p50_ms: From the call until the vector is stored, its embedding included.
        write_p95_ms: Likewise.
        embedding_ms: Embedding one query alone, the median.
        disk_mb: The database, and Chroma's folder if it is used.
        resident_mb: Memory in use at the end, without what is shared or swapped out.
    """

    memories: int
    personas: int
    index: str
    search_p50_ms: float
    search_p95_ms: float
    search_cpu_ms: float
    cold_ms: float
    write_p50_ms: float
    write_p95_ms: float
    embedding_ms: float
    disk_mb: float
    resident_mb: float


def settings_of(folder: Path, index: str) -> Settings:
    """Say where data is and which index serves."""
    its = {"kind": "chroma"} if index == "held" else {"kind": index, "held_each": 0}
    return load_settings(data_dir=folder, index=its, embedder={"threads": 1})


def name_of(number: int) -> str:
    """Name a persona; its id is the same in lower case."""
    return f"Persona{number:02}"


def made_up(base: Vector, count: int, draw: np.random.Generator) -> Vector:
    """Scatter vectors around real ones: float32, shape (count, d), rows of length 1."""
    rows = base[draw.integers(len(base), size=count)]
    noise = draw.standard_normal(rows.shape).astype(np.float32) * (NOISE / rows.shape[1] ** 0.5)
    scattered = rows + noise
    found: Vector = scattered / np.linalg.norm(scattered, axis=1, keepdims=True)
    return found


def batch_of(
    start: int, stop: int, personas: int, draw: random.Random
) -> list[tuple[NewMemory, str]]:
    """Make memories of turns, each with its conversation, as a long talk leaves them behind."""
    found = []
    for number in range(start, stop):
        owner = name_of(number // TALK % personas).lower()
        own = number % 2 == 1
        one = NewMemory(
            id=f"m{number:06}",
            persona_id=owner,
            content=sentence(draw),
            importance=draw.random(),
            importance_terms={},
            witnesses=(USER,),
            speaker_id=owner if own else USER,
            speaker_name=owner if own else USER,
            turn_id=f"t{number:06}",
            visibility="public" if number % OPEN_EVERY == 0 else "private",
        )
        found.append((one, f"c{number // TALK:05}"))
    return found


def write_batch(
    connection: Connection, made: list[tuple[NewMemory, str]], vectors: Vector, model_id: str
) -> None:
    """Write memories and their vectors, and take the work for the index away again."""
    now = time.time() - DAY_S
    talks: dict[str, list[NewMemory]] = {}
    for one, talk in made:
        talks.setdefault(talk, []).append(one)
    for talk, its in talks.items():
        numbers = {one.turn_id or "": number for number, one in enumerate(its, start=1)}
        add_memories(connection, WORLD, its, now, Source(talk, talk, numbers))
    connection.execute(
        insert(tables.MemoryVector),
        [
            {
                "world_id": WORLD,
                "memory_id": one.id,
                "persona_id": one.persona_id,
                "model_id": model_id,
                "version": 1,
                "vector": pack(vector),
            }
            for (one, _), vector in zip(made, vectors, strict=True)
        ],
    )
    connection.execute(delete(tables.OutboxEntry))


async def fill(folder: Path, memories: int, index: str) -> None:
    """Write all memories, and fill the index from them."""
    draw, scatter = random.Random(SEED), np.random.default_rng(SEED)
    personas = PERSONAS.get(memories, 1)
    async with open_service(settings_of(folder, index), InstantModel()) as service:
        for number in range(personas):
            spec = PersonaSpec(name=name_of(number))
            await service.personas.create(WORLD, spec, time.time(), set())
        base = await service.embedder.embed_documents([sentence(draw) for _ in range(CENTRES)])
        for start in range(0, memories, BATCH):
            made = batch_of(start, min(start + BATCH, memories), personas, draw)
            vectors = made_up(base, len(made), scatter)
            await service.database.write(write_batch, made, vectors, service.embedder.model_id)
        await service.index.reconcile(WORLD)


async def measure(folder: Path, memories: int, index: str) -> Figures:
    """Search and write in a filled folder."""
    draw = random.Random(SEED + 1)
    personas = [name_of(number).lower() for number in range(PERSONAS.get(memories, 1))]
    async with open_service(settings_of(folder, index), InstantModel()) as service:
        assert service.index.kind == index, "another process holds the folder"
        await service.embedder.embed_query("warm up")

        async def search(persona: str) -> None:
            await service.memories.search(WORLD, persona, sentence(draw), RESULTS)

        async def write() -> None:
            await remember(service, draw.choice(personas), sentence(draw))

        embedding = [
            await timed(lambda: service.embedder.embed_query(sentence(draw))) for _ in range(50)
        ]
        cold = [await timed(lambda p=p: search(p)) for p in personas]  # type: ignore[misc]
        began = time.process_time()
        searches = [await timed(lambda: search(draw.choice(personas))) for _ in range(SEARCHES)]
        cpu_ms = (time.process_time() - began) * MS / SEARCHES
        writes = [await timed(write) for _ in range(WRITES)]
        resident = resident_mb()
    return Figures(
        memories,
        len(personas),
        index,
        *percentiles(searches),
        cpu_ms,
        median(cold),
        *percentiles(writes),
        median(embedding),
        disk_mb(folder, index),
        resident,
    )


async def remember(service: Service, persona: str, said: str) -> None:
    """Store a memory, and wait until its vector is there."""
    its = {"persona_id": persona, "content": said}
    await call_operation(service, "memory_store", its)
    while await service.indexer.pending():
        await asyncio.sleep(LOOK_S)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Return how long something takes, in milliseconds."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * MS


def percentiles(times: list[float]) -> tuple[float, float]:
    """Return p50 and p95."""
    cut = quantiles(times, n=20)
    return cut[9], cut[18]


def disk_mb(folder: Path, index: str) -> float:
    """Return the size of the files, in 10^6 bytes."""
    files = list(folder.glob("persona.db*"))
    files += (folder / "chroma").rglob("*") if index != "exact" else []
    return sum(file.stat().st_size for file in files if file.is_file()) / MB


def resident_mb() -> float:
    """Return the memory in use, in 10^6 bytes; NaN where the system does not tell it so."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def on_one_core() -> None:
    """Stay on one core, where the system has that; threads that begin later stay there too."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def in_a_process(step: str, folder: Path, memories: int, index: str) -> str:
    """Take a step in a process of its own, and return what it printed."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    command += ["--sizes", str(memories), "--index", index]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def take(step: str, folder: Path, memories: int, index: str) -> None:
    """Take a step in this process."""
    configure_logging(settings_of(folder, index).log)
    catalogue.operations()
    if step == "fill":
        asyncio.run(fill(folder, memories, index))
        return
    on_one_core()
    print(json.dumps(asdict(asyncio.run(measure(folder, memories, index)))))


def measured(sizes: list[int], kinds: list[str]) -> list[Figures]:
    """Fill a folder for each size, and measure it by each index."""
    found = []
    for memories in sizes:
        with tempfile.TemporaryDirectory(prefix="persona-memory-") as name:
            began = time.perf_counter()
            in_a_process("fill", Path(name), memories, kinds[0])
            took = time.perf_counter() - began
            print(f"{memories:,} memories written and indexed in {took:.0f} s", file=sys.stderr)
            # Chroma comes first: what is written for a measurement is not in the other's way.
            for index in kinds:
                printed = in_a_process("measure", Path(name), memories, index)
                found.append(Figures(**json.loads(printed.splitlines()[-1])))
    return found


def show(found: list[Figures]) -> None:
    """Print the table and the bars."""
    table = Table(
        "memories", "index", "search p50", "p95", "CPU", "cold", "write p50", "p95", "embedding"
    )
    table.add_column("disk")
    table.add_column("in use")
    for one in found:
        times = [one.search_p50_ms, one.search_p95_ms, one.search_cpu_ms, one.cold_ms]
        times += [one.write_p50_ms, one.write_p95_ms, one.embedding_ms]
        of = f"{one.memories:,} of {one.personas}"
        sizes = (f"{one.disk_mb:,.0f} MB", f"{one.resident_mb:,.0f} MB")
        table.add_row(of, one.index, *(f"{value:.1f}" for value in times), *sizes)
    Console(width=110).print(table)
    print(
        "times in ms, of the wall but for CPU, on one core; a search and a write embed their text"
    )
    for one in found:
        if (bar := BARS_MS.get(one.memories)) is not None:
            for what, p95 in (("search", one.search_p95_ms), ("write", one.write_p95_ms)):
                held = "held  " if p95 <= bar else "MISSED"
                print(
                    f"{held} {what} p95 {p95:.1f} ms of {one.memories:,} by {one.index}, "
                    f"at most {bar:g}"
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/memory.py", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(PERSONAS))
    parser.add_argument("--index", choices=(*KINDS, "both"), default="both")
    parser.add_argument("--json", action="store_true", help="the figures on the last line")
    parser.add_argument("--step", choices=("fill", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        take(given.step, given.folder, given.sizes[0], given.index)
        return
    found = measured(given.sizes, list(KINDS) if given.index == "both" else [given.index])
    if given.json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        show(found)


if __name__ == "__main__":
    main()
