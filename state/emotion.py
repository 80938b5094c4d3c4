"""How a persona feels: five values that are pushed by turns and fall back to a baseline."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.state.appraisal import Appraisal, dead_zone
from persona_mcp.state.moments import HOUR_S
from persona_mcp.state.traits import BigFive

Share = Annotated[float, Field(ge=0, le=1)]
Slope = Annotated[float, Field(ge=0, le=5)]
Hours = Annotated[float, Field(gt=0, le=8760)]

MIDDLE = 0.5
NEUTRAL_PREFERENCE = 50.0
MOOD_FLOOR = -1.0
VALUE_FLOOR = 0.0

EVEN_MOOD = 0.1
HIGH = 0.5
_LABELS = {
    (True, True, False): "cheerful",
    (True, True, True): "excited",
    (True, False, False): "content",
    (True, False, True): "strained",
    (False, True, False): "grumpy",
    (False, True, True): "upset",
    (False, False, False): "gloomy",
    (False, False, True): "overwhelmed",
}


class EmotionParams(BaseModel):
    """Constants of moods. Source: chosen here, to be calibrated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mood_extraversion: Slope = Field(0.4, description="Resting mood by extraversion, 0..5")
    mood_agreeableness: Slope = Field(0.2, description="Resting mood by agreeableness, 0..5")
    mood_neuroticism: Slope = Field(0.6, description="What neuroticism takes from it, 0..5")
    energy_rest: Share = Field(0.5, description="Resting energy of the average persona, 0..1")
    energy_extraversion: Slope = Field(0.3, description="Resting energy by extraversion, 0..5")
    energy_conscientiousness: Slope = Field(0.1, description="By conscientiousness, 0..5")
    energy_neuroticism: Slope = Field(0.1, description="What neuroticism takes from it, 0..5")
    stress_neuroticism: Share = Field(0.3, description="Resting stress at neuroticism 1, 0..1")
    curiosity_rest: Share = Field(0.5, description="Resting curiosity of the average, 0..1")
    curiosity_openness: Slope = Field(0.5, description="Resting curiosity by openness, 0..5")
    battery_rest: Share = Field(0.75, description="Resting social battery of the average, 0..1")
    battery_extraversion: Slope = Field(0.4, description="By extraversion, 0..5")

    mood_hours: Hours = Field(6.0, description="Half-life of mood, hours")
    energy_hours: Hours = Field(8.0, description="Half-life of energy, hours")
    stress_hours: Hours = Field(4.0, description="Half-life of stress, hours")
    curiosity_hours: Hours = Field(12.0, description="Half-life of curiosity, hours")
    battery_hours: Hours = Field(2.0, description="Half-life of the social battery, hours")

    dead_zone: Share = Field(0.10, lt=1, description="Appraisals up to this size do nothing, 0..<1")
    turn_size: Share = Field(0.3, description="Size of one turn, 0..1")
    mood_gain: Slope = Field(0.3, description="Mood impulse a unit of warmth, 0..5")
    stress_hostility: Slope = Field(0.3, description="Stress a unit of hostility, 0..5")
    stress_unreliability: Slope = Field(0.2, description="Stress a unit of unreliability, 0..5")
    stress_relief: Slope = Field(0.15, description="Stress taken by a unit of warmth, 0..5")
    curiosity_gain: Slope = Field(0.2, description="Curiosity from a beloved topic, 0..5")
    bad_base: Slope = Field(0.5, description="Force of bad events at neuroticism 0, 0..5")
    bad_neuroticism: Slope = Field(1.0, description="What neuroticism 1 adds to it, 0..5")
    good_base: Slope = Field(0.75, description="Force of good events at extraversion 0, 0..5")
    good_extraversion: Slope = Field(0.5, description="What extraversion 1 adds to it, 0..5")
    battery_per_hour: Slope = Field(0.3, description="Battery an hour of talk costs, 0..5")
    battery_introversion: Annotated[float, Field(ge=1, le=5)] = Field(
        1.5, description="That cost is times this minus extraversion, 1..5"
    )
    energy_per_hour: Slope = Field(0.2, description="Energy an hour of talk costs, 0..5")
    contagion: Share = Field(0.0, description="Share of a speaker's mood that is caught, 0 is off")


