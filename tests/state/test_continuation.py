from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.continuation import (
    ContinuationParams,
    Party,
    Score,
    Talk,
    direct_word_cap,
    drift_of,
    estimated_tokens,
    exit_reason,
    human_partner,
    max_tokens,
    route,
    score,
    should_continue,
)
from persona_mcp.state.drawing import (
    EXIT_LINES,
    d20,
    draw,
    exit_line,
    first_speaker,
    initiative,
    next_speaker,
)
from persona_mcp.state.interaction import Priority

P = ContinuationParams()
OWN = Party(charisma=10, rank_level=2, preference=80)
FRESH = Talk(duration=0, turns=0, tokens_left=1000)
RANGES = {
    "time": (0, 30),
    "topic": (0, 25),
    "social": (0, 20),
    "fatigue": (-15, 0),
    "history": (-10, 15),
    "resource": (0, 10),
    "emotion": (-5, 5),
}
quick = settings(max_examples=50)
priorities: st.SearchStrategy[Priority] = st.sampled_from(["urgent", "casual", "business", "none"])
parties = st.builds(
    Party,
    charisma=st.integers(1, 20),
    rank_level=st.integers(1, 6),
    preference=st.floats(0, 100),
    fatigue=st.floats(0, 100),
    energy=st.floats(0, 200),
    time=st.floats(0, 86400),
    mood=st.floats(-1, 1),
    priority=priorities,
)
talks = st.builds(Talk, st.floats(0, 1e5), st.integers(0, 500), st.integers(-100, 9999), st.just(3))
strengths = st.none() | st.floats(-1, 1)


@given(parties, parties, talks, strengths)
@quick
def test_every_term_and_the_score_stay_in_their_ranges(
    own: Party, partner: Party, talk: Talk, strength: float | None
) -> None:
    taken = score(own, partner, talk, strength, P)

    assert 0 <= taken.total <= 100
    assert taken.terms.keys() == RANGES.keys()
    for name, (low, high) in RANGES.items():
        assert low - 1e-9 <= taken.terms[name] <= high + 1e-9


def test_the_most_willing_persona_scores_the_most() -> None:
    star = Party(charisma=20, rank_level=3, preference=100, mood=1.0)

    taken = score(star, star, FRESH, 1.0, P)

    assert sum(taken.terms.values()) == pytest.approx(105)
    assert taken.total == 100


@pytest.mark.parametrize(
    ("priority", "points"), [("urgent", 0), ("important", 18), ("none", 18), ("social", 26)]
)
def test_interest_wears_off_with_time_by_priority(priority: Priority, points: float) -> None:
    own = replace(OWN, priority=priority)

    assert score(own, OWN, replace(FRESH, duration=120), None, P).terms["time"] == points


def test_a_topic_pulls_by_both_and_less_after_drift() -> None:
    partner = replace(OWN, preference=40)

    straight = score(OWN, partner, replace(FRESH, drift=2), None, P).terms["topic"]
    drifted = score(OWN, partner, replace(FRESH, drift=3), None, P).terms["topic"]

    assert straight == pytest.approx(25 * 0.54)
    assert drifted == pytest.approx(25 * 0.54 * 0.6)


@pytest.mark.parametrize(("gap", "status"), [(0, 8), (1, 6), (-2, 4), (4, 2)])
def test_equals_in_rank_get_on_best(gap: int, status: int) -> None:
    partner = replace(OWN, rank_level=2 + gap, charisma=15)

    assert score(OWN, partner, FRESH, None, P).terms["social"] == pytest.approx(
        20 * (8 + status) / 24
    )


@pytest.mark.parametrize(("strength", "points"), [(None, 0), (0.5, 7.5), (-0.5, -5)])
def test_friends_gain_points_and_enemies_lose_them(strength: float | None, points: float) -> None:
    assert score(OWN, OWN, FRESH, strength, P).terms["history"] == points


def test_what_is_left_counts() -> None:
    own = replace(OWN, time=30, energy=15, fatigue=20)

    terms = score(own, OWN, replace(FRESH, tokens_left=50), None, P).terms

    assert terms["resource"] == pytest.approx(1.25)
    assert terms["fatigue"] == -10


def test_the_shown_score_rounds_halves_to_even() -> None:
    assert [Score(total, {}).shown for total in (0.5, 1.5, 62.5, 62.51)] == [0, 2, 62, 63]


@pytest.mark.parametrize(
    ("total", "response_type", "temperature", "words", "cap"),
    [
        (80, "full_llm", 0.8, 100, 100),
        (79.9, "full_llm", 0.6, 100, 100),
        (60, "full_llm", 0.6, 100, 100),
        (40, "constrained", 0.5, 50, 50),
        (39.9, "template", None, None, 30),
    ],
)
def test_the_score_chooses_how_to_answer_and_a_human_is_always_answered(
    total: float, response_type: str, temperature: float | None, words: int | None, cap: int
) -> None:
    way = route(total, P)

    assert (way.response_type, way.temperature, way.words) == (response_type, temperature, words)
    assert way.model == (response_type != "template")
    assert direct_word_cap(total, P) == cap


