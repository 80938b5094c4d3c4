"""Who is there beside a speaker, and how it is told who said what."""

from collections.abc import Sequence

from persona_mcp.nodes.chat_state import Scene
from persona_mcp.state.dialogue import NARRATOR
from persona_mcp.state.exchange import Turn


def others_of(scene: Scene) -> list[str]:
    """Return the names of the others who are there, the one that is answered first."""
    if scene.standing is None:
        return [scene.partner_name]
    own = scene.persona.id
    there = [one.name for one in scene.standing.audience if one.id != own]
    return list(dict.fromkeys([scene.partner_name, *there])) or [scene.partner_name]


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
