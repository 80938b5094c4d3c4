"""Whether every arm of a batch can be held, without a look at each: only at what bears on it."""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from persona_mcp.state.batch.checks import name_faults, persona_faults, tie_faults, wave_faults
from persona_mcp.state.batch.grid import Arms, forms, only
from persona_mcp.state.batch.sound import SoundTalks
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.errors import Fault

INERT = {"scene", "topics", "speakers", "minutes", "bow_out", "ignore_availability", "stagnation"}
"""Fields of a talk that change neither who is named nor how much is said at most."""
BUDGET = "token_budget"


def arm_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what is wrong with any arm, told at the value of the grid that it comes from.

    A persona and a relationship are looked at once for each combination of the paths within it,
    dialogues once for each combination of the paths that bear on them.
    """
    yield from people_faults(spec)
    yield from relationship_faults(spec)
    talks, sound = only(spec, bears_on_talks), SoundTalks()
    arms = Arms(talks)
    for arm in arms:
        for one in wave_faults(arm.spec, sound):
            yield at_values(one, spec, chosen_in(talks, arms.chosen(arm.number)))


def people_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what is wrong with the cast.

    Whatever one persona may be meets whatever another may be in some arm, so no two of these may
    have one name. Those that are not varied come first: a fault is told at the other one.
    """
    for cast, chosen in wholes(spec, "personas"):
        names, varied = dict[str, str](), keys_below(spec, "personas")
        for id in sorted(cast, key=varied.__contains__):
            own = dict[str, str]()
            there = forms(spec, ("personas", id)) if id in varied else [(cast[id], chosen)]
            for entry, which in there:
                others = ChainMap(own, names)
                for one in chain(persona_faults(id, entry), name_faults(id, entry, others)):
                    yield at_values(one, spec, which)
            names |= own


def relationship_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what is wrong with how they see each other, whoever is cast."""
    casts = [cast for cast, _ in wholes(spec, "personas")]
    always = set(casts[0]).intersection(*casts)
    varied = keys_below(spec, "relationships")
    for ties, chosen in wholes(spec, "relationships"):
        for number, tie in enumerate(ties):
            key = str(number)
            there = forms(spec, ("relationships", key)) if key in varied else [(tie, chosen)]
            for made, which in there:
                both = {made.of, made.to}
                cast = always if both <= always else next(c for c in casts if not both <= set(c))
                for one in tie_faults(number, made, cast):
                    yield at_values(one, spec, which)


def wholes(spec: DialogueSpec, field: str) -> Iterator[tuple[Any, dict[str, int]]]:
    """Make each value that a field has as a whole, and say which value of the grid it is."""
    made = only(spec, lambda path: path == field)
    for arm in Arms(made):
        yield getattr(arm.spec, field), dict.fromkeys(made.variations, arm.number)


def keys_below(spec: DialogueSpec, field: str) -> set[str]:
    """Return the entries of a field that are varied, in whole or in part."""
    return {path.split(".")[1] for path in spec.variations if path.startswith(f"{field}.")}


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
