"""From what happened to what it changes: appraisal, size, weight, latent deltas."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from persona_mcp.state.relationship_params import ContextRow, RelationshipParams
from persona_mcp.state.traits import BigFive

Role = Literal["received", "returned", "joint", "aside", "told"]
"""How the arrow's owner stands to the act.

received: it was done to the owner. returned: the owner did it to the other. joint: both did it.
aside: the owner only perceived it. told: the owner heard of it.
"""

DEFAULT_CONTEXT = "conversation"

CONTEXTS: Mapping[str, ContextRow] = MappingProxyType(
    {
        DEFAULT_CONTEXT: ContextRow(),
        "casual": ContextRow(reliability=0.3, competence=0.2, disclosure=0.2),
        "collaboration": ContextRow(warmth=0.6, reliability=0.9, competence=1, disclosure=0.1),
        "deep_conversation": ContextRow(warmth=0.9, reliability=0.8, competence=0.4, disclosure=1),
        "professional": ContextRow(warmth=0.3, reliability=0.6, competence=1, disclosure=0),
        "help": ContextRow(
            warmth=0.8,
            warmth_offset=0.1,
            reliability=1,
            reliability_offset=0.2,
            competence=0.6,
            competence_offset=0.1,
            disclosure=0.1,
        ),
        "conflict": ContextRow(
            warmth=0.8,
            warmth_offset=-0.3,
            reliability=0.8,
            reliability_offset=-0.3,
            competence=0.5,
            competence_offset=-0.1,
            disclosure=0,
        ),
        "betrayal": ContextRow(
            warmth=0.5,
            warmth_offset=-0.5,
            reliability=0.5,
            reliability_offset=-0.5,
            competence=0.5,
            competence_offset=-0.3,
            disclosure=0,
            turning_point=True,
        ),
        "repair": ContextRow(
            warmth=0.8,
            warmth_offset=0.1,
            reliability=0.8,
            reliability_offset=0.1,
            competence=0.5,
            disclosure=0.3,
            turning_point=True,
        ),
    }
)
"""The built-in kinds of meetings. Source: chosen here, to be calibrated."""


@dataclass(frozen=True)
class Appraisal:
    """How an act is taken by the one it was done to.

    Attributes:
        warmth: Hostile -1 to kind 1; drives affinity.
        reliability: Treacherous -1 to dependable 1; drives trust.
        competence: Inept -1 to able 1; drives respect.
        disclosure: Nothing personal 0 to a deep secret 1; drives intimacy.
    """

    warmth: float = 0.0
    reliability: float = 0.0
    competence: float = 0.0
    disclosure: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values outside the ranges, which the laws rest on."""
        axes = (self.warmth, self.reliability, self.competence)
        if not (all(-1 <= axis <= 1 for axis in axes) and 0 <= self.disclosure <= 1):
            raise ValueError(f"out of range: {self}")


@dataclass(frozen=True)
class Bias:
    """What an appraiser says of neutral turns on average, one number an axis."""

    warmth: float = 0.0
    reliability: float = 0.0
    competence: float = 0.0
    disclosure: float = 0.0


@dataclass(frozen=True)
class Weights:
    """How much an act counts for one arrow.

    Attributes:
        omega: Factor on affinity, trust and respect, [0, 1].
        disclosure: Factor on disclosure, [0, 1]; 0 unless direct.
        direct: The two were in contact, so familiarity grows.
    """

    omega: float
    disclosure: float
    direct: bool


@dataclass(frozen=True)
class Deltas:
    """What one event adds to an arrow's latent values.

    Attributes:
        affinity: Change of latent affinity, any sign.
        trust: Change of latent trust, any sign.
        respect: Change of latent respect, any sign.
        disclosure: Added disclosure, >= 0.
        contact: Added contact, >= 0.
    """

    affinity: float = 0.0
    trust: float = 0.0
    respect: float = 0.0
    disclosure: float = 0.0
    contact: float = 0.0


def without_bias(appraisal: Appraisal, bias: Bias) -> Appraisal:
    """Take an appraiser's measured bias off, axis by axis, and keep the ranges."""
    return Appraisal(
        _limit(appraisal.warmth - bias.warmth),
        _limit(appraisal.reliability - bias.reliability),
        _limit(appraisal.competence - bias.competence),
        max(0.0, _limit(appraisal.disclosure - bias.disclosure)),
    )


def dead_zone(value: float, width: float) -> float:
    """Silence the small values of an appraiser: sign(a) * max(0, |a| - width) / (1 - width).

    Args:
        value: One axis of an appraisal, [-1, 1].
        width: Values up to this size give 0, [0, 1).

    Returns:
        A value in [-1, 1], monotone in `value`; -1, 0 and 1 stay as they are.
        Source: soft thresholding; the width is chosen here.
    """
    size = max(0.0, abs(value) - width) / (1 - width)
    return size if value > 0 else -size


