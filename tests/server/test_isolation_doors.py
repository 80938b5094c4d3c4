"""Worlds that are closed to a token are not there for it: the same sweep through every door."""

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference
from starlette.types import ASGIApp, Receive, Scope, Send

from persona_mcp.config.access_settings import AccessSettings
from persona_mcp.server.mcp_completions import ADDRESSED, PROMPTED
from persona_mcp.server.mcp_resources import KINDS, template_of
from persona_mcp.server.operations.registry import Caller, call_operation
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.rpc_methods import CANCEL, method_of
from persona_mcp.server.rpc_methods import STREAM as STREAMED
from persona_mcp.state.callers import Identity
from tests.http_server import LIMIT_S, STREAM, Served, serving
from tests.isolation import (
    CLOSED,
    HEARD,
    NOWHERE,
    OPEN,
    Things,
    leaks,
    like,
    listening,
    opened,
    two_worlds,
    without,
)
from tests.isolation_calls import (
    FILTERS,
    MISSED,
    OPERATIONS,
    asking,
    nobodys_of,
    swept,
    values_of,
)
from tests.mcp_client import Era, data_of
from tests.rpc_client import connected
from tests.tokens import bearer, guarded_app, showing, token_of

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("isolation doors")]

Answer = dict[str, Any]
Ask = Callable[[str, dict[str, Any]], Awaitable[Answer]]
WORLD_IS_THERE = "SELECT worlds.id \nFROM worlds \nWHERE worlds.id = ?"


@dataclass(frozen=True)
class Door:
    """A server, a token that opens one of its worlds, and what SQL its requests run."""

    served: Served
    token: str
    statements: list[str]


class Noting:
    """Has the statements of every request noted, and not those of work behind them."""

    def __init__(self, app: ASGIApp, found: list[str]) -> None:
        self._app = app
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            HEARD.set(self._found)
        await self._app(scope, receive, send)


@asynccontextmanager
async def door_on(folder: Path, to: Path) -> AsyncIterator[Door]:
    """Serve a copy of a folder to whoever shows a token."""
    shutil.copytree(folder, to)
    async with opened(to) as service:
        settings = service.settings.model_copy(update={"access": AccessSettings(kept_s=300)})
        service = replace(service, settings=settings)
        token = await token_of(service, "guest", worlds=[OPEN])
        app, found = guarded_app(service), list[str]()
        app.add_middleware(Noting, found=found)
        with listening(service.database):
            async with serving(app, settings) as served:
                yield Door(served, token, found)


@asynccontextmanager
async def rest(door: Door) -> AsyncIterator[Ask]:
    async with showing(door.served, door.token) as client:

        async def ask(name: str, arguments: dict[str, Any]) -> Answer:
            answer = await client.post(PREFIX + path_of(name), json=arguments)
            return {"status": answer.status_code, **answer.json()}

        yield ask


@asynccontextmanager
async def websocket(door: Door) -> AsyncIterator[Ask]:
    async with connected(door.served, additional_headers=bearer(door.token)) as client:

        async def ask(name: str, arguments: dict[str, Any]) -> Answer:
            told = await client.ask(method_of(name), arguments)
            return {key: value for key, value in told.items() if key != "id"}

        yield ask


@asynccontextmanager
async def mcp_client(door: Door, era: Era) -> AsyncIterator[Client]:
    url = door.served.url + "/x/all/mcp"
    async with (
        httpx2.AsyncClient(headers=bearer(door.token), timeout=LIMIT_S, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), mode=era) as client,
    ):
        yield client


def mcp(era: Era) -> Callable[[Door], AbstractAsyncContextManager[Ask]]:
    @asynccontextmanager
    async def opening(door: Door) -> AsyncIterator[Ask]:
        async with mcp_client(door, era) as client:

            async def ask(name: str, arguments: dict[str, Any]) -> Answer:
                return data_of(await client.call_tool(name, arguments))

            yield ask

    return opening


DOORS = {
    "REST": rest,
    "WebSocket": websocket,
    "MCP, new era": mcp("auto"),
    "MCP, old era": mcp("legacy"),
}
ERAS: tuple[Era, ...] = ("auto", "legacy")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Things]]:
    """A folder with two worlds, that each test takes copies of."""
    folder = tmp_path_factory.mktemp("worlds") / "data"
    return folder, await two_worlds(folder)


@pytest.fixture
async def door(worlds: tuple[Path, dict[str, Things]], tmp_path: Path) -> AsyncIterator[Door]:
    async with door_on(worlds[0], tmp_path / "data") as found:
        yield found


def same_form(answer: Any, *given: str) -> str:
    """Write an answer without what was given, and without the id of the call."""

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: kept(v) for k, v in value.items() if k != "correlation_id"}
        return [kept(one) for one in value] if isinstance(value, list) else value

    return without(json.dumps(kept(answer), sort_keys=True, ensure_ascii=False), *given)


