"""What a batch of dialogues costs: how near it comes to what the model allows, and its own work.

    uv run python -m benchmarks.batch [--quick] [--json]

Dialogues of two personas, twelve turns each, through everything that `persona dialogue run` goes
through up to the results: the store on disk, the pool of the model's places, recording, small
worlds. The model is in this process and takes as long as it is told to; it has 16 places. The ideal
is what the model alone would take with all places busy to the end.

A model of .05 s asks more of a processor than one has: it is measured once more with workers in
processes of their own, one for each processor (`benchmarks.timed_worker`); their start, some
seconds, is not counted.

With a model that answers at once what is left is our own processor time, and the memory in use.
Beside it a bare LangGraph run of as many empty nodes as a conversation's exchange has, in the same
process: on a busy machine the ratio tells more than milliseconds.
"""

import argparse
import asyncio
import gc
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.exchange import MS, bar, timed
from benchmarks.instant import BareGraph, HashEmbedder, InstantModel
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings, Settings
from persona_mcp.server.batch.batches import Summary, Told, run_batch
from persona_mcp.server.batch.casts import read_casts
from persona_mcp.server.batch.dialogue_host import dialogue_host
from persona_mcp.server.batch.local_engine import LocalEngine, Made
from persona_mcp.server.batch.model_pool import ModelPool, Post
from persona_mcp.server.batch.process_crew import open_processes, processors
from persona_mcp.server.batch.running import EngineName
from persona_mcp.server.batch.store import open_batch_store
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.server.event_loop import busy_runner
from persona_mcp.state.batch.grid import Arm
from persona_mcp.state.batch.plan import plan_batch
from persona_mcp.state.batch.values import Cast, CastMember, Engine
from persona_mcp.state.dialogue_spec import DialogueSpec, ModelSpec
from persona_mcp.state.model import Chunk, Message, Sampling
from persona_mcp.state.persona import PersonaSpec

T = TypeVar("T")

SLOTS, TURNS = 16, 12
SLOW: dict[tuple[float, EngineName], float] = {
    (1.0, "local"): 1.05,
    (0.05, "local"): math.inf,
    (0.05, "processes"): 1.2,
}
"""How many times the ideal the wall time may be, by the seconds of a reply and the engine."""
CPU_BAR_MS, MEMORY_BAR, CALLS_BAR = 12.0, 1.1, 1.0
DIALOGUES, QUICK_DIALOGUES = 150, 32
EARLY, LATE = 100, 1000
"""Dialogues after which the memory in use is read; `--quick` takes a tenth of both."""
BARE_RUNS = 40
TIMED_WORKER = (sys.executable, "-m", "benchmarks.timed_worker")
PEOPLE = {
    "ada": "Ada keeps a stall by the harbour and never forgets a debt.",
    "ben": "Ben mends nets, sings badly, and believes what he is told.",
}


@dataclass(frozen=True)
class Waited:
    """A batch whose model takes its time.

    Attributes:
        seconds: Of a reply.
        engine: Where dialogues are held.
        dialogues: How many.
        turns: Said in all of them.
        calls: Of the model.
        ideal_s: What the model alone would take.
        wall_s: What the batch took.
        cpu_ms: Own processor time of a turn, in milliseconds, of this process.
        most_at_once: Replies that were made at the same time, at most; None where it is not seen.
    """

    seconds: float
    engine: EngineName
    dialogues: int
    turns: int
    calls: int
    ideal_s: float
    wall_s: float
    cpu_ms: float
    most_at_once: int | None

    @property
    def times(self) -> float:
        """Return how many times the ideal it took."""
        return self.wall_s / self.ideal_s


@dataclass(frozen=True)
class Instant:
    """A batch whose model answers at once.

    Attributes:
        dialogues: How many.
        turns: Said in all of them.
        calls: Of the model.
        cpu_ms: Own processor time of a turn, in milliseconds.
        bare_ms: Of a bare LangGraph run, in the same process, in milliseconds.
        turns_s: Turns in a second.
        memory: Bytes in use after so many dialogues.
    """

    dialogues: int
    turns: int
    calls: int
    cpu_ms: float
    bare_ms: float
    turns_s: float
    memory: Mapping[int, int]


