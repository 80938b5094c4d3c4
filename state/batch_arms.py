"""Whether every arm of a batch can be held, without a look at each: only at what bears on it."""

from collections.abc import Iterator, Mapping, Sequence

from persona_mcp.state.batch_checks import cast_faults, wave_faults
from persona_mcp.state.batch_faults import Fault
from persona_mcp.state.batch_grid import Arms, only
from persona_mcp.state.batch_sound import SoundTalks
from persona_mcp.state.dialogue_spec import DialogueSpec

INERT = {"scene", "topics", "speakers", "minutes", "bow_out", "ignore_availability", "stagnation"}
"""Fields of a talk that change neither who is named nor how much is said at most."""
BUDGET = "token_budget"


def arm_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what is wrong with any arm, told at the value of the grid that it comes from.

    Personas are looked at once for each value; dialogues once for each combination of those paths
    that bear on them.
    """
    cast = only(spec, bears_on_cast)
    arms = Arms(cast)
    for number in apart(cast, arms):
        for one in cast_faults(arms[number].spec):
            yield at_values(one, spec, chosen_in(cast, arms.chosen(number)))
    talks, sound = only(spec, bears_on_talks), SoundTalks()
    arms = Arms(talks)
    for arm in arms:
        for one in wave_faults(arm.spec, sound):
            yield at_values(one, spec, chosen_in(talks, arms.chosen(arm.number)))


def bears_on_cast(path: str) -> bool:
    """Tell whether a path bears on who is cast, and on how they see each other."""
    return path.split(".")[0] in ("personas", "relationships")


def bears_on_amount(path: str) -> bool:
    """Tell whether a path bears on how much is held."""
    return BUDGET in path.split(".") or bears_on_talks(path)


def bears_on_talks(path: str) -> bool:
    """Tell whether a path bears on who is there, and on which turns there are."""
    parts = path.split(".")
    if parts[0] == "dialogue":
        return len(parts) == 1 or parts[1] not in INERT | {BUDGET}
    if parts[0] == "waves":
        inner = parts[4:5] if parts[2:3] == ["dialogues"] else parts[2:3]
        return not inner or inner[0] not in INERT | {BUDGET, "name", "gap_hours"}
    return path == "personas"


def apart(spec: DialogueSpec, arms: Arms) -> Iterator[int]:
    """Choose arms so that each value of the grid is in one of them, at least."""
    longest = max((len(values) for values in spec.variations.values()), default=1)
    for which in range(longest):
        yield arms.number([min(which, len(v) - 1) for v in spec.variations.values()])


def chosen_in(spec: DialogueSpec, chosen: Sequence[int]) -> dict[str, int]:
    """Return which value each path of a grid has."""
    return dict(zip(spec.variations, chosen, strict=True))


def at_values(fault: Fault, spec: DialogueSpec, chosen: Mapping[str, int]) -> Fault:
    """Have a fault stand where the value comes from: in the grid, if its path is varied.

    Args:
        fault: As it was found.
        spec: With the grid.
        chosen: Which value paths have; the first one, where nothing is said.
    """
    field: str = fault["field"]
    for path in spec.variations:
        if f"{field}.".startswith(f"{path}."):
            which = chosen.get(path, 0)
            return {**fault, "field": f"variations.{path}.{which}{field[len(path) :]}"}
    return fault
