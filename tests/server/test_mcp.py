"""The MCP door through the official client, in both protocol eras, in memory and over HTTP."""

import asyncio
import json
import re

import jsonschema  # type: ignore[import-untyped]
import pytest

from persona_mcp.config.server_settings import ServerSettings
from persona_mcp.config.settings import Settings
from persona_mcp.server.mcp import make_server
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import operation_named
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import ModelError, StorageUnavailable, complaint
from tests.calls import dump, rows
from tests.doubles import Fails, Hangs, ScriptedModel
from tests.mcp_client import (
    CORE,
    REPLY,
    WAYS,
    WRONG,
    Era,
    Heard,
    Way,
    connected,
    data_of,
    error_of,
    failing,
    good,
    talking,
    text_of,
)

pytestmark = pytest.mark.anyio

SPEAKING = ("persona_chat", "conversation_advance", "dialogue_start")
WRITING = (
    *("persona_create", "persona_switch", "memory_store", "conversation_start", "conversation_end"),
    *SPEAKING,
)

COMMON = {"world_id", "session_id", "request_id"}
"""The same in every tool: a model that reads the list is told of them once, in the instructions."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A client of the newer era gives up by closing its connection, so it has a time of grace."""
    return settings.model_copy(update={"server": ServerSettings(grace_s=0.05)})


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


async def test_the_core_tools_are_listed_with_strict_schemas_and_truthful_hints(
    service: Service, way: Way
) -> None:
    async with talking(service, way) as client:
        listed = (await client.list_tools()).tools

    assert sorted(tool.name for tool in listed) == sorted(CORE)
    assert [tool.name for tool in listed] == [operation.name for operation in operations("core")]
    for tool in listed:
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", tool.name)
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        fields = tool.input_schema["properties"]
        assert {name for name, field in fields.items() if "description" not in field} <= COMMON
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        assert tool.title
        assert len(tool.description or "") > 40
        hints = tool.annotations
        assert hints is not None
        reads = tool.name not in WRITING
        assert (hints.read_only_hint, hints.idempotent_hint) == (reads, reads)
        assert hints.destructive_hint is False
        assert hints.open_world_hint is (tool.name in SPEAKING)


async def test_a_reply_comes_in_pieces_and_then_whole(
    service: Service, model: ScriptedModel, way: Way
) -> None:
    model.add(REPLY)
    heard = Heard()

    async with talking(service, way, 0.0) as client:
        result = await client.call_tool(
            "persona_chat",
            {"persona_id": "aria", "message": "My cat is called Biscuit."},
            progress_callback=heard,
        )

    assert len(heard.values) > 5
    assert heard.values == sorted(set(heard.values))
    assert "".join(heard.texts) == text_of(result) == data_of(result)["response"] == REPLY
    jsonschema.validate(data_of(result), operation_named("persona_chat").output_schema)


async def test_progress_is_not_sent_more_often_than_it_may_be(
    service: Service, model: ScriptedModel, way: Way
) -> None:
    model.add(REPLY)
    heard = Heard()

    async with talking(service, way, 10.0) as client:
        await client.call_tool(
            "persona_chat", {"persona_id": "aria", "message": "Hello."}, progress_callback=heard
        )

    assert (heard.values, heard.texts) == ([1.0], [REPLY])


async def test_a_conversation_goes_on_and_is_remembered(
    service: Service, model: ScriptedModel, way: Way
) -> None:
    model.add(REPLY, "He sleeps by the stove, of course.")
    async with talking(service, way) as client:
        first = await good(
            client, "persona_chat", persona_id="aria", message="My cat is called Biscuit."
        )
        where = first["conversation_id"]
        second = await good(
            client,
            "persona_chat",
            persona_id="aria",
            message="Where does he sleep?",
            conversation_id=where,
        )
        found = await good(client, "memory_search", persona_id="aria", query="cat called Biscuit")
        felt = await good(client, "relationship_get", persona1_id="aria", persona2_id="user")
        told = await good(client, "conversation_get", conversation_id=where)

    assert (second["conversation_id"], second["turn_number"]) == (where, 4)
    assert "My cat is called Biscuit." in model.history[1].text
    assert "My cat is called Biscuit." in [memory["content"] for memory in found["memories"]]
    assert felt["relationship"]["interaction_count"] > 0
    assert [exchange["status"] for exchange in told["exchanges"]] == ["done", "done"]


async def test_results_that_are_no_reply_are_json_in_the_text_too(
    service: Service, way: Way
) -> None:
    async with talking(service, way) as client:
        result = await client.call_tool("persona_get", {"persona_id": "Aria"})

    assert json.loads(text_of(result)) == data_of(result)
    assert data_of(result)["persona"]["name"] == "Aria"


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_argument_is_named_and_changes_nothing(
    service: Service, model: ScriptedModel, way: Way, case: str
) -> None:
    name, arguments, field, given = WRONG[case]
    before = await dump(service.database)

    async with talking(service, way) as client:
        result = await client.call_tool(name, arguments)

    error = error_of(result)
    assert (error["code"], error["data"]["code"]) == (-32602, "invalid_params")
    assert error["data"]["field"] == field
    assert error["data"]["allowed"]
    assert error["data"]["correlation_id"]
    assert f"{field}{complaint(error['data'])}" in text_of(result)
    assert given in text_of(result)
    assert str(error["data"]["given"]) in text_of(result)
    assert await dump(service.database) == before
    assert model.history == []


async def test_a_range_is_part_of_the_error(service: Service, way: Way) -> None:
    async with talking(service, way) as client:
        result = await client.call_tool(*WRONG["a number out of range"][:2])

    assert "1..32768" in text_of(result).splitlines()[0]


