"""What grows how with a batch: rows, bytes, calls and hours, up to a million dialogues.

    uv run python -m benchmarks.scale [--dialogues 60] [--write] [--json]

Small real batches are held, up to their last output, by a model that answers at once: one whose
dialogues are short, and one whose dialogues are long. What a dialogue costs whatever its length,
and what each turn of it adds, is the line through both. From these figures everything else is
computed: nothing is guessed but what stands in `Assumed`. `--write` puts both tables into
docs/scale.md.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.batch import TimedModel, people, specification
from benchmarks.instant import HashEmbedder
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings
from persona_mcp.server.batch.batches import run_batch
from persona_mcp.server.batch.casts import read_casts
from persona_mcp.server.batch.dialogue_host import DialogueHost, dialogue_host
from persona_mcp.server.batch.folder import begin_folder
from persona_mcp.server.batch.local_engine import LocalEngine
from persona_mcp.server.batch.model_pool import ModelPool, Post
from persona_mcp.server.batch.results import BEGUN, finish
from persona_mcp.server.batch.rows import NAME as STORE
from persona_mcp.server.batch.settings import begun_with
from persona_mcp.server.batch.store import BatchStore
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.batch.plan import plan_batch
from persona_mcp.state.batch.values import Cast
from persona_mcp.state.dialogue_spec import START
from persona_mcp.state.folding import fold

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
SHORT, LONG = 4, 12
"""Turns of the dialogues of the two batches that are measured."""
DIALOGUES = 60
SLOTS = 16
SIZES = (1_000, 10_000, 100_000, 1_000_000)
NEXT_TO_EACH_OTHER = ("run.db-wal", "run.db-shm", "run.lock")
"""Files of a running batch alone."""
HOUR_S = 3600.0
UNITS = ("B", "kB", "MB", "GB", "TB")
STEP = 1000.0


@dataclass(frozen=True)
class Assumed:
    """What the computed table is for: none of it is measured.

    Attributes:
        turns: Of a dialogue.
        seconds: That the model takes for a reply.
        slots: Replies that it makes at once.
        processors: That hold dialogues.
    """

    turns: int = 12
    seconds: float = 1.0
    slots: int = 64
    processors: int = 8


@dataclass(frozen=True)
class Cost:
    """How much of something dialogues take.

    Attributes:
        dialogue: Whatever the dialogue's length.
        turn: Added by each of its turns.
    """

    dialogue: float
    turn: float

    def of(self, dialogues: int, turns: int) -> float:
        """Return how much so many dialogues of so many turns take."""
        return dialogues * (self.dialogue + turns * self.turn)


@dataclass(frozen=True)
class Measured:
    """What was measured, by what it is of.

    Attributes:
        rows: Rows of what dialogues added to their worlds.
        calls: Of the model.
        store: Bytes of run.db.
        results: Bytes of all other files.
        world: Bytes that the world of a run grows by, in memory.
        cpu_ms: Own processor time, in milliseconds.
    """

    rows: Cost
    calls: Cost
    store: Cost
    results: Cost
    world: Cost
    cpu_ms: Cost


@dataclass(frozen=True)
class Sample:
    """One batch.

    Attributes:
        turns: Of each of its dialogues.
        of_one: What one dialogue took on average, by the fields of `Measured`.
    """

    turns: int
    of_one: Mapping[str, float]


KINDS = tuple(Measured.__dataclass_fields__)


async def sample(dialogues: int, turns: int) -> Sample:
    """Hold a batch to its last output, and see what it took."""
    spec, model = specification(dialogues, turns), TimedModel(0.0)
    plan = plan_batch(spec)
    with tempfile.TemporaryDirectory(prefix="persona-scale-") as name:
        path = Path(name) / "out"
        settings = load_settings(data_dir=Path(name) / "data")
        host = dialogue_host(settings, HashEmbedder())
        async with begin_folder(path, json.dumps(spec.model_dump(mode="json")).encode()) as folder:
            casts = await read_casts(plan.arms, people)
            await asyncio.to_thread(folder.write_casts, casts)
            began = begun_with(settings, host.embedder.model_id, (await model.info()).id)
            await folder.store.note_fact(BEGUN, began)
            pool = ModelPool([Post("instant", model, SLOTS)])
            engine = LocalEngine(host, pool, None, folder.store.keep_call)
            started = time.process_time()
            await run_batch(
                plan, casts, folder.store, engine, Worlds(host), unheard, asyncio.Event()
            )
            await finish(folder, plan, casts, settings)
            cpu_s = time.process_time() - started
            rows = sum(
                len(added) for outcome in folder.store.outcomes() for added in outcome.rows.values()
            )
            world = await grown(host, await people(plan.arms[0]), folder.store)
            await engine.aclose()
        files = {one.name: one.stat().st_size for one in path.iterdir() if one.is_file()}
    store = files.pop(STORE)
    results = sum(size for one, size in files.items() if one not in NEXT_TO_EACH_OTHER)
    whole = (rows, model.calls, store, results, world, cpu_s * STEP)
    return Sample(turns, dict(zip(KINDS, (each / dialogues for each in whole), strict=True)))


async def grown(host: DialogueHost, cast: Cast, store: BatchStore) -> int:
    """Return how many bytes a world grows by that all dialogues become part of."""
    begun = await host.begin_world(cast, START)
    return len(fold(begun, store.outcomes(), host.laws.effects)) - len(begun)


def unheard(event: Mapping[str, Any]) -> None:
    """Nobody watches."""


def line_through(short: Sample, long: Sample) -> Measured:
    """Return what a dialogue and what a turn costs, from batches of two lengths."""
    costs = {}
    for kind in KINDS:
        low, high = short.of_one[kind], long.of_one[kind]
        turn = max(0.0, (high - low) / (long.turns - short.turns))
        costs[kind] = Cost(max(0.0, low - turn * short.turns), turn)
    return Measured(**costs)


async def measure(dialogues: int) -> Measured:
    """Measure both batches; one before them takes what is only taken once."""
    await sample(2, SHORT)
    return line_through(await sample(dialogues, SHORT), await sample(dialogues, LONG))


def computed(found: Measured, dialogues: int, assumed: Assumed) -> list[str]:
    """Return the line of the computed table for so many dialogues."""
    turns = assumed.turns
    calls = found.calls.of(dialogues, turns)
    own_h = found.cpu_ms.of(dialogues, turns) / STEP / HOUR_S
    return [
        f"{dialogues:,}",
        f"{dialogues * turns:,}",
        f"{round(found.rows.of(dialogues, turns)):,}",
        f"{round(calls):,}",
        size(found.store.of(dialogues, turns)),
        size(found.results.of(dialogues, turns)),
        hours(calls * assumed.seconds / assumed.slots / HOUR_S),
        hours(own_h),
        hours(own_h / assumed.processors),
    ]


def size(count: float) -> str:
    """Write bytes with three digits."""
    for unit in UNITS[:-1]:
        if count < STEP:
            return f"{count:.3g} {unit}"
        count /= STEP
    return f"{count:.3g} {UNITS[-1]}"


def hours(count: float) -> str:
    """Write hours, as minutes where that says more."""
    return f"{count:,.1f} h" if count >= 1 else f"{count * 60:.1f} min"


def measured_table(found: Measured) -> str:
    """Write what was measured as a table in Markdown, which `read_measured` reads again."""
    lines = ["| | a dialogue | and each of its turns |", "|---|---:|---:|"]
    for kind in KINDS:
        cost: Cost = getattr(found, kind)
        lines.append(f"| {LABELS[kind]} | {cost.dialogue:.2f} | {cost.turn:.2f} |")
    return "\n".join(lines)


LABELS = {
    "rows": "rows (turns, events, memories, vectors, ...)",
    "calls": "calls of the model",
    "store": "bytes of `run.db`",
    "results": "bytes of all other files",
    "world": "bytes of its run's world, in memory",
    "cpu_ms": "own processor time, ms",
}


def read_measured(text: str) -> Measured:
    """Read a table of measured figures from a page.

    Raises:
        ValueError: A line of it is missing.
    """
    costs = {}
    for kind, label in LABELS.items():
        found = re.search(rf"^\| {re.escape(label)} \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
        if found is None:
            raise ValueError(f"no line for {label}")
        costs[kind] = Cost(float(found[1]), float(found[2]))
    return Measured(**costs)


def computed_table(found: Measured, assumed: Assumed) -> str:
    """Write what is computed as a table in Markdown."""
    heads = (
        *("dialogues", "turns", "rows", "calls", "`run.db`", "other files"),
        f"model, {assumed.slots} slots",
        *("own, one processor", f"own, {assumed.processors}"),
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---:|" * len(heads)]
    lines += [f"| {' | '.join(computed(found, count, assumed))} |" for count in SIZES]
    return "\n".join(lines)


def placed(page: str, name: str, table: str) -> str:
    """Put a table between its marks in a page.

    Raises:
        ValueError: The marks are not there.
    """
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no place for the table '{name}'")
    return head + begin + table + end + tail


def main() -> None:
    """Measure, compute, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--dialogues", type=int, default=DIALOGUES, help="of each batch")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    parser.add_argument("--json", action="store_true", help="the measured figures as JSON")
    given = parser.parse_args()
    configure_logging(LogSettings())
    print(f"two batches of {given.dialogues} dialogues", file=sys.stderr)
    found = asyncio.run(measure(given.dialogues))
    # What is shown is what is computed with: whoever checks the page has no more digits.
    found = read_measured(measured_table(found))
    if given.json:
        print(json.dumps(asdict(found)))
        return
    tables = {
        "measured": measured_table(found),
        "computed": computed_table(found, Assumed()),
    }
    print("\n\n".join(tables.values()))
    if given.write:
        page = PAGE.read_text("utf-8")
        for name, table in tables.items():
            page = placed(page, name, table)
        PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
