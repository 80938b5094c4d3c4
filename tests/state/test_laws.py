"""The laws of the dynamics over random sequences of events; those of one event stand beside it.

Numbers are those of the nine laws of relationships, and of the laws of interaction and emotion.
"""

import math
import random
from dataclasses import astuple, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, insert, select

from persona_mcp.state import emotion, interaction, tables
from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.arrow import Arrow, Event, Priors
from persona_mcp.state.effects import RelationshipChange, add_relationship_change
from persona_mcp.state.emotion import EmotionalState, EmotionParams
from persona_mcp.state.interaction import InteractionParams, InteractionState
from persona_mcp.state.relationship import (
    RelationshipParams,
    apply,
    begin,
    decay,
    deltas,
    fold,
    shown,
    turn_size,
    weights,
)
from persona_mcp.state.table_base import Base
from persona_mcp.state.traits import BigFive
from tests.state.test_relationship import (
    DAY,
    P,
    appraisals,
    arrows,
    gaps,
    latents,
    logs,
    one,
    people,
    sizes,
    unit,
)

quick = settings(max_examples=50)
AXES = ("warmth", "reliability", "competence", "disclosure")
firsts = st.builds(Priors, st.floats(-0.4, 0.4), st.floats(-0.1, 0.1))
acts = st.lists(st.tuples(st.floats(0, 90 * DAY), appraisals, sizes), min_size=1, max_size=12)


def after_acts(
    doings: list[tuple[float, Appraisal, float]],
    role: Any,
    owner: BigFive,
    first: Priors,
    params: RelationshipParams,
) -> Arrow:
    """Let somebody's acts happen one after the other, as the owner of an arrow takes them."""
    arrow, now, weight = begin(first, 0.0), 0.0, weights(role, params)
    for seq, (gap, appraisal, size) in enumerate(doings, start=1):
        now += gap
        change = deltas(appraisal, size, weight, owner, 5.0, params)
        event = Event(now, seq, change, appraisal=appraisal, direct=weight.direct, minutes=5.0)
        arrow = apply(arrow, event, params)
    return arrow


@given(acts, people, firsts)
@quick
def test_law_1_directed_acts_that_are_not_returned_leave_the_actors_arrow_as_time_does(
    doings: list[tuple[float, Appraisal, float]], owner: BigFive, first: Priors
) -> None:
    params = RelationshipParams(returned_weight=0, returned_disclosure=0)

    after = after_acts(doings, "returned", owner, first, params)

    # Decay of values that are at rest changes no bit, so neither do acts of no weight.
    assert after == replace(begin(first, 0.0), as_of=after.as_of)


@given(acts, people, firsts)
@quick
def test_law_1_directed_acts_that_are_fully_returned_keep_both_arrows_equal(
    doings: list[tuple[float, Appraisal, float]], owner: BigFive, first: Priors
) -> None:
    params = RelationshipParams(returned_weight=1, returned_disclosure=1)

    received, returned = (
        after_acts(doings, role, owner, first, params) for role in ("received", "returned")
    )

    assert received == returned


@given(logs(40), gaps)
@quick
def test_law_2_bounded_no_log_leads_out_of_the_ranges(log: list[Event], later: float) -> None:
    arrow = fold(log, P)
    assert arrow is not None
    assume(max(map(abs, latents(arrow)[:3])) <= 15)

    for now in (shown(arrow, P), shown(decay(arrow, arrow.as_of + later, P), P)):
        assert all(abs(value) < 1 for value in (now.affinity, now.trust, now.respect))
        assert 0 <= now.intimacy < 1


@given(arrows, st.sampled_from(["affinity", "trust", "respect"]), st.floats(1e-3, 1))
@quick
def test_law_2_no_clamp_every_shown_value_grows_strictly_with_its_latent_one(
    arrow: Arrow, name: str, more: float
) -> None:
    latent = getattr(arrow, f"{name}_latent")
    assume(latent + more <= 15)
    change: dict[str, Any] = {f"{name}_latent": latent + more}

    assert getattr(shown(replace(arrow, **change), P), name) > getattr(shown(arrow, P), name)


