import asyncio
from dataclasses import replace

import pytest

from persona_mcp.server.run_dialogue import run_dialogue
from persona_mcp.state.batch import Outcome, TurnTold
from persona_mcp.state.dialogue_spec import START
from persona_mcp.state.errors import Cancelled, ModelError
from tests.doubles import Fails, ScriptedModel
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
