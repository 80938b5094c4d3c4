"""Talks between personas, as tests begin and go on with them."""

from typing import Any

from persona_mcp.server.service import Service
from tests.calls import call

TIRELESS = {"available_time": 86400, "social_energy": 200, "charisma": 18}


async def start(service: Service, **more: Any) -> dict[str, Any]:
    """Begin a talk between Aria and Kira about music, drawn from seed 5: Aria begins."""
    two = {"persona1_id": "aria", "persona2_id": "kira", "topic": "music", "seed": 5}
    return await call(service, "conversation_start", **{**two, **more})


async def go_on(service: Service, talk: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Make turns of a talk."""
    where = {"conversation_id": talk["conversation_id"]}
    return await call(service, "conversation_advance", **{**where, **more})


def said(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return who said what."""
    return [(turn["speaker_id"], turn["content"]) for turn in result["turns"]]
