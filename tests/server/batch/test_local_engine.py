"""Many dialogues at once in one process: what comes of each does not depend on the others."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from persona_mcp.server.batch.dialogue_host import DialogueHost
from persona_mcp.server.batch.local_engine import LocalEngine, enough_for
from persona_mcp.server.batch.model_pool import ModelPool, Post
from persona_mcp.state.batch.values import Finished, Job, RecordedCall, TurnTold, Work
from persona_mcp.state.dialogue_spec import START
from persona_mcp.state.errors import BadSnapshot, Cancelled, ModelError, StorageUnavailable
from persona_mcp.state.model import ChatModel, Chunk, Message, Sampling
from tests.doubles import Fails, ScriptedModel
from tests.small_worlds import cast, host, job

pytestmark = pytest.mark.anyio

JOBS = (
    job(0, "ada", "ben"),
    job(1, "ben", "cleo", max_turns=6),
    job(2, "cleo", "ada", max_turns=1),
    job(3, "ada", "ben", "cleo", max_turns=5),
    job(4, "ben", "ada", max_turns=2),
)


class Answering(ScriptedModel):
    """Says what depends on the prompt alone, and now and then lets others go first."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        asked = "\n".join(message.content for message in messages)
        digest = hashlib.sha256(f"{asked}{sampling.seed}".encode()).hexdigest()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(int(digest[0], 16)):
                await asyncio.sleep(0)
            yield Chunk(f"Thank you, number {digest[:6]} made me glad.")
        finally:
            self.now -= 1
        yield Chunk("", 9, "stop")


