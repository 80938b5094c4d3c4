import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from persona_mcp.state.cues import load_cues
from persona_mcp.state.explaining import contributions
from persona_mcp.state.relationship import (
    Appraisal,
    Arrow,
    Bias,
    Bond,
    ContextRow,
    Contribution,
    Deltas,
    Event,
    Priors,
    RelationshipParams,
    Role,
    Shown,
    Weights,
    apply,
    appraisal_for,
    begin,
    dead_zone,
    decay,
    deltas,
    fold,
    hearsay_weight,
    is_turning_point,
    priors,
    relationship_type,
    shown,
    turn_size,
    update_size,
    weights,
    without_bias,
)
from persona_mcp.state.traits import BigFive

P = RelationshipParams()
DAY = 86400.0
AVERAGE = BigFive()
JOINT = weights("joint", P)
TYPES = st.sampled_from

signed = st.floats(-1, 1)
unit = st.floats(0, 1)
latent = st.floats(-15, 15)
sizes = st.floats(0.01, 1.5)
gaps = st.floats(0, 1000 * DAY)
appraisals = st.builds(Appraisal, signed, signed, signed, unit)
people = st.builds(BigFive, agreeableness=unit, neuroticism=unit)
bonds: st.SearchStrategy[Bond] = TYPES(["none", "family", "vow", "romantic", "mentor"])
changes = st.builds(
    Deltas,
    st.floats(-0.6, 0.6),
    st.floats(-0.9, 0.9),
    st.floats(-0.4, 0.4),
    st.floats(0, 0.8),
    st.floats(0, 3),
)
arrows = st.builds(
    Arrow,
    as_of=st.just(0.0),
    affinity_latent=latent,
    trust_latent=latent,
    respect_latent=latent,
    disclosure=st.floats(0, 20),
    contact=st.floats(0, 20),
    interactions=st.integers(0, 500),
    last_quality=signed,
    affinity_prior=st.floats(-0.4, 0.4),
    trust_prior=st.floats(-0.1, 0.1),
    bond=bonds,
)
quick = settings(max_examples=50)


@st.composite
def logs(draw: st.DrawFn, most: int = 12) -> list[Event]:
    times = sorted(draw(st.lists(st.integers(0, 400), min_size=1, max_size=most)))
    events = [
        Event(
            at=day * DAY,
            seq=seq,
            deltas=draw(changes),
            direct=draw(st.booleans()),
            minutes=draw(st.floats(0, 90)),
            appraisal=draw(appraisals),
        )
        for seq, day in enumerate(times, start=1)
    ]
    first = Priors(draw(st.floats(-0.4, 0.4)), draw(st.floats(-0.1, 0.1)))
    return [replace(events[0], priors=first), *events[1:]]


def latents(arrow: Arrow) -> tuple[float, float, float, float]:
    return arrow.affinity_latent, arrow.trust_latent, arrow.respect_latent, arrow.disclosure


def meeting(
    at: float,
    seq: int,
    quality: float,
    minutes: float,
    context: str = "conversation",
    owner: BigFive = AVERAGE,
) -> Event:
    appraisal = appraisal_for(quality, context, P)
    size = update_size(minutes, P, turning_point=is_turning_point(context, P))
    return Event(
        at=at,
        seq=seq,
        deltas=deltas(appraisal, size, JOINT, owner, minutes, P),
        context=context,
        appraisal=appraisal,
        size=size,
        minutes=minutes,
    )


def one(
    appraisal: Appraisal,
    size: float = 1.0,
    owner: BigFive = AVERAGE,
    weight: Weights = JOINT,
    minutes: float = 0.0,
) -> Deltas:
    return deltas(appraisal, size, weight, owner, minutes, P)


