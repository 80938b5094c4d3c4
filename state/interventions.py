"""What a narrator brings into a talk between personas, and the conditions that it waits for."""

from collections import Counter
from dataclasses import dataclass

from persona_mcp.state.continuation_params import ContinuationParams
from persona_mcp.state.dialogue import NARRATOR, Condition, Intervention, Standing, stale


@dataclass(frozen=True)
class Narrated:
    """What a narrator brings in, and who perceives it."""

    text: str
    perceived_by: tuple[str, ...]


def happenings(standing: Standing, params: ContinuationParams) -> tuple[Narrated, ...]:
    """Return what happens before the next turn; what nobody there perceives does not."""
    found = (Narrated(one.text, perceivers(one, standing)) for one in due(standing, params))
    return tuple(one for one in found if one.perceived_by)


def due(standing: Standing, params: ContinuationParams) -> tuple[Intervention, ...]:
    """Return what happens before the next turn, in the plan's order.

    What is bound to a turn happens before that turn; what waits for a condition before the turn
    after it held first: what was narrated already does not happen again. What comes to nobody's
    ears is not narrated, and waits on.
    """
    turn, found = standing.said + 1, []
    told = Counter(standing.narrated)
    told.subtract(one.text for one in standing.plan.interventions if was_bound(one, standing))
    for one in standing.plan.interventions:
        if one.when is None:
            happens = one.turn == turn
        elif told[one.text] > 0:
            told[one.text] -= 1
            happens = False
        else:
            happens = holds(one.when, standing, params)
        if happens:
            found.append(one)
    return tuple(found)


def was_bound(intervention: Intervention, standing: Standing) -> bool:
    """Tell whether it was bound to a turn that is said by now, and somebody perceived it."""
    turn, plan = intervention.turn, standing.plan
    if turn is None or turn > standing.said:
        return False
    return any(
        plan.is_there(id, turn) and (intervention.to is None or id in intervention.to)
        for id in standing.names
    )


def perceivers(intervention: Intervention, standing: Standing) -> tuple[str, ...]:
    """Return who perceives it: those named who are there, else all who are there."""
    there = [one.id for one in standing.audience]
    return tuple(id for id in there if intervention.to is None or id in intervention.to)


def holds(condition: Condition, standing: Standing, params: ContinuationParams) -> bool:
    """Tell whether a condition holds after the last turn; before the first one none does."""
    if standing.said == 0:
        return False
    if condition.says is not None:
        return was_said(condition, standing)
    if condition.stagnant is not None:
        return stale(standing, params) >= condition.stagnant
    value = value_of(condition, standing)
    if value is None:
        return False
    if condition.above is not None:
        return value > condition.above
    return condition.below is not None and value < condition.below


def was_said(condition: Condition, standing: Standing) -> bool:
    """Tell whether the last turn had these words, from whom they are waited for."""
    last = next((t for t in reversed(standing.window) if t.speaker_id != NARRATOR), None)
    if last is None or condition.says is None or condition.by not in (None, last.speaker_id):
        return False
    return condition.says.casefold() in last.content.casefold()


def value_of(condition: Condition, standing: Standing) -> float | None:
    """Return what a bound is compared with; None for those who never met, or are not there."""
    if condition.relation is not None:
        view = standing.views.get((condition.of or "", condition.to or ""))
        return None if view is None else float(getattr(view, condition.relation))
    felt = (m.feelings.emotion.mood for m in standing.members if m.persona.id == condition.of)
    return next(felt, None)
