"""The MCP door through the official client, in both protocol eras, in memory and over stdio."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.server import Server
from mcp_types import CallToolResult, TextContent

from persona_mcp.server.catalogue import operations
from persona_mcp.server.mcp import make_server
from persona_mcp.server.operations import REGISTRY
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import ModelError, StorageUnavailable
from tests.calls import dump, rows
from tests.doubles import Fails, Hangs, ScriptedModel
from tests.model_server import Behaviour, ModelServer
from tests.processes import PERSONA, environment, variables

pytestmark = pytest.mark.anyio

Era = Literal["auto", "legacy"]
ERAS: tuple[Era, ...] = ("auto", "legacy")
CORE = [
    "persona_list",
    "persona_get",
    "persona_create",
    "persona_switch",
    "persona_chat",
    "memory_search",
    "relationship_get",
    "conversation_get",
    "system_status",
]
REPLY = "Biscuit! A fine name for a cat, and a finer one for a song."
LIMIT_S = 30.0
WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "text for an integer": (
        "memory_search",
        {"persona_id": "aria", "query": "cat", "n_results": "4"},
        "n_results",
        '"4"',
    ),
    "a number out of range": (
        "persona_chat",
        {"persona_id": "aria", "message": "Hello.", "token_budget": 40000},
        "token_budget",
        "40000",
    ),
    "an unknown argument": (
        "persona_chat",
        {"persona_id": "aria", "message": "Hello.", "colour": "red"},
        "colour",
        "",
    ),
    "a missing argument": ("persona_chat", {"persona_id": "aria"}, "message", ""),
    "a number for text": ("persona_create", {"name": 7}, "name", "7"),
}


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    found: Era = request.param
    return found


def served(service: Service, progress_s: float = 0.01) -> Server[Any]:
    async def ready() -> Service:
        return service

    return make_server(ready, "core", progress_s)


def failing(error: Exception) -> Server[Any]:
    async def ready() -> Service:
        raise error

    return make_server(ready, "core", 1.0)


@asynccontextmanager
async def connected(server: Any, era: Era) -> AsyncIterator[Client]:
    async with asyncio.timeout(LIMIT_S), Client(server, mode=era) as client:
        yield client


def text_of(result: CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


def data_of(result: CallToolResult) -> dict[str, Any]:
    found = result.structured_content
    assert isinstance(found, dict)
    return found


def error_of(result: CallToolResult) -> dict[str, Any]:
    assert result.is_error
    found: dict[str, Any] = data_of(result)["error"]
    return found


async def good(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text_of(result)
    jsonschema.validate(data_of(result), REGISTRY[name].output_schema)
    return data_of(result)


class Heard:
    """What a client was told of a call's progress."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.texts: list[str] = []

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.values.append(progress)
        self.texts.append(message or "")


async def test_the_core_tools_are_listed_with_strict_schemas_and_truthful_hints(
    service: Service, era: Era
) -> None:
    async with connected(served(service), era) as client:
        listed = (await client.list_tools()).tools

    assert sorted(tool.name for tool in listed) == sorted(CORE)
    assert [tool.name for tool in listed] == [operation.name for operation in operations("core")]
    for tool in listed:
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", tool.name)
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert all("description" in field for field in tool.input_schema["properties"].values())
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        assert tool.title
        assert len(tool.description or "") > 40
        hints = tool.annotations
        assert hints is not None
        reads = tool.name not in ("persona_create", "persona_switch", "persona_chat")
        assert (hints.read_only_hint, hints.idempotent_hint) == (reads, reads)
        assert hints.destructive_hint is False
        assert hints.open_world_hint is (tool.name == "persona_chat")


async def test_a_reply_comes_in_pieces_and_then_whole(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY)
    heard = Heard()

    async with connected(served(service, 0.0), era) as client:
        result = await client.call_tool(
            "persona_chat",
            {"persona_id": "aria", "message": "My cat is called Biscuit."},
            progress_callback=heard,
        )

    assert len(heard.values) > 5
    assert heard.values == sorted(set(heard.values))
    assert "".join(heard.texts) == text_of(result) == data_of(result)["response"] == REPLY
    jsonschema.validate(data_of(result), REGISTRY["persona_chat"].output_schema)


async def test_progress_is_not_sent_more_often_than_it_may_be(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY)
    heard = Heard()

    async with connected(served(service, 10.0), era) as client:
        await client.call_tool(
            "persona_chat", {"persona_id": "aria", "message": "Hello."}, progress_callback=heard
        )

    assert (heard.values, heard.texts) == ([1.0], [REPLY])


async def test_a_conversation_goes_on_and_is_remembered(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY, "He sleeps by the stove, of course.")
    async with connected(served(service), era) as client:
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
    service: Service, era: Era
) -> None:
    async with connected(served(service), era) as client:
        result = await client.call_tool("persona_get", {"persona_id": "Aria"})

    assert json.loads(text_of(result)) == data_of(result)
    assert data_of(result)["persona"]["name"] == "Aria"


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_argument_is_named_and_changes_nothing(
    service: Service, model: ScriptedModel, era: Era, case: str
) -> None:
    name, arguments, field, given = WRONG[case]
    before = await dump(service.database)

    async with connected(served(service), era) as client:
        result = await client.call_tool(name, arguments)

    error = error_of(result)
    assert (error["code"], error["data"]["code"]) == (-32602, "invalid_params")
    assert error["data"]["field"] == field
    assert error["data"]["allowed"]
    assert error["data"]["correlation_id"]
    assert f"{field}: allowed is {error['data']['allowed']}" in text_of(result)
    assert given in text_of(result)
    assert str(error["data"]["given"]) in text_of(result)
    assert await dump(service.database) == before
    assert model.history == []


