"""MCP over HTTP when its client is lost in the middle, or says that it gives up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from tests.calls import rows
from tests.doubles import Hangs, ScriptedModel
from tests.http_server import Served, leaving_nothing, served, with_limits
from tests.mcp_client import REPLY, Era, connected, good

pytestmark = pytest.mark.anyio

MODERN, HANDSHAKE = "2026-07-28", "2025-11-25"
CLIENT = {"name": "test", "version": "1"}
MESSAGE = {"persona_id": "aria", "message": "My cat is called Biscuit.", "request_id": "r1"}
META = "io.modelcontextprotocol"


class Wire:
    """A client that speaks JSON-RPC by hand, so that it can be lost as no real one can."""

    def __init__(self, http: httpx.AsyncClient, era: Era) -> None:
        self._http = http
        self.era = era
        self._headers = {"Accept": "application/json, text/event-stream"}

    async def begin(self) -> None:
        if self.era == "auto":
            self._headers["MCP-Protocol-Version"] = MODERN
            return
        asked = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": CLIENT}
        answer = await self.post("initialize", asked)
        self._headers["MCP-Session-Id"] = answer.headers["mcp-session-id"]
        self._headers["MCP-Protocol-Version"] = HANDSHAKE
        await self.tell("notifications/initialized", {})

    async def end(self) -> None:
        if self.era == "legacy":
            await self._http.delete("/mcp", headers=self._headers)

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        body = {"jsonrpc": "2.0", "method": method, "params": params}
        answer = await self._http.post("/mcp", json=body, headers=self._headers)
        assert answer.status_code == httpx.codes.ACCEPTED

    async def post(self, method: str, params: dict[str, Any]) -> httpx.Response:
        headers = dict(self._headers)
        if self.era == "auto":
            params = {**params, "_meta": self.meta()}
            headers |= {"Mcp-Method": method, "Mcp-Name": params.get("name", "")}
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        return await self._http.post("/mcp", json=body, headers=headers)

    def meta(self) -> dict[str, Any]:
        return {
            f"{META}/protocolVersion": MODERN,
            f"{META}/clientInfo": CLIENT,
            f"{META}/clientCapabilities": {},
        }

    async def chat(self) -> httpx.Response:
        return await self.post("tools/call", {"name": "persona_chat", "arguments": MESSAGE})


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(with_limits(service, grace_s=0.3, mcp_session_idle_s=60.0)) as running:
        yield running


async def status(service: Service) -> Any:
    [row] = await rows(service.database, tables.Exchange)
    return row["status"]


async def lost_in_the_middle(found: Served, era: Era, hanging: Hangs) -> None:
    """Call, and be gone while the reply is made."""
    async with found.client() as http:
        wire = Wire(http, era)
        await wire.begin()
        call = asyncio.create_task(wire.chat())
        await hanging.reached.wait()
        call.cancel()
        await asyncio.wait([call])


async def test_a_client_that_is_lost_for_good_stops_the_model_after_the_time_of_grace(
    found: Served, model: ScriptedModel, era: Era
) -> None:
    hanging = Hangs("A fine name")
    model.add(hanging)

    await lost_in_the_middle(found, era, hanging)
    assert not hanging.cancelled.is_set()
    await hanging.cancelled.wait()

    async with leaving_nothing(found.service):
        pass
    assert await status(found.service) == "cancelled"


async def test_a_client_that_is_lost_and_comes_back_gets_the_reply(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    hanging = Hangs("A fine name", " for a cat.")
    model.add(hanging)

    async with served(with_limits(service, grace_s=60.0)) as found:
        await lost_in_the_middle(found, era, hanging)
        async with connected(found.url + "/mcp", era) as client:
            call = asyncio.create_task(good(client, "persona_chat", **MESSAGE))
            hanging.release.set()
            reply = await call

    assert (reply["response"], len(model.history)) == ("A fine name for a cat.", 1)
    assert await status(service) == "done"


async def test_a_client_of_the_handshake_era_that_says_so_stops_the_model_at_once(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name")
    model.add(hanging, REPLY)

    async with (
        served(with_limits(service, grace_s=60.0)) as found,
        leaving_nothing(service),
        found.client() as http,
    ):
        wire = Wire(http, "legacy")
        await wire.begin()
        call = asyncio.create_task(wire.chat())
        await hanging.reached.wait()
        await wire.tell("notifications/cancelled", {"requestId": 7, "reason": "enough"})
        await hanging.cancelled.wait()
        await asyncio.wait([call])
        await wire.end()
        await http.aclose()

    assert await status(service) == "cancelled"
