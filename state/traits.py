"""Who a persona is in numbers: the Big Five, read from free traits, and social rank."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

PERSONAS_KEPT = 1024
"""Their traits are read several times in each exchange."""
Traits = Mapping[str, float | str]

UNKNOWN = 0.5
FULL_SCALE = 100.0
SCALE_KEY = "scale"
TRAIT_NAMES = (
    "openness",
    "conscientiousness",
    "extraversion",
    "agreeableness",
    "neuroticism",
)

RANKS: Mapping[str, int] = MappingProxyType(
    {
        "royalty": 6,
        "nobility": 5,
        "noble": 5,
        "merchant": 4,
        "artisan": 3,
        "scholar": 3,
        "commoner": 2,
        "performer": 2,
        "peasant": 1,
    }
)
UNKNOWN_RANK = 2

_WORDS: Mapping[str, tuple[tuple[str, bool], ...]] = MappingProxyType(
    {
        "openness": (("creative", True), ("curious", True)),
        "conscientiousness": (("methodical", True), ("focused", True)),
        "extraversion": (("extroverted", True), ("introverted", False), ("reserved", False)),
        "agreeableness": (("empathetic", True), ("kind", True)),
        "neuroticism": (("anxious", True), ("optimistic", False), ("calm", False)),
    }
)


@dataclass(frozen=True)
class BigFive:
    """The five traits, each in [0, 1]; 0.5 where nothing is known.

    Attributes:
        openness: Conventional 0 to inventive 1.
        conscientiousness: Careless 0 to orderly 1.
        extraversion: Reserved 0 to outgoing 1.
        agreeableness: Cold 0 to warm 1.
        neuroticism: Steady 0 to easily upset 1.
        given: Names of the traits that were given as numbers.
        estimated: Names of the traits that were estimated from trait words.
    """

    openness: float = UNKNOWN
    conscientiousness: float = UNKNOWN
    extraversion: float = UNKNOWN
    agreeableness: float = UNKNOWN
    neuroticism: float = UNKNOWN
    given: frozenset[str] = frozenset()
    estimated: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """Names of the traits that are given or estimated."""
        return self.given | self.estimated

    def value(self, name: str) -> float:
        """Look one trait up by its name, [0, 1]."""
        values: dict[str, float] = {
            "openness": self.openness,
            "conscientiousness": self.conscientiousness,
            "extraversion": self.extraversion,
            "agreeableness": self.agreeableness,
            "neuroticism": self.neuroticism,
        }
        return values[name]


def big_five(personality_traits: Traits) -> BigFive:
    """Read the Big Five from free traits.

    A number under a Big Five name is taken as it is, or divided by 100 if any of the persona's Big
    Five numbers exceeds 1; the key `scale` (1 or 100) decides that explicitly. A trait without a
    number is the mean of its words, v on 0..100: E from extroverted v/100, introverted and
    reserved 1 - v/100; O creative, curious; C methodical, focused; A empathetic, kind; N anxious
    v/100, optimistic and calm 1 - v/100. Without words it is 0.5. Text values and numbers that are
    not finite count as absent; results are limited to [0, 1]. Source: word table chosen here.
    """
    return _big_five(tuple(personality_traits.items()))


@lru_cache(PERSONAS_KEPT)
def _big_five(personality_traits: tuple[tuple[str, float | str], ...]) -> BigFive:
    numbers = _numbers(personality_traits)
    given = {name: numbers[name] for name in TRAIT_NAMES if name in numbers}
    divisor = _divisor(given, numbers.get(SCALE_KEY))
    estimates = {
        name: estimate
        for name in TRAIT_NAMES
        if name not in given and (estimate := _estimate(name, numbers)) is not None
    }
    values = {name: _limit(value / divisor) for name, value in given.items()} | estimates
    return BigFive(**values, given=frozenset(given), estimated=frozenset(estimates))


def rank_level(rank: str, ladder: Mapping[str, int] = RANKS) -> int:
    """Find a rank's step: royalty 6, nobility 5, ..., peasant 1; 2 if unknown.

    Args:
        rank: Any spelling of upper and lower case.
        ladder: A world's own table, names in lower case.
    """
    return ladder.get(rank.strip().casefold(), UNKNOWN_RANK)


def _numbers(traits: Iterable[tuple[str, float | str]]) -> dict[str, float]:
    return {
        name.strip().casefold(): float(value)
        for name, value in traits
        if not isinstance(value, str) and math.isfinite(value)
    }


def _divisor(given: Mapping[str, float], scale: float | None) -> float:
    if scale is not None:
        return FULL_SCALE if scale > 1 else 1.0
    return FULL_SCALE if any(value > 1 for value in given.values()) else 1.0


def _estimate(name: str, numbers: Mapping[str, float]) -> float | None:
    values = [
        numbers[word] / FULL_SCALE if positive else 1 - numbers[word] / FULL_SCALE
        for word, positive in _WORDS[name]
        if word in numbers
    ]
    return _limit(sum(values) / len(values)) if values else None


def _limit(value: float) -> float:
    return min(1.0, max(0.0, value))
