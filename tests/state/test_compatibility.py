import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.compatibility import (
    Profile,
    compatibility,
    history,
    interests,
    personality,
    recommended_topics,
    social,
    static_compatibility,
)
from persona_mcp.state.traits import TRAIT_NAMES, big_five

quick = settings(max_examples=50)
traits = st.dictionaries(st.sampled_from(TRAIT_NAMES), st.integers(2, 100))
topics = st.dictionaries(st.sampled_from(["art", "Art history", "war", "tea"]), st.integers(0, 100))
level = st.integers(1, 20)
profiles = st.builds(Profile, traits.map(big_five), topics, level, level, st.integers(1, 6))
strengths = st.lists(st.floats(-1, 1), max_size=2)

ARIA = Profile(
    big_five({"extroverted": 90, "creative": 85, "empathetic": 80, "optimistic": 85}),
    {"music": 95, "art": 80, "magic": 70, "gossip": 80},
    18,
    14,
    2,
)
KIRA = Profile(
    big_five({"introverted": 70, "focused": 90, "reserved": 75}),
    {"Magic": 90, "research": 95, "gossip": 20},
    12,
    18,
    3,
)


@given(profiles, profiles, strengths)
@quick
def test_law_compatibility_is_symmetric_and_within_zero_and_one(
    a: Profile, b: Profile, feelings: list[float]
) -> None:
    there = compatibility(a, b, feelings)

    assert there == compatibility(b, a, feelings[::-1])
    parts = (there.overall, there.personality, there.social, there.interests, there.history)
    assert all(0 <= part <= 1 for part in parts)
    assert 0 <= static_compatibility(a, b) <= 1


@given(traits, traits)
@quick
def test_law_the_spelling_of_traits_does_not_matter(a: dict[str, int], b: dict[str, int]) -> None:
    large = [big_five({name: float(v) for name, v in each.items()}) for each in (a, b)]
    small = [big_five({name: v / 100 for name, v in each.items()}) for each in (a, b)]

    assert personality(*large) == pytest.approx(personality(*small), abs=1e-12)


def test_personalities_without_a_known_trait_in_common_are_neutral() -> None:
    assert personality(big_five({"openness": 1}), big_five({"neuroticism": 1})) == 0.5


@pytest.mark.parametrize(
    ("name", "x", "y", "fit"),
    [
        ("openness", 0.2, 0.9, 0.3),
        ("extraversion", 0.3, 0.7, 0.72),
        ("extraversion", 0.2, 0.8, 0.4),
        ("neuroticism", 0.5, 0.5, 0.85),
        ("neuroticism", 0.0, 1.0, 0.0),
    ],
)
def test_each_trait_is_compared_in_its_own_way(name: str, x: float, y: float, fit: float) -> None:
    assert personality(big_five({name: x}), big_five({name: y})) == pytest.approx(fit)


@pytest.mark.parametrize(
    ("intelligence", "rank", "expected"),
    [(10, 2, 0.8), (6, 3, 0.68), (3, 4, 0.52), (14, 6, 0.58)],
)
def test_wit_and_rank_count_by_their_gaps(intelligence: int, rank: int, expected: float) -> None:
    other = Profile(intelligence=intelligence, rank_level=rank)

    assert social(Profile(), other) == pytest.approx(expected)


def test_interests_are_compared_by_the_topics_that_both_like() -> None:
    mine = Profile(topic_preferences={"tea": 80, "war": 10})

    assert interests(mine, Profile()) == 0.5
    assert interests(mine, Profile(topic_preferences={"art": 90})) == 0.3
    assert interests(mine, Profile(topic_preferences={"war": 90})) == pytest.approx(0.4)
    assert interests(mine, Profile(topic_preferences={"TEA": 60})) == pytest.approx(0.9)


def test_history_is_the_mean_of_both_feelings() -> None:
    assert history([]) == 0.5
    assert history([0.5]) == 0.75
    assert history([1.0, -1.0]) == 0.5


def test_topics_that_both_like_are_recommended_best_first() -> None:
    likes = {"b": 50, "a": 50, "c": 90, "d": 31, "e": 30, "f": 60, "g": 70}

    both = Profile(topic_preferences=likes)

    assert recommended_topics(both, both) == ("c", "g", "f", "a", "b")
    assert recommended_topics(ARIA, KIRA) == ("magic",)


def test_two_strangers_are_weighed_with_a_neutral_history() -> None:
    fit = compatibility(ARIA, KIRA)

    assert fit.history == 0.5
    assert fit.challenges == ("personality_clash", "energy_level_mismatch")
    assert fit.overall == pytest.approx(0.85 * static_compatibility(ARIA, KIRA) + 0.075, abs=6e-4)


def test_a_poor_match_is_told_with_its_challenges() -> None:
    low = Profile(big_five({"neuroticism": 0, "openness": 0}), {"tea": 100}, 1, 1, 1)
    high = Profile(big_five({"neuroticism": 1, "openness": 1}), {"tea": 21, "art": 9}, 1, 20, 6)

    fit = compatibility(low, high, [-1.0, -1.0])

    assert fit.prediction == "difficult"
    assert fit.interaction_style == "formal_distant"
    assert fit.challenges == ("personality_clash", "social_mismatch", "high_stress_potential")


def test_few_shared_interests_are_a_challenge() -> None:
    many = {f"t{n}": 0.0 for n in range(20)}
    one, other = (
        Profile(topic_preferences={"tea": 100}),
        Profile(topic_preferences={"tea": 21} | many),
    )

    assert compatibility(one, other).challenges == ("few_shared_interests",)


@pytest.mark.parametrize(
    ("charisma", "strength", "prediction", "style"),
    [
        (15, 1.0, "very_good", "friendly_engaging"),
        (15, 0.0, "good", "respectful_cautious"),
        (10, -1.0, "challenging", "respectful_cautious"),
    ],
)
def test_what_to_expect_goes_by_the_overall_value(
    charisma: int, strength: float, prediction: str, style: str
) -> None:
    somebody = Profile(charisma=charisma)

    fit = compatibility(somebody, somebody, [strength])

    assert (fit.prediction, fit.interaction_style) == (prediction, style)


def test_the_best_match_is_excellent() -> None:
    best = Profile(big_five({"openness": 1, "agreeableness": 1}), {"tea": 100}, 20)

    fit = compatibility(best, best, [0.9, 0.9])

    assert (fit.prediction, fit.frequency) == ("excellent", "frequent")
