"""How a model's places are shared out to workers, so that no server gets more than it has."""

from persona_mcp.config.settings import LLMSettings
from persona_mcp.server.batch.model_pool import open_pool
from persona_mcp.state.dialogue_spec import Endpoint, ModelSpec


def slots_of(share: ModelSpec) -> int:
    """Return how many places a share has."""
    return sum(end.slots for end in share.endpoints) or share.slots or 1


def shared_out(settings: LLMSettings, model: ModelSpec, workers: int) -> list[ModelSpec]:
    """Share the model's places out to workers, as evenly as can be.

    Args:
        settings: For the places of a model of which the batch says nothing.
        model: Whose places.
        workers: How many there are to be, >= 1; there are never more than places.

    Returns:
        A share for each worker, with one place at least.
    """
    ends = list(model.endpoints)
    slots = [end.slots for end in ends] or [open_pool(settings, model).slots]
    places = [number for number, count in enumerate(slots) for _ in range(count)]
    workers = min(workers, len(places))
    return [part_of(model, ends, places[first::workers]) for first in range(workers)]


def part_of(model: ModelSpec, ends: list[Endpoint], places: list[int]) -> ModelSpec:
    """Return a model with these places alone: numbers of its servers, one for each place."""
    if not ends:
        return model.model_copy(update={"slots": len(places)})
    kept = [
        end.model_copy(update={"slots": places.count(number)})
        for number, end in enumerate(ends)
        if number in places
    ]
    return model.model_copy(update={"endpoints": kept})
