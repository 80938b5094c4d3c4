"""How well two personas fit: symmetric, from who they are and how they stand to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.traits import TRAIT_NAMES, BigFive, big_five, rank_level

Prediction = Literal["excellent", "very_good", "good", "challenging", "difficult"]
Challenge = Literal[
    "personality_clash",
    "social_mismatch",
    "few_shared_interests",
    "high_stress_potential",
    "energy_level_mismatch",
]

NEUTRAL = 0.5
WEIGHT_PERSONALITY, WEIGHT_SOCIAL, WEIGHT_INTERESTS, WEIGHT_HISTORY = 0.35, 0.25, 0.25, 0.15
STATIC_WEIGHT = 0.85

TRAIT_WEIGHTS = dict(zip(TRAIT_NAMES, (0.2, 0.15, 0.25, 0.25, 0.15), strict=True))
SIMILAR_EXTRAVERSION = 0.5
CONTRAST_FACTOR = 0.7
STRESS_FACTOR = 0.3

CHARISMA_SHARE, INTELLIGENCE_SHARE, RANK_SHARE = 0.4, 0.4, 0.2
CHARISMA_SUM = 40
INTELLIGENCE_STEPS = ((3, 1.0), (6, 0.8))
INTELLIGENCE_FAR = 0.5
RANK_STEPS = ((0, 1.0), (1, 0.8), (2, 0.6))
RANK_FAR = 0.3

NOTHING_SHARED = 0.3
OVERLAP_BONUS = 0.2
LIKED = 20
RECOMMENDED = 30
TOPICS_SHOWN = 5

PREDICTIONS: tuple[tuple[float, Prediction], ...] = (
    (0.8, "excellent"),
    (0.65, "very_good"),
    (0.5, "good"),
    (0.35, "challenging"),
)
STYLES = (
    (0.8, ("collaborative_enthusiastic", "excellent_friends", "frequent")),
    (0.6, ("friendly_engaging", "good_friends", "regular")),
    (0.4, ("respectful_cautious", "cordial_acquaintances", "occasional")),
)
DISTANT = ("formal_distant", "professional_only", "minimal")

CLASH = 0.4
MISMATCH = 0.4
FEW_INTERESTS = 0.3
STRESSFUL = 0.7
ENERGY_GAP = 0.6


@dataclass(frozen=True)
class Profile:
    """What compatibility needs of a persona.

    Attributes:
        traits: Traits that are neither given nor estimated count as unknown.
        topic_preferences: 0..100 by topic; names are compared without regard to case.
        charisma: 1..20.
        intelligence: 1..20.
        rank_level: Step on the ladder.
    """

    traits: BigFive = field(default_factory=BigFive)
    topic_preferences: Mapping[str, float] = field(default_factory=dict)
    charisma: int = 10
    intelligence: int = 10
    rank_level: int = 2


@dataclass(frozen=True)
class Compatibility:
    """How two personas fit, and what to expect of them.

    Attributes:
        overall: .35 personality + .25 social + .25 interests + .15 history, 3 decimals, [0, 1].
        personality: [0, 1].
        social: [0, 1].
        interests: [0, 1].
        history: [0, 1]; .5 if they never met.
        prediction: By overall.
        interaction_style: By overall.
        relationship_potential: By overall.
        frequency: By overall, how often they would seek each other.
        recommended_topics: (<= 5,), liked by both, best first.
        challenges: What may go wrong.
    """

    overall: float
    personality: float
    social: float
    interests: float
    history: float
    prediction: Prediction
    interaction_style: str
    relationship_potential: str
    frequency: str
    recommended_topics: tuple[str, ...]
    challenges: tuple[Challenge, ...]


def profile_of(spec: PersonaSpec) -> Profile:
    """Take what compatibility needs from what a persona is."""
    return Profile(
        big_five(spec.personality_traits),
        spec.topic_preferences,
        spec.charisma,
        spec.intelligence,
        rank_level(spec.social_rank),
    )


def compatibility(a: Profile, b: Profile, strengths: Sequence[float] = ()) -> Compatibility:
    """Weigh personality, social standing, interests and history. Symmetric.

    Args:
        a: One persona.
        b: The other one.
        strengths: Strengths of the arrows there are between them, (-1, 1), 0 to 2 of them.

    Returns:
        Labels go by the rounded overall value. Source: weights and borders of the original Persona
        MCP server.
    """
    parts = personality(a.traits, b.traits), social(a, b), interests(a, b), history(strengths)
    weights = WEIGHT_PERSONALITY, WEIGHT_SOCIAL, WEIGHT_INTERESTS, WEIGHT_HISTORY
    overall = round(sum(w * part for w, part in zip(weights, parts, strict=True)), 3)
    style, potential, frequency = next((s for low, s in STYLES if overall > low), DISTANT)
    return Compatibility(
        overall,
        *parts,
        prediction=next((p for low, p in PREDICTIONS if overall > low), "difficult"),
        interaction_style=style,
        relationship_potential=potential,
        frequency=frequency,
        recommended_topics=recommended_topics(a, b),
        challenges=_challenges(a.traits, b.traits, *parts[:3]),
    )


def static_compatibility(a: Profile, b: Profile) -> float:
    """Weigh all but history, [0, 1]: (.35 personality + .25 social + .25 interests) / .85.

    The prior of a new relationship; without history, so that it does not feed on itself.
    """
    return (
        WEIGHT_PERSONALITY * personality(a.traits, b.traits)
        + WEIGHT_SOCIAL * social(a, b)
        + WEIGHT_INTERESTS * interests(a, b)
    ) / STATIC_WEIGHT


def personality(a: BigFive, b: BigFive) -> float:
    """Compare the traits known of both, [0, 1]; .5 if there are none.

    Weighted mean (O .2, C .15, E .25, A .25, N .15) of 1 - |d|; E: 1 - .7 |d| while |d| < .5;
    N: 1 - |d| - .3 * the higher one; each limited to [0, 1].
    """
    names = [name for name in TRAIT_NAMES if name in a.known & b.known]
    if not names:
        return NEUTRAL
    total = sum(TRAIT_WEIGHTS[name] for name in names)
    fits = sum(TRAIT_WEIGHTS[name] * _fit(name, a.value(name), b.value(name)) for name in names)
    return _limit(fits / total)


def social(a: Profile, b: Profile) -> float:
    """Compare charisma, intelligence and rank, [0, 1].

    .4 * min(1, sum of charisma / 40) + .4 * q + .2 * r; q by gap of intelligence <= 3: 1, <= 6:
    .8, else .5; r by gap of rank 0: 1, 1: .8, 2: .6, else .3.
    """
    charm = min(1.0, (a.charisma + b.charisma) / CHARISMA_SUM)
    wit = _step(abs(a.intelligence - b.intelligence), INTELLIGENCE_STEPS, INTELLIGENCE_FAR)
    rank = _step(abs(a.rank_level - b.rank_level), RANK_STEPS, RANK_FAR)
    return CHARISMA_SHARE * charm + INTELLIGENCE_SHARE * wit + RANK_SHARE * rank


def interests(a: Profile, b: Profile) -> float:
    """Compare topics, [0, 1]; .5 if one side has none, .3 if none is shared.

    Mean of 1 - |x - y| / 100 weighted by (x + y) / 200 over shared topics that both rate above 20
    (.3 if there are none), plus .2 * shared / the longer list, limited to 1.
    """
    mine, theirs = _topics(a), _topics(b)
    if not mine or not theirs:
        return NEUTRAL
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        return NOTHING_SHARED
    pairs = [(mine[t], theirs[t]) for t in shared if min(mine[t], theirs[t]) > LIKED]
    agreement = NOTHING_SHARED
    if pairs:
        total = sum(x + y for x, y in pairs)
        agreement = sum((x + y) * (1 - abs(x - y) / 100) for x, y in pairs) / total
    return _limit(agreement + OVERLAP_BONUS * len(shared) / max(len(mine), len(theirs)))


def history(strengths: Sequence[float]) -> float:
    """Turn the mean strength of the arrows between two into [0, 1]; .5 if they never met."""
    if not strengths:
        return NEUTRAL
    return (sum(sorted(strengths)) / len(strengths) + 1) / 2


def recommended_topics(a: Profile, b: Profile) -> tuple[str, ...]:
    """List up to 5 topics that both rate above 30, by sum downward, then by name."""
    mine, theirs = _topics(a), _topics(b)
    liked = [t for t in mine.keys() & theirs.keys() if min(mine[t], theirs[t]) > RECOMMENDED]
    return tuple(sorted(liked, key=lambda t: (-(mine[t] + theirs[t]), t))[:TOPICS_SHOWN])


def _challenges(
    a: BigFive, b: BigFive, traits: float, standing: float, topics: float
) -> tuple[Challenge, ...]:
    checks: tuple[tuple[Challenge, bool], ...] = (
        ("personality_clash", traits < CLASH),
        ("social_mismatch", standing < MISMATCH),
        ("few_shared_interests", topics < FEW_INTERESTS),
        ("high_stress_potential", max(a.neuroticism, b.neuroticism) > STRESSFUL),
        ("energy_level_mismatch", abs(a.extraversion - b.extraversion) > ENERGY_GAP),
    )
    return tuple(name for name, found in checks if found)


def _fit(name: str, x: float, y: float) -> float:
    gap = abs(x - y)
    if name == "extraversion" and gap < SIMILAR_EXTRAVERSION:
        return _limit(1 - CONTRAST_FACTOR * gap)
    if name == "neuroticism":
        return _limit(1 - gap - STRESS_FACTOR * max(x, y))
    return _limit(1 - gap)


def _step(gap: int, steps: Sequence[tuple[int, float]], far: float) -> float:
    return next((value for limit, value in steps if gap <= limit), far)


def _topics(profile: Profile) -> dict[str, float]:
    return {name.casefold(): value for name, value in profile.topic_preferences.items()}


def _limit(value: float) -> float:
    return min(1.0, max(0.0, value))
