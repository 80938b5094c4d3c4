from typing import Any

import pytest

from persona_mcp.state.batch.faults import spec_of
from persona_mcp.state.batch.plan import plan_batch
from persona_mcp.state.batch.sound import SoundTalks
from persona_mcp.state.dialogue_spec import TalkSpec
from persona_mcp.state.errors import InvalidParams, LimitExceeded
from tests.work import work_counted

CAST = {name: {"persona": {"name": name.title()}} for name in ("ada", "bo", "cy")}
GRID = {
    "dialogue.max_turns": list(range(20, 120)),
    "dialogue.token_budget": list(range(100, 200)),
}
EVENTS = [{"turn": 1 + number % 20, "text": "Rain."} for number in range(500)]


def refused(**fields: Any) -> dict[str, Any]:
    with pytest.raises(InvalidParams) as told:
        plan_batch(spec_of({"personas": CAST, **fields}))
    return dict(told.value.data["errors"][0])


def test_too_many_dialogues_are_refused_before_any_of_them_is_looked_at() -> None:
    waves = [{"dialogues": [{"first_speaker": "nobody"}] * 1000}]

    told = refused(variations=GRID, waves=waves)

    assert (told["field"], told["given"]) == (
        "variations",
        "10,000,000 (10,000 arms, 1 runs of each)",
    )


def test_where_arms_differ_dialogues_are_counted_until_there_are_too_many() -> None:
    told = refused(variations={"waves.0.times": [40_000, 90_000, 100_000]}, repeats=9)

    assert told["given"] == "more than 1,170,000 (3 arms, 9 runs of each)"


def test_what_a_caller_may_not_ask_for_is_refused_before_its_dialogues_are_looked_at() -> None:
    asked = spec_of({"personas": CAST, "dialogue": {"first_speaker": "nobody"}, "repeats": 4})

    with pytest.raises(LimitExceeded, match="4 dialogues, and 3 are allowed"):
        plan_batch(asked, largest=3)


def test_one_talk_that_is_held_very_often_is_looked_at_once() -> None:
    waves = [{"dialogues": [{"scene": "A quay."}, {"max_turns": 30}] * 500}] * 20
    asked = spec_of({"personas": CAST, "dialogue": {"interventions": EVENTS}, "waves": waves})

    with work_counted() as work:
        assert plan_batch(asked).total == 20_000

    assert work.calls < 20_000 * len(EVENTS) / 10, "not every event of every dialogue"


def test_one_fault_of_very_many_dialogues_is_not_looked_for_in_each() -> None:
    talk = {"interventions": [*EVENTS[:-1], {"turn": 1, "text": "Rain.", "to": ["eve"]}]}

    def calls_for(waves: int) -> int:
        its: list[dict[str, Any]] = [{"dialogues": [{}] * 1000}] * waves
        asked = spec_of({"personas": CAST, "dialogue": talk, "waves": its})
        with work_counted() as work, pytest.raises(InvalidParams) as told:
            plan_batch(asked)
        assert [one["field"] for one in told.value.data["errors"]] == [
            "dialogue.interventions.499.to.0"
        ]
        return work.calls

    assert calls_for(40) < 1.1 * calls_for(4)


def test_a_grid_comes_to_what_its_arms_come_to_together() -> None:
    grid = {"dialogue.scene": ["here", "there"], "dialogue.token_budget": [100, 200, 300]}

    made = plan_batch(spec_of({"personas": CAST, "variations": grid, "repeats": 2}))

    assert (made.total, made.tokens_max) == (12, 2 * 2 * (100 + 200 + 300))
    assert [made.amount(arm).tokens for arm in range(6)] == [100, 200, 300] * 2


@pytest.mark.parametrize(
    "other",
    [
        {"max_turns": 2},
        {"first_speaker": "bo"},
        {"participants": ["bo", "ada"]},
        {"interventions": [{"turn": 3, "text": "Rain."}]},
    ],
)
def test_a_talk_that_names_others_or_ends_before_what_it_names_is_another(
    other: dict[str, Any],
) -> None:
    base = TalkSpec.model_validate({"interventions": [{"turn": 3, "text": "Rain."}]})
    sound = SoundTalks().of(["ada", "bo"])

    sound.add(base, TalkSpec())

    assert sound.has(base, TalkSpec(scene="A quay.", max_turns=3))
    assert not sound.has(base, TalkSpec.model_validate(other))
    assert not SoundTalks().of(["ada", "bo"]).has(base, TalkSpec())