CALM = [("conversation", 0.7, 30.0)] * 10
TRAJECTORIES = [
    ([("conversation", 0.5, 5.0)], (0.036, 0.018, 0.011, 0.000, 0.023, 0.022), "stranger"),
    ([("conversation", 0.6, 15.0)] * 5, (0.347, 0.189, 0.118, 0.013, 0.181, 0.221), "acquaintance"),
    (CALM, (0.814, 0.553, 0.374, 0.142, 0.478, 0.580), "friend"),
    (
        [*CALM, ("betrayal", -0.8, 10.0)],
        (0.700, 0.243, 0.247, 0.117, 0.494, 0.414),
        "acquaintance",
    ),
    (
        [*CALM, ("betrayal", -0.8, 10.0), ("repair", 0.8, 10.0)],
        (0.752, 0.351, 0.288, 0.143, 0.510, 0.478),
        "acquaintance",
    ),
    (
        [("deep_conversation", 0.8, 45.0)] * 20,
        (0.989, 0.982, 0.648, 0.826, 0.835, 0.902),
        "close_friend",
    ),
    ([("conflict", -0.5, 10.0)] * 10, (-0.847, -0.950, -0.362, 0.000, 0.271, -0.696), "rival"),
    ([("conflict", -0.8, 15.0)] * 30, (-1.000, -1.000, -0.973, 0.000, 0.699, -0.895), "enemy"),
    ([("conversation", 0.0, 10.0)] * 10, (0.0, 0.0, 0.0, 0.0, 0.271, 0.0), "acquaintance"),
]


@pytest.mark.parametrize(("course", "expected", "kind"), TRAJECTORIES)
def test_a_course_of_daily_meetings_ends_where_it_always_did(
    course: list[tuple[str, float, float]], expected: tuple[float, ...], kind: str
) -> None:
    events = [meeting(n * DAY, n, q, m, context) for n, (context, q, m) in enumerate(course, 1)]

    arrow = fold(events, P)

    assert arrow is not None
    now = shown(arrow, P)
    values = (now.affinity, now.trust, now.respect, now.intimacy, now.familiarity, now.strength)
    assert values == pytest.approx(expected, abs=0.002)
    assert relationship_type(arrow, arrow, P) == kind


@given(arrows, appraisals, sizes, people)
@quick
def test_law_1_directed_an_act_without_return_leaves_the_actors_arrow_bit_identical(
    arrow: Arrow, appraisal: Appraisal, size: float, owner: BigFive
) -> None:
    params = RelationshipParams(returned_weight=0, returned_disclosure=0)
    weight = weights("returned", params)
    change = deltas(appraisal, size, weight, owner, 5.0, params)

    after = apply(arrow, Event(arrow.as_of, 1, change, direct=weight.direct), params)

    assert after == arrow


@given(arrows, appraisals, sizes, people)
@quick
def test_law_1_directed_a_fully_returned_act_moves_both_arrows_alike(
    arrow: Arrow, appraisal: Appraisal, size: float, owner: BigFive
) -> None:
    params = RelationshipParams(returned_weight=1, returned_disclosure=1)
    received = deltas(appraisal, size, weights("received", params), owner, 5.0, params)
    returned = deltas(appraisal, size, weights("returned", params), owner, 5.0, params)

    assert apply(arrow, Event(9.0, 1, received), params) == apply(
        arrow, Event(9.0, 1, returned), params
    )


@given(arrows)
@quick
def test_law_2_bounded_every_shown_value_stays_in_its_range(arrow: Arrow) -> None:
    now = shown(arrow, P)

    assert all(-1 < value < 1 for value in (now.affinity, now.trust, now.respect, now.strength))
    assert 0 <= now.intimacy < 1
    assert 0 <= now.familiarity < 1
    assert 0 < now.compatibility_score < 1
    assert -0.5 <= now.modifier <= 0.3


@given(arrows, st.floats(1e-3, 1))
@quick
def test_law_2_no_clamp_a_shown_value_grows_strictly_with_its_latent_one(
    arrow: Arrow, more: float
) -> None:
    assume(arrow.affinity_latent + more <= 15)
    higher = replace(arrow, affinity_latent=arrow.affinity_latent + more)

    assert shown(higher, P).affinity > shown(arrow, P).affinity


