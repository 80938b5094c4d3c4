"""Estimates and their confidence intervals, as the report of a batch shows them: pure functions."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

CONFIDENCE = 0.95
ROUNDS = 1000
"""Resamples of a bootstrap."""
CLUSTERS_LEAST = 10
"""Dialogues below which a bootstrap of them says little."""
Method = Literal["t", "Wilson", "bootstrap", "none"]
BETA_STEPS, BETA_EXACT, BETA_TINY = 300, 1e-15, 1e-300
HALVINGS = 200


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth is likely to be.

    Attributes:
        value: The estimate; None where there is nothing to estimate it from.
        low: Lower end of the 95 % interval; None where one cannot be given.
        high: Upper end.
        count: Observations.
        method: How the ends were found.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int
    method: Method


NOTHING = Interval(None, None, None, 0, "none")


class Moments:
    """Count, mean and variance of numbers that come one by one.

    Source: Welford 1962, "Note on a method for calculating corrected sums of squares and products".
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        """Begin with some numbers."""
        self.count, self.mean, self._squares = 0, 0.0, 0.0
        for value in values:
            self.add(value)

    def add(self, value: float) -> None:
        """Take one more number in."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self._squares += distance * (value - self.mean)

    @property
    def variance(self) -> float:
        """Return the unbiased variance, >= 0; 0 of fewer than two."""
        return max(0.0, self._squares) / (self.count - 1) if self.count > 1 else 0.0


def t_interval(moments: Moments, confidence: float = CONFIDENCE) -> Interval:
    """Return a mean with Student's interval: mean +- t(n - 1) * s / sqrt(n).

    Source: Student 1908, "The probable error of a mean". Without an interval for fewer than two.
    """
    if moments.count == 0:
        return NOTHING
    if moments.count == 1:
        return Interval(moments.mean, None, None, 1, "none")
    quantile = t_quantile(0.5 + confidence / 2, moments.count - 1)
    half = quantile * math.sqrt(moments.variance / moments.count)
    return Interval(moments.mean, moments.mean - half, moments.mean + half, moments.count, "t")


def wilson(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a share with Wilson's score interval, which stays in [0, 1].

    With z the normal quantile and p = hits / n: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) /
    (1 + z^2/n). Source: Wilson 1927, "Probable inference, the law of succession, and statistical
    inference".
    """
    if trials == 0:
        return NOTHING
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, part = hits / trials, z * z / trials
    middle = (share + part / 2) / (1 + part)
    half = z * math.sqrt(share * (1 - share) / trials + part / (4 * trials)) / (1 + part)
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == trials else min(1.0, middle + half)
    return Interval(share, low, high, trials, "Wilson")


def bootstrap_share(
    clusters: Sequence[tuple[int, int]], seed: int, confidence: float = CONFIDENCE
) -> Interval:
    """Return a share with a percentile interval, whole clusters being drawn again.

    Turns of one dialogue are alike, so that turns that are drawn singly would make the interval too
    narrow. Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", section 13.3;
    clusters: Davison and Hinkley 1997, section 3.8.

    Args:
        clusters: (n,), of each dialogue how many turns count and how many there are; n >= 1.
        seed: Of the drawing; the same one gives the same interval.
        confidence: Of the interval.
    """
    import numpy as np  # noqa: PLC0415 - the command line imports what is beside this

    counts = np.array(clusters, dtype=np.int64).reshape(-1, 2)
    hits, trials = (int(total) for total in counts.sum(axis=0))
    if trials == 0:
        return NOTHING
    shares = []
    bits = np.random.PCG64(seed)
    for _ in range(ROUNDS):
        # Raw bits: a bit generator's stream is fixed, while what draws from it may change.
        drawn = (bits.random_raw(len(counts)) >> np.uint64(11)) % np.uint64(len(counts))
        got, of = counts[drawn].sum(axis=0)
        shares.append(float(got / of) if of else hits / trials)
    shares.sort()
    cut = (1 - confidence) / 2
    low, high = (shares[round(at * (ROUNDS - 1))] for at in (cut, 1 - cut))
    return Interval(hits / trials, low, high, trials, "bootstrap")


def share_interval(clusters: Sequence[tuple[int, int]], seed: int) -> Interval:
    """Return a share of turns with its interval: by bootstrap of dialogues, by Wilson of a few.

    Args:
        clusters: Of each dialogue how many turns count and how many there are.
        seed: Of the drawing.
    """
    if len(clusters) >= CLUSTERS_LEAST:
        return bootstrap_share(clusters, seed)
    return wilson(sum(hits for hits, _ in clusters), sum(trials for _, trials in clusters))


def t_quantile(chance: float, freedom: int) -> float:
    """Return the quantile of Student's distribution.

    By halving on its distribution function, 1 - I_x(freedom/2, 1/2) / 2 with x = freedom /
    (freedom + t^2). Source: Abramowitz and Stegun 1964, 26.7.1.

    Args:
        chance: Probability of a smaller value, [0.5, 1).
        freedom: Degrees of freedom, >= 1.
    """
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < chance:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _t_below(middle, freedom) < chance:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_below(value: float, freedom: int) -> float:
    return 1 - incomplete_beta(freedom / (freedom + value * value), freedom / 2, 0.5) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), [0, 1].

    By its continued fraction, evaluated by Lentz's method. Source: NIST Digital Library of
    Mathematical Functions, 8.17.22; Lentz 1976.

    Args:
        x: [0, 1].
        a: > 0.
        b: > 0.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    up, down = 1.0, 1 / (1 - (a + b) * x / (a + 1) or BETA_TINY)
    value = down
    for n in range(1, BETA_STEPS):
        even = n * (b - n) * x / ((a + 2 * n - 1) * (a + 2 * n))
        odd = -(a + n) * (a + b + n) * x / ((a + 2 * n) * (a + 2 * n + 1))
        for term in (even, odd):
            down = 1 / (1 + term * down or BETA_TINY)
            up = 1 + term / up or BETA_TINY
            value *= up * down
        if abs(up * down - 1) < BETA_EXACT:
            break
    return value