class TimedModel(InstantModel):
    """Makes a reply in so many seconds, whatever else it makes.

    Attributes:
        calls: How many it has made.
        most: How many it made at once, at most.
    """

    def __init__(self, seconds: float) -> None:
        """Take so long for each."""
        super().__init__()
        self.calls = self.most = self._busy = 0
        self._seconds = seconds

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Wait, and say two sentences."""
        self.calls += 1
        self._busy += 1
        self.most = max(self.most, self._busy)
        try:
            if self._seconds:
                await asyncio.sleep(self._seconds)
            async for chunk in super().stream(messages, sampling):
                yield chunk
        finally:
            self._busy -= 1


class Memory:
    """Reads the memory in use after so many dialogues.

    Attributes:
        found: Bytes, by the number of dialogues.
    """

    def __init__(self, after: Sequence[int]) -> None:
        """Read after each of these numbers."""
        self.found: dict[int, int] = {}
        self._after = set(after)
        self._done = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Count a dialogue that is over."""
        if event["event"] in ("dialogue_done", "dialogue_failed"):
            self._done += 1
            if self._done in self._after:
                gc.collect()
                self.found[self._done] = memory_in_use()


def memory_in_use() -> int:
    """Return the resident memory of this process in bytes; its peak where that alone is told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()


def specification(dialogues: int, turns: int = TURNS) -> DialogueSpec:
    """Ask for dialogues that say all their turns, each in a run of its own."""
    spec = {
        "personas": dict.fromkeys(PEOPLE),
        "dialogue": {
            "topics": ["music"],
            "scene": "A quay in the evening.",
            "max_turns": turns,
            "token_budget": 32768,
            "minutes": 1440.0,
            "bow_out": False,
            "stagnation": 0,
        },
        "repeats": dialogues,
    }
    return DialogueSpec.model_validate(spec)


async def people(arm: Arm) -> Cast:
    """Cast them."""
    members = (
        CastMember(id, PersonaSpec(name=id.title(), description=text, available_time=86400.0))
        for id, text in PEOPLE.items()
    )
    return Cast(tuple(members), (), {})


@asynccontextmanager
async def local_engine(model: TimedModel, made: Made) -> AsyncIterator[Engine]:
    """Hold dialogues in this process."""
    host = dialogue_host(Settings(_env_file=None), HashEmbedder())
    engine = LocalEngine(host, ModelPool([Post("instant", model, SLOTS)]), None, made)
    try:
        yield engine
    finally:
        await engine.aclose()


@asynccontextmanager
async def processes(seconds: float, dialogues: int, made: Made) -> AsyncIterator[Engine]:
    """Hold dialogues in a process for each processor."""
    share = ModelSpec(name="openai:timed", slots=SLOTS)
    engine = await open_processes(
        Settings(_env_file=None), share, dialogues, None, made, (*TIMED_WORKER, str(seconds))
    )
    try:
        yield engine
    finally:
        await engine.aclose()


async def held(
    opened: Callable[[Made], AbstractAsyncContextManager[Engine]],
    spec: DialogueSpec,
    folder: Path,
    told: Told,
) -> tuple[Summary, float]:
    """Hold a batch, and return what came of it with the processor time that it took, in seconds."""
    plan = plan_batch(spec)
    worlds = Worlds(dialogue_host(load_settings(data_dir=folder), HashEmbedder()))
    async with open_batch_store(folder / "run.db") as store, opened(store.keep_call) as engine:
        casts = await read_casts(plan.arms, people)
        started = time.process_time()
        summary = await run_batch(plan, casts, store, engine, worlds, told, asyncio.Event())
        return summary, time.process_time() - started


async def waited(seconds: float, engine: EngineName, dialogues: int, turns: int = TURNS) -> Waited:
    """Measure a batch whose model takes so long for each reply."""
    model, spec = TimedModel(seconds), specification(dialogues, turns)
    here = engine == "local"
    opened = partial(local_engine, model) if here else partial(processes, seconds, dialogues)
    with tempfile.TemporaryDirectory(prefix="persona-batch-") as folder:
        summary, cpu_s = await held(opened, spec, Path(folder), lambda event: None)
    check(summary)
    return Waited(
        seconds=seconds,
        engine=engine,
        dialogues=dialogues,
        turns=summary.turns,
        calls=model.calls if here else summary.calls,
        ideal_s=dialogues * turns / SLOTS * seconds,
        wall_s=summary.wall_s,
        cpu_ms=cpu_s / summary.turns * MS,
        most_at_once=model.most if here else None,
    )


async def instant(points: Sequence[int], turns: int = TURNS) -> Instant:
    """Measure a batch whose model answers at once, up to the last of the points.

    Args:
        points: Numbers of dialogues after which the memory in use is read, in order.
        turns: Of each dialogue.
    """
    model, memory, bare = TimedModel(0.0), Memory(points), BareGraph(None)
    with tempfile.TemporaryDirectory(prefix="persona-batch-") as folder:
        first = [await timed(bare.run(number)) for number in range(BARE_RUNS)]
        opened, spec = partial(local_engine, model), specification(points[-1], turns)
        summary, cpu_s = await held(opened, spec, Path(folder), memory)
        last = [await timed(bare.run(number)) for number in range(BARE_RUNS)]
    check(summary)
    return Instant(
        dialogues=points[-1],
        turns=summary.turns,
        calls=model.calls,
        cpu_ms=cpu_s / summary.turns * MS,
        bare_ms=median([*first, *last]),
        turns_s=summary.turns / summary.wall_s,
        memory=memory.found,
    )


def check(summary: Summary) -> None:
    """Refuse to measure what did not come to its end.

    Raises:
        AssertionError: A dialogue failed.
    """
    if summary.failed or not summary.complete:
        raise AssertionError(f"{summary.failed} of {summary.total} dialogues failed")


def bars(slow: Sequence[Waited], at_once: Instant) -> list[str]:
    """Compare the figures with what the product holds itself to."""
    lines = [
        bar(
            one.times <= SLOW[one.seconds, one.engine],
            f"a model of {one.seconds:g} s: {one.times:.3f} times what it allows, at most "
            f"{SLOW[one.seconds, one.engine]:g} ({one.engine}, {processors()} processors)",
        )
        for one in slow
        if SLOW[one.seconds, one.engine] < math.inf
    ]
    every: list[Waited | Instant] = [*slow, at_once]
    calls = max(one.calls / one.turns for one in every)
    early, late = sorted(at_once.memory)
    grown = at_once.memory[late] / at_once.memory[early]
    return [
        *lines,
        bar(calls <= CALLS_BAR, f"{calls:.3f} calls of the model a turn, at most {CALLS_BAR:g}"),
        bar(
            at_once.cpu_ms <= CPU_BAR_MS,
            f"{at_once.cpu_ms:.1f} ms of processor time a turn, at most {CPU_BAR_MS:g} "
            f"({at_once.cpu_ms / at_once.bare_ms:.1f} times a bare LangGraph run)",
        ),
        bar(
            grown <= MEMORY_BAR,
            f"memory after dialogue {late:,} is {grown:.3f} times that after {early:,}, at most "
            f"{MEMORY_BAR:g}",
        ),
    ]


def show(slow: Sequence[Waited], at_once: Instant) -> None:
    """Print the tables and what they say of the bars."""
    table = Table("reply", "engine", "dialogues", "turns", "calls", "at once", "ideal s", "wall s")
    table.add_column("times")
    table.add_column("CPU ms a turn")
    for one in slow:
        table.add_row(
            f"{one.seconds:g} s",
            one.engine,
            *(f"{n:,}" for n in (one.dialogues, one.turns, one.calls)),
            "" if one.most_at_once is None else str(one.most_at_once),
            *(f"{s:.2f}" for s in (one.ideal_s, one.wall_s)),
            f"{one.times:.3f}",
            f"{one.cpu_ms:.1f}",
        )
    console = Console(width=110)
    console.print(table)
    table = Table("reply", "dialogues", "turns", "CPU ms a turn", "bare ms", "x bare", "turns/s")
    for count in sorted(at_once.memory):
        table.add_column(f"MB after {count:,}")
    table.add_row(
        "at once",
        *(f"{n:,}" for n in (at_once.dialogues, at_once.turns)),
        *(f"{v:.1f}" for v in (at_once.cpu_ms, at_once.bare_ms)),
        f"{at_once.cpu_ms / at_once.bare_ms:.1f}",
        f"{at_once.turns_s:.1f}",
        *(f"{at_once.memory[count] / 2**20:.1f}" for count in sorted(at_once.memory)),
    )
    console.print(table)
    print("\n".join(bars(slow, at_once)))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end as the command does."""
    with busy_runner() as runner:
        return runner.run(work)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch")
    parser.add_argument("--quick", action="store_true", help="fewer dialogues: about a minute")
    parser.add_argument("--json", action="store_true", help="figures as JSON, without bars")
    given = parser.parse_args()
    configure_logging(LogSettings())
    dialogues, less = (QUICK_DIALOGUES, 10) if given.quick else (DIALOGUES, 1)
    points = [EARLY // less, LATE // less]
    print(f"{points[-1]:,} dialogues, a model that answers at once", file=sys.stderr)
    at_once = run(instant(points))
    slow = []
    for seconds, engine in SLOW:
        print(f"{dialogues} dialogues, a model of {seconds:g} s, {engine}", file=sys.stderr)
        slow.append(run(waited(seconds, engine, dialogues)))
    if given.json:
        found = {"slow": [asdict(one) for one in slow], "instant": asdict(at_once)}
        print(json.dumps(found))
    else:
        show(slow, at_once)


if __name__ == "__main__":
    main()