class Gated(Answering):
    """Holds every call back until its gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self._came = asyncio.Condition()
        self._begun = 0

    async def full(self, number: int) -> None:
        """Wait until so many calls have begun, and let everything go on that can."""
        async with self._came:
            await self._came.wait_for(lambda: self._begun >= number)

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        self.now += 1
        self.most = max(self.most, self.now)
        async with self._came:
            self._begun += 1
            self._came.notify_all()
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        async with aclosing(super().stream(messages, sampling)) as chunks:
            async for chunk in chunks:
                yield chunk


def pool_of(model: ChatModel, slots: int = 4) -> ModelPool:
    return ModelPool([Post("the only one", model, slots)])


def unheard(turn: TurnTold) -> None:
    """Nobody watches."""


async def world(ours: DialogueHost) -> bytes:
    return await ours.begin_world(cast(), START)


async def held(at_once: int, slots: int = 4, jobs: Sequence[Job] = JOBS) -> dict[int, Finished]:
    """Hold all, and put what came of them in order; measured times are left out."""
    ours = host()
    frozen = await world(ours)
    engine = LocalEngine(ours, pool_of(Answering(), slots), at_once)
    finished = await asyncio.gather(*(engine.hold(Work(one, frozen), unheard) for one in jobs))
    await engine.aclose()
    return {one.outcome.job.place.index: unmeasured(one) for one in finished}


def unmeasured(one: Finished) -> Finished:
    return replace(one, outcome=replace(one.outcome, measured={}))


async def test_one_after_the_other_or_all_at_once_comes_to_the_same() -> None:
    alone = await held(at_once=1, slots=1)

    assert await held(at_once=8) == alone
    assert await held(at_once=3, slots=2, jobs=JOBS[::-1]) == alone
    assert {one.outcome.status for one in alone.values()} == {"done"}


async def test_no_more_dialogues_are_held_at_once_than_it_says() -> None:
    ours, model = host(), Gated()
    frozen = await world(ours)
    engine = LocalEngine(ours, pool_of(model, slots=16), at_once=2)

    async with asyncio.TaskGroup() as group:
        for one in JOBS:
            group.create_task(engine.hold(Work(one, frozen), unheard))
        await model.full(2)
        model.gate.set()

    assert model.most == 2


@pytest.mark.parametrize(("slots", "enough"), [(1, 16), (4, 16), (16, 64), (2000, 1024)])
def test_enough_are_held_at_once_to_keep_every_place_of_the_model_busy(
    slots: int, enough: int
) -> None:
    pool = pool_of(ScriptedModel(), slots)

    assert enough_for(pool) == enough
    assert LocalEngine(host(), pool).at_once == enough
    assert LocalEngine(host(), None).at_once == 16


async def test_calls_are_kept_as_they_are_made_and_come_with_the_outcome() -> None:
    ours, kept, told = host(), list[RecordedCall](), list[tuple[int, int]]()

    async def made(call: RecordedCall) -> None:
        kept.append(call)

    def hears(turn: TurnTold) -> None:
        told.append((turn.turn, len(kept)))

    engine = LocalEngine(ours, pool_of(Answering()), made=made)
    finished = await engine.hold(Work(JOBS[1], await world(ours)), hears)

    assert finished.calls == tuple(kept)
    assert [call.number for call in kept] == list(range(6))
    assert {call.index for call in kept} == {1}
    assert told == [(turn, turn) for turn in range(1, 7)]


async def test_what_is_recorded_is_played_and_only_the_rest_is_made() -> None:
    ours = host()
    frozen = await world(ours)
    whole = await LocalEngine(ours, pool_of(Answering())).hold(Work(JOBS[1], frozen), unheard)
    kept: list[RecordedCall] = []

    async def made(call: RecordedCall) -> None:
        kept.append(call)

    engine = LocalEngine(ours, pool_of(Answering()), made=made)
    resumed = await engine.hold(Work(JOBS[1], frozen, whole.calls[:4]), unheard)
    replayed = await LocalEngine(ours, None).hold(Work(JOBS[1], frozen, whole.calls), unheard)

    assert [call.number for call in kept] == [4, 5]
    assert unmeasured(resumed) == unmeasured(whole) == unmeasured(replayed)


async def test_a_failure_of_the_model_is_an_outcome_and_fails_again_in_a_replay() -> None:
    ours = host()
    frozen = await world(ours)
    model = ScriptedModel("Good day to you, dear Ben.", Fails(ModelError("it went away")))

    failed = await LocalEngine(ours, pool_of(model)).hold(Work(JOBS[0], frozen), unheard)
    again = await LocalEngine(ours, None).hold(Work(JOBS[0], frozen, failed.calls), unheard)

    assert failed.outcome.status == "failed"
    assert failed.outcome.error is not None
    assert failed.outcome.error["message"] == "it went away"
    assert unmeasured(again) == unmeasured(failed)


async def test_a_recording_of_something_else_is_no_outcome() -> None:
    ours = host()
    frozen = await world(ours)
    other = await LocalEngine(ours, pool_of(Answering())).hold(Work(JOBS[0], frozen), unheard)
    calls = tuple(replace(call, index=4) for call in other.calls)

    with pytest.raises(BadSnapshot, match="dialogue 4, call 0"):
        await LocalEngine(ours, None).hold(Work(JOBS[4], frozen, calls), unheard)


async def test_a_call_that_cannot_be_kept_is_no_outcome() -> None:
    ours = host()

    async def made(call: RecordedCall) -> None:
        raise StorageUnavailable("the disk is full")

    engine = LocalEngine(ours, pool_of(Answering()), made=made)

    with pytest.raises(StorageUnavailable, match="the disk is full"):
        await engine.hold(Work(JOBS[0], await world(ours)), unheard)


async def test_it_stops_where_a_turn_ends_and_begins_nothing_new() -> None:
    ours, told = host(), list[int]()
    frozen = await world(ours)
    engine = LocalEngine(ours, pool_of(Answering()), at_once=1)

    def hears(turn: TurnTold) -> None:
        told.append(turn.turn)
        if turn.turn == 3:
            stops.append(asyncio.create_task(engine.stop()))

    stops: list[asyncio.Task[None]] = []
    running = asyncio.create_task(engine.hold(Work(JOBS[1], frozen), hears))
    waiting = asyncio.create_task(engine.hold(Work(JOBS[0], frozen), unheard))

    for one in (running, waiting):
        with pytest.raises(Cancelled):
            await one
    await stops[0]
    assert told[:3] == [1, 2, 3] and len(told) < 6


async def test_of_those_who_wait_the_dialogue_with_most_to_say_is_served_first() -> None:
    ours, model, order = host(), Gated(), list[int]()
    frozen = await world(ours)

    async def made(call: RecordedCall) -> None:
        order.append(call.index)

    pool = pool_of(model, slots=1)
    engine = LocalEngine(ours, pool, made=made)
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.hold(Work(job(0, max_turns=3), frozen), unheard))
        await model.full(1)
        for number, turns in ((1, 2), (2, 9)):
            work = Work(job(number, max_turns=turns), frozen)
            group.create_task(engine.hold(work, unheard))
        while pool.waiting < 2:
            await asyncio.sleep(0)
        model.gate.set()

    assert order[:3] == [0, 2, 1]


async def test_model_and_embedder_are_closed_with_it() -> None:
    model = ScriptedModel()

    await LocalEngine(host(), pool_of(model)).aclose()
    await LocalEngine(host(), None).aclose()

    assert model.closed
