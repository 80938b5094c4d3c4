"""A model server that misbehaves, seen from each HTTP door: in time, and nothing is left behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from mcp.client import Client

from persona_mcp.config.server_settings import ServerSettings
from persona_mcp.config.settings import Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from tests.calls import rows
from tests.config import model_calls
from tests.doubles import WordEmbedder
from tests.http_server import CHAT, Served, leaving_nothing, served, streamed
from tests.mcp_client import data_of
from tests.model_server import BEHAVIOURS, Behaviour, ModelServer

pytestmark = pytest.mark.anyio

LIMIT_S, TOTAL_S = 2.0, 4.0
MARGIN_S = 10.0
"""For a machine that is busy with other things."""
SOME = "Well met, traveller, sit"
FAULTS: dict[str, tuple[Behaviour, float, str | None]] = {
    "hang": (BEHAVIOURS["hang"], LIMIT_S, ""),
    "500": (BEHAVIOURS["500"], 0.0, ""),
    "drop after some tokens": (Behaviour(fault="drop", after=4), 0.0, SOME),
    "garbage bytes": (Behaviour(fault="garbage", after=4), 0.0, SOME),
    "10 MB of text": (BEHAVIOURS["flood"], 0.0, None),
    "a token now and then": (Behaviour("again " * 500, delay_s=0.1), TOTAL_S, None),
    "silence after the first token": (BEHAVIOURS["silence"], LIMIT_S, "Well"),
}
"""What goes wrong, the limit that ends it, and what had been said by then if that is certain."""
MESSAGE = {"persona_id": "aria", "message": "My cat is called Biscuit.", "request_id": "r1"}
OTHER = {"persona_id": "noor", "message": "Good evening."}
Door = Callable[[Served], Awaitable[dict[str, Any]]]


async def through_rest(found: Served) -> dict[str, Any]:
    async with found.client() as client:
        answer = await client.post(CHAT, json=MESSAGE)
    error: dict[str, Any] = answer.json()["error"]
    assert answer.status_code in (502, 504)
    assert answer.headers["x-correlation-id"] == error["data"]["correlation_id"]
    return error


async def through_a_stream(found: Served) -> dict[str, Any]:
    async with found.client() as client:
        frames = await streamed(client, MESSAGE)
    assert [frame.event for frame in frames if frame.event != "stream_chunk"] == [
        "stream_start",
        "stream_error",
    ]
    said = "".join(frame.data["chunk"] for frame in frames[1:-1])
    error: dict[str, Any] = frames[-1].data["error"]
    assert frames[-1].data["data"] == {"partial": said, "partial_length": len(said)}
    assert error["data"]["partial"] == said
    return error


async def through_mcp(found: Served) -> dict[str, Any]:
    async with Client(found.url + "/mcp") as client:
        result = await client.call_tool("persona_chat", MESSAGE)
    assert result.is_error
    error: dict[str, Any] = data_of(result)["error"]
    return error


@pytest.fixture(params=[through_rest, through_a_stream, through_mcp], ids=lambda f: f.__name__)
def door(request: pytest.FixtureRequest) -> Door:
    found: Door = request.param
    return found


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as running:
        yield running


@pytest.fixture
async def service(settings: Settings, models: ModelServer) -> AsyncIterator[Service]:
    limits = dict.fromkeys(("connect_s", "first_token_s", "idle_s"), LIMIT_S)
    llm = model_calls.settings(models, "openai:llama3.1", total_s=TOTAL_S, **limits)
    kept = ServerSettings(heartbeat_s=0.2)
    given = settings.model_copy(update={"llm": llm, "server": kept})
    async with open_service(given, embedder=WordEmbedder()) as opened:
        yield opened


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(service) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_model_that_fails_is_told_in_time_while_others_are_served(
    found: Served, models: ModelServer, door: Door, fault: str
) -> None:
    behaviour, limit_s, partial = FAULTS[fault]
    models.script(behaviour)

    async with found.client() as another, leaving_nothing(found.service):
        failing = asyncio.ensure_future(door(found))
        await models.arrived(1)
        async with asyncio.timeout(limit_s + MARGIN_S):
            served_too = await another.post(CHAT, json=OTHER)
            error = await failing

    assert (served_too.status_code, served_too.json()["response"]) == (200, Behaviour().text)
    assert error["data"]["code"] in ("llm_error", "timeout")
    assert error["data"]["retryable"] is True
    assert "openai:llama3.1" in error["message"]
    assert "/srv/secret" not in json.dumps(error)
    [kept] = [
        e for e in await rows(found.service.database, tables.Exchange) if e["status"] != "done"
    ]
    assert (kept["request_id"], kept["status"]) == ("r1", "failed")
    assert partial is None or (kept["partial"] or "") == partial

    assert (await again(found))["response"] == Behaviour().text


async def again(found: Served) -> dict[str, Any]:
    async with found.client() as client:
        answer = await client.post(CHAT, json=MESSAGE)
    result: dict[str, Any] = answer.json()
    return result