async def noted(door: Door, ask: Awaitable[Any]) -> tuple[Any, list[str]]:
    """Wait for an answer, and return it with the statements that it took."""
    door.statements.clear()
    answer = await ask
    return answer, [one for one in door.statements if one != WORLD_IS_THERE]


@pytest.mark.parametrize("name", DOORS)
async def test_through_every_door_what_is_of_a_closed_world_is_not_there(
    worlds: tuple[Path, dict[str, Things]], door: Door, name: str
) -> None:
    mine, other = worlds[1][OPEN], worlds[1][CLOSED]
    refused = [
        (operation, argument, kind, value)
        for operation, argument, kind in swept()
        if kind in MISSED and argument != "cursor" and (operation, argument) not in FILTERS
        for value in values_of(kind, other)[:1]
    ]
    async with DOORS[name](door) as ask:
        await ask("persona_list", {})  # what is done at the first call
        for operation, argument, kind, value in refused:
            nobodys = nobodys_of(argument, kind, value)
            theirs, nothing = [
                await noted(door, ask(operation, asking(operation, argument, asked, mine)))
                for asked in (value, nobodys)
            ]
            where = (operation, argument, theirs[0])
            assert same_form(theirs[0], value) == same_form(nothing[0], nobodys), where
            assert theirs[1] == nothing[1], where
            assert leaks(json.dumps(theirs[0]), other, [value]) == [], where
    assert {operation for operation, *_ in refused} == set(OPERATIONS)
    assert leaks(door.served.service.metrics.text(), other) == []


async def refusal(ask: Awaitable[Any]) -> Answer:
    """Return the error that a request of MCP must give."""
    with pytest.raises(MCPError) as caught:
        await ask
    return {"code": caught.value.code, "message": caught.value.message, "data": caught.value.data}


def addresses(there: Things) -> list[tuple[str, str]]:
    """Write the addresses of a world's things, each with the id that is in it."""
    of = {**there.of, "relationship": there.of["persona"]}
    found = []
    for scheme, kind in KINDS.items():
        id = of[scheme][0]
        path = "/".join([id] * len(kind.variables))
        found.append((f"{scheme}://{path}", id))
    return found


@pytest.mark.parametrize("era", ERAS)
async def test_resources_and_prompts_of_a_closed_world_are_not_there(
    worlds: tuple[Path, dict[str, Things]], door: Door, era: Era
) -> None:
    other = worlds[1][CLOSED]
    async with mcp_client(door, era) as client:
        listed = [await client.list_resources(), await client.list_prompts()]
        asked = [
            (
                refusal(client.read_resource(uri)),
                refusal(client.read_resource(uri.replace(id, like(id)))),
                (id, like(id)),
            )
            for uri, id in addresses(other)
            if not uri.startswith("world:")
        ]
        own = f"persona://{worlds[1][OPEN].of['persona'][0]}"
        asked += [
            (
                refusal(client.read_resource(address.format(CLOSED))),
                refusal(client.read_resource(address.format(NOWHERE))),
                (CLOSED, NOWHERE),
            )
            for address in ("world://{}", own + "?world={}")
        ]
        id = other.of["persona"][0]
        asked += [
            (
                refusal(client.get_prompt(f"be_{id}")),
                refusal(client.get_prompt(f"be_{like(id)}")),
                (id, like(id)),
            ),
            (
                refusal(client.get_prompt("be_persona", {"persona_id": id})),
                refusal(client.get_prompt("be_persona", {"persona_id": like(id)})),
                (id, like(id)),
            ),
        ]
        for theirs, nobodys, (given, instead) in asked:
            one, other_one = await noted(door, theirs), await noted(door, nobodys)

            assert same_form(one[0], given) == same_form(other_one[0], instead)
            assert one[1] == other_one[1]
            assert leaks(json.dumps(one[0]), other, [given]) == []

    assert leaks(" ".join(one.model_dump_json() for one in listed), other) == []
    assert CLOSED not in " ".join(one.model_dump_json() for one in listed)


@pytest.mark.parametrize("era", ERAS)
async def test_nothing_of_a_closed_world_is_proposed(
    worlds: tuple[Path, dict[str, Things]], door: Door, era: Era
) -> None:
    other = worlds[1][CLOSED]
    begun = ["", *(values[0][:4] for values in other.of.values())]
    first = other.of["persona"][0]
    asked: list[tuple[PromptReference | ResourceTemplateReference, str, dict[str, str] | None]] = [
        (ResourceTemplateReference(uri=template_of(scheme)), variable, context)
        for scheme, variable in ADDRESSED
        for context in (None, {"a": first})
    ]
    asked += [
        (PromptReference(name=prompt), variable, context)
        for variable in PROMPTED
        for context in (None, {"persona_id": first})
        for prompt in ("be_persona", f"be_{first}")
    ]
    async with mcp_client(door, era) as client:
        told = [
            await client.complete(reference, {"name": variable, "value": value}, context)
            for value in begun
            for reference, variable, context in asked
        ]
    shown = " ".join(one.model_dump_json() for one in told)

    assert leaks(shown, other) == []
    assert CLOSED not in shown
    assert OPEN in shown


