"""Sessions do not mix: whatever others do meanwhile, each talks to the persona that it chose."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from mcp.client import Client

from persona_mcp.config.settings import Settings
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.rpc_methods import method_of
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from tests.calls import rows
from tests.doubles import WordEmbedder
from tests.http_server import served
from tests.rpc_client import ManyAtOnce, connected, many_at_once
from tests.sessions import Caller, EchoModel, check, drive

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def over_rest(service: Service) -> AsyncIterator[Caller]:
    async with served(service) as found, found.client() as client:

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            answer = await client.post(PREFIX + path_of(name), json=arguments)
            assert answer.status_code == httpx.codes.OK, answer.text
            result: dict[str, Any] = answer.json()
            return result

        yield call


@asynccontextmanager
async def over_mcp(service: Service) -> AsyncIterator[Caller]:
    async with served(service) as found, Client(f"{found.url}/x/all/mcp") as client:

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            result = await client.call_tool(name, arguments)
            assert not result.is_error, result.content
            assert isinstance(result.structured_content, dict)
            return result.structured_content

        yield call


@asynccontextmanager
async def over_sockets(service: Service) -> AsyncIterator[Caller]:
    """A connection for each session, which is told no session_id; and one for everything else."""
    async with served(service) as found, AsyncExitStack() as stack:
        sockets: dict[str | None, ManyAtOnce] = {}

        async def opened() -> ManyAtOnce:
            client = await stack.enter_async_context(connected(found))
            return await stack.enter_async_context(many_at_once(client))

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            bare = {key: value for key, value in arguments.items() if key != "session_id"}
            known = arguments.get("session_id")
            if known is None and name == "persona_switch":
                one = await opened()
                result = await one(method_of(name), bare)
                sockets[result["session_id"]] = one
                return result
            return await sockets[known](method_of(name), bare)

        sockets[None] = await opened()
        yield call


@pytest.mark.parametrize("door", [over_rest, over_mcp, over_sockets])
async def test_two_hundred_sessions_that_switch_and_talk_at_once_never_mix(
    settings: Settings, door: Callable[[Service], AbstractAsyncContextManager[Caller]]
) -> None:
    async with (
        open_service(settings, EchoModel(), WordEmbedder()) as service,
        door(service) as call,
    ):
        said = await drive(call, seed=20261125)

        await check(call, said)
        stored = await rows(service.database, tables.Exchange)
        assert {e["id"]: e["persona_id"] for e in stored} == {
            one.reply["exchange_id"]: one.persona.lower() for one in said
        }
        bound = [r for r in await rows(service.database, tables.Session) if r["persona_id"]]
        assert len(bound) == 200
        assert len(said) > 80
