"""How many dialogues a batch has: counted before any is looked at, however many there are."""

from persona_mcp.state.batch.faults import refused
from persona_mcp.state.batch.grid import Arms, only
from persona_mcp.state.batch.waves import dialogues_of
from persona_mcp.state.dialogue_spec import DIALOGUES_MAX, DialogueSpec
from persona_mcp.state.errors import LimitExceeded

SAYS_MOST = ("variations", "seeds", "repeats", "waves")
"""Fields that make many dialogues of few."""
IN_WAVE = ("times", "pairs")


def check_size(spec: DialogueSpec, largest: int | None) -> None:
    """Refuse a batch of too many dialogues.

    Args:
        spec: The specification; the paths and values of its grid were checked.
        largest: Dialogues that are allowed, if fewer than in a file.

    Raises:
        InvalidParams: There are more than any batch may have.
        LimitExceeded: There are more than `largest`.
    """
    total, is_all = count(spec)
    if total > DIALOGUES_MAX:
        name = next((one for one in SAYS_MOST if one in spec.model_fields_set), "personas")
        arms, repeats = len(Arms(spec)), repeats_of(spec)
        given = f"{total:,} ({arms:,} arms, {repeats:,} runs of each)"
        allowed = f"at most {DIALOGUES_MAX:,} dialogues in all"
        told = given if is_all else f"more than {given}"
        raise refused([{"field": name, "allowed": allowed, "given": told}])
    if largest is not None and total > largest:
        raise LimitExceeded(
            f"{total:,} dialogues, and {largest:,} are allowed in one call: ask for fewer, "
            "hold them with `persona dialogue run`, or raise PERSONA_DIALOGUES__LARGEST",
            dialogues=total,
            allowed=largest,
        )


def count(spec: DialogueSpec) -> tuple[int, bool]:
    """Count dialogues until there are too many; also says whether these are all."""
    arms = Arms(only(spec, bears_on_number))
    times = len(Arms(spec)) // len(arms) * repeats_of(spec)
    total = 0
    for arm in arms:
        run = sum(dialogues_of(arm.spec, wave) * wave.times for wave in arm.spec.waves)
        total += run * times
        if total > DIALOGUES_MAX:
            return total, arm.number == len(arms) - 1
    return total, True


def repeats_of(spec: DialogueSpec) -> int:
    """Return how many runs an arm has."""
    return spec.repeats if spec.seeds is None else len(spec.seeds)


def bears_on_number(path: str) -> bool:
    """Tell whether a path bears on how many dialogues there are."""
    where, *inner = path.split(".")
    match where:
        case "personas":
            return not inner
        case "dialogue":
            return not inner or inner[0] == "participants"
        case "waves":
            return len(inner) <= 1 or inner[1] in IN_WAVE or inner[1:] == ["dialogues"]
    return False