async def test_a_range_is_part_of_the_error(service: Service, era: Era) -> None:
    async with connected(served(service), era) as client:
        result = await client.call_tool(*WRONG["a number out of range"][:2])

    assert "1..32768" in text_of(result).splitlines()[0]


async def test_an_unknown_tool_is_an_error_that_names_the_nearest(
    service: Service, era: Era
) -> None:
    async with connected(served(service), era) as client:
        result = await client.call_tool("persona_chatt", {})

    assert error_of(result)["data"]["code"] == "method_not_found"
    assert "persona_chatt" in text_of(result)
    assert "persona_chat" in error_of(result)["data"]["suggestions"]


async def test_a_client_that_gives_up_stops_the_model(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    hanging = Hangs("Biscuit")
    model.add(hanging, REPLY)
    message = {"persona_id": "aria", "message": "My cat is called Biscuit."}
    async with connected(served(service), era) as client:
        call = asyncio.create_task(client.call_tool("persona_chat", message))
        await hanging.reached.wait()

        call.cancel()
        await asyncio.wait([call])
        await hanging.cancelled.wait()

        after = await good(client, "persona_chat", **message)

    assert after["response"] == REPLY
    statuses = [row["status"] for row in await rows(service.database, tables.Exchange)]
    assert sorted(statuses) == ["cancelled", "done"]


async def test_a_model_that_fails_is_named_and_the_server_goes_on(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(Fails(ModelError("ollama:test answered 500"), after="Bis"), REPLY)
    message = {"persona_id": "aria", "message": "My cat is called Biscuit."}
    async with connected(served(service), era) as client:
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


def over_stdio(tmp_path: Path, url: str, **more: str) -> StdioServerParameters:
    given = environment(**variables(tmp_path / "data", url, **more))
    return StdioServerParameters(command=PERSONA, args=["mcp"], env=given)


async def the_whole_way(client: Client, server: ModelServer) -> None:
    """List, talk, search, be refused, fail, give up, and talk again."""
    assert len((await client.list_tools()).tools) == len(CORE)
    heard = Heard()
    message = {"persona_id": "aria", "message": "My cat is called Biscuit."}
    result = await client.call_tool("persona_chat", message, progress_callback=heard)
    jsonschema.validate(data_of(result), REGISTRY["persona_chat"].output_schema)
    assert "".join(heard.texts) == text_of(result) == Behaviour().text
    assert heard.values == sorted(set(heard.values))
    found = await good(client, "memory_search", persona_id="aria", query="Biscuit")
    assert "My cat is called Biscuit." in [memory["content"] for memory in found["memories"]]

    assert "n_results" in text_of(await client.call_tool(*WRONG["text for an integer"][:2]))

    server.script("500")
    assert "openai:test" in text_of(await client.call_tool("persona_chat", message))

    server.script("hang")
    asked = len(server.requests)
    call = asyncio.create_task(client.call_tool("persona_chat", message))
    await server.arrived(asked + 1)
    call.cancel()
    await asyncio.wait([call])
    await server.requests[-1].disconnected.wait()
    assert (await good(client, "persona_chat", **message))["status"] == "done"


async def test_the_whole_way_over_stdio(tmp_path: Path, era: Era) -> None:
    async with ModelServer() as server:
        parameters = over_stdio(tmp_path, server.openai_url)
        async with connected(parameters, era) as client:
            await the_whole_way(client, server)


async def test_nothing_but_json_rpc_is_on_stdout_even_when_it_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    process = await asyncio.create_subprocess_exec(
        PERSONA,
        "mcp",
        env=environment(
            **variables(tmp_path / "data", "http://127.0.0.1:9", PERSONA_LOG__LEVEL="DEBUG")
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        ask = talk(process.stdin, process.stdout)
        begun = await ask("initialize", HELLO)
        listed = await ask("tools/list", {})
        called = await ask("tools/call", {"name": "persona_list", "arguments": {}})
        process.stdin.close()
        rest = await process.stdout.read()
        await process.wait()

    assert begun["result"]["serverInfo"]["name"] == "persona"
    assert len(listed["result"]["tools"]) == len(CORE)
    assert called["result"]["isError"] is True
    assert "folder" in called["result"]["content"][0]["text"]
    assert (rest, process.returncode) == (b"", 0)


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def talk(
    to: asyncio.StreamWriter, of: asyncio.StreamReader
) -> Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]:
    """Speak JSON-RPC by hand; every line that comes must be an answer."""
    count = 0

    async def ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        line = {"jsonrpc": "2.0", "id": count, "method": method, "params": params}
        to.write(json.dumps(line).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await of.readline())
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", count)
        if method == "initialize":
            to.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
        return answer

    return ask