@pytest.mark.parametrize(
    ("words", "budget", "left", "answers", "tokens"),
    [
        (100, 500, 500, 0, 146),
        (100, 120, 500, 0, 120),
        (100, 500, 60, 0, 60),
        (100, 500, 500, 9, 146),
        (100, 500, 500, 10, 126),
        (100, 500, 500, 40, 40),
        (10, 500, 500, 40, 29),
        (100, 500, -5, 0, 0),
    ],
)
def test_an_answer_is_limited_by_words_budget_and_length_of_the_talk(
    words: int, budget: int, left: int, answers: int, tokens: int
) -> None:
    assert max_tokens(words, budget, left, answers, P) == tokens


def test_tokens_are_estimated_from_words() -> None:
    assert estimated_tokens(7, P) == 10


@pytest.mark.parametrize(
    ("total", "talk", "partner", "expected"),
    [
        (40, FRESH, OWN, True),
        (39.9, FRESH, OWN, False),
        (90, replace(FRESH, tokens_left=50), OWN, False),
        (90, replace(FRESH, duration=600), OWN, False),
        (90, replace(FRESH, turns=100), OWN, False),
        (90, FRESH, replace(OWN, time=0), False),
    ],
)
def test_a_talk_goes_on_while_nothing_is_used_up(
    total: float, talk: Talk, partner: Party, expected: bool
) -> None:
    assert should_continue(total, OWN, partner, talk, P) == expected


@pytest.mark.parametrize(
    ("own", "talk", "reason"),
    [
        (replace(OWN, priority="urgent", energy=0), FRESH, "urgent"),
        (replace(OWN, energy=29), FRESH, "tired"),
        (replace(OWN, fatigue=51, preference=0), FRESH, "tired"),
        (replace(OWN, preference=29), FRESH, "bored"),
        (replace(OWN, preference=30), replace(FRESH, drift=9), "bored"),
        (OWN, replace(FRESH, tokens_left=50), "budget"),
        (OWN, replace(FRESH, turns=100), "time_limit"),
        (replace(OWN, time=0), FRESH, "time_limit"),
        (OWN, FRESH, "natural_conclusion"),
    ],
)
def test_a_talk_ends_for_the_first_reason_that_fits(own: Party, talk: Talk, reason: str) -> None:
    partner = replace(OWN, preference=60)
    taken = score(own, partner, talk, None, P)

    assert exit_reason(own, partner, talk, taken, P) == reason


def test_a_human_stands_for_an_average_partner_of_equal_rank() -> None:
    assert human_partner(5) == Party(charisma=10, rank_level=5, preference=50)


def test_drift_counts_the_turns_that_stay_off_the_topic() -> None:
    assert drift_of(["art", "war", "art", "war", "war", "tea"], "Art") == 2
    assert drift_of([], "art") == 0


@given(st.integers(0, 2**53 - 1), st.text(max_size=5), st.integers(0, 500))
@quick
def test_a_draw_is_in_range_and_repeats(seed: int, conversation: str, turn: int) -> None:
    lot = draw(seed, "exit", conversation, turn)

    assert 0 <= lot < 1
    assert lot == draw(seed, "exit", conversation, turn)
    assert 1 <= d20(seed, "initiative:a", conversation, turn) <= 20


def test_draws_of_other_turns_and_purposes_are_independent() -> None:
    rolls = Counter(d20(1, "initiative", "talk", turn) for turn in range(4000))

    assert set(rolls) == set(range(1, 21))
    assert max(rolls.values()) < 1.4 * min(rolls.values())
    assert draw(1, "a", "b", 1) != draw(1, "a", "b", 2)
    assert draw(1, "a", "b", 1) != draw(1, "b", "b", 1)


def test_a_draw_never_changes_between_versions() -> None:
    assert draw(7, "initiative", "talk", 3) == pytest.approx(0.10101149365269801, abs=1e-15)


def test_charm_rank_rest_and_luck_give_the_first_word() -> None:
    assert initiative(18, 2, 109, 7, P) == 55
    assert first_speaker({"b": 50, "a": 50, "c": 40}) == "a"


def test_in_a_group_who_was_named_speaks_more_often_and_who_spoke_last_less() -> None:
    same = {"a": 30.0, "b": 30.0, "c": 30.0}
    lots = [n / 1000 for n in range(1000)]

    plain = Counter(next_speaker(same, (), None, lot, P) for lot in lots)
    named = Counter(next_speaker(same, ("b",), "a", lot, P) for lot in lots)

    assert plain == {"a": 334, "b": 333, "c": 333}
    assert named["b"] > 950
    assert named["a"] < named["c"]


def test_a_lot_at_the_very_end_still_finds_a_speaker() -> None:
    assert next_speaker({"a": 1.0, "b": 1.0}, (), None, 1.0, P) == "b"


def test_each_reason_has_at_least_three_lines_of_its_own() -> None:
    lines = [line for each in EXIT_LINES.values() for line in each]

    assert all(len(set(each)) >= 3 for each in EXIT_LINES.values())
    assert len(set(lines)) == len(lines)


def test_a_persona_leaves_with_its_own_line_if_it_has_one() -> None:
    own = {"tired": ["Zzz.", "Good night."], "bored": []}

    assert exit_line("tired", 0.99, own) == "Good night."
    assert exit_line("bored", 0.0, own) == EXIT_LINES["bored"][0]
    assert exit_line("urgent", 0.5) == EXIT_LINES["urgent"][1]