@dataclass(frozen=True)
class EmotionalState:
    """How a persona feels at one time.

    Attributes:
        as_of: Time of the values, seconds since the epoch.
        mood: Sad -1 to happy 1.
        energy_level: Worn out 0 to lively 1.
        stress_level: At ease 0 to at breaking point 1.
        curiosity: Indifferent 0 to keen 1.
        social_battery: Needs to be alone 0 to fresh 1.
    """

    as_of: float
    mood: float
    energy_level: float
    stress_level: float
    curiosity: float
    social_battery: float


@dataclass(frozen=True)
class Impulses:
    """Pushes on the five values, each meant for [-1, 1]; 0 leaves a value as it is."""

    mood: float = 0.0
    energy_level: float = 0.0
    stress_level: float = 0.0
    curiosity: float = 0.0
    social_battery: float = 0.0


def baseline(traits: BigFive, at: float, params: EmotionParams) -> EmotionalState:
    """Give the state that a persona rests in, and starts from.

    mood .4(E-.5) + .2(A-.5) - .6(N-.5), in [-.6, .6]; energy .5 + .3(E-.5) + .1(C-.5) - .1(N-.5);
    stress .3 N; curiosity .5 + .5(O-.5); social battery .75 + .4(E-.5). Source: signs after Costa
    and McCrae 1980 (extraversion with positive, neuroticism with negative affect); sizes chosen
    here.
    """
    extraversion = traits.extraversion - MIDDLE
    neuroticism = traits.neuroticism - MIDDLE
    return EmotionalState(
        as_of=at,
        mood=_limit(
            params.mood_extraversion * extraversion
            + params.mood_agreeableness * (traits.agreeableness - MIDDLE)
            - params.mood_neuroticism * neuroticism,
            MOOD_FLOOR,
        ),
        energy_level=_limit(
            params.energy_rest
            + params.energy_extraversion * extraversion
            + params.energy_conscientiousness * (traits.conscientiousness - MIDDLE)
            - params.energy_neuroticism * neuroticism
        ),
        stress_level=_limit(params.stress_neuroticism * traits.neuroticism),
        curiosity=_limit(
            params.curiosity_rest + params.curiosity_openness * (traits.openness - MIDDLE)
        ),
        social_battery=_limit(params.battery_rest + params.battery_extraversion * extraversion),
    )


def decay(
    state: EmotionalState, rest: EmotionalState, now: float, params: EmotionParams
) -> EmotionalState:
    """Let time pass: x(t) = b + (x - b) * 2^(-t / H), each value with its own half-life.

    Split gaps agree and the baseline is a fixed point. A time before `as_of` changes nothing.
    """
    if now <= state.as_of:
        return state
    hours = (now - state.as_of) / HOUR_S

    def toward(value: float, target: float, half_life: float) -> float:
        return float(target + (value - target) * 2 ** (-hours / half_life))

    return EmotionalState(
        as_of=now,
        mood=toward(state.mood, rest.mood, params.mood_hours),
        energy_level=toward(state.energy_level, rest.energy_level, params.energy_hours),
        stress_level=toward(state.stress_level, rest.stress_level, params.stress_hours),
        curiosity=toward(state.curiosity, rest.curiosity, params.curiosity_hours),
        social_battery=toward(state.social_battery, rest.social_battery, params.battery_hours),
    )


def impulse(value: float, push: float, floor: float = VALUE_FLOOR) -> float:
    """Push a value: x + e(1 - x) if e > 0 else x + e(x - floor).

    Args:
        value: In [floor, 1].
        push: e, in [-1, 1].
        floor: -1 for mood, 0 for the others.

    Returns:
        A value in [floor, 1]; the same push moves it less near the ends.
    """
    room = 1 - value if push > 0 else value - floor
    return _limit(value + push * room, floor)


def of_appraisal(
    appraisal: Appraisal, owner: BigFive, size: float, params: EmotionParams
) -> Impulses:
    """Say how an act moves the one it was done to.

    With s the dead zone, bad = .5 + N and good = .75 + .5 E:
    mood .3 * size * (good * max(0, s(w)) - bad * max(0, -s(w)));
    stress size * (.3 * bad * max(0, -s(w)) + .2 * bad * max(0, -s(b)) - .15 * max(0, s(w))).

    Args:
        appraisal: As received.
        owner: The one who feels.
        size: `params.turn_size` for a turn, `update_size` for a meeting, >= 0.
        params: The gains.
    """
    warmth = dead_zone(appraisal.warmth, params.dead_zone)
    reliability = dead_zone(appraisal.reliability, params.dead_zone)
    bad = params.bad_base + params.bad_neuroticism * owner.neuroticism
    good = params.good_base + params.good_extraversion * owner.extraversion
    kind, hostile, unreliable = max(0.0, warmth), max(0.0, -warmth), max(0.0, -reliability)
    return Impulses(
        mood=params.mood_gain * size * (good * kind - bad * hostile),
        stress_level=size
        * (
            params.stress_hostility * bad * hostile
            + params.stress_unreliability * bad * unreliable
            - params.stress_relief * kind
        ),
    )


