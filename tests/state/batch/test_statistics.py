import math
import random
from statistics import fmean, variance

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.batch.statistics import (
    Moments,
    bootstrap_share,
    incomplete_beta,
    share_interval,
    t_interval,
    t_quantile,
    wilson,
)

SHARES = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (5, 2.57058), (10, 2.22814), (30, 2.04227), (120, 1.97993)],
)
def test_quantiles_of_student_are_those_of_the_printed_tables(
    freedom: int, quantile: float
) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, abs=6e-5)


def test_with_many_degrees_of_freedom_student_is_normal() -> None:
    assert t_quantile(0.975, 10**6) == pytest.approx(1.959966, abs=1e-5)


@pytest.mark.parametrize(
    ("x", "a", "b", "value"),
    [(0.5, 2, 3, 0.6875), (0.3, 1, 1, 0.3), (0.9, 0.5, 0.5, 0.795167), (0, 1, 2, 0), (1, 1, 2, 1)],
)
def test_the_incomplete_beta_function_has_its_known_values(
    x: float, a: float, b: float, value: float
) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(value, abs=1e-6)


@given(st.floats(0, 1), st.floats(0.5, 50), st.floats(0.5, 50))
def test_the_incomplete_beta_function_is_symmetric_and_in_range(
    x: float, a: float, b: float
) -> None:
    value = incomplete_beta(x, a, b)

    assert -1e-12 <= value <= 1 + 1e-12
    # Where x is less than what 1 - x can tell from 1, both are less than this.
    assert value == pytest.approx(1 - incomplete_beta(1 - x, b, a), abs=1e-7)


def test_wilson_has_its_known_values() -> None:
    """81 of 263: Newcombe 1998, table I, method 3."""
    found = wilson(81, 263)

    assert found.low == pytest.approx(0.2553, abs=5e-5)
    assert found.high == pytest.approx(0.3662, abs=5e-5)
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson(0, 0).value is None


@given(SHARES)
def test_wilson_is_within_0_and_1_and_around_the_share(share: tuple[int, int]) -> None:
    found = wilson(*share)
    assert found.value is not None and found.low is not None and found.high is not None

    assert 0 <= found.low <= found.value <= found.high <= 1
    mirrored = wilson(share[1] - share[0], share[1])
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60))
def test_moments_are_mean_and_variance(values: list[float]) -> None:
    found = Moments(values)

    assert found.count == len(values)
    assert found.mean == pytest.approx(fmean(values), abs=1e-6)
    assert found.variance == pytest.approx(variance(values), rel=1e-6, abs=1e-6)


def test_a_mean_has_students_interval() -> None:
    found = t_interval(Moments([4.0, 5.0, 6.0, 7.0, 8.0]))

    assert found.value == 6.0 and found.count == 5 and found.method == "t"
    assert found.high == pytest.approx(6 + 2.776445 * math.sqrt(2.5 / 5), abs=1e-5)


def test_one_number_has_no_interval_and_none_no_mean() -> None:
    assert t_interval(Moments([3.0])).value == 3.0
    assert t_interval(Moments([3.0])).low is None
    assert t_interval(Moments()).value is None


def test_students_interval_holds_the_truth_as_often_as_it_says() -> None:
    lot = random.Random(1)
    held = 0
    for _ in range(1000):
        found = t_interval(Moments(lot.gauss(3, 2) for _ in range(6)))
        held += (found.low or 0) <= 3 <= (found.high or 0)

    assert 930 <= held <= 970


def test_a_bootstrap_is_the_same_for_the_same_seed() -> None:
    clusters = [(n % 4, 5) for n in range(40)]

    assert bootstrap_share(clusters, 7) == bootstrap_share(clusters, 7)
    assert bootstrap_share(clusters, 7) != bootstrap_share(clusters, 8)


def test_a_bootstrap_draws_whole_dialogues() -> None:
    """Turns that stand or fall together tell less than as many that are on their own."""
    together = bootstrap_share([(20, 20), (0, 20)] * 10, 1)
    apart = wilson(200, 400)
    assert together.low is not None and apart.low is not None

    assert together.value == apart.value == 0.5
    assert together.low < apart.low - 0.1


def test_a_bootstrap_holds_the_truth_about_as_often_as_it_says() -> None:
    lot = random.Random(2)
    held = 0
    for round_ in range(100):
        clusters = [(sum(lot.random() < 0.3 for _ in range(10)), 10) for _ in range(30)]
        found = bootstrap_share(clusters, round_)
        held += (found.low or 0) <= 0.3 <= (found.high or 0)

    assert held >= 86


@settings(max_examples=30)
@given(st.lists(SHARES, min_size=10, max_size=20), st.integers(0, 2**31))
def test_a_bootstrap_is_within_0_and_1(clusters: list[tuple[int, int]], seed: int) -> None:
    found = bootstrap_share(clusters, seed)
    assert found.low is not None and found.high is not None

    assert 0 <= found.low <= found.high <= 1


def test_of_few_dialogues_a_share_is_wilsons() -> None:
    assert share_interval([(1, 4)] * 9, 1) == wilson(9, 36)
    assert share_interval([(1, 4)] * 10, 1).method == "bootstrap"
    assert share_interval([(0, 0)] * 10, 1).value is None
