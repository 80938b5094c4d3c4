from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state import relationship
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.batch.reading import (
    beginnings,
    interventions,
    latent_of,
    moved,
    participants_of,
    said,
    shown_of,
    summaries,
)
from tests.outcomes import LAWS, NARRATOR, Arrows, Line, job_of, outcome_of
from tests.outcomes import shown_of as shown

DAY = 86_400.0


def test_a_turn_is_read_with_who_heard_it_and_what_it_cost() -> None:
    outcome = outcome_of(
        job_of(people=("ada", "ben", "cy"), whispers=[{"turn": 2, "to": ["ada"]}]),
        [
            Line("ada", "Good morning."),
            Line("ben", "Not so loud.", heard_by=["ada"]),
            Line("cy", "I must go.", template=True),
        ],
    )

    turns = said(outcome)

    assert [turn.kind for turn in turns] == ["said", "whispered", "exit_line"]
    assert [turn.heard_by for turn in turns] == [("ben", "cy"), ("ada",), ("ada", "ben")]
    assert turns[0].tokens == 6 and turns[0].estimated
    assert turns[0].score == pytest.approx(69.123456789)
    assert not turns[1].perceived_by("cy") and turns[1].perceived_by("ben")


def test_what_a_narrator_brings_in_is_no_turn_of_anybody() -> None:
    outcome = outcome_of(
        job_of(), [Line("ada", "A fine day."), Line(NARRATOR, "It begins to rain.")]
    )

    turns = said(outcome)

    assert turns[1].kind == "narrated" and turns[1].tokens == 0 and turns[1].score is None
    assert [(one.turn, one.text) for one in interventions(turns)] == [(2, "It begins to rain.")]
    assert interventions(turns)[0].heard_by == ("ada", "ben")


def test_a_turn_that_was_switched_off_was_not_said() -> None:
    outcome = outcome_of(job_of(), [Line("ada", "One."), Line("ben", "Two.")])
    outcome.rows["turns"][0]["active"] = False

    assert [turn.text for turn in said(outcome)] == ["Two."]


def test_who_comes_later_takes_part() -> None:
    job = job_of(joins=[{"persona": "cy", "turn": 3}])

    assert participants_of(job) == ("ada", "ben", "cy")


def test_the_last_summary_of_each_is_what_it_keeps() -> None:
    outcome = outcome_of(job_of(), [Line("ada", "Hi.")], summaries={"ben": "old", "ada": "mine"})
    outcome.rows["memories"] += [
        {"persona_id": "ben", "memory_type": "summary", "active": True, "content": "new"},
        {"persona_id": "ben", "memory_type": "conversation", "active": True, "content": "Hi."},
    ]

    assert summaries(outcome) == {"ada": "mine", "ben": "new"}


def test_relationships_are_followed_turn_by_turn_to_what_they_were_at_the_end() -> None:
    arrows: Arrows = {}
    first = outcome_of(
        job_of(),
        [Line("ada", "You are kind.", 0.8), Line("ben", "You are not.", -0.6)] * 4,
        arrows,
    )
    later = job_of(1, starts_at=first.ended_at + 3 * DAY)
    second = outcome_of(
        later, [Line("ada", "Hello again.", 0.7), Line("ben", "Hm.", -0.2)] * 4, arrows
    )

    for outcome in (first, second):
        found = moved(outcome, LAWS)

        assert [(one.turn, one.of, one.to) for one in found[:2]] == [
            (1, "ben", "ada"),
            (2, "ada", "ben"),
        ]
        for ends in outcome.after:
            last = [one for one in found if (one.of, one.to) == ends][-1]
            assert last.shown == pytest.approx(outcome.after[ends], abs=2e-6)
    assert found[0].change > 0 > found[1].change
    assert found[0].why == "warmth +0.7: Hello again."


def test_on_the_way_they_are_what_the_laws_say() -> None:
    known = Arrow(as_of=0.0, affinity_latent=1.2, trust_latent=-0.4, contact=0.5, disclosure=0.4)
    arrows: Arrows = {("ben", "ada"): known}
    lines = [Line("ada", f"Word {n}.", 0.9 if n % 3 else -0.9) for n in range(12)]
    exact = []
    for count in range(1, 13):
        state: Arrows = {("ben", "ada"): known}
        outcome_of(job_of(starts_at=5 * DAY), lines[:count], state)
        exact.append(shown(state, state["ben", "ada"].as_of)["ben", "ada"])

    found = moved(outcome_of(job_of(starts_at=5 * DAY), lines, arrows), LAWS)

    assert [dict(one.shown) for one in found] == [pytest.approx(e, abs=1e-4) for e in exact]


def test_who_had_not_met_begins_with_the_first_impression() -> None:
    arrows: Arrows = {("ben", "ada"): Arrow(as_of=0.0, affinity_latent=0.5)}
    outcome = outcome_of(job_of(), [Line("ada", "Hello."), Line("ben", "Hello.")], arrows)

    found = beginnings(outcome, LAWS)

    assert found["ben", "ada"] == outcome.before["ben", "ada"]
    assert found["ada", "ben"]["affinity"] == pytest.approx(0.05, abs=1e-4)


def test_an_arrow_that_has_no_end_goes_by_its_turns_alone() -> None:
    outcome = outcome_of(job_of(), [Line("ada", "Dear friend.", 0.9)] * 2)

    found = moved(replace(outcome, after={}), LAWS)

    assert found[1].shown["affinity"] > found[0].shown["affinity"] > 0


@given(
    st.builds(
        Arrow,
        as_of=st.just(0.0),
        affinity_latent=st.floats(-6, 6),
        trust_latent=st.floats(-6, 6),
        respect_latent=st.floats(-6, 6),
        disclosure=st.floats(0, 6),
        contact=st.floats(0.01, 6),
    )
)
def test_latent_values_come_back_from_what_is_shown(arrow: Arrow) -> None:
    values = relationship.shown(arrow, LAWS)
    seen = {name: getattr(values, name) for name in ("affinity", "trust", "respect", "intimacy")}
    seen |= {"familiarity": values.familiarity, "strength": values.strength}

    assert shown_of(latent_of(seen), 0.0, LAWS) == pytest.approx(seen, abs=1e-9)


def test_values_at_the_very_end_have_a_latent_value_too() -> None:
    edge = dict.fromkeys(("affinity", "trust", "respect", "intimacy", "familiarity"), 1.0)

    assert latent_of(edge)["affinity"] > 15
    assert latent_of(dict.fromkeys(edge, 0.0)) == dict.fromkeys(latent_of(edge), 0.0)