@given(logs(), st.data(), people, unit, gaps)
@quick
def test_law_3_monotone_a_better_act_never_lowers_any_later_value(
    log: list[Event], data: st.DataObject, owner: BigFive, better: float, later: float
) -> None:
    place = data.draw(st.integers(0, len(log) - 1))
    event = log[place]
    act = event.appraisal or Appraisal()
    raised = replace(act, warmth=min(1, act.warmth + better))
    raised = replace(raised, reliability=min(1, act.reliability + better))
    raised = replace(raised, competence=min(1, act.competence + better))
    logs_of = [
        [*log[:place], replace(event, deltas=one(a, 1.0, owner)), *log[place + 1 :]]
        for a in (act, raised)
    ]

    before, after = (fold(each, P) for each in logs_of)

    assert before is not None
    assert after is not None
    now = before.as_of + later
    low, high = latents(decay(before, now, P)), latents(decay(after, now, P))
    assert all(h >= w - 1e-12 for w, h in zip(low, high, strict=True))


@given(signed, sizes, people)
@quick
def test_law_3_monotone_a_change_has_the_sign_of_the_act(
    axis: float, size: float, owner: BigFive
) -> None:
    change = one(Appraisal(axis, axis, axis), size, owner)

    signal = dead_zone(axis, P.dead_zone)
    for value in (change.affinity, change.trust, change.respect):
        assert value * signal >= 0
        assert (value == 0) == (signal == 0) or abs(signal) < 1e-300


@given(st.floats(0.11, 1), sizes, people)
@quick
def test_law_4_trust_falls_at_least_twice_as_far_as_it_rises(
    act: float, size: float, owner: BigFive
) -> None:
    rise = one(Appraisal(reliability=act), size, owner).trust
    fall = -one(Appraisal(reliability=-act), size, owner).trust

    assert fall >= 2 * rise - 1e-12


def test_law_4_trust_falls_exactly_twice_as_far_for_the_most_agreeable_and_steady() -> None:
    owner = BigFive(agreeableness=1, neuroticism=0)

    rise = one(Appraisal(reliability=1), 1.0, owner).trust
    fall = -one(Appraisal(reliability=-1), 1.0, owner).trust

    assert fall == pytest.approx(2 * rise, abs=1e-12)


@given(st.floats(0, 15), st.floats(0.11, 1), sizes, people)
@quick
def test_law_4_trust_shown_falls_faster_from_any_trust_that_is_not_negative(
    trust: float, act: float, size: float, owner: BigFive
) -> None:
    rise = one(Appraisal(reliability=act), size, owner).trust
    fall = one(Appraisal(reliability=-act), size, owner).trust

    up = math.tanh(trust + rise) - math.tanh(trust)
    down = math.tanh(trust) - math.tanh(trust + fall)

    assert down >= 1.75 * up - 1e-12


@given(arrows, unit, sizes, people)
@quick
def test_law_4_harm_then_repair_of_the_same_size_never_ends_above_the_start(
    arrow: Arrow, act: float, size: float, owner: BigFive
) -> None:
    harm, repair = Appraisal(-act, -act, -act), Appraisal(act, act, act)

    after = arrow
    for seq, appraisal in enumerate((harm, repair), start=1):
        after = apply(after, Event(0.0, seq, one(appraisal, size, owner)), P)

    ends = zip(latents(after)[:3], latents(arrow)[:3], strict=True)
    assert all(end <= start + 1e-12 for end, start in ends)


@given(arrows, gaps, gaps)
@quick
def test_law_5_semigroup_a_split_gap_gives_the_same(arrow: Arrow, a: float, b: float) -> None:
    twice = decay(decay(arrow, a, P), a + b, P)

    assert latents(twice) == pytest.approx(latents(decay(arrow, a + b, P)), abs=1e-12, rel=1e-12)


