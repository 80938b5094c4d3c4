"""Every operation through every door: the same result, and the same error for the same bad call.

The calls are those of `server/reference_examples.py`, in their order, on a new data folder for each
door; beside them some wrong arguments of each operation. What comes back is compared with what the
operations themselves answer.
"""

import json
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client import Client

from persona_mcp.config.settings import Settings
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.reference_pages import MEASURED, Shown
from persona_mcp.server.reference_world import LINES, Answer, Ask, asked, play, settled
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.rpc_methods import method_of
from persona_mcp.server.service import open_service
from tests.http_server import Served, served
from tests.mcp_client import Era, data_of
from tests.model_server import Behaviour, ModelServer
from tests.processes import PERSONA, environment, model_server, variables
from tests.rpc_client import connected as socket_to
from tests.wrong_arguments import wrong_values

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("every door")]

OPERATIONS = operations("all")
SAMPLE = 3
"""Of the wrong arguments of each operation: every so many that there are this many of them."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+")
CLOSE = 0.05
"""Numbers change with the time between two calls, which is not the same twice."""
OF_THE_CALL = {"correlation_id"}
OF_THE_MOMENT = ("session_id", "modification_date")
"""Fields that are of one folder and its clock: a handle, and when a card's persona was made."""
UNFIT = re.compile(r"\b(NaN|Infinity)\b")
"""What Python writes for numbers that JSON has not."""
Opening = Callable[[Path, ModelServer], AbstractAsyncContextManager[Ask]]


def given(folder: Path, server: ModelServer) -> dict[str, str]:
    """Name the settings of a server with the scripted model and a small embedder."""
    words = {
        "PERSONA_EMBEDDER__MODEL": "openai:words",
        "PERSONA_EMBEDDER__OPENAI_URL": server.openai_url,
    }
    return variables(folder, server.openai_url, **words)


def settings_in(folder: Path, server: ModelServer) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given(folder, server).items():
            patch.setenv(name, value)
        return Settings(_env_file=None)


@asynccontextmanager
async def here(folder: Path, server: ModelServer) -> AsyncIterator[Ask]:
    """Call the operations themselves."""
    async with open_service(settings_in(folder, server)) as service:

        async def ask(name: str, arguments: dict[str, Any]) -> Answer:
            return await asked(service, name, arguments)

        yield ask


@asynccontextmanager
async def app_in(folder: Path, server: ModelServer) -> AsyncIterator[Served]:
    async with open_service(settings_in(folder, server)) as service, served(service) as found:
        yield found


@asynccontextmanager
async def rest(folder: Path, server: ModelServer) -> AsyncIterator[Ask]:
    async with app_in(folder, server) as found, found.client() as client:

        async def ask(name: str, arguments: dict[str, Any]) -> Answer:
            answer = await client.post(PREFIX + path_of(name), json=arguments)
            body: Answer = answer.json()
            return {"result": body} if answer.is_success else body

        yield ask


@asynccontextmanager
async def websocket(folder: Path, server: ModelServer) -> AsyncIterator[Ask]:
    """Over a connection for each call: its session is its own, and no part of the call."""
    async with app_in(folder, server) as found:

        async def ask(name: str, arguments: dict[str, Any]) -> Answer:
            async with socket_to(found) as client:
                told = await client.ask(method_of(name), arguments)
            assert told.pop("jsonrpc") == "2.0"
            return {key: value for key, value in told.items() if key != "id"}

        yield ask


def tools(client: Client) -> Ask:
    async def ask(name: str, arguments: dict[str, Any]) -> Answer:
        result = await client.call_tool(name, arguments)
        return data_of(result) if result.is_error else {"result": data_of(result)}

    return ask


def mcp_over_http(era: Era) -> Opening:
    @asynccontextmanager
    async def opened(folder: Path, server: ModelServer) -> AsyncIterator[Ask]:
        async with (
            app_in(folder, server) as found,
            Client(found.url + "/x/all/mcp", mode=era) as client,
        ):
            yield tools(client)

    return opened


@asynccontextmanager
async def stdio(folder: Path, server: ModelServer) -> AsyncIterator[Ask]:
    parameters = StdioServerParameters(
        command=PERSONA,
        args=["mcp", "--toolset", "all"],
        env=environment(**given(folder, server)),
    )
    async with Client(parameters, mode="auto") as client:
        yield tools(client)


DOORS: dict[str, Opening] = {
    "MCP stdio": stdio,
    "MCP HTTP, new era": mcp_over_http("auto"),
    "MCP HTTP, old era": mcp_over_http("legacy"),
    "REST": rest,
    "WebSocket": websocket,
}


async def all_calls(opening: Opening, folder: Path) -> dict[str, list[Any]]:
    """Make all calls through a door, and return what came, operation by operation."""
    with model_server(dimension=64) as server:
        server.script(*(Behaviour(text=text) for text in LINES * 3))
        async with opening(folder, server) as ask:
            played = await play(settled(ask))
            found = {}
            for operation in OPERATIONS:
                its, shown = played[operation.name], Shown()
                answers = [its.answer, *(answer for _, answer in its.refused)]
                answers += [
                    await ask(operation.name, {**its.arguments, **wrong})
                    for wrong in sample(operation.input_schema)
                ]
                found[operation.name] = [shown(answer) for answer in answers]
            return found


def sample(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Choose some wrong arguments that JSON can carry, an unknown one among them."""
    found: list[dict[str, Any]] = [{"nobody_knows_it": 1}]
    for field, member in schema["properties"].items():
        for _, value in wrong_values(member, schema):
            if not UNFIT.search(json.dumps(value)):
                found.append({field: value})
    return found[:: max(1, len(found) // SAMPLE)]


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Name the places where two answers differ in more than the time at which they were given."""
    field = path.rsplit(".", 1)[-1]
    if type(one) is not type(other):
        return [f"{path}: {one!r} is not {other!r}"]
    if MEASURED.search(field) or field in OF_THE_MOMENT:
        return []
    if isinstance(one, dict):
        odd = (one.keys() ^ other.keys()) - OF_THE_CALL
        names = [f"{path}: only one has {name}" for name in odd]
        both = (
            differences(one[n], other[n], f"{path}.{n}")
            for n in (one.keys() & other.keys()) - OF_THE_CALL
        )
        return names + [d for found in both for d in found]
    if isinstance(one, list):
        if len(one) != len(other):
            return [f"{path}: {len(one)} entries, not {len(other)}"]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, f"{path}.{n}")]
    if isinstance(one, float):
        same = math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    elif isinstance(one, str):
        same = timeless(one) == timeless(other)
    else:
        same = one == other
    return [] if same else [f"{path}: {one!r} is not {other!r}"]


def timeless(text: str) -> str:
    return NUMBER.sub("number", TIME.sub("time", text))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What the operations answer without any door."""
    return await all_calls(here, tmp_path_factory.mktemp("here"))


@pytest.mark.parametrize("door", DOORS)
async def test_a_door_answers_every_call_as_the_operation_does(
    expected: dict[str, list[Any]], tmp_path: Path, door: str
) -> None:
    found = await all_calls(DOORS[door], tmp_path / "data")

    assert {name: len(answers) for name, answers in found.items()} == {
        name: len(answers) for name, answers in expected.items()
    }
    assert differences(found, expected) == []


def test_the_calls_hold_a_result_and_a_refusal_of_every_operation(
    expected: dict[str, list[Any]],
) -> None:
    for name, [good, *others] in expected.items():
        assert "result" in good, (name, good)
        assert any("error" in other for other in others), name
    json.dumps(expected)
