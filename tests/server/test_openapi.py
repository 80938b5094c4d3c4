"""The REST door against its own description: schemathesis calls it as wildly as the schemas allow.

Also with what they do not allow. Nothing may be answered with a 500, nor in a form, with a status
or of a type that the description has not.
"""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.reference_world import Answer, Played, asked, play, small_world
from persona_mcp.server.rest import PREFIX, STREAM, path_of
from tests.http_server import LIMIT_S, served

pytestmark = [pytest.mark.xdist_group("openapi"), pytest.mark.filterwarnings("default")]

EXAMPLES = 6
"""Calls of each operation and mode; they are the same in every run."""
WHERE = ("world_id", "session_id")
"""Left out of the calls that should be good, or all of them would end at a world of no name."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NAMES = [operation.name for operation in operations("all")]


@dataclass
class Running:
    """An app that is served in a thread, after all examples."""

    url: str = ""
    schema: BaseSchema | None = None
    played: dict[str, Played] | None = None


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    found, ready, ended = Running(), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with small_world() as service, served(service) as there:

            async def ask(name: str, arguments: dict[str, Any]) -> Answer:
                return await asked(service, name, arguments)

            found.played = await play(ask)
            found.schema = schemathesis.openapi.from_dict(there.app.openapi())
            found.url = there.url
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="app")
    thread.start()
    try:
        assert ready.wait(LIMIT_S)
        yield found
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(LIMIT_S)


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", [*NAMES, "persona_chat_stream"])
def test_no_call_is_answered_outside_of_the_description(
    running: Running, name: str, mode: GenerationMode
) -> None:
    assert running.schema is not None
    assert running.played is not None
    path = STREAM if name not in NAMES else path_of(name)
    example = running.played[name].arguments if name in NAMES else {}
    ids = {field: value for field, value in example.items() if field.endswith("_id")}
    described = running.schema[PREFIX + path]["POST"]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described.as_strategy(generation_mode=mode))
    def calls(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            kept = {key: value for key, value in case.body.items() if key not in WHERE}
            case.body = {**kept, **ids}
        response = case.call(base_url=running.url, timeout=LIMIT_S)
        case.validate_response(response, checks=CHECKS)

    calls()