@given(logs(), st.data(), people, sizes, st.sampled_from(range(4)), unit, gaps)
@quick
def test_law_3_monotone_raising_one_axis_of_one_act_never_lowers_its_dimension_nor_moves_others(
    log: list[Event],
    data: st.DataObject,
    owner: BigFive,
    size: float,
    axis: int,
    better: float,
    later: float,
) -> None:
    place = data.draw(st.integers(0, len(log) - 1))
    act = log[place].appraisal or Appraisal()
    change: dict[str, Any] = {AXES[axis]: min(1.0, getattr(act, AXES[axis]) + better)}

    def end(appraisal: Appraisal) -> tuple[float, ...]:
        event = replace(log[place], deltas=one(appraisal, size, owner), direct=True)
        arrow = fold([*log[:place], event, *log[place + 1 :]], P)
        assert arrow is not None
        return latents(decay(arrow, arrow.as_of + later, P))

    before, after = end(act), end(replace(act, **change))

    assert after[axis] >= before[axis] - 1e-12
    assert after[:axis] + after[axis + 1 :] == before[:axis] + before[axis + 1 :]


def test_law_4_trust_shown_falls_1_77_times_as_far_in_the_worst_case() -> None:
    owner, size = BigFive(agreeableness=1, neuroticism=0), 1.5
    rise, fall = (math.tanh(one(Appraisal(reliability=b), size, owner).trust) for b in (1, -1))

    assert (rise, fall) == pytest.approx((math.tanh(0.375), -math.tanh(0.75)))
    assert -fall / rise == pytest.approx(1.772, abs=5e-4)


@given(logs(), unit, sizes, people)
@quick
def test_law_4_after_any_log_harm_and_its_repair_do_not_end_above_the_start(
    log: list[Event], act: float, size: float, owner: BigFive
) -> None:
    start = fold(log, P)
    assert start is not None
    after = start
    for sign in (-act, act):
        change = one(Appraisal(sign, sign, sign), size, owner)
        after = apply(after, Event(start.as_of, 99, change), P)

    ends = zip(latents(after)[:3], latents(start)[:3], strict=True)
    assert all(end <= was + 1e-12 for end, was in ends)


@given(logs(), st.lists(st.floats(0, 100 * DAY), min_size=1, max_size=6))
@quick
def test_law_5_semigroup_after_any_log_a_gap_may_be_split_anywhere(
    log: list[Event], parts: list[float]
) -> None:
    arrow = fold(log, P)
    assert arrow is not None
    split, now = arrow, arrow.as_of
    for part in parts:
        now += part
        split = decay(split, now, P)

    assert latents(split) == pytest.approx(latents(decay(arrow, now, P)), rel=1e-12, abs=1e-12)


@given(arrows, st.sampled_from(["affinity", "trust", "respect"]), st.floats(-15, 15), gaps)
@quick
def test_law_5_semigroup_two_arrows_keep_their_order_in_every_dimension(
    arrow: Arrow, name: str, other: float, later: float
) -> None:
    values = sorted((getattr(arrow, f"{name}_latent"), other))

    def end(value: float) -> float:
        change: dict[str, Any] = {f"{name}_latent": value}
        found: float = getattr(decay(replace(arrow, **change), later, P), f"{name}_latent")
        return found

    low, high = map(end, values)

    assert low <= high + 1e-12


@given(arrows, st.floats(0.1, 3), gaps)
@quick
def test_law_6_more_familiarity_makes_every_dimension_fade_slower(
    arrow: Arrow, more: float, later: float
) -> None:
    closer = replace(arrow, contact=arrow.contact + more)
    rest = latents(decay(arrow, 1e15, P))

    fast, slow = latents(decay(arrow, later, P)), latents(decay(closer, later, P))

    for quick_one, slow_one, end in zip(fast, slow, rest, strict=True):
        assert abs(slow_one - end) >= abs(quick_one - end) - 1e-12


