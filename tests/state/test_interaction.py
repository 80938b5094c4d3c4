from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.interaction import (
    InteractionParams,
    InteractionState,
    Reason,
    after_talk,
    available,
    cooldown,
    reasons,
    regenerate,
    seconds_until_available,
    talk_cost,
)

P = InteractionParams()
Talked = tuple[float, int, bool, float | None]
"""Rest before it in seconds, words, whether it speaks, and the last score, if the talk ends."""
quick = settings(max_examples=50)
energy_rests, time_rests = st.floats(20, 200), st.floats(60, 86400)
gaps = st.floats(0, 1e6)
states = st.builds(
    InteractionState,
    as_of=st.just(0.0),
    fatigue=st.floats(0, 100),
    energy=st.floats(0, 200),
    time=st.floats(0, 86400),
    cooldown_until=st.none() | st.floats(0, 1e5),
)


def levels(state: InteractionState) -> tuple[float, float, float]:
    return state.fatigue, state.energy, state.time


@given(states, energy_rests, time_rests, gaps, gaps)
@quick
def test_law_split_rests_agree(
    state: InteractionState, energy: float, time: float, a: float, b: float
) -> None:
    once = regenerate(state, a + b, energy, time, P)
    twice = regenerate(regenerate(state, a, energy, time, P), a + b, energy, time, P)

    assert levels(twice) == pytest.approx(levels(once), abs=1e-6)
    assert regenerate(state, a + b, energy, time, P) == once


@given(states, energy_rests, time_rests, st.floats(1, 1e6))
@quick
def test_law_fatigue_falls_whenever_idle_and_values_stay_in_range(
    state: InteractionState, energy: float, time: float, gap: float
) -> None:
    rested = regenerate(state, gap, energy, time, P)

    assert rested.fatigue < state.fatigue or rested.fatigue == 0
    assert 0 <= rested.fatigue <= 100
    assert 0 <= rested.energy <= 200
    assert 0 <= rested.time <= 86400


@given(states, energy_rests, time_rests)
@quick
def test_law_every_persona_becomes_available_in_the_time_that_is_told(
    state: InteractionState, energy: float, time: float
) -> None:
    wait = seconds_until_available(state, time, P)

    later = regenerate(state, wait + 1e-3, energy, time, P)

    assert available(later, P)
    assert (wait == 0) == available(state, P)


talks = st.lists(
    st.tuples(gaps, st.integers(0, 2000), st.booleans(), st.none() | st.floats(0, 100)), max_size=8
)


@given(states, talks, energy_rests, time_rests, gaps, gaps)
@quick
def test_law_availability_fatigue_and_cooldown_compose_in_time(
    state: InteractionState, talks: list[Talked], energy: float, time: float, a: float, b: float
) -> None:
    """After any talks, two rests are the one that is as long as both, the cool-down too."""
    worn = after(state, talks, energy, time)
    once = regenerate(worn, worn.as_of + (a + b), energy, time, P)
    twice = regenerate(
        regenerate(worn, worn.as_of + a, energy, time, P), once.as_of, energy, time, P
    )

    assert levels(twice) == pytest.approx(levels(once), abs=1e-5)
    assert twice.cooldown_until == once.cooldown_until == worn.cooldown_until
    waits_differ = abs(
        seconds_until_available(twice, time, P) - seconds_until_available(once, time, P)
    )
    assert waits_differ <= 1 + 1e-6  # a wait is told in whole seconds


@given(states, talks, energy_rests, time_rests)
@quick
def test_law_every_persona_becomes_available_again_after_any_talks(
    state: InteractionState, talks: list[Talked], energy: float, time: float
) -> None:
    worn = after(state, talks, energy, time)
    wait = seconds_until_available(worn, time, P)

    rested = regenerate(worn, worn.as_of + wait + 1e-3, energy, time, P)

    assert wait <= 86_400 * 10
    assert available(rested, P)


@given(states, talks, energy_rests, time_rests, gaps)
@quick
def test_law_the_wait_only_gets_shorter_while_nobody_talks(
    state: InteractionState, talks: list[Talked], energy: float, time: float, gap: float
) -> None:
    worn = after(state, talks, energy, time)
    rested = regenerate(worn, worn.as_of + gap, energy, time, P)

    before, later = (seconds_until_available(one, time, P) for one in (worn, rested))

    assert later <= max(0.0, before - gap) + 1 + 1e-3


