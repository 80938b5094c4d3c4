"""Dialogues that are held in the background, as tests ask for and wait for them."""

from pathlib import Path
from typing import Any

from persona_mcp.config.dialogue_settings import DialogueSettings
from persona_mcp.server.service import Service
from tests.calls import call

QUICK = DialogueSettings(poll_s=0.05, note_s=0.05)
"""Looks often, so that no test waits for a look."""
LINES = (
    "The harbour froze last winter, and the ferry stayed on the island.",
    "I remember it well; we walked across the ice with lanterns.",
    "You carried the bread, and I carried your brother's old violin.",
    "He played until his fingers were blue, and nobody wanted to go home.",
    "My mother still speaks of that night whenever the wind turns north.",
    "Then let us go there again when the days are short.",
    "Only if you bring the lanterns this time, mine fell into the sea.",
    "I have three of them, and oil for a week.",
)
"""Enough for dialogues of eight turns; no line is like another."""
WAIT_MS = 20_000


def talk(**more: Any) -> dict[str, Any]:
    """Ask for a talk of four turns between Aria and Kira."""
    return {"participants": ["aria", "kira"], "topic": "the sea", "max_turns": 4, **more}


async def start(service: Service, **more: Any) -> str:
    """Start a dialogue and return its id."""
    started = await call(service, "dialogue_start", **talk(**more))
    found: str = started["dialogue_id"]
    return found


async def status(service: Service, id: str, **more: Any) -> dict[str, Any]:
    """Look at a dialogue."""
    return await call(service, "dialogue_status", dialogue_id=id, **more)


async def ended(service: Service, id: str) -> dict[str, Any]:
    """Wait for the end of a dialogue."""
    found = await status(service, id, wait_ms=WAIT_MS)
    assert found["status"] not in ("queued", "running"), found
    return found


async def result(service: Service, id: str, *include: str) -> dict[str, Any]:
    """Read what came of a dialogue."""
    return await call(service, "dialogue_result", dialogue_id=id, include=list(include))


async def said(service: Service, id: str) -> list[str]:
    """Read what was said in all of a dialogue's conversations."""
    found = await result(service, id, "transcript")
    return [turn["content"] for one in found["results"] for turn in one["transcript"]]


def folder_of(service: Service, id: str) -> Path:
    """Return where a dialogue's files are."""
    return service.settings.data_dir / "dialogues" / "main" / id
