"""A whole batch: runs side by side, waves one after the other, gone on with after anything."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.server.batch.batches import (
    Event,
    Summary,
    run_batch,
)
from persona_mcp.server.batch.cast import cast_of
from persona_mcp.server.batch.casts import Casts, casts_of_text, read_casts
from persona_mcp.server.batch.dialogue_host import DialogueHost
from persona_mcp.server.batch.local_engine import LocalEngine
from persona_mcp.server.batch.model_pool import ModelPool, Post
from persona_mcp.server.batch.places import Places
from persona_mcp.server.batch.retry import failing_call, retry_failed
from persona_mcp.server.batch.rows import NAME
from persona_mcp.server.batch.store import BatchStore, open_batch_store
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.batch.codec import outcome_json
from persona_mcp.state.batch.plan import Arm, BatchPlan, plan_batch
from persona_mcp.state.batch.reading import said
from persona_mcp.state.batch.values import Cast, Outcome, RecordedCall
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.errors import BadSnapshot, ModelError, StorageUnavailable
from tests.batches import persona, specification
from tests.doubles import Asked, FickleEmbedder, HashedModel
from tests.small_worlds import host

pytestmark = pytest.mark.anyio

ATTEMPTS = 3


def plan_of(**changes: Any) -> BatchPlan:
    return plan_batch(DialogueSpec.model_validate(specification(**changes)))


async def casts_for(plan: BatchPlan) -> Casts:
    async def read(arm: Arm) -> Cast:
        return await cast_of(arm.spec, None, None)

    return await read_casts(plan.arms, read)


class Running:
    """A batch on its store; what is told is kept."""

    def __init__(self, plan: BatchPlan, casts: Casts, store: BatchStore, on: DialogueHost) -> None:
        self.plan, self.casts, self.store, self.host = plan, casts, store, on
        self.events: list[Event] = []
        self.stopping = asyncio.Event()

    async def run(
        self,
        model: HashedModel,
        at_once: int = 4,
        told: Callable[[Event], None] = lambda _: None,
    ) -> Summary:
        def heard(event: Event) -> None:
            self.events.append(event)
            told(event)

        self.stopping = asyncio.Event()
        pool = ModelPool([Post("model", model, 8)])
        engine = LocalEngine(self.host, pool, at_once, self.store.keep_call)
        worlds = Worlds(self.host)
        return await run_batch(
            self.plan, self.casts, self.store, engine, worlds, heard, self.stopping
        )

    def outcomes(self) -> list[Outcome]:
        return list(self.store.outcomes())

    def texts(self) -> list[str]:
        return [*(outcome_json(one) for one in self.outcomes()), *self.store.recording()]

    def named(self, event: str) -> list[Event]:
        return [one for one in self.events if one["event"] == event]


@asynccontextmanager
async def batch(path: Path, **changes: Any) -> AsyncIterator[Running]:
    plan = plan_of(**changes)
    path.mkdir(exist_ok=True)
    async with open_batch_store(path / NAME) as store:
        yield Running(plan, await casts_for(plan), store, host())


async def undisturbed(path: Path, **changes: Any) -> list[str]:
    async with batch(path, **changes) as one:
        await one.run(HashedModel())
        return one.texts()


def of_scene(word: str, error: Exception, after: int = 0) -> Callable[[Asked], Exception | None]:
    """Fail what is asked where a word is in the prompt, but the first so many times."""
    seen = 0

    def fails(asked: Asked) -> Exception | None:
        nonlocal seen
        if word not in asked.text:
            return None
        seen += 1
        return error if seen > after else None

    return fails


async def test_every_dialogue_of_every_wave_run_and_arm_is_held_once(tmp_path: Path) -> None:
    grid = {"dialogue.scene": ["A quay.", "A cellar."]}
    async with batch(tmp_path, variations=grid) as one:
        summary = await one.run(HashedModel())

        outcomes = one.outcomes()
    assert (summary.total, summary.done, summary.failed) == (24, 24, 0)
    assert (summary.turns, summary.calls) == (96, 96)
    assert summary.complete and not summary.stopped
    assert [one.job.place.index for one in outcomes] == list(range(24))
    assert {outcome.job.place.run for outcome in outcomes} == {(0, 0), (0, 1), (1, 0), (1, 1)}


async def test_what_happens_is_told_as_it_happens(tmp_path: Path) -> None:
    async with batch(tmp_path) as one:
        await one.run(HashedModel())

    first = one.events[0]
    assert first == {
        "event": "started",
        "dialogues": 12,
        "done": 0,
        "failed": 0,
        "turns": 0,
        "turns_max": 48,
    }
    assert [len(one.named(what)) for what in ("turn", "dialogue_done", "wave")] == [48, 12, 4]
    turn, done = one.named("turn")[0], one.named("dialogue_done")[0]
    assert {"dialogue", "turn", "speaker", "tokens", "text"} < set(turn)
    assert (done["turns"], done["calls"], done["exit_reason"]) == (4, 4, "time_limit")


async def test_a_wave_begins_with_what_the_one_before_it_left(tmp_path: Path) -> None:
    async with batch(tmp_path, repeats=1) as one:
        await one.run(HashedModel())

        outcomes = one.outcomes()
    first, second = outcomes[:3], outcomes[3:]
    for before, after in zip(first, second, strict=True):
        assert before.job.talk.participants == after.job.talk.participants
        assert not before.before
        assert after.before
        ends = {outcome.ended_at for outcome in first}
        assert after.job.starts_at >= max(ends) + 10 * 3600 - 1


async def test_it_makes_no_difference_how_many_are_held_at_once(tmp_path: Path) -> None:
    results = []
    for at_once in (1, 3, 8):
        model = HashedModel()
        async with batch(tmp_path / str(at_once)) as one:
            await one.run(model, at_once)
            results.append(one.texts())
        assert model.most <= at_once

    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 12 + 48


async def test_a_dialogue_that_fails_is_kept_with_its_reason_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    spec: dict[str, Any] = {
        "repeats": 1,
        "waves": [
            {"dialogues": [{"scene": "A storm."}, {"scene": "A calm."}]},
            {"dialogues": [{"scene": "A morning."}]},
        ],
    }
    model = HashedModel(of_scene("A storm", ModelError("the model is gone"), after=2))
    async with batch(tmp_path, **spec) as one:
        summary = await one.run(model)

        failed, calm, morning = one.outcomes()
    assert (summary.done, summary.failed, summary.complete) == (2, 1, True)
    assert failed.error is not None and failed.error["message"] == "the model is gone"
    assert len(said(failed)) == 2
    assert (calm.status, morning.status) == ("done", "done")
    [told] = one.named("dialogue_failed")
    assert (told["dialogue"], told["error"]["message"]) == (0, "the model is gone")
    # What was said before it failed is part of the world that goes on.
    speakers = {turn.speaker for turn in said(failed)}
    known = {who for who, _ in morning.before}
    assert speakers <= known


async def test_a_batch_that_is_stopped_ends_at_turns_and_goes_on_to_the_same_results(
    tmp_path: Path,
) -> None:
    wanted = await undisturbed(tmp_path / "whole")
    model = HashedModel()
    async with batch(tmp_path / "stopped") as one:

        def told(event: Event) -> None:
            if event["event"] == "turn" and len(one.named("turn")) == 6:
                one.stopping.set()

        first = await one.run(model, 2, told)
        held, asked = len(one.outcomes()), len(model.history)
        again = await one.run(model)

        assert one.texts() == wanted
    assert first.stopped and not first.complete
    assert held < 12
    assert asked <= 6 + 2
    assert again.complete and not again.stopped
    assert len(model.history) == 48  # nothing was asked twice


async def test_a_batch_that_is_cut_off_goes_on_to_the_same_results(tmp_path: Path) -> None:
    wanted = await undisturbed(tmp_path / "whole")
    model = HashedModel()
    for turns in (3, 11, 20, 1):
        async with batch(tmp_path / "cut") as one:
            enough = asyncio.Event()

            def told(
                event: Event, one: Running = one, turns: int = turns, enough: Any = enough
            ) -> None:
                if len(one.named("turn")) >= turns:
                    enough.set()

            running = asyncio.create_task(one.run(model, 3, told))
            await enough.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async with batch(tmp_path / "cut") as one:
        summary = await one.run(model)

        assert one.texts() == wanted
    assert summary.complete
    assert len(model.history) <= 48 + 4 * 3  # at most what was under way is asked again


async def test_what_is_finished_is_not_held_again(tmp_path: Path) -> None:
    model = HashedModel()
    async with batch(tmp_path) as one:
        await one.run(model)
        await one.run(model)

    assert len(model.history) == 48
    assert one.events[-1]["event"] == "started"
    assert (one.events[-1]["done"], one.events[-1]["turns"]) == (12, 48)


@pytest.mark.parametrize("waves", [1, 2])
async def test_a_finished_batch_needs_neither_model_nor_embedder(
    tmp_path: Path, waves: int
) -> None:
    knows = persona("Ada") | {"memories": ["Ada buried a silver spoon."]}
    asked = {"personas": {"ada": knows, "bo": persona("Bo")}, "waves": [{"pairs": "all"}] * waves}
    async with batch(tmp_path, **asked) as one:
        await one.run(HashedModel())
    async with batch(tmp_path, **asked) as again:
        embedder = FickleEmbedder()
        embedder.fault = ModelError("the embedder is gone")
        again.host = host(embedder)
        summary = await again.run(HashedModel())

    assert summary.complete


async def test_what_failed_is_held_again_with_all_that_came_after_it(tmp_path: Path) -> None:
    wanted = await undisturbed(tmp_path / "whole")
    once = iter([ModelError("the model is gone")])

    def fails(asked: Asked) -> Exception | None:
        return next(once, None) if len(flaky.history) == 10 else None

    flaky = HashedModel(fails)
    async with batch(tmp_path / "failing") as one:
        await one.run(flaky, 1)
        [failed] = [outcome for outcome in one.outcomes() if outcome.status == "failed"]
        kept = await one.store.calls(failed.job.place.index)

        forgotten = await retry_failed(one.plan, one.store, ATTEMPTS)
        left = [outcome.job.place for outcome in one.outcomes()]
        model = HashedModel()
        summary = await one.run(model)

        assert one.texts() == wanted
    place = failed.job.place
    assert (forgotten, summary.failed, place.wave) == (1, 0, 0)
    assert {p.index for p in left if p.run == place.run} == {0, 1, 2} - {place.index}
    assert len([p for p in left if p.run != place.run]) == 6
    # The failed one is played up to where it failed; its sequels are held in a changed world.
    assert len(model.history) == 4 - (len(kept) - 1) + 3 * 4


async def test_of_two_that_failed_in_one_run_the_first_takes_the_second_along(
    tmp_path: Path,
) -> None:
    broken = HashedModel(lambda asked: ModelError("no") if "Cleo" in asked.text else None)
    async with batch(tmp_path) as one:
        await one.run(broken)
        before = one.outcomes()

        forgotten = await retry_failed(one.plan, one.store, ATTEMPTS)

        after = one.outcomes()
    assert sum(outcome.status == "failed" for outcome in before) == 8
    assert forgotten == 4  # of each run the two of its first wave
    assert [outcome.job.place.wave for outcome in after] == [0, 0]


async def test_a_store_that_takes_nothing_ends_the_batch(tmp_path: Path) -> None:
    def told(event: Event) -> None:
        if event["event"] == "dialogue_done":
            with closing(sqlite3.connect(tmp_path / NAME)) as beside:
                beside.execute("DROP TABLE outcomes")

    async with batch(tmp_path) as one:
        with pytest.raises(StorageUnavailable, match=NAME):
            await one.run(HashedModel(), 1, told)

    assert len(one.named("dialogue_done")) == 1


def call(number: int, error: dict[str, Any] | None = None, purpose: str = "reply") -> RecordedCall:
    return RecordedCall(0, number, purpose, "", "a:b", "", None, None, error)


def test_a_dialogue_failed_with_its_last_call_or_with_the_replies_of_its_last_turn() -> None:
    gone = {"code": 1, "message": "gone", "data": {"code": "llm_error"}}
    refused = {**gone, "data": {"code": "llm_error", "stage": "validate"}}
    summed_up = (call(0), call(1, purpose="summary"), call(2))

    assert failing_call((call(0), call(1), call(2, gone)), gone, ATTEMPTS) == 2
    assert failing_call(tuple(call(n) for n in range(5)), refused, ATTEMPTS) == 2
    assert failing_call(summed_up, refused, ATTEMPTS) == 0
    assert failing_call((), refused, ATTEMPTS) == 0


def test_a_dialogue_that_failed_with_none_of_its_calls_keeps_them_all() -> None:
    ours = {"code": 1, "message": "a defect", "data": {"code": "internal_error"}}

    assert failing_call(tuple(call(n) for n in range(5)), ours, ATTEMPTS) == 5


async def test_places_go_to_the_lowest_rank_and_back_from_who_gave_up() -> None:
    places, order = Places(1, lambda crowded: None), list[str]()

    async def take(name: str, rank: int) -> None:
        await places.take((rank, 0, 0))
        order.append(name)
        places.give()

    await places.take((0, 0, 0))
    waiting = [asyncio.create_task(take(f"rank {rank}", rank)) for rank in (3, 1, 2)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    places.give()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert order == ["rank 2", "rank 3"]
    await places.take((0, 0, 0))


async def test_places_tell_once_somebody_waits_and_once_half_are_free_for_good() -> None:
    told: list[bool] = []
    places = Places(4, told.append)

    with places.expecting():
        for _ in range(4):
            await places.take((0, 0, 0))
    assert told == []
    with places.expecting():
        for rank in (1, 2):
            waiting = asyncio.create_task(places.take((rank, 0, 0)))
            await asyncio.sleep(0)
            assert told == [True]
            places.give()
            await waiting
        for _ in range(3):
            places.give()
        for _ in range(3):
            await places.take((0, 0, 0))
        assert told == [True], "more were expected"
    places.give()
    assert told == [True]
    places.give()
    assert told == [True, False]


@pytest.mark.parametrize("repeats", [1, 9])
async def test_an_engine_is_told_once_that_dialogues_wait_and_once_that_the_last_are_held(
    tmp_path: Path, repeats: int
) -> None:
    told: list[bool] = []
    changes: dict[str, Any] = {"repeats": repeats, "waves": [{"pairs": "all"}]}

    class Watched(LocalEngine):
        def crowd(self, crowded: bool) -> None:
            told.append(crowded)
            super().crowd(crowded)

    async with batch(tmp_path, **changes) as one:
        pool = ModelPool([Post("model", HashedModel(), 8)])
        engine = Watched(one.host, pool, 1, one.store.keep_call)
        summary = await run_batch(
            one.plan, one.casts, one.store, engine, Worlds(one.host), lambda _: None, one.stopping
        )
        one_by_one = one.texts()

    assert summary.complete
    assert told == [True, False]
    assert one_by_one == await undisturbed(tmp_path / "other", **changes)


async def test_arms_that_have_the_same_people_share_a_cast() -> None:
    plan = plan_of(
        variations={
            "dialogue.scene": ["A quay.", "A cellar."],
            "personas.ada.persona.charisma": [3, 18],
        }
    )
    read = []

    async def reading(arm: Arm) -> Cast:
        read.append(arm.number)
        return await cast_of(arm.spec, None, None)

    casts = await read_casts(plan.arms, reading)

    assert len(read) == 2
    assert [casts.of(arm).members[0].spec.charisma for arm in range(4)] == [3, 18, 3, 18]
    assert casts_of_text(casts.text()) == casts


async def test_a_cast_that_was_changed_is_refused() -> None:
    text = (await casts_for(plan_of())).text()

    for changed in (text.replace(b"plainly", b"kindly"), text[:-9], b"[]", b'{"format": "x"}'):
        with pytest.raises(BadSnapshot, match=r"cast\.json"):
            casts_of_text(changed)


async def test_a_batch_whose_embedder_failed_is_the_same_again_where_it_does_not(
    tmp_path: Path,
) -> None:
    embedder = FickleEmbedder()

    def told(event: Event) -> None:
        if event["event"] == "turn" and event["dialogue"] == 1:
            embedder.fault = ModelError("the embedder went away")
        elif event["event"] in ("dialogue_failed", "dialogue_done"):
            embedder.fault = None

    async with batch(tmp_path / "first") as one:
        one.host = host(embedder)
        summary = await one.run(HashedModel(), 1, told)
        wanted = one.texts()
        calls = [call for place in range(12) for call in await one.store.calls(place)]
    async with batch(tmp_path / "again") as again:
        await again.store.add_calls(calls)
        engine, worlds = LocalEngine(again.host, None, 4), Worlds(again.host)
        await run_batch(
            again.plan, again.casts, again.store, engine, worlds, lambda _: None, asyncio.Event()
        )

        assert again.texts() == wanted
    assert summary.failed == 1
    assert [call.purpose for call in calls if call.error] == ["embedding"]


async def test_what_failed_for_the_embedder_keeps_its_calls_when_it_is_held_again(
    tmp_path: Path,
) -> None:
    wanted = await undisturbed(tmp_path / "whole")
    embedder = FickleEmbedder()

    def told(event: Event) -> None:
        if event["event"] == "turn" and (event["dialogue"], event["turn"]) == (1, 2):
            embedder.fault, embedder.poison = ModelError("the embedder went away"), ""
        elif event["event"] in ("dialogue_failed", "dialogue_done"):
            embedder.fault = None

    async with batch(tmp_path / "failing") as one:
        one.host = host(embedder)
        await one.run(HashedModel(), 1, told)
        before = await one.store.calls(1)
        await retry_failed(one.plan, one.store, ATTEMPTS)
        kept = await one.store.calls(1)
        await one.run(HashedModel())

        assert one.texts() == wanted
    assert (before[-1].purpose, kept) == ("embedding", before[:-1])
