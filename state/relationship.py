"""How one party sees another: an arrow, the fold of its events.

Latent values lie on the whole line; what is shown is their tanh, so nothing is ever clamped. Every
decay is a closed form in the time between, so a state can be read at any later time without being
written, and split gaps agree.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from persona_mcp.state.appraisal import (
    Appraisal,
    Bias,
    Deltas,
    Role,
    Weights,
    appraisal_for,
    dead_zone,
    deltas,
    hearsay_weight,
    is_turning_point,
    turn_size,
    update_size,
    weights,
    without_bias,
)
from persona_mcp.state.arrow import (
    Arrow,
    Bond,
    Contribution,
    Event,
    Kind,
    Priors,
    RelationshipType,
    Shown,
)
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.relationship_params import ContextRow, RelationshipParams
from persona_mcp.state.traits import BigFive

__all__ = [
    "Appraisal",
    "Arrow",
    "Bias",
    "Bond",
    "ContextRow",
    "Contribution",
    "Deltas",
    "Event",
    "Kind",
    "Priors",
    "RelationshipParams",
    "RelationshipType",
    "Role",
    "Shown",
    "Weights",
    "apply",
    "appraisal_for",
    "asks_for_reverse",
    "begin",
    "dead_zone",
    "decay",
    "deltas",
    "fold",
    "hearsay_weight",
    "in_order",
    "is_turning_point",
    "kept",
    "least_respect",
    "priors",
    "priors_of",
    "relationship_type",
    "shown",
    "turn_size",
    "update_size",
    "weights",
    "without_bias",
]

NEUTRAL = 0.5
NEARLY_ONE, ROUNDING = 1 - 1e-12, 1e-9


def priors(compatibility: float, owner: BigFive, params: RelationshipParams) -> Priors:
    """Give the baselines of a new arrow.

    affinity = 0.4 * (2 * compatibility - 1); trust = 0.2 * (agreeableness - 0.5).
    Source: chosen here.

    Args:
        compatibility: Static compatibility of the two, [0, 1].
        owner: The one who sees.
        params: Holds the two factors.
    """
    return Priors(
        params.affinity_prior * (2 * compatibility - 1),
        params.trust_prior * (owner.agreeableness - NEUTRAL),
    )


def begin(first: Priors, at: float) -> Arrow:
    """Make an arrow as it stands just before its first event."""
    return Arrow(
        as_of=at,
        affinity_latent=first.affinity,
        trust_latent=first.trust,
        affinity_prior=first.affinity,
        trust_prior=first.trust,
    )


def decay(arrow: Arrow, to_time: float, params: RelationshipParams) -> Arrow:
    """Let time pass: z(t) = baseline + (z - baseline) * 2^(-t / H), disclosure to 0.

    H = half-life of the side of the baseline * (1 + 3 * familiarity). Baselines: first impression
    / (1 + interactions / 50) for affinity, the prior for trust, 0 for respect; bonds lift them.
    Exact semigroup, since H and the baselines change at events only. A time before `as_of` counts
    as `as_of`. Source: exponential forgetting; the constants are chosen here.
    """
    if to_time <= arrow.as_of:
        return arrow
    affinity_rest, trust_rest = _baselines(arrow, params)
    left = kept(arrow, to_time, params)
    return replace(
        arrow,
        as_of=to_time,
        affinity_latent=affinity_rest + (arrow.affinity_latent - affinity_rest) * left.affinity,
        trust_latent=trust_rest + (arrow.trust_latent - trust_rest) * left.trust,
        respect_latent=arrow.respect_latent * left.respect,
        disclosure=arrow.disclosure * left.disclosure,
    )


def apply(arrow: Arrow, event: Event, params: RelationshipParams) -> Arrow:
    """Let an event happen: decay to its time, then add its deltas.

    An event dated before `as_of` happens at `as_of`. Direct events count as contacts.
    """
    arrow = decay(arrow, event.at, params)
    change = event.deltas
    met = replace(
        arrow,
        affinity_latent=arrow.affinity_latent + change.affinity,
        trust_latent=arrow.trust_latent + change.trust,
        respect_latent=arrow.respect_latent + change.respect,
        disclosure=arrow.disclosure + change.disclosure,
        contact=arrow.contact + change.contact,
        bond=event.bond or arrow.bond,
    )
    if not event.direct:
        return met
    return replace(
        met,
        interactions=met.interactions + 1,
        minutes=met.minutes + event.minutes,
        first_meeting=met.as_of if met.first_meeting is None else met.first_meeting,
        last_interaction=met.as_of,
        last_quality=event.appraisal.warmth if event.appraisal else met.last_quality,
    )


def fold(
    events: Iterable[Event], params: RelationshipParams, first: Priors | None = None
) -> Arrow | None:
    """Build an arrow from its log, in the order of (at, seq).

    Args:
        events: Any order; the result is the same to the bit.
        params: The constants.
        first: Priors, where the event that held them is left out ("what if").

    Returns:
        The arrow at the time of its last event; None without events.
    """
    ordered = in_order(events)
    if not ordered:
        return None
    arrow = begin(priors_of(ordered, first), ordered[0].at)
    for event in ordered:
        arrow = apply(arrow, event, params)
    return arrow


def shown(arrow: Arrow, params: RelationshipParams) -> Shown:
    """Show an arrow that has been decayed to now; formulas at `Shown`.

    Doubles show exactly 1.0 for latent values above 19; the latent value stays the truth.
    """
    affinity, trust = math.tanh(arrow.affinity_latent), math.tanh(arrow.trust_latent)
    respect, familiarity = math.tanh(arrow.respect_latent), arrow.familiarity
    cap = familiarity * (1 + trust) / 2
    intimacy = cap * -math.expm1(-arrow.disclosure)
    closeness = intimacy * math.tanh(params.intimacy_steepness * affinity)
    strength = (
        params.strength_affinity * affinity
        + params.strength_trust * trust
        + params.strength_respect * respect
        + params.strength_intimacy * closeness
    )
    match = (
        params.compatibility_affinity * affinity
        + params.compatibility_trust * trust
        + params.compatibility_respect * respect
        + params.compatibility_intimacy * closeness
    )
    return Shown(
        affinity=affinity,
        trust=trust,
        respect=respect,
        intimacy=intimacy,
        familiarity=familiarity,
        strength=strength,
        compatibility_score=0.5 + 0.5 * match,
        modifier=params.modifier_strength * strength
        + params.modifier_last * min(0.0, arrow.last_quality),
    )


def relationship_type(
    arrow: Arrow, reverse: Arrow | None, params: RelationshipParams, values: Shown | None = None
) -> RelationshipType:
    """Name a relationship; the first rule that fits, both arrows decayed to now.

    Bonds: family; romantic on both arrows; mentor (the reverse arrow: student). Then with strength
    S: stranger below 3 contacts and |S| < .3; enemy S < -.7; rival S < -.3; mentor if respect
    >= .7 and .25 above the reverse arrow's and more than 10 contacts (the reverse arrow: student);
    S < .2 stranger if familiarity < .15 else acquaintance; S < .5 acquaintance; S < .8 friend;
    else close_friend. Without a reverse arrow nobody is mentor by respect. What is shown of the
    arrow may be given in `values`, where it is known.
    """
    values = values or shown(arrow, params)
    early = _bonded(arrow, reverse) or _distant(arrow, values, params)
    if early:
        return early
    if reverse is not None:
        if _looks_up(arrow, reverse, params):
            return "mentor"
        if _looks_up(reverse, arrow, params):
            hidden = _bonded(reverse, arrow) or _distant(reverse, shown(reverse, params), params)
            if hidden is None:
                return "student"
    return _by_strength(values, params)


def in_order(events: Iterable[Event]) -> list[Event]:
    """Sort a log as it is folded: by time, then by number."""
    return sorted(events, key=lambda event: (event.at, event.seq))


def priors_of(ordered: Sequence[Event], first: Priors | None) -> Priors:
    """Find what an arrow rests at: as its first event says, else as given, else neutral."""
    return next((event.priors for event in ordered if event.priors), first or Priors())


def _baselines(arrow: Arrow, params: RelationshipParams) -> tuple[float, float]:
    affinity = arrow.affinity_prior / (1 + arrow.interactions / params.affinity_prior_contacts)
    trust = arrow.trust_prior
    match arrow.bond:
        case "family":
            affinity = max(affinity, math.atanh(params.family_affinity))
            trust = max(trust, math.atanh(params.family_trust))
        case "vow":
            trust = max(trust, math.atanh(params.vow_trust))
        case "romantic":
            affinity = max(affinity, math.atanh(params.romantic_affinity))
        case _:
            pass
    return affinity, trust


def kept(arrow: Arrow, to_time: float, params: RelationshipParams) -> Contribution:
    """Give the share of each distance from the baseline that is left at `to_time`, [0, 1]."""
    affinity_rest, trust_rest = _baselines(arrow, params)
    slowed = 1 + params.familiarity_slowing * arrow.familiarity
    days = max(0.0, to_time - arrow.as_of) / DAY_S / slowed

    def share(distance: float, above: float, below: float) -> float:
        return float(2 ** (-days / (above if distance >= 0 else below)))

    return Contribution(
        share(
            arrow.affinity_latent - affinity_rest,
            params.affinity_days_above,
            params.affinity_days_below,
        ),
        share(arrow.trust_latent - trust_rest, params.trust_days_above, params.trust_days_below),
        share(arrow.respect_latent, params.respect_days_above, params.respect_days_below),
        share(arrow.disclosure, params.disclosure_days, params.disclosure_days),
    )


def asks_for_reverse(arrow: Arrow, params: RelationshipParams) -> bool:
    """Tell whether the arrow that comes back may bear on what an arrow is called.

    It may where either has a bond, or respect enough for a mentor; ask of both. Time does not make
    it so: respect only falls back to 0.
    """
    return arrow.bond != "none" or arrow.respect_latent >= least_respect(params)


def least_respect(params: RelationshipParams) -> float:
    """Return the latent respect below which nobody is a mentor, now or later."""
    if params.mentor_respect <= 0:
        return -math.inf
    return math.atanh(min(params.mentor_respect, NEARLY_ONE)) - ROUNDING


def _bonded(arrow: Arrow, reverse: Arrow | None) -> RelationshipType | None:
    other = reverse.bond if reverse else "none"
    if arrow.bond == "family":
        return "family"
    if arrow.bond == other == "romantic":
        return "romantic"
    if arrow.bond == "mentor":
        return "mentor"
    return "student" if other == "mentor" else None


def _distant(arrow: Arrow, values: Shown, params: RelationshipParams) -> RelationshipType | None:
    strength = values.strength
    if arrow.interactions < params.stranger_contacts and abs(strength) < params.stranger_strength:
        return "stranger"
    if strength < params.enemy_below:
        return "enemy"
    return "rival" if strength < params.rival_below else None


def _looks_up(arrow: Arrow, reverse: Arrow, params: RelationshipParams) -> bool:
    own, theirs = math.tanh(arrow.respect_latent), math.tanh(reverse.respect_latent)
    return (
        own >= params.mentor_respect
        and own - theirs >= params.mentor_gap
        and arrow.interactions > params.mentor_contacts
    )


def _by_strength(values: Shown, params: RelationshipParams) -> RelationshipType:
    if values.strength < params.acquaintance_from:
        known = values.familiarity >= params.stranger_familiarity
        return "acquaintance" if known else "stranger"
    if values.strength < params.friend_from:
        return "acquaintance"
    return "friend" if values.strength < params.close_friend_from else "close_friend"
