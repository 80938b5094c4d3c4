"""PostgreSQL goes away, comes back, or stands still: what callers and /health/ready are told."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from benchmarks.bookkeeping import faults
from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.errors import StorageUnavailable
from tests.calls import say
from tests.doubles import Hangs, ScriptedModel, WordEmbedder
from tests.http_server import CHAT, Served, served, soon, with_limits
from tests.postgres import Postgres, on_postgres, stored

pytestmark = pytest.mark.anyio

QUICK = {"connect_s": 2.0, "statement_s": 1.0, "pool_s": 2.0, "busy_s": 2.0, "idle_s": 5.0}
WITHIN_S = 30.0
"""Longer than any one limit, and shorter than two minutes of silence."""


@pytest.fixture
def chosen(settings: Settings, postgres: Postgres, migrated_url: str) -> Settings:
    return on_postgres(settings, migrated_url, **QUICK)


@pytest.fixture
async def service(chosen: Settings, model: ScriptedModel) -> AsyncIterator[Service]:
    async with open_service(chosen, model=model, embedder=WordEmbedder()) as opened:
        yield opened


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(with_limits(service, checks_kept_s=0.0, check_s=1.0)) as running:
        yield running


async def ready(found: Served) -> tuple[int, dict[str, Any]]:
    async with found.client() as client:
        answer = await client.get("/health/ready")
    check: dict[str, Any] = answer.json()["checks"]["database"]
    return answer.status_code, check


async def chat(found: Served, request_id: str) -> tuple[int, dict[str, Any]]:
    body = {"persona_id": "aria", "message": f"I am {request_id}.", "request_id": request_id}
    async with found.client() as client:
        answer = await client.post(CHAT, json=body)
    return answer.status_code, answer.json()


async def is_ready(found: Served) -> bool:
    return (await ready(found))[0] == 200


async def test_while_it_is_away_nobody_is_served_and_each_is_told_and_then_all_goes_on(
    found: Served, model: ScriptedModel, postgres: Postgres, chosen: Settings
) -> None:
    model.add("Here.", "And here.")
    assert await is_ready(found)
    assert (await chat(found, "r1"))[0] == 200

    with postgres.stopped():
        began = time.monotonic()
        status, check = await ready(found)
        assert (status, check["ok"]) == (503, False)
        assert "PostgreSQL did not answer" in check["detail"] or "within 1 s" in check["detail"]
        refused, error = await chat(found, "r2")
        assert time.monotonic() - began < WITHIN_S

    assert (refused, error["error"]["data"]["code"]) == (503, "memory_error")
    assert "PostgreSQL did not answer" in error["error"]["message"]
    assert error["error"]["data"]["retryable"] is True
    await soon(lambda: is_ready(found), "the server to be ready")
    assert (await chat(found, "r2"))[0] == 200
    assert await faults(chosen, {"r1", "r2"}) == []


async def test_a_restart_while_the_model_replies_costs_nothing(
    service: Service, model: ScriptedModel, postgres: Postgres, chosen: Settings
) -> None:
    hanging = Hangs(after="I was away for a moment.")
    model.add(hanging)
    asked = asyncio.create_task(say(service, "Are you there?", request_id="r1"))
    await hanging.reached.wait()

    await asyncio.to_thread(postgres.restart)
    hanging.release.set()

    assert (await asked)["status"] == "done"
    assert await faults(chosen, {"r1"}) == []


async def test_an_exchange_that_cannot_be_stored_fails_and_is_done_once_when_it_is_sent_again(
    service: Service, model: ScriptedModel, postgres: Postgres, chosen: Settings, migrated_url: str
) -> None:
    hanging = Hangs(after="Nobody will hear this.")
    model.add(hanging, "Now I am heard.")
    asked = asyncio.create_task(say(service, "Are you there?", request_id="r1"))
    await hanging.reached.wait()

    with postgres.stopped():
        hanging.release.set()
        with pytest.raises(StorageUnavailable, match="PostgreSQL did not answer"):
            await asked

    said = await say(service, "Are you there?", request_id="r1")

    assert said["response"] == "Now I am heard."
    assert await faults(chosen, {"r1"}) == []
    assert stored(migrated_url, "SELECT status FROM exchanges") == [("done",)]


async def test_a_server_that_stands_still_holds_nobody_longer_than_the_limits(
    found: Served, model: ScriptedModel, postgres: Postgres, chosen: Settings
) -> None:
    model.add("Before.", *["After."] * 5)
    assert (await chat(found, "r0"))[0] == 200

    with postgres.paused():
        began = time.monotonic()
        (status, check), *answers = await asyncio.gather(
            ready(found), *(chat(found, f"r{number}") for number in range(1, 5))
        )
        took = time.monotonic() - began

    assert (status, check["ok"]) == (503, False)
    assert {status for status, _ in answers} == {503}
    assert {error["error"]["data"]["code"] for _, error in answers} == {"memory_error"}
    assert took < WITHIN_S
    await soon(lambda: is_ready(found), "the server to be ready")
    for number in range(1, 5):
        assert (await chat(found, f"r{number}"))[0] == 200
    assert await faults(chosen, {f"r{number}" for number in range(5)}) == []


async def test_a_process_that_stands_still_in_a_write_holds_others_up_for_a_set_time_only(
    service: Service, model: ScriptedModel, chosen: Settings, migrated_url: str
) -> None:
    model.add("At last.")
    silent = open_database(on_postgres(chosen, migrated_url, idle_s=1.0))
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(StorageUnavailable, match="nothing was asked"))
        connection = stack.enter_context(silent.writing())

        said = await say(service, "Is it my turn?", request_id="r1")

        connection.execute(select(1))
    assert said["status"] == "done"
    assert await faults(chosen, {"r1"}) == []
    await silent.aclose()
