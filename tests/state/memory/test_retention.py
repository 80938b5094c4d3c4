from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.memory.params import Mode, RetentionParams
from persona_mcp.state.memory.retention import effective, half_life, retention

PARAMS = RetentionParams()
MODES = get_args(Mode)
ages = st.floats(0, 20_000)
shares = st.floats(0, 1)
uses = st.integers(0, 1000)


def left(age: float, importance: float = 0.5, accesses: int = 0, mode: Mode = "half_life") -> float:
    params = RetentionParams(mode=mode)
    return float(retention(age, importance, accesses, False, params))


@pytest.mark.parametrize(
    ("importance", "accesses", "days"),
    [(0.1, 0, 42), (0.5, 0, 90), (0.8, 0, 126), (0.8, 8, 378), (1.0, 3, 300)],
)
def test_half_lives_are_those_of_the_law(importance: float, accesses: int, days: float) -> None:
    assert float(half_life(importance, accesses, PARAMS)) == pytest.approx(days)
    assert left(days, importance, accesses) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("mode", "age", "accesses", "share"),
    [
        ("none", 5000, 0, 1.0),
        ("linear", 30, 0, 0.7),
        ("linear", 500, 0, 0.2),
        ("exponential", 30, 0, 0.5),
        ("exponential", 500, 0, 0.2),
        ("logarithmic", 90, 0, 0.2),
        ("logarithmic", 0, 0, 1.0),
        ("access_based", 30, 1, 0.7),
        ("access_based", 30, 0, 0.4),
        ("access_based", 30, 3, 0.85),
        ("access_based", 900, 0, 0.2),
        ("access_based", 900, 2, 0.4),
    ],
)
def test_the_modes_of_the_original(mode: Mode, age: float, accesses: int, share: float) -> None:
    assert left(age, accesses=accesses, mode=mode) == pytest.approx(share)


@given(st.sampled_from(MODES), ages, shares, uses)
def test_something_is_always_left_and_never_more_than_all(
    mode: Mode, age: float, importance: float, accesses: int
) -> None:
    assert 0 < left(age, importance, accesses, mode) <= 1
    assert left(-age, importance, accesses, mode) == 1.0


@given(st.sampled_from(MODES), ages, ages, shares, uses)
def test_nothing_grows_with_age(
    mode: Mode, age: float, more: float, importance: float, accesses: int
) -> None:
    assert left(age + more, importance, accesses, mode) <= left(age, importance, accesses, mode)


@given(ages, shares, shares, uses, uses)
def test_what_matters_and_what_is_used_fades_slower(
    age: float, importance: float, other: float, accesses: int, more: int
) -> None:
    low, high = sorted((importance, other))

    assert left(age, low, accesses) <= left(age, high, accesses)
    assert left(age, low, accesses) <= left(age, low, accesses + more)


@given(st.floats(0, 2000), st.floats(0, 2000), shares, uses)
def test_half_life_retention_of_two_spans_multiplies(
    first: float, second: float, importance: float, accesses: int
) -> None:
    whole = left(first + second, importance, accesses)

    parts = left(first, importance, accesses) * left(second, importance, accesses)

    assert whole == pytest.approx(parts, rel=1e-9)


@given(st.sampled_from(MODES), ages, shares, uses)
def test_what_is_pinned_never_fades(
    mode: Mode, age: float, importance: float, accesses: int
) -> None:
    assert retention(age, importance, accesses, True, RetentionParams(mode=mode)) == 1.0


@given(shares, shares)
def test_what_is_left_lies_between_the_floor_and_the_whole(importance: float, share: float) -> None:
    found = float(effective(importance, share))

    assert min(0.1, importance) - 1e-12 <= found <= importance + 1e-12
    assert float(effective(importance, 1.0)) == pytest.approx(importance)


def test_many_memories_are_computed_at_once_as_one_by_one() -> None:
    age, importance = np.array([0.0, 10.0, 400.0]), np.array([0.1, 0.5, 0.9])
    accesses, pinned = np.array([0, 3, 1]), np.array([False, False, True])
    for mode in MODES:
        params = RetentionParams(mode=mode)

        found = retention(age, importance, accesses, pinned, params)

        alone = [
            float(retention(*one, params))
            for one in zip(age, importance, accesses, pinned, strict=True)
        ]
        assert found.tolist() == alone