@given(arrows, latent, gaps)
@quick
def test_law_5_semigroup_two_arrows_keep_their_order(
    arrow: Arrow, other: float, later: float
) -> None:
    values = sorted((arrow.trust_latent, other))

    low, high = (decay(replace(arrow, trust_latent=z), later, P).trust_latent for z in values)

    assert low <= high + 1e-12


@given(arrows, gaps)
@quick
def test_law_5_semigroup_the_distance_from_the_baseline_never_grows(
    arrow: Arrow, later: float
) -> None:
    after, rest = decay(arrow, later, P), decay(arrow, 1e15, P)

    for now, was, end in zip(latents(after), latents(arrow), latents(rest), strict=True):
        assert abs(now - end) <= abs(was - end) + 1e-12


def test_a_time_before_the_arrow_changes_nothing() -> None:
    arrow = Arrow(as_of=100.0, trust_latent=1.0)

    assert decay(arrow, 50.0, P) is arrow
    assert apply(arrow, Event(50.0, 1, Deltas()), P).as_of == 100.0


@given(logs())
@quick
def test_law_6_familiarity_never_falls_and_intimacy_stays_below_its_cap(log: list[Event]) -> None:
    arrow = begin(Priors(), 0.0)
    for event in log:
        before, arrow = arrow, apply(arrow, event, P)
        now = shown(arrow, P)
        assert arrow.contact >= before.contact
        assert now.intimacy <= now.familiarity * (1 + now.trust) / 2


@given(arrows)
@quick
def test_law_6_intimacy_falls_at_once_with_trust(arrow: Arrow) -> None:
    arrow = replace(arrow, contact=arrow.contact + 0.1, disclosure=arrow.disclosure + 0.1)
    hurt = replace(arrow, trust_latent=arrow.trust_latent - 0.5)

    assert shown(hurt, P).intimacy < shown(arrow, P).intimacy


@given(arrows, st.floats(0.1, 3), gaps)
@quick
def test_law_6_more_familiarity_makes_decay_slower(arrow: Arrow, more: float, later: float) -> None:
    closer = replace(arrow, contact=arrow.contact + more)

    fast, slow = decay(arrow, later, P), decay(closer, later, P)

    assert abs(slow.respect_latent) >= abs(fast.respect_latent) - 1e-12


@given(logs(), st.randoms(use_true_random=False))
@quick
def test_law_7_replay_any_order_of_the_log_folds_to_the_same_bits(
    log: list[Event], lot: random.Random
) -> None:
    shuffled = lot.sample(log, len(log))

    assert fold(shuffled, P) == fold(log, P)


@given(arrows, st.lists(changes, min_size=2, max_size=6), st.randoms(use_true_random=False))
@quick
def test_law_7_order_events_of_one_time_commute(
    arrow: Arrow, parts: list[Deltas], lot: random.Random
) -> None:
    events = [Event(DAY, seq, change, minutes=5) for seq, change in enumerate(parts)]

    straight = mixed = arrow
    for event in events:
        straight = apply(straight, event, P)
    for event in lot.sample(events, len(events)):
        mixed = apply(mixed, event, P)

    assert latents(mixed) == pytest.approx(latents(straight), abs=1e-12)


@given(logs())
@quick
def test_law_7_replay_the_cache_equals_the_fold_and_dropping_the_last_event_restores_it(
    log: list[Event],
) -> None:
    cache = begin(log[0].priors or Priors(), log[0].at)
    states = []
    for event in log:
        cache = apply(cache, event, P)
        states.append(cache)

    assert fold(log, P) == states[-1]
    if len(log) > 1:
        assert fold(log[:-1], P) == states[-2]


@given(appraisals, sizes, people)
@quick
def test_law_8_witnessed_hearsay_from_a_source_in_full_distrust_changes_nothing(
    appraisal: Appraisal, size: float, owner: BigFive
) -> None:
    weight = weights("told", P, source_trust=-1.0)
    change = one(appraisal, size, owner, weight, minutes=30)

    arrow = Arrow(as_of=0.0, affinity_latent=0.3, contact=1.0)

    assert apply(arrow, Event(0.0, 1, change, "hearsay", direct=weight.direct), P) == arrow