@given(logs(), gaps, st.floats(0.1, 3))
@quick
def test_law_6_after_any_log_intimacy_keeps_to_its_cap_and_falls_with_trust(
    log: list[Event], later: float, hurt: float
) -> None:
    arrow = fold(log, P)
    assert arrow is not None
    arrow = decay(arrow, arrow.as_of + later, P)

    now = shown(arrow, P)
    then = shown(replace(arrow, trust_latent=arrow.trust_latent - hurt), P)

    assert now.intimacy <= now.familiarity * (1 + now.trust) / 2
    assert then.intimacy < now.intimacy or now.intimacy == 0


def empty_world() -> Engine:
    """Make a world in memory, with the tables that relationships need."""
    engine = create_engine("sqlite://")
    needed = ("worlds", "relationship_events", "relationship_states")
    Base.metadata.create_all(engine, [Base.metadata.tables[name] for name in needed])
    with engine.begin() as connection:
        connection.execute(
            insert(tables.World).values(id="main", name="main", created_at=0.0, bundled_at=None)
        )
    return engine


PRESENT = ("aria", "kira", "sam")
OUTSIDE = "noor"
ends = st.tuples(st.sampled_from(PRESENT), st.sampled_from((*PRESENT, OUTSIDE))).filter(
    lambda two: two[0] != two[1]
)
happenings = st.lists(st.tuples(ends, appraisals, st.floats(0, 30 * DAY)), max_size=10)


@given(happenings, happenings)
@quick
def test_law_8_witnessed_whoever_was_not_there_has_bit_identical_arrows_before_and_after(
    before: list[Any], after: list[Any]
) -> None:
    engine, now, number = empty_world(), 0.0, 0

    def happen(who: str, whom: str, appraisal: Appraisal, gap: float) -> None:
        nonlocal now, number
        now, number = now + gap, number + 1
        event = Event(now, 0, one(appraisal), appraisal=appraisal, minutes=1.0)
        change = RelationshipChange(f"e{number}", who, whom, event, Priors(0.1, 0.0), "because")
        with engine.begin() as connection:
            add_relationship_change(connection, "main", None, change, P)

    def arrows_of_who_is_outside() -> list[Any]:
        query = "select * from relationship_states where from_id = ? order by to_id"
        with engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query, (OUTSIDE,))]

    for (who, whom), appraisal, gap in before:
        who, whom = (OUTSIDE, who) if whom == OUTSIDE else (who, whom)
        happen(who, whom, appraisal, gap)
    kept = arrows_of_who_is_outside()

    for (who, whom), appraisal, gap in after:
        happen(who, whom, appraisal, gap)

    assert arrows_of_who_is_outside() == kept
    with engine.begin() as connection:
        assert len(connection.execute(select(tables.RelationshipEvent)).all()) == number
    engine.dispose()


@given(acts, people, firsts)
@quick
def test_law_8_witnessed_hearsay_from_one_in_full_distrust_changes_nothing_however_often(
    doings: list[tuple[float, Appraisal, float]], owner: BigFive, first: Priors
) -> None:
    weight, arrow, now = weights("told", P, source_trust=-1.0), begin(first, 0.0), 0.0
    for seq, (gap, appraisal, size) in enumerate(doings, start=1):
        now += gap
        change = one(appraisal, size, owner, weight, minutes=30)
        arrow = apply(arrow, Event(now, seq, change, "hearsay", direct=weight.direct), P)

    assert arrow == replace(decay(begin(first, 0.0), now, P), as_of=now)


