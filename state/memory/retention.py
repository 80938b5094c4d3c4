"""How memories fade: computed when they are looked at, from what is stored; nothing is rewritten.

What fades is how much a memory weighs, not what it says, and not whether it is found: fading does
not enter the ranking of a search.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona_mcp.state.memory.params import RetentionParams

Shares = NDArray[np.float64]

LEAST = 0.2
"""What the modes of the original never go below."""
FLOOR = 0.1
"""Importance that never fades."""
LINEAR_A_DAY = 0.01
EXPONENTIAL_DAYS = 30.0
LOGARITHMIC_DAYS = 91.0
ACCESS_A_MONTH, ACCESS_MOST, MONTH_DAYS = 0.7, 0.6, 30.0
NEVER_READ, OFTEN_READ, OFTEN = 2.0, 0.5, 3


def retention(
    age_days: ArrayLike,
    importance: ArrayLike,
    accesses: ArrayLike,
    pinned: ArrayLike,
    params: RetentionParams,
) -> Shares:
    """Return what share of each memory is left, (0, 1]; all arrays have shape (n,), or are scalars.

    half_life: 2^(-age / S), S = 30 (1 + 4 importance) sqrt(1 + accesses). The others are those of
    the program that this one replaces, without its faults: linear max(.2, 1 - .01 age); exponential
    max(.2, 2^(-age / 30)); logarithmic 1 - min(ln(1 + age) / ln 91, .8); access_based
    1 - min(k min(1 - .7^(age / 30), .6), .8), k = 2 for what was never used, .5 from three uses on.

    Args:
        age_days: Since it was last used, else made; a time to come counts as now.
        importance: 0..1.
        accesses: How often it was used.
        pinned: Never fades.
        params: The mode and its constants.
    """
    age = np.maximum(np.asarray(age_days, dtype=np.float64), 0.0)
    used = np.asarray(accesses, dtype=np.float64)
    match params.mode:
        case "none":
            left = np.ones_like(age)
        case "linear":
            left = np.maximum(LEAST, 1 - LINEAR_A_DAY * age)
        case "exponential":
            left = np.maximum(LEAST, np.exp2(-age / EXPONENTIAL_DAYS))
        case "logarithmic":
            left = 1 - np.minimum(np.log1p(age) / np.log(LOGARITHMIC_DAYS), 1 - LEAST)
        case "access_based":
            k = np.where(used == 0, NEVER_READ, np.where(used >= OFTEN, OFTEN_READ, 1.0))
            lost = np.minimum(1 - ACCESS_A_MONTH ** (age / MONTH_DAYS), ACCESS_MOST)
            left = 1 - np.minimum(k * lost, 1 - LEAST)
        case "half_life":
            left = np.exp2(-age / half_life(importance, used, params))
    smallest = np.finfo(np.float64).tiny
    return np.where(np.asarray(pinned), 1.0, np.maximum(left, smallest))


def half_life(importance: ArrayLike, accesses: ArrayLike, params: RetentionParams) -> Shares:
    """Return the days in which half of a memory fades."""
    weight = 1 + params.importance_gain * np.asarray(importance, dtype=np.float64)
    used = np.sqrt(1 + np.asarray(accesses, dtype=np.float64))
    days: Shares = params.half_life_days * weight * used
    return days


def effective(importance: ArrayLike, retained: ArrayLike) -> Shares:
    """Return how much a memory weighs now: f + (importance - f) retention.

    f = min(.1, importance) never fades.
    """
    whole = np.asarray(importance, dtype=np.float64)
    floor = np.minimum(FLOOR, whole)
    left: Shares = floor + (whole - floor) * np.asarray(retained, dtype=np.float64)
    return left