def of_topic(preference: float, size: float, params: EmotionParams) -> Impulses:
    """Say how a topic moves: curiosity by .2 * size * (preference - 50) / 50.

    Args:
        preference: The persona's own, 0..100; 50 for an unknown topic.
        size: As in `of_appraisal`.
        params: The gain.
    """
    liking = (preference - NEUTRAL_PREFERENCE) / NEUTRAL_PREFERENCE
    return Impulses(curiosity=params.curiosity_gain * size * liking)


def of_talk(minutes: float, owner: BigFive, params: EmotionParams) -> Impulses:
    """Say what talking costs: battery .3 * hours * (1.5 - E), energy .2 * hours, each 1 at most.

    Args:
        minutes: Time of the talk, >= 0.
        owner: The one who talks.
        params: The costs.
    """
    hours = minutes / 60
    drained = params.battery_per_hour * hours * (params.battery_introversion - owner.extraversion)
    return Impulses(
        energy_level=-min(1.0, params.energy_per_hour * hours),
        social_battery=-min(1.0, drained),
    )


def of_contagion(own_mood: float, other_mood: float, owner: BigFive, p: EmotionParams) -> Impulses:
    """Say how a speaker's mood is caught by who hears it: contagion * A * (other - own).

    Off (0) by default. Source: emotional contagion (Hatfield et al. 1993); 0.02 is a mild value,
    chosen here.

    Args:
        own_mood: Of who hears it, -1..1.
        other_mood: Of who speaks, -1..1.
        owner: Who hears it.
        p: The share.
    """
    return Impulses(mood=p.contagion * owner.agreeableness * (other_mood - own_mood))


def of_turn(
    appraisal: Appraisal,
    owner: BigFive,
    preference: float,
    minutes: float,
    size: float,
    params: EmotionParams,
) -> Impulses:
    """Sum what one turn or meeting does: `of_appraisal`, `of_topic` and `of_talk`."""
    return summed(
        (
            of_appraisal(appraisal, owner, size, params),
            of_topic(preference, size, params),
            of_talk(minutes, owner, params),
        )
    )


def summed(impulses: Iterable[Impulses]) -> Impulses:
    """Sum the impulses of one turn value by value, each sum limited to [-1, 1]."""
    parts = tuple(impulses)
    return Impulses(
        mood=_limit(sum(part.mood for part in parts), -1.0),
        energy_level=_limit(sum(part.energy_level for part in parts), -1.0),
        stress_level=_limit(sum(part.stress_level for part in parts), -1.0),
        curiosity=_limit(sum(part.curiosity for part in parts), -1.0),
        social_battery=_limit(sum(part.social_battery for part in parts), -1.0),
    )


def apply(state: EmotionalState, push: Impulses) -> EmotionalState:
    """Apply the summed impulses of a turn once, to a state decayed to the turn's time."""
    return replace(
        state,
        mood=impulse(state.mood, push.mood, MOOD_FLOOR),
        energy_level=impulse(state.energy_level, push.energy_level),
        stress_level=impulse(state.stress_level, push.stress_level),
        curiosity=impulse(state.curiosity, push.curiosity),
        social_battery=impulse(state.social_battery, push.social_battery),
    )


def label(state: EmotionalState) -> str:
    """Say a state in one word for display.

    By octant (mood >= 0, energy >= .5, stress >= .5): cheerful, excited, content, strained, grumpy,
    upset, gloomy, overwhelmed; "even" while |mood| < .1 and stress < .5. Source: after the
    circumplex of affect (Russell 1980); borders and words chosen here.
    """
    stressed = state.stress_level >= HIGH
    if abs(state.mood) < EVEN_MOOD and not stressed:
        return "even"
    return _LABELS[(state.mood >= 0, state.energy_level >= HIGH, stressed)]


def _limit(value: float, floor: float = VALUE_FLOOR) -> float:
    return min(1.0, max(floor, value))
