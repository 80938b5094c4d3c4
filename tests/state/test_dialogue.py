"""A talk between personas: whose turn it is, who begins, how far it has left its topic."""

from collections import Counter
from typing import Any

import pytest

from persona_mcp.state.continuation import ContinuationParams
from persona_mcp.state.dialogue import (
    Member,
    Plan,
    Standing,
    drift,
    first_by_initiative,
    outlook,
    plan_of,
    sampling_seed,
)
from persona_mcp.state.exchange import Conversation
from persona_mcp.state.persona import Persona
from tests.scenes import NOW, feelings, turn
from tests.state.rows import spec

LAWS = ContinuationParams()
PLAN = Plan(
    token_budget=1000,
    max_duration=600.0,
    max_turns=100,
    seed=7,
    first_speaker="ann",
    witnesses=("cleo",),
)


def member(name: str, **more: Any) -> Member:
    return Member(Persona(name.lower(), 1, spec(name, **more), NOW, NOW), feelings())


def standing(*members: Member, plan: Plan = PLAN, **more: Any) -> Standing:
    ids = tuple(one.persona.id for one in members)
    talk = Conversation(
        *("c1", "", "", ids, "music", "active", None, more.get("turns", 0), NOW, NOW), "dialogue"
    )
    values: dict[str, Any] = {"last_speaker": None, "duration": 0.0, "tokens_used": 0, "window": ()}
    asked = {key: more.get(key, value) for key, value in values.items()}
    return Standing(NOW, talk, plan, members, **asked, views={}, said=more.get("said", 0))


def test_a_plan_is_read_as_it_was_written_whatever_the_end_has_added() -> None:
    assert plan_of({**PLAN.as_json(), "cooldowns": {"ann": 1.0}}) == PLAN


def test_one_speaks_to_who_spoke_last_else_to_the_first_other_one() -> None:
    three = [member(name) for name in ("Ann", "Ben", "Cleo")]

    assert standing(*three).partner("ann").persona.id == "ben"
    assert standing(*three, last_speaker="cleo").partner("ann").persona.id == "cleo"
    assert standing(*three, last_speaker="ann").partner("ann").persona.id == "ben"


def test_the_charming_begin_more_often_and_always_the_same_one_for_a_seed() -> None:
    two = [member("Ann", charisma=10), member("Ben", charisma=13)]

    drawn = [first_by_initiative(two, seed, LAWS) for seed in range(200)]

    assert drawn == [first_by_initiative(two, seed, LAWS) for seed in range(200)]
    assert 120 < Counter(drawn)["ben"] < 190


def test_the_words_of_each_turn_are_drawn_with_a_seed_of_their_own() -> None:
    seeds = [sampling_seed(PLAN, number) for number in range(50)]

    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds == [sampling_seed(PLAN, number) for number in range(50)]


@pytest.mark.parametrize(
    ("more", "ends"),
    [
        ({}, None),
        ({"tokens_used": 949}, None),
        ({"tokens_used": 950}, "budget"),
        ({"said": 99}, None),
        ({"said": 100}, "time_limit"),
        ({"plan": PLAN.model_copy(update={"max_duration": 30.0}), "duration": 30.0}, "time_limit"),
    ],
)
def test_a_talk_goes_on_while_its_budgets_last(more: dict[str, Any], ends: str | None) -> None:
    two = [member(name, charisma=18, topic_preferences={"music": 90}) for name in ("Ann", "Ben")]

    assert outlook(standing(*two, **more), "ann", LAWS).ends == ends


def test_what_nobody_likes_ends_a_talk_that_is_dull_already() -> None:
    two = [member(name, charisma=1, topic_preferences={"music": 0}) for name in ("Ann", "Ben")]

    found = outlook(standing(*two, duration=300.0), "ann", LAWS)

    assert found.score.total < 40
    assert found.ends == "bored"


@pytest.mark.parametrize(
    ("topic", "said", "drifted"),
    [
        ("music", ["I love music.", "So do I."], 0),
        ("music", ["Books are better.", "I read books.", "More books!"], 2),
        ("music", ["Books are better.", "A book of music.", "More books!"], 0),
        ("general", ["Books are better.", "I read books.", "More books!"], 0),
        ("music", ["Rain.", "Wind.", "Snow."], 0),
    ],
)
def test_a_talk_drifts_where_two_turns_running_name_another_topic(
    topic: str, said: list[str], drifted: int
) -> None:
    two = [member("Ann", topic_preferences={"books": 80}), member("Ben")]
    turns = [turn(number, "ann", text) for number, text in enumerate(said, start=1)]

    assert drift(turns, two, topic) == drifted
