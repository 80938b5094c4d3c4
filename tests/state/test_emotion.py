from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.emotion import (
    EmotionalState,
    EmotionParams,
    Impulses,
    apply,
    baseline,
    decay,
    impulse,
    label,
    of_appraisal,
    of_contagion,
    of_talk,
    of_topic,
    of_turn,
    summed,
)
from persona_mcp.state.traits import BigFive

P = EmotionParams()
HOUR = 3600.0
signed, unit = st.floats(-1, 1), st.floats(0, 1)
quick = settings(max_examples=50)
people = st.builds(BigFive, unit, unit, unit, unit, unit)
states = st.builds(EmotionalState, st.just(0.0), signed, unit, unit, unit, unit)
pushes = st.builds(Impulses, signed, signed, signed, signed, signed)
appraisals = st.builds(Appraisal, signed, signed, signed, unit)


def values(state: EmotionalState) -> tuple[float, ...]:
    return astuple(state)[1:]


def in_range(state: EmotionalState) -> bool:
    return -1 <= state.mood <= 1 and all(0 <= value <= 1 for value in values(state)[1:])


@given(people)
@quick
def test_baselines_stay_in_the_ranges_that_they_promise(traits: BigFive) -> None:
    rest = baseline(traits, 0.0, P)

    assert abs(rest.mood) <= 0.6 + 1e-12
    assert 0.25 - 1e-12 <= rest.energy_level <= 0.75 + 1e-12
    assert 0 <= rest.stress_level <= 0.3
    assert 0.25 <= rest.curiosity <= 0.75
    assert 0.55 - 1e-12 <= rest.social_battery <= 0.95 + 1e-12


def test_the_average_persona_rests_even() -> None:
    assert values(baseline(BigFive(), 0.0, P)) == pytest.approx((0, 0.5, 0.15, 0.5, 0.75))


@given(people, st.floats(0, 1e7))
@quick
def test_law_the_baseline_is_a_fixed_point(traits: BigFive, now: float) -> None:
    rest = baseline(traits, 0.0, P)

    assert values(decay(rest, rest, now, P)) == values(rest)


@given(states, people, st.floats(0, 1e6), st.floats(0, 1e6))
@quick
def test_law_split_gaps_agree_and_stay_in_range(
    state: EmotionalState, traits: BigFive, a: float, b: float
) -> None:
    rest = baseline(traits, 0.0, P)

    once = decay(state, rest, a + b, P)
    twice = decay(decay(state, rest, a, P), rest, a + b, P)

    assert values(twice) == pytest.approx(values(once), abs=1e-9)
    assert in_range(once)


