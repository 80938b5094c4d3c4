import asyncio
from dataclasses import replace

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.dialogue_host import dialogue_host
from persona_mcp.server.batch.run_dialogue import Swap, run_dialogue
from persona_mcp.state.batch.codec import outcome_json
from persona_mcp.state.batch.values import Outcome, TurnTold
from persona_mcp.state.dialogue_spec import START
from persona_mcp.state.errors import Cancelled, ModelError
from persona_mcp.state.folding import fold
from tests.doubles import Fails, FickleEmbedder, ScriptedModel
from tests.small_worlds import cast, hold, host, job, lines

pytestmark = pytest.mark.anyio


def said(outcome: Outcome) -> list[tuple[str, str]]:
    return [(turn["speaker_id"], turn["content"]) for turn in outcome.rows["turns"]]


async def test_a_dialogue_goes_on_to_its_last_turn_and_tells_of_each() -> None:
    ours, told = host(), list[TurnTold]()
    frozen = await ours.begin_world(cast(), START)

    outcome = await hold(ours, job(), frozen, ScriptedModel(*lines(4)), told=told)

    assert (outcome.status, outcome.error, outcome.exit_reason) == ("done", None, "time_limit")
    assert [text for _, text in said(outcome)] == list(lines(4))
    assert [(one.turn, one.speaker, one.text) for one in told] == [
        (number, *turn) for number, turn in enumerate(said(outcome), start=1)
    ]
    assert outcome.calls == 4
    assert outcome.measured["tokens"] == sum(one.tokens for one in told) > 0


async def test_time_passes_by_what_talking_costs_alone() -> None:
    ours = host()
    frozen = await ours.begin_world(cast(), START)

    outcome = await hold(ours, job(), frozen)

    spent = [row["talk_s"] for row in outcome.rows["energy_spent"] if row["share"] == 1.0]
    assert outcome.rows["exchanges"][0]["created_at"] == START
    at = [START + sum(spent[:number]) for number in range(1, 5)]
    assert [turn["created_at"] for turn in outcome.rows["turns"]] == pytest.approx(at)
    assert outcome.ended_at == pytest.approx(START + sum(spent))


async def test_how_they_see_each_other_is_told_before_and_after() -> None:
    ours = host()
    frozen = await ours.begin_world(cast(), START)

    outcome = await hold(ours, job(), frozen)

    pair, back = ("ada", "ben"), ("ben", "ada")
    assert set(outcome.before) == {pair, back} == set(outcome.after)
    assert outcome.before[pair]["affinity"] > 0 > outcome.before[back]["affinity"]
    assert outcome.after[pair]["familiarity"] > outcome.before[pair]["familiarity"]


async def test_the_same_job_gives_the_same_outcome_alone_and_beside_others() -> None:
    ours = host()
    frozen = await ours.begin_world(cast(), START)
    alone = await hold(ours, job(), frozen)

    others = host()
    again, beside = await asyncio.gather(
        hold(others, job(), frozen), hold(others, job(1, "cleo", "ada"), frozen)
    )

    assert replace(again, measured={}) == replace(alone, measured={})
    assert said(beside) != said(alone)


async def test_a_model_that_fails_leaves_what_was_said_before() -> None:
    ours, told = host(), list[TurnTold]()
    frozen = await ours.begin_world(cast(), START)
    broken = Fails(ModelError("the model went away", provider="scripted"), after="But then I")

    outcome = await hold(ours, job(), frozen, ScriptedModel(*lines(2), broken), told=told)

    assert outcome.status == "failed"
    assert outcome.error == {
        "code": -32003,
        "message": "the model went away",
        "data": {"code": "llm_error", "retryable": True, "provider": "scripted"},
    }
    assert [text for _, text in said(outcome)] == list(lines(2))
    assert [one.turn for one in told] == [1, 2]
    last = outcome.rows["exchanges"][-1]
    assert (last["status"], last["partial"], last["error"]) == (
        "failed",
        "But then I",
        outcome.error,
    )


async def test_it_stops_at_the_end_of_a_turn() -> None:
    ours, told = host(), list[TurnTold]()
    frozen = await ours.begin_world(cast(), START)

    with pytest.raises(Cancelled):
        await run_dialogue(
            ours, job(), frozen, ScriptedModel(*lines(4)), told.append, lambda: len(told) == 2
        )

    assert [one.turn for one in told] == [1, 2]


async def test_who_has_to_rest_makes_it_fail_before_its_first_turn() -> None:
    ours, told = host(), list[TurnTold]()
    frozen = await ours.begin_world(cast(), START)
    first = await hold(ours, job(), frozen)
    tired, model = fold(frozen, [first], ours.laws.effects), ScriptedModel(*lines(4))

    again = job(1, starts_at=first.ended_at, ignore_availability=False)
    outcome = await hold(ours, again, tired, model, told=told)

    assert outcome.status == "failed" and outcome.error is not None
    assert outcome.error["data"]["reason"] == "cooldown"
    assert not any(outcome.rows.values()) and not told and not model.history
    assert outcome.before == outcome.after != {}


