"""What talking costs a persona and how it recovers: fatigue, energy, time, cooldown."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Priority = Literal["urgent", "important", "casual", "social", "academic", "business", "none"]
Reason = Literal["cooling_down", "no_time", "no_energy", "busy"]

Seconds = Annotated[float, Field(gt=0, le=86400)]
Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=100)]

FATIGUE_MAX = 100.0


class InteractionParams(BaseModel):
    """Constants of availability. Source: chosen here, after the original Persona MCP's steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy_seconds: Seconds = Field(60.0, description="Seconds until energy recovers by 1")
    fatigue_seconds: Seconds = Field(300.0, description="Seconds until fatigue falls by 1")
    time_refill_seconds: Seconds = Field(
        3600.0, description="Seconds until available time is refilled from 0 to its rest"
    )
    seconds_per_word: Annotated[float, Field(gt=0, le=60)] = Field(
        0.4, description="Talk a spoken word costs, seconds, >0..60"
    )
    talk_seconds_min: Seconds = Field(5.0, description="Least cost of a turn, seconds")
    talk_seconds_max: Seconds = Field(120.0, description="Greatest cost of a turn, seconds")
    fatigue_per_talk: Seconds = Field(30.0, description="Seconds of talk that tire by 1")
    energy_per_talk: Seconds = Field(60.0, description="Seconds of talk that cost 1 energy")
    listener_share: Share = Field(0.5, description="Share of a turn's cost a listener pays, 0..1")
    time_needed: Annotated[float, Field(ge=0, lt=60)] = Field(
        30.0, description="Available time must exceed this, seconds, 0..<60"
    )
    energy_needed: Annotated[float, Field(ge=0, lt=20)] = Field(
        10.0, description="Social energy must exceed this, 0..<20"
    )
    max_parallel: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="Conversations that a persona can hold at once, 1..1000"
    )
    cooldown_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        300.0, description="Pause after a conversation, seconds, 0..86400"
    )
    cooldown_good: Factor = Field(0.5, description="Times the pause after a good one, 0..100")
    cooldown_bad: Factor = Field(2.0, description="Times the pause after a bad one, 0..100")
    good_score: Annotated[float, Field(ge=0, le=100)] = Field(
        70.0, description="A last score above this is good, 0..100"
    )
    bad_score: Annotated[float, Field(ge=0, le=100)] = Field(
        30.0, description="A last score below this is bad, 0..100"
    )


@dataclass(frozen=True)
class InteractionState:
    """What a persona has left for talking at one time.

    Attributes:
        as_of: Time of the values, seconds since the epoch.
        fatigue: Fresh 0 to exhausted 100.
        energy: Social energy, 0..200.
        time: Available time, 0..86400 s.
        priority: What it is about just now.
        cooldown_until: End of the pause after a conversation, seconds since the epoch.
        interest_level: Display value kept from the original, 0..100; enters no formula.
    """

    as_of: float
    fatigue: float = 0.0
    energy: float = 100.0
    time: float = 300.0
    priority: Priority = "none"
    cooldown_until: float | None = None
    interest_level: float = 50.0


def regenerate(
    state: InteractionState,
    now: float,
    energy_rest: float,
    time_rest: float,
    params: InteractionParams,
) -> InteractionState:
    """Let a persona rest until `now`; a time before `as_of` changes nothing.

    Each value goes at a steady rate to its rest, from above or below: fatigue to 0 by 1/300 a
    second, energy to `energy_rest` by 1/60, time to `time_rest` by time_rest/3600. Split gaps
    agree.

    Args:
        state: As stored.
        now: Seconds since the epoch.
        energy_rest: 20..200.
        time_rest: 60..86400 s.
        params: The rates.
    """
    if now <= state.as_of:
        return state
    gap = now - state.as_of
    return replace(
        state,
        as_of=now,
        fatigue=_toward(state.fatigue, 0.0, gap / params.fatigue_seconds),
        energy=_toward(state.energy, energy_rest, gap / params.energy_seconds),
        time=_toward(state.time, time_rest, gap * time_rest / params.time_refill_seconds),
    )