def appraisal_for(quality: float, context: str, params: RelationshipParams) -> Appraisal:
    """Translate the quality of a meeting by its kind.

    warmth = slope * q + offset limited to [-1, 1], likewise reliability and competence;
    disclosure = slope * max(0, q). An unknown kind counts as "conversation".

    Args:
        quality: [-1, 1].
        context: A kind of meeting, any case.
        params: May hold more kinds.
    """
    row = _row(context, params)
    return Appraisal(
        _limit(row.warmth * quality + row.warmth_offset),
        _limit(row.reliability * quality + row.reliability_offset),
        _limit(row.competence * quality + row.competence_offset),
        row.disclosure * max(0.0, quality),
    )


def is_turning_point(context: str, params: RelationshipParams) -> bool:
    """Tell whether this kind of meeting weighs more than others (betrayal, repair)."""
    return _row(context, params).turning_point


def turn_size(params: RelationshipParams, *, turning_point: bool = False) -> float:
    """Give the size M of one turn, >= 0: 0.11, times 1.5 at a turning point.

    Source: calibrated here, see `tests/state/test_calibration.py`.
    """
    return params.turn_size * (params.turning_point_factor if turning_point else 1.0)


def update_size(
    minutes: float, params: RelationshipParams, *, turning_point: bool = False
) -> float:
    """Give the size M of a whole meeting: 0.2 + 0.8 * (1 - 2^(-minutes / 15)), in [0.2, 1].

    A turning point multiplies it by 1.5. Source: chosen here.
    """
    grown = 1 - 2 ** (-minutes / params.update_half_minutes)
    size = params.update_size_min + params.update_size_span * grown
    return size * (params.turning_point_factor if turning_point else 1.0)


def hearsay_weight(source_trust: float, params: RelationshipParams) -> float:
    """Weigh what a source tells: 0.6 * ((1 + T) / 2)^2, in [0, 0.6]; 0 at full distrust.

    Args:
        source_trust: The hearer's shown trust in the source at the start of the turn, [-1, 1].
        params: Holds the weight of a fully trusted source.
    """
    return float(params.hearsay_weight * ((1 + source_trust) / 2) ** 2)


def weights(role: Role, params: RelationshipParams, *, source_trust: float = 0.0) -> Weights:
    """Weigh an act for one arrow by how its owner stands to it.

    Args:
        role: received and joint weigh 1; returned 0.35 (disclosure 0.7); aside 0.3; told as
            `hearsay_weight`. The last two bring neither disclosure nor familiarity.
        params: Holds the weights. With both returned weights at 0, an act leaves the actor's own
            arrow untouched, contact included.
        source_trust: For told only, [-1, 1].
    """
    match role:
        case "received" | "joint":
            return Weights(1.0, 1.0, direct=True)
        case "returned":
            own, told = params.returned_weight, params.returned_disclosure
            return Weights(own, told, direct=max(own, told) > 0)
        case "aside":
            return Weights(params.aside_weight, 0.0, direct=False)
        case _:
            return Weights(hearsay_weight(source_trust, params), 0.0, direct=False)


def deltas(
    appraisal: Appraisal,
    size: float,
    weight: Weights,
    owner: BigFive,
    minutes: float,
    params: RelationshipParams,
) -> Deltas:
    """Turn an appraisal into latent changes; they do not depend on the arrow's present state.

    With s the dead zone, p = 0.8 + 0.2 * agreeableness and v = 1 + 0.25 * neuroticism:
    change = omega * size * s * (gain * p if s > 0 else loss * v); disclosure adds
    omega_d * size * 0.5 * s; contact adds 0.015 + minutes / 600 for a direct event, else 0.

    Args:
        appraisal: As the owner of the arrow takes it.
        size: From `turn_size` or `update_size`, >= 0.
        weight: From `weights`.
        owner: The persona whose arrow it is; a human has the defaults.
        minutes: Time spent together, >= 0.
        params: Gains, losses and the dead zone.

    Returns:
        Losses of trust at least twice the gains for the same size. Source: chosen here, after
        Slovic 1993 ("Perceived risk, trust, and democracy": trust falls faster than it rises).
    """
    scale = weight.omega * size
    gain = 1 - params.agreeableness_gain * (1 - owner.agreeableness)
    loss = 1 + params.neuroticism_loss * owner.neuroticism

    def change(axis: float, up: float, down: float) -> float:
        signal = dead_zone(axis, params.dead_zone)
        return scale * signal * (up * gain if signal > 0 else down * loss)

    told = weight.disclosure * size * dead_zone(appraisal.disclosure, params.dead_zone)
    contact = params.contact_per_event + minutes / params.contact_minutes
    return Deltas(
        change(appraisal.warmth, params.affinity_gain, params.affinity_loss),
        change(appraisal.reliability, params.trust_gain, params.trust_loss),
        change(appraisal.competence, params.respect_gain, params.respect_loss),
        params.disclosure_gain * told if weight.direct else 0.0,
        contact if weight.direct else 0.0,
    )


def _row(context: str, params: RelationshipParams) -> ContextRow:
    name = context.strip().casefold()
    fallback = params.contexts.get(DEFAULT_CONTEXT, CONTEXTS[DEFAULT_CONTEXT])
    return params.contexts.get(name) or CONTEXTS.get(name) or fallback


def _limit(value: float) -> float:
    return min(1.0, max(-1.0, value))