async def test_somebody_who_is_not_in_the_world_makes_it_fail() -> None:
    ours = host()
    frozen = await ours.begin_world(cast(), START)

    outcome = await hold(ours, job(0, "ada", "zoe"), frozen)

    assert outcome.error is not None and outcome.error["message"] == "persona 'zoe' not found"


async def test_what_is_different_from_a_turn_on_bears_on_it_and_on_no_turn_before() -> None:
    ours, model = host(), ScriptedModel(*lines(4))
    frozen = await ours.begin_world(cast(), START)
    sad = {"ada": {"description": "Ada has lost her violin."}}
    other = replace(job(scene="In a storm at sea."), temperature=1.5)

    def from_the_third(turn: int) -> Swap | None:
        return Swap(other, sad) if turn == 3 else None

    outcome = await hold(ours, job(scene="In a garden."), frozen, model, from_the_third)

    early, late = model.history[:2], model.history[2:]
    assert outcome.status == "done"
    assert [("garden" in a.text, "storm at sea" in a.text) for a in early] == [(True, False)] * 2
    assert [("garden" in a.text, "storm at sea" in a.text) for a in late] == [(False, True)] * 2
    assert [asked.sampling.temperature for asked in late] == [1.5] * 2
    assert any("lost her violin" in asked.text for asked in late)
    assert not any("lost her violin" in asked.text for asked in early)


async def test_asking_before_each_turn_for_nothing_else_changes_nothing() -> None:
    ours = host()
    frozen = await ours.begin_world(cast(), START)

    whole = await hold(ours, job(max_turns=6), frozen)
    by_turns = await hold(ours, job(max_turns=6), frozen, before_turn=lambda turn: None)
    same_job = await hold(ours, job(max_turns=6), frozen, before_turn=lambda turn: job(max_turns=6))

    assert outcome_json(by_turns) == outcome_json(whole) == outcome_json(same_job)


async def test_who_comes_later_has_heard_nothing_before() -> None:
    ours, model = host(), ScriptedModel(*lines(6))
    frozen = await ours.begin_world(cast(), START)
    late = job(max_turns=6, joins=[{"persona": "cleo", "turn": 4}])

    outcome = await hold(ours, late, frozen, model)

    heard = {row["content"] for row in outcome.rows["memories"] if row["persona_id"] == "cleo"}
    speakers = [speaker for speaker, _ in said(outcome)]
    assert "cleo" not in speakers[:3] and "cleo" in speakers
    assert not any(line in text for line in lines(3) for text in heard)


async def test_what_leaves_the_window_is_summed_up_for_each_and_embedded() -> None:
    ours = host()
    frozen = await ours.begin_world(cast(), START)
    long = job(max_turns=44, stagnation=0, minutes=600.0, token_budget=30000, bow_out=False)

    outcome = await hold(ours, long, frozen)

    assert outcome.exit_reason == "time_limit"
    summaries = [row for row in outcome.rows["memories"] if row["memory_type"] == "summary"]
    on_the_way = [row for row in summaries if row["origin"]["from_turn"] > 1]
    assert {row["persona_id"] for row in on_the_way} == {"ada", "ben"}
    assert {row["origin"]["made_by"] for row in summaries} == {"extractive"}
    embedded = {row["memory_id"] for row in outcome.rows["memory_vectors"]}
    assert embedded == {row["id"] for row in outcome.rows["memories"]}


async def test_an_embedder_that_fails_makes_it_fail() -> None:
    embedder = FickleEmbedder()
    ours = host(embedder)
    frozen = await ours.begin_world(cast(), START)
    embedder.fault, embedder.poison = ModelError("the embedder went away"), "number 1"

    outcome = await hold(ours, job(), frozen, ScriptedModel(*lines(4)))

    assert outcome.error is not None and outcome.error["message"] == "the embedder went away"
    assert [text for _, text in said(outcome)] == list(lines(2))


@pytest.mark.model
async def test_the_real_embedder_gives_the_same_outcome_alone_and_beside_others() -> None:
    settings = Settings(_env_file=None)
    outcomes = []
    for others in (0, 3):
        ours = dialogue_host(settings)
        frozen = await ours.begin_world(cast(), START)
        jobs = [job(), *(job(n, "cleo", "ada") for n in range(1, others + 1))]
        held = await asyncio.gather(*(hold(ours, one, frozen) for one in jobs))
        outcomes.append(outcome_json(held[0]))
        await ours.aclose()

    assert outcomes[0] == outcomes[1]