@pytest.mark.parametrize(
    ("noise", "trust"),
    [(load_cues("en").noise, 0.0), (Bias(0.1, 0.1, 0.1, 0.1), -0.0076)],
    ids=["as measured", "a noisier appraiser"],
)
def test_law_9_calibrated_twenty_neutral_turns_hardly_move_anything(
    noise: Bias, trust: float
) -> None:
    lot, owner, courses = random.Random(7), BigFive(neuroticism=1.0), 500

    def drawn(deviation: float) -> float:
        return min(1.0, max(-1.0, lot.gauss(0, deviation)))

    totals = [0.0, 0.0, 0.0, 0.0]
    for _ in range(20 * courses):
        said = Appraisal(
            drawn(noise.warmth),
            drawn(noise.reliability),
            drawn(noise.competence),
            max(0.0, drawn(noise.disclosure)),
        )
        change = one(said, turn_size(P), owner)
        latent = (change.affinity, change.trust, change.respect, change.disclosure)
        for axis, value in enumerate(latent):
            totals[axis] += value / courses

    assert all(abs(total) < 0.02 for total in totals)
    assert totals[1] == pytest.approx(trust, abs=0.002)


@given(logs(), gaps)
@quick
def test_contributions_sum_to_the_latent_values(log: list[Event], later: float) -> None:
    now = log[-1].at + later
    arrow = fold(log, P)
    assert arrow is not None

    why = contributions(log, now, P)

    parts = [why.baseline, *(part for _, part in why.events)]
    sums = [
        math.fsum(getattr(part, name) for part in parts)
        for name in ("affinity", "trust", "respect", "disclosure")
    ]
    assert sums == pytest.approx(latents(decay(arrow, now, P)), abs=1e-9)
    assert [event for event, _ in why.events] == log


def test_an_events_contribution_fades_and_is_gone_without_it() -> None:
    log = [meeting(0, 1, 0.8, 30), meeting(DAY, 2, -0.8, 30, "conflict")]

    why = contributions(log, 31 * DAY, P)

    first, second = (part for _, part in why.events)
    assert 0 < first.affinity < log[0].deltas.affinity
    assert log[1].deltas.affinity < second.affinity < 0
    assert why.baseline.affinity == pytest.approx(0.0, abs=1e-12)


def test_nothing_has_contributed_before_the_first_event() -> None:
    assert fold([], P) is None
    assert contributions([], 0.0, P).baseline == Contribution(0, 0, 0, 0)


def test_a_log_without_its_first_event_keeps_the_priors_that_it_is_given() -> None:
    first = Priors(0.2, 0.05)
    log = [replace(meeting(0, 1, 0.5, 5), priors=first), meeting(DAY, 2, 0.5, 5)]

    what_if = fold(log[1:], P, first)

    assert what_if is not None
    assert what_if.affinity_prior == 0.2
    assert what_if.interactions == 1


def test_a_perfect_match_and_an_agreeable_persona_begin_above_neutral() -> None:
    first = priors(1.0, BigFive(agreeableness=1.0), P)

    arrow = begin(first, 5.0)

    assert (arrow.affinity_latent, arrow.trust_latent) == pytest.approx((0.4, 0.1))
    assert arrow.first_meeting is None


def test_the_first_impression_fades_with_the_contacts() -> None:
    new = begin(Priors(0.4, 0.0), 0.0)
    known = replace(new, interactions=50)

    assert decay(new, 1e12, P).affinity_latent == pytest.approx(0.4)
    assert decay(known, 1e12, P).affinity_latent == pytest.approx(0.2)


def test_direct_contact_counts_and_hearsay_does_not() -> None:
    arrow = begin(Priors(), 0.0)

    told = apply(arrow, Event(5.0, 1, Deltas(0.1), "hearsay", direct=False, minutes=9), P)
    met = apply(told, meeting(9.0, 2, 0.5, 15), P)

    assert (told.interactions, told.minutes, told.first_meeting) == (0, 0, None)
    assert (met.interactions, met.minutes, met.first_meeting) == (1, 15, 9.0)
    assert met.last_interaction == 9.0
    assert met.last_quality == 0.5