async def test_an_unknown_tool_is_an_error_that_names_the_nearest(
    service: Service, way: Way
) -> None:
    async with talking(service, way) as client:
        result = await client.call_tool("persona_chatt", {})

    assert error_of(result)["data"]["code"] == "method_not_found"
    assert "persona_chatt" in text_of(result)
    assert "persona_chat" in error_of(result)["data"]["suggestions"]


async def test_a_tool_of_the_larger_set_is_an_error_that_says_how_to_come_by_it(
    service: Service, way: Way
) -> None:
    async with talking(service, way) as client:
        result = await client.call_tool("dialogue_cancel", {"dialogue_id": "one"})

    assert error_of(result)["data"]["code"] == "method_not_found"
    assert "'dialogue_cancel' is not among the core tools" in text_of(result)
    assert "--toolset all" in text_of(result)
    assert "/x/all/mcp" in text_of(result)


async def test_a_client_that_gives_up_stops_the_model(
    service: Service, model: ScriptedModel, way: Way
) -> None:
    hanging = Hangs("Biscuit")
    model.add(hanging, REPLY)
    message = {"persona_id": "aria", "message": "My cat is called Biscuit."}
    async with talking(service, way) as client:
        call = asyncio.create_task(client.call_tool("persona_chat", message))
        await hanging.reached.wait()

        call.cancel()
        await asyncio.wait([call])
        await hanging.cancelled.wait()

        after = await good(client, "persona_chat", **message)

    assert after["response"] == REPLY
    statuses = [row["status"] for row in await rows(service.database, tables.Exchange)]
    assert sorted(statuses) == ["cancelled", "done"]


async def test_a_reply_that_takes_long_is_waited_for_in_several_calls(
    service: Service, model: ScriptedModel, way: Way
) -> None:
    hanging = Hangs("A fine name", " for a cat.")
    model.add(hanging)
    message = {"persona_id": "aria", "message": "My cat is Biscuit.", "request_id": "r1"}
    async with talking(service, way) as client:
        first = await good(client, "persona_chat", **message, wait_s=1)
        hanging.release.set()
        second = await good(client, "persona_chat", **message)

    assert (first["status"], first["request_id"]) == ("running", "r1")
    assert (second["status"], second["response"]) == ("done", "A fine name for a cat.")
    assert second["exchange_id"] == first["exchange_id"]
    assert len(model.history) == 1


async def test_a_silent_call_shows_life_again_and_again(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    hanging = Hangs("A fine name")
    model.add(hanging)
    heard = Heard()

    async def ready() -> Service:
        return service

    server = make_server(ready, "core", 10.0, heartbeat_s=0.05)
    message = {"persona_id": "aria", "message": "My cat is Biscuit."}
    async with connected(server, era) as client:
        call = asyncio.create_task(
            client.call_tool("persona_chat", message, progress_callback=heard)
        )
        while len(heard.values) < 3:
            await heard.more.wait()
            heard.more.clear()
        hanging.release.set()
        result = await call

    assert heard.values == sorted(set(heard.values))
    assert heard.texts[:3] == ["", "", ""]
    assert text_of(result) == "A fine name"


async def test_a_model_that_fails_is_named_and_the_server_goes_on(
    service: Service, model: ScriptedModel, way: Way
) -> None:
    model.add(Fails(ModelError("ollama:test answered 500"), after="Bis"), REPLY)
    message = {"persona_id": "aria", "message": "My cat is called Biscuit."}
    async with talking(service, way) as client:
        failed = await client.call_tool("persona_chat", message)
        again = await client.call_tool("persona_chat", message)

    assert error_of(failed)["data"]["code"] == "llm_error"
    assert error_of(failed)["data"]["retryable"] is True
    assert "ollama:test" in text_of(failed)
    assert text_of(again) == REPLY


async def test_a_service_that_cannot_open_is_told_to_whoever_calls(era: Era) -> None:
    async with connected(failing(StorageUnavailable("the data folder is gone")), era) as client:
        listed = (await client.list_tools()).tools
        result = await client.call_tool("persona_list", {})

    assert len(listed) == len(CORE)
    assert error_of(result)["data"]["code"] == "memory_error"
    assert text_of(result).startswith("the data folder is gone")


async def test_a_defect_of_ours_shows_nothing_of_its_cause(
    era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(failing(RuntimeError("secret place")), era) as client:
        result = await client.call_tool("persona_list", {})

    assert error_of(result)["code"] == -32603
    assert "secret" not in text_of(result)


async def test_tools_are_listed_while_the_service_is_still_opening(
    service: Service, era: Era
) -> None:
    opened: asyncio.Future[Service] = asyncio.get_running_loop().create_future()
    server = make_server(lambda: asyncio.shield(opened), "all", 1.0)
    async with connected(server, era) as client:
        call = asyncio.create_task(client.call_tool("persona_list", {}))
        listed = (await client.list_tools()).tools
        assert not call.done()
        opened.set_result(service)
        result = await call

    assert {tool.name for tool in listed} >= set(CORE)
    assert data_of(result)["total_count"] == 3


async def test_every_operation_is_offered_at_an_address_of_its_own(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY)
    async with talking(service, Way("http", era), path="/x/all/mcp") as client:
        listed = (await client.list_tools()).tools
        reply = await good(client, "persona_chat", persona_id="aria", message="Hello.")
        wrong = await client.call_tool(*WRONG["text for an integer"][:2])

    assert [tool.name for tool in listed] == [operation.name for operation in operations("all")]
    assert {tool.name for tool in listed} >= set(CORE)
    assert reply["response"] == REPLY
    assert error_of(wrong)["data"]["field"] == "n_results"
