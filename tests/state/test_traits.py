import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.traits import TRAIT_NAMES, BigFive, big_five, rank_level


def test_a_persona_without_traits_is_average_and_nothing_is_known() -> None:
    traits = big_five({})

    assert traits == BigFive()
    assert [traits.value(name) for name in TRAIT_NAMES] == [0.5] * 5
    assert traits.known == frozenset()


def test_one_number_above_one_puts_all_big_five_numbers_on_the_scale_to_100() -> None:
    traits = big_five({"Openness": 80, "neuroticism": 1, "extroverted": 90})

    assert traits.openness == 0.8
    assert traits.neuroticism == 0.01
    assert traits.given == {"openness", "neuroticism"}


def test_numbers_up_to_one_are_taken_as_they_are() -> None:
    assert big_five({"agreeableness": 0.3, "openness": 1}).openness == 1.0


@pytest.mark.parametrize(("scale", "expected"), [(100, 0.009), (1, 0.9)])
def test_the_key_scale_decides_the_scale(scale: float, expected: float) -> None:
    assert big_five({"openness": 0.9, "scale": scale}).openness == pytest.approx(expected)


def test_trait_words_give_the_mean_of_their_estimates_and_are_marked() -> None:
    traits = big_five({"introverted": 70, "reserved": 90, "curious": 60, "openness": 0.9})

    assert traits.extraversion == pytest.approx(0.2)
    assert traits.openness == 0.9
    assert traits.estimated == {"extraversion"}
    assert traits.known == {"extraversion", "openness"}


def test_texts_and_numbers_that_are_not_finite_count_as_absent() -> None:
    assert big_five({"openness": "high", "neuroticism": math.nan}) == BigFive()


@given(st.dictionaries(st.sampled_from(TRAIT_NAMES), st.integers(2, 100), min_size=1))
@settings(max_examples=50)
def test_both_spellings_of_the_same_traits_agree(values: dict[str, int]) -> None:
    small = big_five({name: value / 100 for name, value in values.items()})
    large = big_five({name: float(value) for name, value in values.items()})

    assert small == large


@given(st.dictionaries(st.sampled_from([*TRAIT_NAMES, "kind", "calm"]), st.floats(-500, 500)))
@settings(max_examples=50)
def test_traits_stay_between_zero_and_one(values: dict[str, float]) -> None:
    traits = big_five(values)

    assert all(0 <= traits.value(name) <= 1 for name in TRAIT_NAMES)


@pytest.mark.parametrize(
    ("rank", "level"),
    [("royalty", 6), (" Noble ", 5), ("nobility", 5), ("peasant", 1), ("bard", 2)],
)
def test_ranks_stand_on_one_ladder(rank: str, level: int) -> None:
    assert rank_level(rank) == level


def test_a_world_may_bring_its_own_ladder() -> None:
    assert rank_level("Admiral", {"admiral": 7}) == 7
