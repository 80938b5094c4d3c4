"""Batches in the background within the limits of who asked for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from persona_mcp.config.limit_settings import LimitSettings
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.borrowed_model import BorrowedModel
from persona_mcp.server.operations.registry import Caller, call_operation
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.callers import LOCAL, SCOPES, Identity, current_caller, known_as
from persona_mcp.state.errors import RateLimited
from persona_mcp.state.model import Message, Sampling
from tests.calls import call
from tests.dialogues import LINES, QUICK, ended, said, status, talk
from tests.doubles import Fails, Says, ScriptedModel, WordEmbedder
from tests.http_server import soon

pytestmark = pytest.mark.anyio

ANN = Identity("ann", "Ann", frozenset(SCOPES))


@asynccontextmanager
async def process(
    settings: Settings, model: ScriptedModel, **limits: Any
) -> AsyncIterator[Service]:
    """Open a service as another process would."""
    chosen = {"dialogues": QUICK, "limits": LimitSettings(**limits)}
    async with open_service(settings.model_copy(update=chosen), model, WordEmbedder()) as service:
        yield service


async def waits(service: Service, id: str) -> dict[str, Any]:
    """Wait until a dialogue has been put off, and say why."""

    async def put_off() -> dict[str, Any] | None:
        found = await status(service, id)
        return found if found["status"] == "queued" and found["error"] else None

    found: dict[str, Any] = await soon(put_off, "the dialogue to be put off")
    return found


async def test_a_batch_whose_caller_has_no_tokens_left_waits_and_goes_on_where_it_was(
    settings: Settings,
) -> None:
    poor = ScriptedModel(Says(LINES[0], 40), Says(LINES[1], 40))
    rich = ScriptedModel(*(Says(line, 40) for line in LINES[2:4]))
    async with process(settings, poor, tokens_day=100) as service:
        caller = Caller(identity=ANN)
        id = (await call_operation(service, "dialogue_start", talk(), caller))["dialogue_id"]
        found = await waits(service, id)
        await call(service, "persona_list")  # nothing else is held up
    async with process(settings, rich, tokens_day=1000) as service:
        done = await ended(service, id)
        lines = await said(service, id)
        spent = await service.limits.spending.today()

    assert found["error"]["code"] == -32009
    assert found["error"]["message"].startswith("80 of the 100 tokens")
    assert (done["status"], done["error"]) == ("completed", None)
    assert lines == list(LINES[:4])
    assert len(poor.history) == 2
    assert spent == {"ann": 160}


async def test_a_batch_waits_out_a_short_limit_and_is_held_to_its_end(settings: Settings) -> None:
    model = ScriptedModel(*LINES[:4])
    async with process(settings, model, model_rate="2/second") as service:
        id = (await call_operation(service, "dialogue_start", talk(), Caller(identity=ANN)))[
            "dialogue_id"
        ]
        done = await ended(service, id)
        refused = service.limits.refused["model_rate"]

    assert done["status"] == "completed"
    assert refused >= 1


async def test_what_time_does_not_help_with_is_raised_and_without_a_batch_so_is_a_long_wait() -> (
    None
):
    errors = [RateLimited("later", retry_after_seconds=3600.0), RateLimited("never")]
    model = BorrowedModel(ScriptedModel(*map(Fails, errors)))

    for error in errors:
        with pytest.raises(RateLimited) as raised:
            async for _ in model.stream([Message("user", "Hello.")], Sampling(10, 1.0)):
                pass
        assert raised.value is error


async def test_work_in_the_background_is_done_for_who_is_named_and_may_nothing() -> None:
    assert known_as("local") is LOCAL
    assert (known_as("ann").id, known_as("ann").scopes) == ("ann", frozenset())
    assert await asyncio.to_thread(current_caller) is LOCAL