@pytest.mark.parametrize("neuroticism", [0.0, 0.5, 1.0])
def test_law_9_calibrated_neutral_turns_move_no_dimension_that_is_shown(neuroticism: float) -> None:
    lot, owner, courses = random.Random(11), BigFive(neuroticism=neuroticism), 200
    ended = [0.0, 0.0, 0.0, 0.0]
    for _ in range(courses):
        arrow = begin(Priors(), 0.0)
        for seq in range(20):
            w, b, c, d = (min(1.0, max(-1.0, lot.gauss(0, 0.1))) for _ in AXES)
            act = Appraisal(w, b, c, max(0.0, d))
            change = deltas(act, turn_size(P), weights("received", P), owner, 0.2, P)
            arrow = apply(arrow, Event(0.0, seq, change, minutes=0.2), P)
        now = shown(arrow, P)
        for axis, value in enumerate((now.affinity, now.trust, now.respect, now.intimacy)):
            ended[axis] += value / courses

    assert all(abs(value) < 0.02 for value in ended)


SPENT = InteractionParams()
talks = st.lists(
    st.tuples(st.floats(0, 7200), st.floats(5, 120), st.sampled_from([1.0, 0.5])), max_size=20
)
rests = st.tuples(st.floats(20, 200), st.floats(60, 86400))


def after_talks(
    course: list[tuple[float, float, float]], rest: tuple[float, float]
) -> InteractionState:
    """Let a persona talk at random times, from where it rests."""
    state = InteractionState(0.0, energy=rest[0], time=rest[1])
    for gap, talk_s, share in course:
        state = interaction.regenerate(state, state.as_of + gap, *rest, SPENT)
        state = interaction.after_talk(state, talk_s, share, SPENT)
    return state


def levels(state: InteractionState) -> tuple[float, float, float]:
    return state.fatigue, state.energy, state.time


@given(talks, rests, st.lists(st.floats(0, 7200), min_size=1, max_size=6))
@quick
def test_law_of_interaction_semigroup_a_rest_may_be_split_anywhere(
    course: list[tuple[float, float, float]], rest: tuple[float, float], parts: list[float]
) -> None:
    state = after_talks(course, rest)
    split, now = state, state.as_of
    for part in parts:
        now += part
        split = interaction.regenerate(split, now, *rest, SPENT)

    once = interaction.regenerate(state, now, *rest, SPENT)

    assert levels(split) == pytest.approx(levels(once), rel=1e-9, abs=1e-9)


@given(talks, rests, st.floats(0, 1e6))
@quick
def test_law_of_interaction_values_stay_in_their_ranges_and_fatigue_falls_at_rest(
    course: list[tuple[float, float, float]], rest: tuple[float, float], gap: float
) -> None:
    state = after_talks(course, rest)
    rested = interaction.regenerate(state, state.as_of + gap, *rest, SPENT)

    for each in (state, rested):
        assert 0 <= each.fatigue <= 100
        assert 0 <= each.energy <= 200
        assert 0 <= each.time <= 86400
    assert rested.fatigue < state.fatigue or state.fatigue == 0 or gap < 1e-3


@given(talks, rests, st.none() | st.floats(0, 1e5))
@quick
def test_law_of_interaction_every_persona_becomes_available_again(
    course: list[tuple[float, float, float]], rest: tuple[float, float], pause: float | None
) -> None:
    state = after_talks(course, rest)
    if pause is not None:
        state = replace(state, cooldown_until=state.as_of + pause)

    wait = interaction.seconds_until_available(state, rest[1], SPENT)
    later = interaction.regenerate(state, state.as_of + wait + 1e-3, *rest, SPENT)

    assert math.isfinite(wait)
    assert interaction.available(later, SPENT)


@given(talks, rests, st.floats(0, 1e6), st.floats(0, 1e6))
@quick
def test_law_of_interaction_reading_twice_without_a_write_agrees_with_reading_once(
    course: list[tuple[float, float, float]], rest: tuple[float, float], first: float, then: float
) -> None:
    state = after_talks(course, rest)
    alone = interaction.regenerate(state, state.as_of + first + then, *rest, SPENT)

    interaction.regenerate(state, state.as_of + first, *rest, SPENT)

    assert interaction.regenerate(state, state.as_of + first + then, *rest, SPENT) == alone


FELT = EmotionParams()
turns = st.lists(
    st.tuples(st.floats(0, 2e5), appraisals, st.floats(0, 100), st.floats(0, 60)),
    min_size=1,
    max_size=10,
)
characters = st.builds(BigFive, unit, unit, unit, unit, unit)


