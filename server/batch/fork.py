"""One dialogue of a batch, gone on with otherwise after a turn, and compared with what it was."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.config.spec_files import read_plan
from persona_mcp.server.batch.batches import Batch
from persona_mcp.server.batch.changes import Changes, changes_of
from persona_mcp.server.batch.comparison import ORIGINAL, Compared, compared, transcript
from persona_mcp.server.batch.dialogue_host import DialogueHost, dialogue_host
from persona_mcp.server.batch.folder import (
    FORKS,
    SPEC,
    check_place,
    lines,
    open_folder,
    writable,
    write_file,
)
from persona_mcp.server.batch.local_engine import LocalEngine
from persona_mcp.server.batch.manifest import read_manifest
from persona_mcp.server.batch.model_pool import ModelPool
from persona_mcp.server.batch.recorded_embedder import recording_host
from persona_mcp.server.batch.recorded_model import RecordedModel
from persona_mcp.server.batch.replay import open_replay
from persona_mcp.server.batch.results import BEGUN
from persona_mcp.server.batch.rows import NAME as STORE
from persona_mcp.server.batch.rows import spoken
from persona_mcp.server.batch.run_dialogue import Swap, run_dialogue
from persona_mcp.server.batch.settings import as_begun, begun_in, check_embedder
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.batch import codec
from persona_mcp.state.batch.values import Job, Outcome, RecordedCall, TurnTold
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound, PersonaError
from persona_mcp.state.model import Chunk, Message, ModelInfo, Offer, Sampling

RESULT = "fork.json"


@dataclass(frozen=True)
class Fork:
    """What is asked for.

    Attributes:
        dialogue: Index of it in the batch.
        turn: The last turn that stays as it was; 0 for none.
        values: What is different after it, by path; see `batch.changes`.
        repeats: How often the rest is held, each time by another lot.
    """

    dialogue: int
    turn: int
    values: Mapping[str, Any]
    repeats: int = 1


@dataclass(frozen=True)
class Before:
    """A dialogue of a batch as it was held.

    Attributes:
        job: What it was.
        frozen: The world that it was held in.
        outcome: What came of it.
        calls: Its recorded calls.
        host: What dialogues of the batch are held with.
        names: Of the cast, by id.
        changes: What is to be different in it.
    """

    job: Job
    frozen: bytes
    outcome: Outcome
    calls: tuple[RecordedCall, ...]
    host: DialogueHost
    names: Mapping[str, str]
    changes: Changes


@dataclass(frozen=True)
class Forked:
    """What came of a fork.

    Attributes:
        asked: For what.
        before: The dialogue as it was.
        outcomes: Of each time that the rest was held.
        calls: Of the model in each, those that were played too.
    """

    asked: Fork
    before: Before
    outcomes: tuple[Outcome, ...]
    calls: tuple[tuple[RecordedCall, ...], ...]

    @property
    def arms(self) -> list[Compared]:
        """Return what it was and what it came to, side by side."""
        return compared(self.before.outcome, self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {
            "dialogue": self.asked.dialogue,
            "turn": self.asked.turn,
            "set": dict(self.asked.values),
            "arms": self.arms,
        }


async def fork_dialogue(
    path: Path,
    asked: Fork,
    settings: Settings,
    open_model: Callable[..., ModelPool],
    told: Callable[[int, TurnTold], None],
    embedder: Embedder | None = None,
) -> Forked:
    """Hold the rest of a dialogue otherwise; what is asked for is checked before anything runs.

    Args:
        path: The batch's folder; nothing of the batch is changed.
        asked: For what.
        settings: In effect here; what dialogues depend on is as the batch has it.
        open_model: Gives the model for what is not recorded, from the arm's specification of it.
        told: Called after each turn with the number of the fork, 1, 2, ..., and the turn.
        embedder: In place of the one of the settings.

    Raises:
        NotFound: There is no such batch, or no such dialogue in it yet.
        InvalidParams: The turn, or what is to be different, is not allowed.
    """
    async with open_before(path, asked, settings, embedder) as (before, spec):
        pool = open_model(spec)
        try:
            outcomes: list[Outcome] = []
            calls: list[tuple[RecordedCall, ...]] = []
            for repeat in range(asked.repeats):
                tell = (lambda number: lambda turn: told(number, turn))(repeat + 1)
                outcome, made = await held_otherwise(before, asked, repeat, pool, tell)
                outcomes.append(outcome)
                calls.append(made)
        finally:
            await pool.aclose()
    return Forked(asked, before, tuple(outcomes), tuple(calls))


@asynccontextmanager
async def open_before(
    path: Path, asked: Fork, settings: Settings, embedder: Embedder | None
) -> AsyncIterator[tuple[Before, Any]]:
    """Find a dialogue as it was held, in the batch's store or else by holding it again.

    Returns:
        It, and the specification of its model.
    """
    async with open_batch(path, settings, embedder) as (batch, host):
        plan = batch.plan
        if asked.dialogue >= plan.total:
            raise InvalidParams.one("--dialogue", f"0..{plan.total - 1}", asked.dialogue)
        place = plan.place(asked.dialogue)
        arm, cast = plan.arms[place.arm].spec, batch.casts.of(place.arm)
        found = await batch.held(place)
        if found is None:
            raise NotFound(
                f"dialogue {asked.dialogue} is not held yet: go on with the batch first, by "
                "`persona dialogue run FILE --out DIR --resume`",
                kind="dialogue",
                id=str(asked.dialogue),
            )
        job, frozen, outcome = found
        last = spoken(outcome) - (outcome.status == "done")
        if asked.turn > last:
            what = f"0..{last}: a turn after which it went on"
            raise InvalidParams.one("--turn", what, asked.turn)
        changes = changes_of(asked.values, job, cast, arm, asked.turn)
        calls = await batch.store.calls(asked.dialogue)
        names = {member.id: member.spec.name for member in cast.members}
        yield Before(job, frozen, outcome, calls, host, names, changes), arm.model


@asynccontextmanager
async def open_batch(
    path: Path, settings: Settings, embedder: Embedder | None
) -> AsyncIterator[tuple[Batch, DialogueHost]]:
    """Open a batch to read it: its store, or its recording, to hold it again.

    The recording where the store is gone, or lies where we cannot lock it.

    Raises:
        NotFound: There is no batch, or only a part of one without its store.
        Conflict: Another process runs it, or another embedder is set here.
    """
    if not ((path / STORE).is_file() and os.access(path, os.W_OK | os.X_OK)):
        begun = begun_in(await asyncio.to_thread(read_manifest, path))
        async with open_replay(path, begun, settings, embedder) as replay:
            yield replay.batch(lambda _: None), replay.host
        return
    async with open_folder(path) as folder:
        begun = await folder.store.fact(BEGUN)
        casts = await asyncio.to_thread(folder.casts)
        if begun is None or casts is None:
            raise NotFound(f"no dialogue was held in '{path.name}' yet", kind="batch", id=path.name)
        _, plan = await asyncio.to_thread(read_plan, path / SPEC)
        host = dialogue_host(as_begun(settings, begun), embedder)
        engine = LocalEngine(host, None, 1)
        try:
            check_embedder(begun, host.embedder.model_id)
            worlds, stopping = Worlds(host), asyncio.Event()
            stopping.set()  # nothing new is held in a batch that is only read
            nobody = lambda _: None  # noqa: E731
            yield Batch(plan, casts, folder.store, engine, worlds, nobody, stopping), host
        finally:
            await engine.aclose()


class Parting:
    """A `ChatModel` that plays what is recorded, and from some moment on asks."""

    def __init__(self, before: Before, pool: ModelPool) -> None:
        """Play first."""
        index = before.job.place.index
        self._played = RecordedModel(None, index, before.calls)
        self._asked = RecordedModel(pool.seat(), index)
        self._now: RecordedModel = self._played

    def part(self) -> None:
        """Ask from now on."""
        self._now = self._asked

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """Return all calls, in order."""
        played = self._played.calls
        new = (replace(one, number=len(played) + one.number) for one in self._asked.calls)
        return (*played, *new)

    def failure(self, said: object) -> PersonaError | None:
        """Return a recorded failure of the embedder; see `RecordedModel`."""
        return self._now.failure(said)

    async def keep_failure(self, said: object, error: Exception) -> PersonaError:
        """Record a failure of the embedder; see `RecordedModel`."""
        return await self._now.keep_failure(said, error)

    async def info(self) -> ModelInfo:
        """Say which model answers now; see `ChatModel`."""
        return await self._now.info()

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """Yield a reply; see `ChatModel`."""
        return self._now.stream(messages, sampling)

    async def offered(self) -> Offer:
        """Say which models there are; see `ChatModel`."""
        return await self._now.offered()

    async def check(self) -> str:
        """Say whether it is there; see `ChatModel`."""
        return await self._now.check()

    async def aclose(self) -> None:
        """Leave the model open for others."""


async def held_otherwise(
    before: Before,
    asked: Fork,
    repeat: int,
    pool: ModelPool,
    told: Callable[[TurnTold], None],
) -> tuple[Outcome, tuple[RecordedCall, ...]]:
    """Hold a dialogue once more, otherwise after a turn.

    Raises:
        BadSnapshot: The recording is of another version.
    """
    model = Parting(before, pool)
    swap = before.changes.swap(before.job, repeat)

    def before_turn(number: int) -> Swap | None:
        if number != asked.turn + 1:
            return None
        model.part()
        return swap

    job = before.job if asked.turn else swap.job
    host = await recording_host(before.host, model)
    outcome = await run_dialogue(host, job, before.frozen, model, told, lambda: False, before_turn)
    return outcome, model.calls


def new_folder(path: Path, asked: Fork, out: Path | None) -> Path:
    """Return where a fork is written: as asked for, else a new folder in the batch's.

    Raises:
        Conflict: What was asked for holds something already.
        StorageUnavailable: It cannot be written.
    """
    if out is None:
        name = f"dialogue-{asked.dialogue}-turn-{asked.turn}"
        number = 1
        while (found := path / FORKS / (name if number == 1 else f"{name}-{number}")).exists():
            number += 1
        if path.exists():  # what is no batch is told as that
            with writable(path):
                check_place(found)
        return found
    with writable(out):
        check_place(out)
        if out.exists() and any(out.iterdir()):
            raise Conflict(f"the folder '{out.name}' is not empty: give another --out")
    return out


def write_fork(out: Path, forked: Forked) -> None:
    """Write the comparison, both transcripts and what the model said. Blocks.

    Raises:
        StorageUnavailable: The folder cannot be written.
    """
    before = forked.before
    with writable(out):
        out.mkdir(parents=True, exist_ok=True)
        write_file(out / f"{ORIGINAL}.txt", lines(transcript(before.outcome, before.names)))
        for number, (outcome, calls) in enumerate(
            zip(forked.outcomes, forked.calls, strict=True), start=1
        ):
            write_file(out / f"fork-{number}.txt", lines(transcript(outcome, before.names)))
            write_file(out / f"fork-{number}.jsonl", lines(call_lines(calls)))
        text = json.dumps(forked.as_json(), ensure_ascii=False, indent=2)
        write_file(out / RESULT, lines([text]))


def call_lines(calls: Sequence[RecordedCall]) -> Iterator[str]:
    """Write recorded calls as lines."""
    return (codec.call_json(call) for call in calls)
