"""Sessions do not mix: whatever others do meanwhile, each talks to the persona that it chose."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
from tests.rpc_client import connected
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
async def over_socket(service: Service) -> AsyncIterator[Caller]:
    async with served(service) as found, connected(found) as client:
        waiting: dict[Any, asyncio.Future[Any]] = {}

        async def listen() -> None:
            while True:
                told = await client.read()
                waiting.pop(told["id"]).set_result(told)

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            id = next(client.ids)
            answer = waiting[id] = asyncio.get_running_loop().create_future()
            await client.send(method_of(name), arguments, id=id)
            result: dict[str, Any] = (await answer)["result"]
            return result

        listener = asyncio.create_task(listen())
        yield call
        listener.cancel()


@pytest.mark.parametrize("door", [over_rest, over_mcp, over_socket])
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
        assert len(await rows(service.database, tables.Session)) == 200
        assert len(said) > 80
