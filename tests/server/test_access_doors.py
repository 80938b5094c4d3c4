"""Tokens at the doors that are not REST: MCP in both eras, WebSocket, health and numbers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from persona_mcp.config.access_settings import AccessSettings
from persona_mcp.server.service import Service
from tests.doubles import Hangs, ScriptedModel
from tests.http_server import LIMIT_S, STREAM, Served
from tests.mcp_client import ERAS, Era, error_of, good
from tests.rpc_client import Client as RpcClient
from tests.rpc_client import connected
from tests.tokens import bearer, guarded, showing, token_of

pytestmark = pytest.mark.anyio

MCP_PATHS = ("/mcp", "/x/all/mcp")
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ACCEPT = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
UNKNOWN = "pmcp_" + "A" * 43


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with guarded(service) as running:
        yield running


@asynccontextmanager
async def mcp_client(
    found: Served, era: Era, token: str, path: str = "/mcp"
) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=bearer(token), timeout=LIMIT_S, trust_env=False) as http,
        asyncio.timeout(LIMIT_S),
        Client(streamable_http_client(found.url + path, http_client=http), mode=era) as client,
    ):
        yield client


@pytest.mark.parametrize("path", MCP_PATHS)
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_mcp_answers_nobody_without_a_token(found: Served, path: str, version: str) -> None:
    headers = {**ACCEPT, "MCP-Protocol-Version": version}
    async with found.client() as client:
        for more in ({}, bearer(UNKNOWN)):
            answer = await client.post(path, json=PING, headers={**headers, **more})

            assert answer.status_code == 401
            assert (answer.json()["jsonrpc"], answer.json()["error"]["code"]) == ("2.0", -32007)
            assert answer.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("path", MCP_PATHS)
@pytest.mark.parametrize("era", ERAS)
async def test_mcp_serves_a_token_within_its_scopes_and_worlds(
    found: Served, era: Era, path: str
) -> None:
    await found.service.personas.ensure_world("elsewhere", "Elsewhere", [], 0.0)
    token = await token_of(found.service, scopes=["read"], worlds=["main"])

    async with mcp_client(found, era, token, path) as client:
        listed = await good(client, "persona_list")
        tools = [tool.name for tool in (await client.list_tools()).tools]
        forbidden = error_of(await client.call_tool("persona_create", {"name": "Mira"}))
        elsewhere = error_of(await client.call_tool("persona_list", {"world_id": "elsewhere"}))
        nowhere = error_of(await client.call_tool("persona_list", {"world_id": "nowhere"}))

    assert listed["total_count"] == 3
    assert "persona_create" in tools
    assert (forbidden["code"], forbidden["data"]["scope"]) == (-32006, "manage")
    assert elsewhere["code"] == nowhere["code"] == -32000
    assert elsewhere["message"] == nowhere["message"].replace("nowhere", "elsewhere")


@pytest.mark.parametrize("era", ERAS)
async def test_resources_prompts_and_proposals_are_those_of_the_tokens_worlds(
    found: Served, era: Era
) -> None:
    await found.service.personas.ensure_world("elsewhere", "Elsewhere", [], 0.0)
    token = await token_of(found.service, scopes=["read"], worlds=["elsewhere"])

    async with mcp_client(found, era, token) as client:
        resources = [str(one.uri) for one in (await client.list_resources()).resources]
        prompts = [one.name for one in (await client.list_prompts()).prompts]
        people = await client.complete(
            PromptReference(name="be_persona"), {"name": "persona_id", "value": ""}
        )
        worlds = await client.complete(
            ResourceTemplateReference(uri="world://{id}"), {"name": "id", "value": ""}
        )
        with pytest.raises(MCPError) as closed:
            await client.read_resource("persona://aria?world=main")
        with pytest.raises(MCPError) as nowhere:
            await client.read_resource("persona://aria?world=nowhere")
        with pytest.raises(MCPError):
            await client.get_prompt("be_aria")

    assert resources == ["world://elsewhere"]
    assert prompts == ["be_persona"]
    assert people.completion.values == []
    assert worlds.completion.values == ["elsewhere"]
    assert closed.value.message == nowhere.value.message.replace("nowhere", "main")


@pytest.mark.parametrize("era", ERAS)
async def test_without_the_scope_nothing_is_read_by_the_way(found: Served, era: Era) -> None:
    token = await token_of(found.service, scopes=["chat"])
    reference = ResourceTemplateReference(uri="persona://{id}")

    async with mcp_client(found, era, token) as client:
        for ask in (
            client.list_resources,
            client.list_prompts,
            lambda: client.read_resource("persona://aria"),
            lambda: client.get_prompt("be_aria"),
            lambda: client.complete(reference, {"name": "id", "value": ""}),
        ):
            with pytest.raises(MCPError) as caught:
                await ask()
            assert caught.value.code == -32006
            assert "'read'" in caught.value.message


async def test_an_mcp_session_is_its_openers(found: Served) -> None:
    one, other = [await token_of(found.service, name) for name in ("one", "other")]
    async with found.client() as client:
        opened = await client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, **bearer(one)})
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], **ACCEPT}
        theirs = await client.post("/mcp", json=PING, headers={**session, **bearer(other)})
        gone = await client.delete("/mcp", headers={**session, **bearer(other)})
        mine = await client.post("/mcp", json=PING, headers={**session, **bearer(one)})

    assert [a.status_code for a in (opened, theirs, gone, mine)] == [200, 404, 404, 200]


async def closed_with(opening: Any) -> int:
    async with opening as socket:
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
        assert caught.value.rcvd is not None
        assert "token" in caught.value.rcvd.reason
        return int(caught.value.rcvd.code)


def opening(found: Served, **more: Any) -> Any:
    url = found.url.replace("http", "ws", 1)
    return connect(url + "/ws", proxy=None, open_timeout=LIMIT_S, **more)


def offered(*names: str) -> dict[str, Any]:
    return {"subprotocols": [Subprotocol(name) for name in names]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"additional_headers": bearer(UNKNOWN)},
        offered("persona-mcp", f"persona-mcp.bearer.{UNKNOWN}"),
    ],
)
async def test_a_socket_without_a_token_is_closed_with_1008(
    found: Served, more: dict[str, Any]
) -> None:
    assert await closed_with(opening(found, **more)) == 1008


async def test_a_socket_shows_its_token_in_the_header(found: Served) -> None:
    token = await token_of(found.service, scopes=["read"])

    async with connected(found, additional_headers=bearer(token)) as client:
        listed = await client.result("persona.list")
        forbidden = await client.error("persona.create", {"name": "Mira"})

    assert listed["total_count"] == 3
    assert forbidden["code"] == -32006


async def test_a_page_shows_its_token_as_a_sub_protocol_that_is_not_answered(
    found: Served,
) -> None:
    token = await token_of(found.service, scopes=["read"])
    names = offered("persona-mcp", f"persona-mcp.bearer.{token}")

    async with opening(found, **names) as socket:
        client = RpcClient(socket)
        listed = await client.result("persona.list")

    assert listed["total_count"] == 3
    assert socket.subprotocol == "persona-mcp"


def quick(service: Service) -> Service:
    access = AccessSettings(kept_s=0.2)
    return replace(service, settings=service.settings.model_copy(update={"access": access}))


async def test_a_socket_is_closed_when_its_token_is_revoked(service: Service) -> None:
    token = await token_of(service, "guest")
    async with (
        guarded(quick(service)) as found,
        connected(found, additional_headers=bearer(token)) as client,
    ):
        await client.result("persona.list")
        await service.tokens.revoke("guest", time.time())
        with pytest.raises(ConnectionClosed) as caught:
            await client.read()

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008


async def test_a_stream_ends_when_its_token_is_revoked(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Hangs("So "))
    token = await token_of(service, "guest")
    asked = {"persona_id": "aria", "message": "Hello."}
    async with (
        guarded(quick(service)) as found,
        showing(found, token) as client,
        client.stream("POST", STREAM, json=asked) as answer,
    ):
        pieces = answer.aiter_bytes()
        first = await anext(pieces)
        await service.tokens.revoke("guest", time.time())
        rest = b"".join([piece async for piece in pieces])

    assert b"stream_start" in first
    assert b"stream_complete" not in rest
    *_, last = rest.decode().strip().split("\r\n\r\n")
    event, data = last.split("\r\n")
    assert event == "event: stream_error"
    assert json.loads(data.removeprefix("data: "))["error"]["data"]["code"] == "unauthenticated"


async def told(found: Served, path: str, token: str | None) -> httpx.Response:
    async with showing(found, token) as client:
        return await client.get(path)


async def test_health_answers_everybody_and_tells_details_to_who_may_read(found: Served) -> None:
    reader = await token_of(found.service, "reader", scopes=["read"])

    live, nobody, wrong, somebody = [
        await told(found, path, token)
        for path, token in (
            ("/health/live", None),
            ("/health/ready", None),
            ("/health/ready", UNKNOWN),
            ("/health/ready", reader),
        )
    ]

    assert live.json() == {"status": "ok"}
    assert nobody.json() == wrong.json() == {"status": "ok"}
    assert "database" in somebody.json()["checks"]


@pytest.mark.parametrize(
    ("scopes", "status"), [(None, 401), (["read", "chat", "manage"], 403), (["admin"], 200)]
)
async def test_numbers_are_for_who_administers(
    found: Served, scopes: Collection[str] | None, status: int
) -> None:
    token = None if scopes is None else await token_of(found.service, scopes=scopes)

    assert (await told(found, "/metrics", token)).status_code == status


@pytest.mark.parametrize("path", ["/", "/openapi.json", "/nothing/here"])
async def test_everything_else_is_closed_without_a_token(found: Served, path: str) -> None:
    token = await token_of(found.service, scopes=["read"])

    assert (await told(found, path, None)).status_code == 401
    assert (await told(found, path, token)).status_code in (200, 404)


@pytest.mark.parametrize("scopes", [["read"], ["read", "chat"]])
async def test_what_a_reader_sees_of_a_closed_default_world_is_its_own(
    found: Served, scopes: Collection[str]
) -> None:
    await found.service.personas.ensure_world("elsewhere", "Elsewhere", [], 0.0)
    token = await token_of(found.service, scopes=scopes, worlds=["elsewhere"])

    async with connected(found, additional_headers=bearer(token)) as client:
        info = await client.result("session.get_info")
        listed = await client.result("persona.list")

    assert (info["world_id"], listed["total_count"]) == ("elsewhere", 0)
