"""What a batch of dialogues costs: how near it comes to what the model allows, and its own work.

    uv run python -m benchmarks.batch [--quick] [--json]

Dialogues of two personas, twelve turns each, through everything that `persona dialogue run` goes
through up to the results: the store on disk, the pool of the model's places, recording, small
worlds. The model is in this process and takes as long as it is told to; it has 16 places. The ideal
is what the model alone would take with all places busy to the end.

With a model that answers at once what is left is our own processor time, and the memory in use.
Beside it a bare LangGraph run of as many empty nodes as a conversation's exchange has, in the same
process: on a busy machine the ratio tells more than milliseconds.
"""

import argparse
import asyncio
import gc
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.exchange import MS, bar, timed
from benchmarks.instant import BareGraph, HashEmbedder, InstantModel
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings
from persona_mcp.server.batch_casts import read_casts
from persona_mcp.server.batch_store import open_batch_store
from persona_mcp.server.batch_worlds import Worlds
from persona_mcp.server.batches import Summary, run_batch
from persona_mcp.server.dialogue_host import dialogue_host
from persona_mcp.server.event_loop import busy_runner
from persona_mcp.server.local_engine import LocalEngine
from persona_mcp.server.model_pool import ModelPool, Post
from persona_mcp.state.batch import Cast, CastMember
from persona_mcp.state.batch_grid import Arm
from persona_mcp.state.batch_plan import plan_batch
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.model import Chunk, Message, Sampling
from persona_mcp.state.persona import PersonaSpec

T = TypeVar("T")

SLOTS, TURNS = 16, 12
SLOW = {1.0: 1.05, 0.05: 1.2}
"""Seconds that a reply takes, and how many times the ideal the wall time may be."""
CPU_BAR_MS, MEMORY_BAR, CALLS_BAR = 12.0, 1.1, 1.0
DIALOGUES, QUICK_DIALOGUES = 150, 32
EARLY, LATE = 100, 1000
"""Dialogues after which the memory in use is read; `--quick` takes a tenth of both."""
BARE_RUNS = 40
PEOPLE = {
    "ada": "Ada keeps a stall by the harbour and never forgets a debt.",
    "ben": "Ben mends nets, sings badly, and believes what he is told.",
}


@dataclass(frozen=True)
class Waited:
    """A batch whose model takes its time.

    Attributes:
        seconds: Of a reply.
        dialogues: How many.
        turns: Said in all of them.
        calls: Of the model.
        ideal_s: What the model alone would take.
        wall_s: What the batch took.
        cpu_ms: Own processor time of a turn, in milliseconds.
        most_at_once: Replies that were made at the same time, at most.
    """

    seconds: float
    dialogues: int
    turns: int
    calls: int
    ideal_s: float
    wall_s: float
    cpu_ms: float
    most_at_once: int

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


async def held(model: TimedModel, spec: DialogueSpec, folder: Path, told: Any) -> Summary:
    """Hold a batch."""
    plan = plan_batch(spec)
    host = dialogue_host(load_settings(data_dir=folder), HashEmbedder())
    async with open_batch_store(folder / "run.db") as store:
        casts = await read_casts(plan.arms, people)
        pool = ModelPool([Post("instant", model, SLOTS)])
        engine = LocalEngine(host, pool, None, store.keep_call)
        try:
            return await run_batch(plan, casts, store, engine, Worlds(host), told, asyncio.Event())
        finally:
            await engine.aclose()


async def waited(seconds: float, dialogues: int, turns: int = TURNS) -> Waited:
    """Measure a batch whose model takes so long for each reply."""
    model, spec = TimedModel(seconds), specification(dialogues, turns)
    with tempfile.TemporaryDirectory(prefix="persona-batch-") as folder:
        started = time.process_time()
        summary = await held(model, spec, Path(folder), lambda event: None)
        cpu_s = time.process_time() - started
    check(summary)
    return Waited(
        seconds=seconds,
        dialogues=dialogues,
        turns=summary.turns,
        calls=model.calls,
        ideal_s=dialogues * turns / SLOTS * seconds,
        wall_s=summary.wall_s,
        cpu_ms=cpu_s / summary.turns * MS,
        most_at_once=model.most,
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
        started = time.process_time()
        summary = await held(model, specification(points[-1], turns), Path(folder), memory)
        cpu_s = time.process_time() - started
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
            one.times <= SLOW[one.seconds],
            f"a model of {one.seconds:g} s: {one.times:.3f} times what it allows, at most "
            f"{SLOW[one.seconds]:g}",
        )
        for one in slow
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
    table = Table("reply", "dialogues", "turns", "calls", "at once", "ideal s", "wall s", "times")
    table.add_column("CPU ms a turn")
    for one in slow:
        table.add_row(
            f"{one.seconds:g} s",
            *(f"{n:,}" for n in (one.dialogues, one.turns, one.calls, one.most_at_once)),
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
    for seconds in SLOW:
        print(f"{dialogues} dialogues, a model of {seconds:g} s", file=sys.stderr)
        slow.append(run(waited(seconds, dialogues)))
    if given.json:
        found = {"slow": [asdict(one) for one in slow], "instant": asdict(at_once)}
        print(json.dumps(found))
    else:
        show(slow, at_once)


if __name__ == "__main__":
    main()