@pytest.fixture
async def streams(worlds: tuple[Path, dict[str, Things]], door: Door) -> list[str]:
    """Streams of a closed world: another caller's, and one of this caller's own of before."""
    service, there = door.served.service, worlds[1][CLOSED]
    [known] = await service.tokens.all()
    insider = replace(known.identity, worlds=frozenset({CLOSED}))
    somebody = Identity("t_other", "other", known.identity.scopes)
    given = {"world_id": CLOSED, "persona_id": there.of["persona"][0], "message": "Hello."}
    found = []
    for identity in (somebody, insider):
        said = await call_operation(service, "persona_chat", given, Caller(identity=identity))
        run = service.runs.latest(CLOSED, said["exchange_id"])
        assert run is not None
        found.append(run.stream_id)
    return found


async def body_of(answer: Awaitable[httpx.Response]) -> Answer:
    found = await answer
    return {"status": found.status_code, **found.json()}


async def test_streams_of_a_closed_world_are_not_there(door: Door, streams: list[str]) -> None:
    headers = {"Last-Event-ID": "0"}
    async with (
        showing(door.served, door.token) as client,
        connected(door.served, additional_headers=bearer(door.token)) as socket,
    ):
        await socket.ask("session.get_info")
        for id in streams:
            ways: tuple[Callable[[str], Awaitable[Answer]], ...] = (
                lambda one: body_of(client.get(f"{STREAM}/{one}")),
                lambda one: body_of(client.get(f"{STREAM}/{one}", headers=headers)),
                lambda one: body_of(client.delete(f"{STREAM}/{one}")),
                lambda one: socket.error(CANCEL, {"stream_id": one}),
            )
            for ask in ways:
                theirs, nobodys = await noted(door, ask(id)), await noted(door, ask(like(id)))

                assert same_form(theirs[0], id) == same_form(nobodys[0], like(id))
                assert theirs[1] == nobodys[1]
                assert "not found" in json.dumps(theirs[0])


async def test_a_stream_is_begun_with_nothing_of_a_closed_world(
    worlds: tuple[Path, dict[str, Things]], door: Door
) -> None:
    mine, other = worlds[1][OPEN], worlds[1][CLOSED]
    async with (
        showing(door.served, door.token) as client,
        connected(door.served, additional_headers=bearer(door.token)) as socket,
    ):
        await socket.ask("session.get_info")
        ways: tuple[Callable[[dict[str, Any]], Awaitable[Answer]], ...] = (
            lambda given: body_of(client.post(STREAM, json=given)),
            lambda given: socket.error(STREAMED, given),
        )
        for operation, argument, kind in swept():
            if operation != "persona_chat" or kind not in MISSED:
                continue
            for value in values_of(kind, other):
                nobodys = nobodys_of(argument, kind, value)
                for ask in ways:
                    theirs, nothing = [
                        await noted(door, ask(asking(operation, argument, asked, mine)))
                        for asked in (value, nobodys)
                    ]

                    assert same_form(theirs[0], value) == same_form(nothing[0], nobodys)
                    assert theirs[1] == nothing[1]
                    assert leaks(json.dumps(theirs[0]), other, [value]) == []


async def test_the_last_event_of_another_worlds_request_is_of_none(
    worlds: tuple[Path, dict[str, Things]], door: Door, streams: list[str]
) -> None:
    mine, other = worlds[1][OPEN], worlds[1][CLOSED]
    given = {"persona_id": mine.of["persona"][0], "message": "Hello.", "user_id": "somebody"}
    async with showing(door.served, door.token) as client:
        told = []
        for request_id in (other.of["request"][0], like(other.of["request"][0])):
            body = {**given, "request_id": request_id}
            answer = await client.post(STREAM, json=body, headers={"Last-Event-ID": "1"})
            told.append(answer.text)

    assert all("stream_complete" in one and "stream_start" in one for one in told)
    assert leaks(told[0], other, [other.of["request"][0]]) == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_who_may_not_chat_takes_no_stream_up(door: Door, method: str) -> None:
    token = await token_of(door.served.service, "reader", ["read"], [OPEN])
    async with showing(door.served, token) as client:
        answer = await client.request(method, f"{STREAM}/{'a' * 32}")

    assert answer.status_code == 403


async def test_health_tells_who_may_read_some_worlds_no_counts_of_all(door: Door) -> None:
    async with showing(door.served, door.token) as client:
        answer = await client.get("/health/ready")

    assert answer.json() == {"status": "ok"}