def after_turns(
    course: list[tuple[float, Appraisal, float, float]], traits: BigFive
) -> list[EmotionalState]:
    """Let turns happen to a persona, from where it rests; return its states after each."""
    rest = emotion.baseline(traits, 0.0, FELT)
    states = [rest]
    for gap, act, preference, minutes in course:
        state = emotion.decay(states[-1], rest, states[-1].as_of + gap, FELT)
        push = emotion.of_turn(act, traits, preference, minutes, FELT.turn_size, FELT)
        states.append(emotion.apply(state, push))
    return states


def feelings(state: EmotionalState) -> tuple[float, ...]:
    return astuple(state)[1:]


@given(turns, characters, st.floats(0, 1e6))
@quick
def test_law_of_emotion_no_course_of_turns_leads_out_of_the_ranges(
    course: list[tuple[float, Appraisal, float, float]], traits: BigFive, later: float
) -> None:
    rest, states = emotion.baseline(traits, 0.0, FELT), after_turns(course, traits)
    states.append(emotion.decay(states[-1], rest, states[-1].as_of + later, FELT))

    for state in states:
        assert -1 <= state.mood <= 1
        assert all(0 <= value <= 1 for value in feelings(state)[1:])


@given(turns, characters, st.lists(st.floats(0, 1e5), min_size=1, max_size=6))
@quick
def test_law_of_emotion_semigroup_a_gap_may_be_split_anywhere(
    course: list[tuple[float, Appraisal, float, float]], traits: BigFive, parts: list[float]
) -> None:
    rest, state = emotion.baseline(traits, 0.0, FELT), after_turns(course, traits)[-1]
    split, now = state, state.as_of
    for part in parts:
        now += part
        split = emotion.decay(split, rest, now, FELT)

    assert feelings(split) == pytest.approx(
        feelings(emotion.decay(state, rest, now, FELT)), abs=1e-9
    )


@given(turns, characters, st.data(), unit)
@quick
def test_law_of_emotion_more_warmth_in_one_turn_never_lowers_any_later_mood(
    course: list[tuple[float, Appraisal, float, float]],
    traits: BigFive,
    data: st.DataObject,
    more: float,
) -> None:
    place = data.draw(st.integers(0, len(course) - 1))
    gap, act, *rest = course[place]
    warmer = replace(act, warmth=min(1.0, act.warmth + more))

    cold = after_turns(course, traits)
    warm = after_turns([*course[:place], (gap, warmer, *rest), *course[place + 1 :]], traits)  # type: ignore[list-item]

    assert all(w.mood >= c.mood - 1e-12 for w, c in zip(warm, cold, strict=True))


@given(turns, characters, unit, unit, st.floats(-1, -0.11))
@quick
def test_law_of_emotion_from_any_state_harm_counts_more_for_the_less_steady(
    course: list[tuple[float, Appraisal, float, float]],
    traits: BigFive,
    a: float,
    b: float,
    harm: float,
) -> None:
    state, act = after_turns(course, traits)[-1], Appraisal(warmth=harm, reliability=harm)

    calm, tense = (
        emotion.apply(
            state, emotion.of_appraisal(act, BigFive(neuroticism=n), FELT.turn_size, FELT)
        )
        for n in sorted((a, b))
    )

    assert tense.mood <= calm.mood + 1e-12
    assert tense.stress_level >= calm.stress_level - 1e-12


@given(characters, st.lists(st.floats(0, 1e6), min_size=1, max_size=6))
@quick
def test_law_of_emotion_the_baseline_is_a_fixed_point(traits: BigFive, parts: list[float]) -> None:
    rest = emotion.baseline(traits, 0.0, FELT)
    states = [rest]
    for part in parts:
        states.append(emotion.decay(states[-1], rest, states[-1].as_of + part, FELT))

    assert all(feelings(one) == feelings(two) for one, two in pairwise(states))
