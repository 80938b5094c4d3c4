"""What the system says of itself."""

import asyncio

import pytest
from sqlalchemy import update

from persona_mcp.config.settings import LLMSettings, Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.index.work import add_work
from tests.calls import call, say, watched
from tests.config import model_calls
from tests.doubles import ScriptedModel, WordEmbedder
from tests.model_server import ModelServer

pytestmark = pytest.mark.anyio


class SilentModel(ScriptedModel):
    """A model that never says whether it is there."""

    async def check(self) -> str:
        await asyncio.Event().wait()
        return ""


@pytest.mark.sqlite
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
        "current_persona": None,
        "current_conversation": None,
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


async def test_the_sessions_persona_and_conversation_are_told(service: Service) -> None:
    made = await call(service, "persona_switch", persona_id="kira")

    status = await call(service, "system_status", session_id=made["session_id"])

    assert status["current_persona"] == "kira"
    assert status["current_conversation"] == made["conversation_session_id"]


class CountedModel(ScriptedModel):
    """A model that counts who asks whether it is there."""

    asked = 0

    async def check(self) -> str:
        self.asked += 1
        return await super().check()


async def test_many_looks_in_a_short_time_ask_the_model_once(settings: Settings) -> None:
    model = CountedModel()
    async with open_service(settings, model, WordEmbedder()) as service:
        await asyncio.gather(*(call(service, "system_status") for _ in range(8)))
        await call(service, "system_health")

    assert model.asked == 1


async def test_a_server_that_is_stopping_is_down(service: Service) -> None:
    await service.runs.stop()

    assert (await call(service, "system_status"))["system_status"] == "down"


async def test_the_status_of_a_large_world_is_counted_and_not_loaded(service: Service) -> None:
    await call(service, "system_status")

    with watched(service.database) as statements:
        await call(service, "system_status")

    read = [one for one in statements if "personas" in one.lower()]
    assert len(read) == 1
    assert "count(" in read[0].lower() and "description" not in read[0].lower()


async def test_the_models_of_the_provider_are_listed_with_the_one_that_answers(
    service: Service,
) -> None:
    assert await call(service, "system_models") == {
        "available_models": ["large", "another"],
        "current_model": "large",
        "provider": "scripted",
        "providers": ["ollama", "openai", "embedded"],
        "embedder": "double-64",
        "provider_error": None,
    }


async def test_a_provider_that_is_down_has_an_empty_list_and_no_error_is_raised(
    service: Service, model: ScriptedModel
) -> None:
    model.down = "ollama does not answer; start it with `ollama serve`"

    found = await call(service, "system_models")

    assert (found["available_models"], found["provider_error"]) == ([], model.down)
    assert found["current_model"] == "large"


@pytest.mark.parametrize(
    ("spelled", "names"),
    [
        ("ollama:llama3.1", ["llama3.1:latest"]),
        ("openai:llama3.1", ["llama3.1:latest", "nomic-embed-text:latest"]),
    ],
)
async def test_the_list_comes_from_the_server_that_is_named(
    settings: Settings, spelled: str, names: list[str]
) -> None:
    async with ModelServer() as server:
        llm = model_calls.settings(server, spelled)
        given = settings.model_copy(update={"llm": llm})
        async with open_service(given, embedder=WordEmbedder()) as service:
            found = await call(service, "system_models")
            assert server.requests == []

    assert found["available_models"] == names
    assert [found["provider"], found["current_model"]] == spelled.split(":")


async def test_every_part_is_checked(service: Service) -> None:
    found = await call(service, "system_health")

    assert found["status"] == "ok"
    parts = [
        *("database", "checkpoints", "vector_index", "full_text", "model", "embedder", "queue"),
        *("disk", "upkeep", "batches", "limits"),
    ]
    assert [part for part in found["checks"] if part != "pool"] == parts
    assert all(check["age_s"] >= 0 for check in found["checks"].values())
    assert all(check["checked_at"].endswith("Z") for check in found["checks"].values())
    assert all(check["ok"] and check["detail"] for check in found["checks"].values())
    assert all(check["latency_ms"] >= 0 for check in found["checks"].values())
    assert "GB free" in found["checks"]["disk"]["detail"]


async def test_a_part_that_fails_is_named_and_tells_no_path(
    service: Service, model: ScriptedModel
) -> None:
    model.down = "scripted does not answer; start it"
    with service.database.writing() as connection:
        add_work(connection, "main", "upsert", {"m1": 1}, 0.0)
        connection.execute(update(tables.OutboxEntry).values(attempts=99))

    found = await call(service, "system_health")

    failed = {name for name, check in found["checks"].items() if not check["ok"]}
    assert (found["status"], failed) == ("degraded", {"model", "queue"})
    assert found["checks"]["model"]["detail"] == model.down
    assert "1 memories could not be embedded" in found["checks"]["queue"]["detail"]
    assert str(service.settings.data_dir) not in str(found)