def test_each_value_falls_back_by_half_in_its_own_time() -> None:
    rest = EmotionalState(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    full = EmotionalState(0.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    assert decay(full, rest, 6 * HOUR, P).mood == pytest.approx(0.5)
    assert decay(full, rest, 8 * HOUR, P).energy_level == pytest.approx(0.5)
    assert decay(full, rest, 4 * HOUR, P).stress_level == pytest.approx(0.5)
    assert decay(full, rest, 12 * HOUR, P).curiosity == pytest.approx(0.5)
    assert decay(full, rest, 2 * HOUR, P).social_battery == pytest.approx(0.5)


def test_a_time_before_the_state_changes_nothing() -> None:
    state = baseline(BigFive(), 100.0, P)

    assert decay(state, baseline(BigFive(neuroticism=1), 0.0, P), 50.0, P) is state


@given(states, pushes)
@quick
def test_law_an_impulse_never_leaves_the_range(state: EmotionalState, push: Impulses) -> None:
    assert in_range(apply(state, push))


def test_the_same_push_moves_less_near_the_ends() -> None:
    assert impulse(0.5, 0.5) == pytest.approx(0.75)
    assert impulse(0.9, 0.5) == pytest.approx(0.95)
    assert impulse(0.5, -0.5, -1.0) == pytest.approx(-0.25)
    assert impulse(-0.9, -0.5, -1.0) == pytest.approx(-0.95)


def test_the_impulses_of_a_turn_are_summed_and_limited_before_they_are_applied() -> None:
    push = summed([Impulses(mood=0.8, curiosity=-0.7), Impulses(mood=0.8, curiosity=-0.7)])

    assert (push.mood, push.curiosity) == (1, -1)
    assert summed([]) == Impulses()


@given(states, people, appraisals, unit, st.floats(0, 1))
@quick
def test_law_more_warmth_never_lowers_mood(
    state: EmotionalState, traits: BigFive, act: Appraisal, more: float, size: float
) -> None:
    warmer = Appraisal(min(1, act.warmth + more), act.reliability, act.competence, act.disclosure)

    low, high = (apply(state, of_appraisal(each, traits, size, P)) for each in (act, warmer))

    assert high.mood >= low.mood - 1e-12


@given(states, unit, unit, st.floats(-1, -0.11), st.floats(0, 1))
@quick
def test_law_more_neuroticism_makes_bad_events_count_more(
    state: EmotionalState, a: float, b: float, harm: float, size: float
) -> None:
    act = Appraisal(warmth=harm, reliability=harm)
    calm, tense = (
        apply(state, of_appraisal(act, BigFive(neuroticism=n), size, P)) for n in sorted((a, b))
    )

    assert tense.mood <= calm.mood + 1e-12
    assert tense.stress_level >= calm.stress_level - 1e-12


def test_kindness_lifts_mood_and_takes_stress_and_hostility_does_the_reverse() -> None:
    kind = of_appraisal(Appraisal(warmth=1), BigFive(), 0.3, P)
    cruel = of_appraisal(Appraisal(warmth=-1, reliability=-1), BigFive(), 0.3, P)

    assert (kind.mood, kind.stress_level) == pytest.approx((0.09, -0.045))
    assert (cruel.mood, cruel.stress_level) == pytest.approx((-0.09, 0.15))


def test_a_beloved_topic_wakes_curiosity_and_a_dull_one_puts_it_to_sleep() -> None:
    assert of_topic(100, 0.3, P).curiosity == pytest.approx(0.06)
    assert of_topic(50, 0.3, P).curiosity == 0
    assert of_topic(0, 0.3, P).curiosity == pytest.approx(-0.06)


def test_talking_drains_an_introvert_faster_and_never_by_more_than_all() -> None:
    quiet = of_talk(60, BigFive(extraversion=0), P)
    loud = of_talk(60, BigFive(extraversion=1), P)

    assert quiet.social_battery == pytest.approx(-0.45)
    assert loud.social_battery == pytest.approx(-0.15)
    assert quiet.energy_level == pytest.approx(-0.2)
    assert of_talk(6000, BigFive(), P) == Impulses(energy_level=-1, social_battery=-1)


def test_a_turn_does_all_of_it_at_once() -> None:
    push = of_turn(Appraisal(warmth=1), BigFive(), 100, 60, 0.3, P)

    assert astuple(push) == pytest.approx((0.09, -0.2, -0.045, 0.06, -0.3))


def test_an_agreeable_listener_is_drawn_towards_the_speaker_s_mood() -> None:
    on, owner = EmotionParams(contagion=0.02), BigFive(agreeableness=0.5)

    assert of_contagion(0.0, 1.0, owner, P) == Impulses()
    assert of_contagion(0.5, -0.5, owner, on).mood == pytest.approx(-0.01)
    assert of_contagion(0.5, -0.5, BigFive(agreeableness=0), on).mood == 0.0


@pytest.mark.parametrize(
    ("mood", "energy", "stress", "word"),
    [
        (0.0, 0.5, 0.2, "even"),
        (0.5, 0.8, 0.1, "cheerful"),
        (0.5, 0.8, 0.9, "excited"),
        (0.5, 0.2, 0.1, "content"),
        (0.0, 0.2, 0.9, "strained"),
        (-0.5, 0.8, 0.1, "grumpy"),
        (-0.5, 0.8, 0.9, "upset"),
        (-0.5, 0.2, 0.1, "gloomy"),
        (-0.5, 0.2, 0.9, "overwhelmed"),
    ],
)
def test_a_state_has_a_word(mood: float, energy: float, stress: float, word: str) -> None:
    assert label(EmotionalState(0.0, mood, energy, stress, 0.5, 0.5)) == word
