"""What a turn between personas does to those who are there, and whose turn comes after it."""

import time
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.config.settings import Settings
from persona_mcp.nodes.dialogue_effects import heard_by, last_turn
from persona_mcp.server.dialogues import standing_of
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.dialogue import Standing
from persona_mcp.state.emotion import EmotionParams
from tests.calls import call, rows
from tests.doubles import ScriptedModel, WordEmbedder
from tests.talks import go_on, start

pytestmark = pytest.mark.anyio


async def begun(service: Service, **more: Any) -> Standing:
    talk = await start(service, **more)
    found = await service.conversations.get("main", talk["conversation_id"])
    return await standing_of(service, "main", found)


async def test_a_witness_that_was_deleted_meanwhile_hears_nothing(service: Service) -> None:
    talk = await start(service, witnesses=["noor"])
    found = await service.conversations.get("main", talk["conversation_id"])
    before = await standing_of(service, "main", found)
    gone = update(tables.Persona).where(tables.Persona.id == "noor")
    with service.database.writing() as connection:
        connection.execute(gone.values(deleted_at=time.time(), name_key=None))

    after = await standing_of(service, "main", found)

    aria = before.member("aria").persona
    assert [one.id for one in heard_by(before, aria)] == ["aria", "kira", "noor"]
    assert [one.id for one in heard_by(after, aria)] == ["aria", "kira"]


@pytest.mark.parametrize(("most", "ends"), [(1, "time_limit"), (2, None)])
async def test_the_last_turn_that_a_talk_may_have_ends_it(
    service: Service, most: int, ends: str | None
) -> None:
    assert last_turn(await begun(service, max_turns=most)) == ends


async def moods_moved(settings: Settings, contagion: float) -> dict[str, float]:
    """Let a cheerful Aria say something neutral to Kira, and return how both moods are moved."""
    chosen = settings.model_copy(update={"emotions": EmotionParams(contagion=contagion)})
    model = ScriptedModel("The tide is low this morning.")
    async with open_service(chosen, model=model, embedder=WordEmbedder()) as service:
        await call(service, "emotional_update_state", persona_id="aria", mood=1.0)
        await call(service, "emotional_update_state", persona_id="kira", mood=0.0)
        talk = await start(service, topic="the tide")
        await go_on(service, talk)
        pushed = await rows(service.database, tables.MoodImpulse)
    return {p["persona_id"]: p["impulse"]["mood"] for p in pushed if p["absolute"] is None}


async def test_a_listener_catches_the_speaker_s_mood_where_that_is_on(settings: Settings) -> None:
    moved = await moods_moved(settings, contagion=0.5)

    assert moved["kira"] > 0.0
    assert moved["aria"] == 0.0


async def test_nobody_catches_a_mood_where_nothing_is_said_of_it(settings: Settings) -> None:
    assert await moods_moved(settings, contagion=EmotionParams().contagion) == {
        "aria": 0.0,
        "kira": 0.0,
    }
