"""What a narrator brings into a talk between personas, and the conditions that it waits for."""

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
    after it held first. What was narrated already does not happen again.
    """
    turn = standing.said + 1
    return tuple(
        one
        for one in standing.plan.interventions
        if one.text not in standing.narrated
        and (one.turn == turn if one.when is None else holds(one.when, standing, params))
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
