"""A model server that misbehaves, through the whole service, in both forms on the wire."""

import time
from collections.abc import AsyncIterator

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.errors import PersonaError
from tests.calls import call, remembered, rows, say
from tests.config import model_calls
from tests.doubles import WordEmbedder
from tests.model_server import Behaviour, ModelServer

pytestmark = pytest.mark.anyio

LIMIT_S = 2.0
MARGIN_S = 3.0
"""For a machine that is busy with other things."""
HALF = 4


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as running:
        yield running


@pytest.fixture(params=["ollama:llama3.1", "openai:llama3.1"])
async def service(
    request: pytest.FixtureRequest, settings: Settings, server: ModelServer
) -> AsyncIterator[Service]:
    limits = dict.fromkeys(("connect_s", "first_token_s", "idle_s"), LIMIT_S)
    llm = model_calls.settings(server, request.param, **limits)
    given = settings.model_copy(update={"llm": llm})
    async with open_service(given, embedder=WordEmbedder()) as opened:
        yield opened


@pytest.mark.parametrize(
    ("behaviour", "partial"),
    [
        (Behaviour(fault="hang_before_headers"), None),
        (Behaviour(fault="hang_after_headers"), None),
        (Behaviour(status=500), None),
        (Behaviour(fault="drop", after=HALF), "Well met, traveller, sit"),
        (Behaviour(fault="silence", after=HALF), "Well met, traveller, sit"),
        (Behaviour(fault="error_line", after=HALF), "Well met, traveller, sit"),
        (Behaviour(fault="garbage", after=HALF), "Well met, traveller, sit"),
    ],
    ids=lambda value: value.fault or str(value.status) if isinstance(value, Behaviour) else "",
)
async def test_a_model_that_fails_is_named_in_time_and_leaves_nothing_but_its_partial_text(
    service: Service, server: ModelServer, behaviour: Behaviour, partial: str | None
) -> None:
    first = await say(service, "Good evening.")
    where = first["conversation_id"]
    before = await remembered(service.database)
    server.script(behaviour)
    started = time.monotonic()

    with pytest.raises(PersonaError) as failed:
        await say(service, "My cat is called Biscuit.", conversation_id=where, request_id="r1")

    assert time.monotonic() - started < LIMIT_S + MARGIN_S
    provider = service.settings.llm.model
    assert provider in failed.value.message
    assert "/srv/secret" not in failed.value.message
    assert failed.value.retryable
    assert await remembered(service.database) == before
    found = await call(service, "conversation_get", conversation_id=where)
    kept = found["exchanges"][-1]
    assert (kept["status"], kept["partial"]) == ("failed", partial)
    assert kept["error"]["message"] == failed.value.message

    again = await say(service, "My cat is called Biscuit.", conversation_id=where, request_id="r1")

    assert (again["status"], again["turn_number"]) == ("done", 4)
    exchanges = await rows(service.database, tables.Exchange)
    assert [exchange["status"] for exchange in exchanges] == ["done", "done"]
    assert len(await rows(service.database, tables.Turn)) == 4
