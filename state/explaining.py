"""Why an arrow stands where it stands: what each event did to it, and what of that is left."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from persona_mcp.state.appraisal import Deltas
from persona_mcp.state.arrow import Arrow, Contribution, Contributions, Event, Priors
from persona_mcp.state.relationship import apply, begin, decay, in_order, kept, priors_of
from persona_mcp.state.relationship_params import RelationshipParams


class Step(NamedTuple):
    """An event, and the arrow just before and just after it, at its time."""

    event: Event
    before: Arrow
    after: Arrow


def course(
    events: Iterable[Event], params: RelationshipParams, first: Priors | None = None
) -> list[Step]:
    """Tell how an arrow went, in the order of the fold.

    Args:
        events: Any order.
        params: The constants.
        first: Priors, where the event that held them is left out.
    """
    ordered = in_order(events)
    if not ordered:
        return []
    arrow, steps = begin(priors_of(ordered, first), ordered[0].at), []
    for event in ordered:
        before = decay(arrow, event.at, params)
        arrow = apply(before, event, params)
        steps.append(Step(event, before, arrow))
    return steps


def influence(part: Contribution, params: RelationshipParams) -> float:
    """Weigh what is left of an event, >= 0: by the shares of strength, whatever the signs.

    Harm to one dimension and good to another add up, where the strength itself would hide both.
    """
    return (
        params.strength_affinity * abs(part.affinity)
        + params.strength_trust * abs(part.trust)
        + params.strength_respect * abs(part.respect)
        + params.strength_intimacy * abs(part.disclosure)
    )


def contributions(
    events: Sequence[Event], now: float, params: RelationshipParams, first: Priors | None = None
) -> Contributions:
    """Say why an arrow stands where it stands at `now`.

    An event's part is its delta times the product of the decay factors since; decay is linear in
    the distance from the baseline, so the rest is the baselines' share and the parts sum to the
    latent values.
    """
    ordered = in_order(events)
    if not ordered:
        return Contributions(Contribution(0.0, 0.0, 0.0, 0.0), ())
    arrow = begin(priors_of(ordered, first), ordered[0].at)
    factors = []
    for event in ordered:
        factors.append(kept(arrow, event.at, params))
        arrow = apply(arrow, event, params)
    left = kept(arrow, now, params)
    arrow = decay(arrow, now, params)
    parts = []
    for event, before in zip(reversed(ordered), reversed(factors), strict=True):
        parts.append((event, _times(event.deltas, left)))
        left = _times(before, left)
    parts.reverse()
    return Contributions(_rest(arrow, [part for _, part in parts]), tuple(parts))


def _times(change: Deltas | Contribution, kept: Contribution) -> Contribution:
    return Contribution(
        change.affinity * kept.affinity,
        change.trust * kept.trust,
        change.respect * kept.respect,
        change.disclosure * kept.disclosure,
    )


def _rest(arrow: Arrow, parts: Sequence[Contribution]) -> Contribution:
    return Contribution(
        arrow.affinity_latent - math.fsum(part.affinity for part in parts),
        arrow.trust_latent - math.fsum(part.trust for part in parts),
        arrow.respect_latent - math.fsum(part.respect for part in parts),
        arrow.disclosure - math.fsum(part.disclosure for part in parts),
    )