def test_contact_without_an_appraisal_keeps_the_last_quality() -> None:
    arrow = Arrow(as_of=0.0, last_quality=-0.4, first_meeting=0.0)

    assert apply(arrow, Event(1.0, 1, Deltas()), P).last_quality == -0.4


@pytest.mark.parametrize(
    ("bond", "affinity", "trust"),
    [("family", 0.5, 0.3), ("vow", 0.0, 0.4), ("romantic", 0.4, 0.0), ("mentor", 0.0, 0.0)],
)
def test_a_bond_lifts_what_feelings_rest_at(bond: Bond, affinity: float, trust: float) -> None:
    event = Event(0.0, 1, Deltas(), "bond", direct=False, bond=bond)
    arrow = apply(begin(Priors(), 0.0), event, P)

    rest = shown(decay(arrow, 1e12, P), P)

    assert (rest.affinity, rest.trust) == pytest.approx((affinity, trust), abs=1e-9)


@pytest.mark.parametrize(
    ("role", "omega", "disclosure", "direct"),
    [
        ("received", 1.0, 1.0, True),
        ("joint", 1.0, 1.0, True),
        ("returned", 0.35, 0.7, True),
        ("aside", 0.3, 0.0, False),
        ("told", 0.15, 0.0, False),
    ],
)
def test_an_act_weighs_by_how_one_stands_to_it(
    role: Role, omega: float, disclosure: float, direct: bool
) -> None:
    weight = weights(role, P)

    assert weight.omega == pytest.approx(omega)
    assert (weight.disclosure, weight.direct) == (disclosure, direct)


def test_hearsay_weighs_most_from_a_trusted_source() -> None:
    steps = [hearsay_weight(trust, P) for trust in (-1.0, 0.0, 0.5, 1.0)]

    assert steps[0] == 0
    assert steps[-1] == 0.6
    assert all(a < b for a, b in pairwise(steps))


def test_what_was_only_seen_brings_neither_disclosure_nor_familiarity() -> None:
    change = one(Appraisal(1, 1, 1, 1), weight=weights("aside", P), minutes=30)

    assert (change.disclosure, change.contact) == (0, 0)
    assert change.affinity > 0


@pytest.mark.parametrize(
    ("value", "expected"), [(0.1, 0), (-0.05, 0), (1, 1), (-1, -1), (0.55, 0.5)]
)
def test_small_appraisals_are_silenced(value: float, expected: float) -> None:
    assert dead_zone(value, 0.1) == pytest.approx(expected)


def test_sizes_grow_with_time_and_at_turning_points() -> None:
    assert update_size(0, P) == pytest.approx(0.2)
    assert update_size(15, P) == pytest.approx(0.6)
    assert update_size(15, P, turning_point=True) == pytest.approx(0.9)
    assert turn_size(P) == pytest.approx(0.11)
    assert turn_size(P, turning_point=True) == pytest.approx(0.165)


@given(
    st.sampled_from(["conversation", "casual", "collaboration", "deep_conversation", "help"]),
    signed,
    signed,
)
@quick
def test_a_better_meeting_is_never_appraised_worse(context: str, a: float, b: float) -> None:
    low, high = (appraisal_for(q, context, P) for q in sorted((a, b)))

    assert low.warmth <= high.warmth
    assert low.reliability <= high.reliability
    assert low.competence <= high.competence
    assert low.disclosure <= high.disclosure


def test_an_unknown_context_counts_as_conversation() -> None:
    assert appraisal_for(0.5, "karaoke", P) == appraisal_for(0.5, " Conversation ", P)
    assert appraisal_for(-1, "betrayal", P) == Appraisal(-1, -1, -0.8, 0)
    assert is_turning_point("repair", P)
    assert not is_turning_point("karaoke", P)