def after(
    state: InteractionState, talks: list[Talked], energy: float, time: float
) -> InteractionState:
    """Let a persona rest and talk by turns; a talk with a score ends with a cool-down."""
    for gap, words, speaks, score in talks:
        state = regenerate(state, state.as_of + gap, energy, time, P)
        share = 1.0 if speaks else P.listener_share
        state = after_talk(state, talk_cost(words, P), share, P)
        if score is not None:
            pause = cooldown(1, score, state.fatigue, P)
            state = replace(state, cooldown_until=state.as_of + pause)
    return state


def test_rest_goes_to_the_personas_own_level_from_both_sides() -> None:
    tired = InteractionState(0.0, fatigue=10, energy=50, time=0)
    eager = InteractionState(0.0, energy=150, time=900)

    assert levels(regenerate(tired, 600, 100, 300, P)) == pytest.approx((8, 60, 50))
    assert levels(regenerate(eager, 600, 100, 300, P)) == pytest.approx((0, 140, 850))
    assert levels(regenerate(tired, 1e6, 100, 300, P)) == (0, 100, 300)


def test_a_time_before_the_state_changes_nothing() -> None:
    state = InteractionState(100.0, fatigue=5)

    assert regenerate(state, 50.0, 100, 300, P) is state


@pytest.mark.parametrize(("words", "seconds"), [(0, 5), (12, 5), (100, 40), (1000, 120)])
def test_a_turn_costs_by_its_words(words: int, seconds: float) -> None:
    assert talk_cost(words, P) == pytest.approx(seconds)


def test_the_speaker_pays_in_full_the_listener_half_and_a_witness_nothing() -> None:
    state = InteractionState(0.0)

    assert levels(after_talk(state, 60, 1.0, P)) == pytest.approx((2, 99, 240))
    assert levels(after_talk(state, 60, P.listener_share, P)) == pytest.approx((1, 99.5, 270))
    assert after_talk(state, 60, 0.0, P) == state


@given(states, st.floats(0, 1e5))
@quick
def test_talk_never_leaves_the_ranges(state: InteractionState, talk_s: float) -> None:
    spent = after_talk(state, talk_s, 1.0, P)

    assert spent.fatigue <= 100
    assert min(levels(spent)) >= 0


@pytest.mark.parametrize(
    ("state", "conversations", "expected"),
    [
        (InteractionState(0.0), 2, ()),
        (InteractionState(0.0), 3, ("busy",)),
        (InteractionState(0.0, time=30), 0, ("no_time",)),
        (InteractionState(0.0, energy=10), 0, ("no_energy",)),
        (InteractionState(5.0, cooldown_until=5.0), 0, ()),
        (
            InteractionState(0.0, energy=0, time=0, cooldown_until=9.0),
            0,
            ("cooling_down", "no_time", "no_energy"),
        ),
    ],
)
def test_what_speaks_against_a_talk_is_named(
    state: InteractionState, conversations: int, expected: tuple[Reason, ...]
) -> None:
    assert reasons(state, P, conversations) == expected
    assert available(state, P, conversations) == (not expected)


def test_the_wait_is_that_of_the_slowest_rule() -> None:
    assert seconds_until_available(InteractionState(0.0, time=30), 300, P) == 1
    assert seconds_until_available(InteractionState(0.0, time=0), 300, P) == 361
    assert seconds_until_available(InteractionState(0.0, energy=4), 300, P) == 361
    assert (
        seconds_until_available(InteractionState(0.0, energy=4, cooldown_until=900), 300, P) == 900
    )


@pytest.mark.parametrize(
    ("turns", "score", "fatigue", "seconds"),
    [(0, 10, 0, 0), (1, 71, 0, 150), (5, 70, 0, 300), (5, 29, 0, 600), (5, None, 50, 450)],
)
def test_the_pause_after_a_talk_depends_on_how_it_went(
    turns: int, score: float | None, fatigue: float, seconds: float
) -> None:
    assert cooldown(turns, score, fatigue, P) == pytest.approx(seconds)


def test_a_new_state_is_the_documented_one() -> None:
    assert astuple(InteractionState(0.0)) == (0.0, 0.0, 100.0, 300.0, "none", None, 50.0)