def talk_cost(words: int, params: InteractionParams) -> float:
    """Give the cost of a turn in seconds of talk: 0.4 * words, limited to [5, 120].

    Source: 150 words a minute, the usual pace of English speech.
    """
    cost = params.seconds_per_word * words
    return min(params.talk_seconds_max, max(params.talk_seconds_min, cost))


def after_talk(
    state: InteractionState, talk_s: float, share: float, params: InteractionParams
) -> InteractionState:
    """Spend a turn: fatigue + c/30 (<= 100), energy - c/60 (>= 0), time - c (>= 0).

    Args:
        state: Regenerated to the time of the turn.
        talk_s: From `talk_cost`.
        share: 1 for the speaker, `params.listener_share` for a listener, 0 for a witness.
        params: The costs.
    """
    cost = talk_s * share
    return replace(
        state,
        fatigue=min(FATIGUE_MAX, state.fatigue + cost / params.fatigue_per_talk),
        energy=max(0.0, state.energy - cost / params.energy_per_talk),
        time=max(0.0, state.time - cost),
    )


def reasons(
    state: InteractionState, params: InteractionParams, conversations: int = 0
) -> tuple[Reason, ...]:
    """Say why a persona cannot talk to another persona now; empty if it can.

    A human is never refused: ask this for talks between personas, and for routing by score.

    Args:
        state: Regenerated to now, which is its `as_of`.
        params: The limits.
        conversations: Other active conversations that it is in.
    """
    checks: tuple[tuple[Reason, bool], ...] = (
        ("cooling_down", state.as_of < (state.cooldown_until or 0.0)),
        ("no_time", state.time <= params.time_needed),
        ("no_energy", state.energy <= params.energy_needed),
        ("busy", conversations >= params.max_parallel),
    )
    return tuple(reason for reason, failed in checks if failed)


def available(state: InteractionState, params: InteractionParams, conversations: int = 0) -> bool:
    """Tell whether nothing speaks against a talk now; see `reasons`."""
    return not reasons(state, params, conversations)


def seconds_until_available(
    state: InteractionState, time_rest: float, params: InteractionParams
) -> float:
    """Tell how long the slowest of cooldown, time and energy takes, seconds, >= 0; see `waits`."""
    return max(waits(state, time_rest, params).values(), default=0.0)


def waits(
    state: InteractionState, time_rest: float, params: InteractionParams
) -> dict[Reason, float]:
    """Tell how long each of cooldown, time and energy that fails takes, seconds, > 0.

    A rule x > limit that fails takes floor((limit - x) / rate) + 1 seconds. Always finite, since
    the rests lie above the limits. Other conversations are left out: nobody knows their end.

    Args:
        state: Regenerated to now, which is its `as_of`.
        time_rest: 60..86400 s.
        params: The rates and limits.
    """
    known: dict[Reason, float] = {
        "cooling_down": (state.cooldown_until or 0.0) - state.as_of,
        "no_time": _wait(params.time_needed - state.time, params.time_refill_seconds / time_rest),
        "no_energy": _wait(params.energy_needed - state.energy, params.energy_seconds),
    }
    return {reason: known[reason] for reason in reasons(state, params) if reason in known}


def cooldown(
    turns: int, last_score: float | None, fatigue: float, params: InteractionParams
) -> float:
    """Give the pause after a conversation, seconds, >= 0.

    0 after no turn; else 300 * (0.5 if the last score > 70, 2 if < 30, else 1) * (1 + fatigue/100).

    Args:
        turns: Turns of the conversation.
        last_score: Last continue score, 0..100; None if none was taken.
        fatigue: The persona's own, 0..100.
        params: The pause and its factors.
    """
    if turns == 0:
        return 0.0
    factor = 1.0
    if last_score is not None and last_score > params.good_score:
        factor = params.cooldown_good
    elif last_score is not None and last_score < params.bad_score:
        factor = params.cooldown_bad
    return params.cooldown_seconds * factor * (1 + fatigue / FATIGUE_MAX)


def _toward(value: float, rest: float, step: float) -> float:
    return min(rest, value + step) if value < rest else max(rest, value - step)


def _wait(missing: float, seconds_per_unit: float) -> float:
    return math.floor(missing * seconds_per_unit) + 1.0
