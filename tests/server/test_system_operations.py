"""What the system says of itself."""

import asyncio

import pytest

from persona_mcp.config.settings import LLMSettings, Settings
from persona_mcp.server.service import Service, open_service
from tests.calls import call, say
from tests.doubles import ScriptedModel, WordEmbedder

pytestmark = pytest.mark.anyio


class SilentModel(ScriptedModel):
    """A model that never says whether it is there."""

    async def check(self) -> str:
        await asyncio.Event().wait()
        return ""


async def test_a_system_whose_model_answers_is_operational(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")
    while await service.indexer.pending():
        await service.indexer.work_off()

    status = await call(service, "system_status")

    expected = {
        "system_status": "operational",
        "llm_available": True,
        "llm_detail": "scripted:large answers",
        "total_personas": 3,
        "available_personas": 3,
        "active_conversations": 1,
        "database": "sqlite",
        "vector_index": "exact",
        "queue_depth": 0,
    }
    assert {key: status[key] for key in expected} == expected
    assert status["uptime_seconds"] >= 0
    assert status["version"]


async def test_a_system_whose_model_is_down_says_what_to_do(
    service: Service, model: ScriptedModel
) -> None:
    model.down = "ollama does not answer; start it with `ollama serve`"

    status = await call(service, "system_status")

    assert (status["system_status"], status["llm_available"]) == ("degraded", False)
    assert status["llm_detail"] == model.down


async def test_a_model_that_hangs_is_not_waited_for(settings: Settings) -> None:
    quick = settings.model_copy(update={"llm": LLMSettings(probe_s=0.01)})
    async with open_service(quick, SilentModel(), WordEmbedder()) as service:
        status = await call(service, "system_status")

    assert status["llm_available"] is False
    assert status["llm_detail"] == "the model did not answer within 0.01 s"