def test_a_world_may_add_contexts_and_replace_built_in_ones() -> None:
    params = RelationshipParams(
        contexts={"duel": ContextRow(turning_point=True), "conversation": ContextRow(warmth=0.5)}
    )

    assert is_turning_point("duel", params)
    assert appraisal_for(1, "conversation", params).warmth == 0.5
    assert appraisal_for(1, "karaoke", params).warmth == 0.5


def test_an_appraisers_bias_is_taken_off_within_the_ranges() -> None:
    raw = Appraisal(0.3, -0.95, 0.0, 0.05)

    fair = without_bias(raw, Bias(0.1, 0.1, -0.1, 0.1))

    axes = (fair.warmth, fair.reliability, fair.competence, fair.disclosure)
    assert axes == pytest.approx((0.2, -1.0, 0.1, 0.0))


@pytest.mark.parametrize("wrong", [{"warmth": 1.1}, {"disclosure": -0.1}, {"competence": math.nan}])
def test_an_appraisal_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Appraisal(**wrong)


def test_shares_that_would_leave_the_range_of_strength_are_refused() -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        RelationshipParams(strength_affinity=0.9)


def arrow_of(
    affinity: float = 0.0,
    trust: float = 0.0,
    respect: float = 0.0,
    interactions: int = 20,
    contact: float = 1.0,
    bond: Bond = "none",
) -> Arrow:
    return Arrow(
        as_of=0.0,
        affinity_latent=math.atanh(affinity),
        trust_latent=math.atanh(trust),
        respect_latent=math.atanh(respect),
        interactions=interactions,
        contact=contact,
        bond=bond,
    )


NEUTRAL = arrow_of()


@pytest.mark.parametrize(
    ("arrow", "reverse", "expected"),
    [
        (arrow_of(bond="family"), None, "family"),
        (arrow_of(bond="romantic"), arrow_of(bond="romantic"), "romantic"),
        (arrow_of(bond="romantic"), NEUTRAL, "acquaintance"),
        (arrow_of(bond="mentor"), NEUTRAL, "mentor"),
        (NEUTRAL, arrow_of(bond="mentor"), "student"),
        (arrow_of(interactions=2), NEUTRAL, "stranger"),
        (arrow_of(0.9, 0.9, interactions=2), NEUTRAL, "friend"),
        (arrow_of(-0.9, -0.9, -0.9), NEUTRAL, "enemy"),
        (arrow_of(-0.5, -0.5), NEUTRAL, "rival"),
        (arrow_of(respect=0.8), arrow_of(respect=0.5), "mentor"),
        (arrow_of(respect=0.5), arrow_of(respect=0.8), "student"),
        (arrow_of(-0.9, -0.9, 0.5), arrow_of(respect=0.8), "rival"),
        (NEUTRAL, arrow_of(-0.9, -0.9, 0.8), "acquaintance"),
        (NEUTRAL, arrow_of(respect=0.8, bond="family"), "acquaintance"),
        (arrow_of(respect=0.8), arrow_of(respect=0.6), "acquaintance"),
        (arrow_of(respect=0.8, interactions=10), NEUTRAL, "acquaintance"),
        (arrow_of(respect=0.8), None, "acquaintance"),
        (arrow_of(contact=0.1), NEUTRAL, "stranger"),
        (arrow_of(0.5, 0.5, 0.3), NEUTRAL, "acquaintance"),
        (arrow_of(0.8, 0.8, 0.5), NEUTRAL, "friend"),
        (arrow_of(0.99, 0.99, 0.9), None, "close_friend"),
    ],
)
def test_a_relationship_is_named_by_the_first_rule_that_fits(
    arrow: Arrow, reverse: Arrow | None, expected: str
) -> None:
    assert relationship_type(arrow, reverse, P) == expected


def test_enemies_are_shown_as_a_poor_match() -> None:
    now = shown(arrow_of(-0.99, -0.99, -0.99), P)

    assert isinstance(now, Shown)
    assert now.compatibility_score < 0.15
