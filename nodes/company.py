"""Who is there beside a speaker, and how it is told who said what."""

from collections.abc import Sequence

from persona_mcp.nodes.chat_state import Scene
from persona_mcp.state.dialogue import NARRATOR
from persona_mcp.state.exchange import Turn

LATE = "You have just come, and heard nothing of what was said before. "


def others_of(scene: Scene) -> list[str]:
    """Return the names of the others who are there, the one that is answered first."""
    if scene.standing is None:
        return [scene.partner_name]
    own = scene.persona.id
    there = [one.name for one in scene.standing.audience if one.id != own]
    return list(dict.fromkeys([scene.partner_name, *there]))


def enumerated(names: Sequence[str]) -> str:
    """Write names one after another: `Ann`, `Ann and Ben`, `Ann, Ben and Cleo`."""
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def said_in(scene: Scene, turn: Turn) -> str:
    """Write what was said, as the speaker heard it: in a group with whose it is.

    What happens stands in brackets.
    """
    if turn.speaker_id == NARRATOR:
        return f"({turn.content})"
    standing = scene.standing
    if standing is None or not standing.is_group or turn.speaker_id == scene.persona.id:
        return turn.content
    return f"{standing.names.get(turn.speaker_id, turn.speaker_id)}: {turn.content}"


def came_late(scene: Scene) -> bool:
    """Tell whether the speaker was not there when the talk began."""
    plan = scene.standing.plan if scene.standing is not None else None
    return plan is not None and not plan.is_there(scene.persona.id, 1)


def company(scene: Scene) -> str:
    """Name those who are there beside the one that is answered; empty if there is nobody else.

    Who came late and has not spoken yet is told so.
    """
    told = LATE if came_late(scene) and scene.answers == 0 else ""
    further = others_of(scene)[1:]
    if not further:
        return told
    return f"{enumerated(further)} {'is' if len(further) == 1 else 'are'} there, too. {told}"


def setting(scene: Scene) -> str:
    """Return where and when the talk takes place, in the words of its plan."""
    return scene.standing.plan.setting if scene.standing is not None else ""
