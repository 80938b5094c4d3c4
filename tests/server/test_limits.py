"""Every setting of `limits`, crossed through a door: what is over it is told when to come back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import httpx
import pytest
from pydantic import SecretStr

from persona_mcp.config.limit_settings import LimitedToolset, LimitSettings
from persona_mcp.config.settings import LLMSettings, Settings
from persona_mcp.server.operations.registry import Caller, Toolset, call_operation, operation_named
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import access_tables, tables
from persona_mcp.state.callers import SCOPES, Identity
from persona_mcp.state.errors import RateLimited
from persona_mcp.state.spending import day_of
from tests.calls import rows
from tests.doubles import Hangs, Says, ScriptedModel, WordEmbedder
from tests.http_server import API, STREAM, Served, served, soon, streaming, until
from tests.mcp_client import Way, error_of, talking
from tests.model_server import ModelServer
from tests.redis_server import free_port
from tests.rpc_client import connected
from tests.work import work_counted

pytestmark = pytest.mark.anyio

LIST = f"{API}/persona/list"
CHAT = f"{API}/persona/chat"
HELLO = {"persona_id": "aria", "message": "Hello."}
ANN = Identity("ann", "Ann", frozenset(SCOPES))
BOB = Identity("bob", "Bob", frozenset(SCOPES))


@asynccontextmanager
async def opened(
    settings: Settings, model: ScriptedModel, **limits: Any
) -> AsyncIterator[tuple[Service, Served, httpx.AsyncClient]]:
    """Serve with these limits, which hold for whoever works at this machine too."""
    chosen = LimitSettings(**{"local": True, "note_s": 0.05, **limits})
    settings = settings.model_copy(update={"limits": chosen})
    async with (
        open_service(settings, model, WordEmbedder()) as service,
        served(service) as found,
        found.client() as client,
    ):
        yield service, found, client


def refusal(answer: httpx.Response, limit: str, status: int = 429) -> dict[str, Any]:
    """Check how an answer refuses, and return what it says."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["data"]["limit"] == limit
    told_s = error["data"]["retry_after_seconds"]
    assert told_s - 1 < int(answer.headers["Retry-After"]) == max(1, -int(-told_s // 1))
    assert f"PERSONA_LIMITS__{limit.upper()}" in error["message"]
    return error


def test_rates_are_for_the_toolsets_that_there_are() -> None:
    assert get_args(LimitedToolset) == get_args(Toolset)


async def test_calls_over_the_rate_are_refused_at_every_door_alike(
    settings: Settings, model: ScriptedModel
) -> None:
    async with opened(settings, model, rate="3/minute") as (service, found, client):
        passed = [(await client.post(LIST, json={})).status_code for _ in range(3)]
        over = refusal(await client.post(LIST, json={}), "rate")
        async with connected(found) as socket:
            told = await socket.error("persona.list", {})
        async with talking(service, Way("http", "auto")) as host:
            result = error_of(await host.call_tool("persona_list", {}))
        async with client.stream("POST", STREAM, json=HELLO) as stream:
            await stream.aread()
        other = await client.post(f"{API}/memory/stats", json={"persona_id": "aria"})

    assert passed == [200] * 3
    assert over["code"] == told["code"] == result["code"] == -32008
    assert over["data"]["code"] == result["data"]["code"] == "rate_limited"
    assert over["data"]["allowed"] == told["data"]["allowed"] == "3/minute"
    assert over["message"].startswith(
        "allowed are 3/minute calls of yours in the toolset persona; come back in "
    )
    assert stream.status_code == 429
    assert other.status_code != 429, "another toolset has a rate of its own"


async def test_a_toolset_may_have_a_rate_of_its_own(
    settings: Settings, model: ScriptedModel
) -> None:
    limits = {"rate": "1/hour", "rates": {"persona": "2/hour", "memory": ""}}
    async with opened(settings, model, **limits) as (_, _found, client):
        passed = [(await client.post(LIST, json={})).status_code for _ in range(2)]
        refusal(await client.post(LIST, json={}), "rates")
        stats = [
            (await client.post(f"{API}/memory/list", json={"persona_id": "aria"})).status_code
            for _ in range(3)
        ]

    assert (passed, stats) == ([200] * 2, [200] * 3)


async def test_one_caller_does_not_use_up_what_another_has(
    settings: Settings, model: ScriptedModel
) -> None:
    async with opened(settings, model, rate="1/hour") as (service, _, _client):
        await call_operation(service, "persona_list", {}, Caller(identity=ANN))
        with pytest.raises(RateLimited):
            await call_operation(service, "persona_list", {}, Caller(identity=ANN))
        await call_operation(service, "persona_list", {}, Caller(identity=BOB))


async def test_who_works_at_this_machine_is_not_counted_unless_that_is_wished_for(
    settings: Settings, model: ScriptedModel
) -> None:
    limits = {"local": False, "rate": "1/hour", "calls_caller": 1, "tokens_day": 51}
    model.add(Says("One.", 1000), "Two.")
    async with opened(settings, model, **limits) as (service, _, client):
        local = [(await client.post(LIST, json={})).status_code for _ in range(3)]
        said = [(await client.post(CHAT, json=HELLO)).status_code for _ in range(2)]
        await call_operation(service, "persona_list", {}, Caller(identity=ANN))
        with pytest.raises(RateLimited):
            await call_operation(service, "persona_list", {}, Caller(identity=ANN))

    assert (local, said) == ([200] * 3, [200] * 2)


async def test_what_says_how_the_server_is_is_never_refused(
    settings: Settings, model: ScriptedModel
) -> None:
    limits = {"rate": "1/hour", "calls": 1, "waiting": 0}
    line = Hangs(after="Well.")
    model.add(line)
    async with opened(settings, model, **limits) as (_, _found, client):
        talk = asyncio.create_task(client.post(CHAT, json=HELLO))
        await line.reached.wait()
        refused = await client.post(LIST, json={})
        looks = [
            (await client.post(f"{API}/system/{name}", json={})).status_code
            for name in ("health", "status", "metrics") * 2
        ]
        looks += [(await client.get(f"/health/{name}")).status_code for name in ("live", "ready")]
        line.release.set()
        await talk

    assert refused.status_code == 429
    assert looks == [200] * 8


async def test_the_model_is_asked_no_more_often_than_its_rate(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add("One.", "Two.")
    async with opened(settings, model, local=False, model_rate="2/minute") as (_, _found, client):
        said = [(await client.post(CHAT, json=HELLO)).status_code for _ in range(2)]
        over = refusal(await client.post(CHAT, json=HELLO), "model_rate")

    assert said == [200] * 2
    assert "calls of the model for everybody together" in over["message"]
    assert len(model.history) == 2


async def test_one_caller_has_a_rate_at_the_model_and_no_share_of_anothers(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add("One.", "Two.")
    async with opened(settings, model, model_rate_caller="1/minute") as (service, _, client):
        await client.post(CHAT, json=HELLO)
        refusal(await client.post(CHAT, json=HELLO), "model_rate_caller")
        theirs = await call_operation(service, "persona_chat", HELLO, Caller(identity=BOB))

    assert theirs["response"] == "Two."


async def test_a_reply_that_is_asked_for_again_is_no_call_of_the_model(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add(Says("One.", 7))
    again = {**HELLO, "request_id": "r1"}
    async with opened(settings, model, model_rate="1/hour", tokens_day=58) as (_, _found, client):
        said = [(await client.post(CHAT, json=again)).json()["response"] for _ in range(3)]
        metrics = (await client.post(f"{API}/system/metrics", json={})).json()

    assert said == ["One."] * 3
    assert metrics["limits"]["tokens_today"] == {"local": 7}


async def test_no_more_calls_of_a_caller_are_under_way_than_may(
    settings: Settings, model: ScriptedModel
) -> None:
    line = Hangs(after="Well.")
    model.add(line)
    async with opened(settings, model, calls_caller=1) as (service, _, client):
        talk = asyncio.create_task(client.post(CHAT, json=HELLO))
        await line.reached.wait()
        refusal(await client.post(LIST, json={}), "calls_caller")
        await call_operation(service, "persona_list", {}, Caller(identity=BOB))
        line.release.set()
        done = await talk
        after = await client.post(LIST, json={})

    assert (done.status_code, after.status_code) == (200, 200)


async def test_calls_beyond_all_places_wait_and_those_beyond_these_are_refused(
    settings: Settings, model: ScriptedModel
) -> None:
    line = Hangs(after="Well.")
    model.add(line)
    limits = {"calls": 1, "waiting": 1, "wait_s": 60.0}
    async with opened(settings, model, **limits) as (service, _, client):
        talk = asyncio.create_task(client.post(CHAT, json=HELLO))
        await line.reached.wait()
        patient = asyncio.create_task(client.post(LIST, json={}))

        async def waits() -> bool:
            return service.limits.under_way["calls_waiting"] == 1

        await soon(waits, "the second call to wait")
        over = refusal(await client.post(LIST, json={}), "waiting")
        line.release.set()
        done = [(await one).status_code for one in (talk, patient)]

    assert done == [200, 200]
    assert over["data"]["allowed"] == 1


async def test_a_call_that_finds_no_place_in_time_is_refused(
    settings: Settings, model: ScriptedModel
) -> None:
    line = Hangs(after="Well.")
    model.add(line)
    async with opened(settings, model, calls=1, wait_s=0.1) as (_, _found, client):
        talk = asyncio.create_task(client.post(CHAT, json=HELLO))
        await line.reached.wait()
        over = refusal(await client.post(LIST, json={}), "calls")
        line.release.set()
        await talk

    assert "none of them was free within 0.1 s" in over["message"]


@pytest.mark.parametrize(("limit", "local"), [("streams", False), ("streams_caller", True)])
async def test_no_more_streams_are_open_than_may_be(
    settings: Settings, model: ScriptedModel, limit: str, local: bool
) -> None:
    line = Hangs("Well,", " well.")
    model.add(line, "Again.", "And again.")
    async with opened(settings, model, local=local, **{limit: 1}) as (service, found, client):
        async with streaming(client, HELLO) as frames:
            begun = await until(frames, "stream_chunk")
            refusal(await client.post(STREAM, json=HELLO), limit)
            refusal(await client.get(f"{STREAM}/{begun[0].data['stream_id']}"), limit)
            async with connected(found) as socket:
                told = await socket.error("persona.chat_stream", HELLO)
            line.release.set()
            await until(frames, "stream_complete")

        async def closed() -> bool:
            return service.limits.under_way["streams"] == 0

        await soon(closed, "the stream's place to be given back")
        async with connected(found) as socket:
            await socket.send("persona.chat_stream", HELLO, id=1)
            last = (await socket.events())[-1]["result"]["event_type"]

    assert told["data"]["limit"] == limit
    assert last == "stream_complete"


async def test_tokens_of_a_day_are_used_up_and_a_call_under_way_ends(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add(Says("One.", 40), Says("Two.", 30), "Of another.")
    async with opened(settings, model, tokens_day=100) as (service, _, client):
        said = [(await client.post(CHAT, json=HELLO)).status_code for _ in range(2)]
        over = refusal(await client.post(CHAT, json=HELLO), "tokens_day", 409)
        async with streaming(client, HELLO) as frames:
            failed = (await until(frames, "stream_error"))[-1].data
        async with talking(service, Way("memory", "auto")) as host:
            result = error_of(await host.call_tool("persona_chat", HELLO))
        theirs = await call_operation(service, "persona_chat", HELLO, Caller(identity=BOB))
        metrics = (await client.post(f"{API}/system/metrics", json={})).json()["limits"]

    assert said == [200, 200]
    assert over["code"] == failed["error"]["code"] == result["code"] == -32009
    assert over["message"].startswith("70 of the 100 tokens that the model may write for you today")
    assert "00:00 UTC" in over["message"]
    assert 0 < over["data"]["retry_after_seconds"] <= 86400
    assert theirs["response"] == "Of another."
    assert len(model.history) == 3, "the model was not asked for what is over the budget"
    assert (metrics["tokens_day"], metrics["tokens_today"]["local"]) == (100, 70)
    assert metrics["refused"] == {"tokens_day": 3}
    assert metrics["counted_by"] == "memory"


async def test_tokens_are_written_down_for_whoever_called(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add(Says("One.", 40), Says("two words", None), Hangs("and half a reply"))
    async with opened(settings, model, note_s=0.05) as (service, _, client):
        await call_operation(service, "persona_chat", HELLO, Caller(identity=ANN))

        async def noted() -> list[dict[str, Any]]:
            return await rows(service.database, access_tables.Spending)

        assert await soon(noted, "the tokens to be written") == [
            {"caller_id": "ann", "day": day_of(time.time()), "tokens": 40}
        ]
        await client.post(CHAT, json=HELLO)  # counted by its words where nobody else counts
        async with streaming(client, HELLO) as frames:
            begun = await until(frames, "stream_chunk")
            await client.delete(f"{STREAM}/{begun[0].data['stream_id']}")

    async with open_service(settings, model, WordEmbedder()) as after:
        found = {row["caller_id"]: row["tokens"] for row in await noted_in(after)}
    assert found == {"ann": 40, "local": 3 + 6}, "what a stopped reply had said counts too"


async def test_tokens_are_not_written_down_before_their_time(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add(Says("One.", 40))
    async with opened(settings, model, note_s=60.0) as (service, _, client):
        await client.post(CHAT, json=HELLO)
        used = await service.limits.spending.used("local")
        written = await noted_in(service)

    async with open_service(settings, model, WordEmbedder()) as after:
        at_the_end = await noted_in(after)
    assert (used, written) == (40, [])
    assert [row["tokens"] for row in at_the_end] == [40]


async def noted_in(service: Service) -> list[dict[str, Any]]:
    return await rows(service.database, access_tables.Spending)


async def test_without_redis_calls_go_on_or_not_as_the_settings_say(
    settings: Settings, model: ScriptedModel
) -> None:
    away = {"storage_url": SecretStr(f"redis://127.0.0.1:{free_port()}"), "storage_s": 0.2}
    async with opened(settings, model, rate="1/hour", **away) as (_, _found, client):
        alone = [(await client.post(LIST, json={})).status_code for _ in range(2)]
        health = (await client.post(f"{API}/system/health", json={})).json()
        metrics = (await client.post(f"{API}/system/metrics", json={})).json()["limits"]
    refusing = {**away, "storage_away": "refuse", "storage_rest_s": 9.0}
    async with opened(settings, model, **refusing) as (_, _found, client):
        refused = await client.post(LIST, json={})

    assert alone == [200, 429]
    assert health["status"] == "degraded"
    assert health["checks"]["limits"]["ok"] is False
    assert metrics["counted_by"].startswith("redis: the Redis that counts rates does not answer")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "9")
    assert refused.json()["error"]["code"] == -32002


async def test_replies_that_wait_for_the_model_are_no_more_than_may(settings: Settings) -> None:
    async with ModelServer("slow") as server:
        chosen = LLMSettings(
            model="openai:test", openai_url=server.openai_url, concurrency=1, queued=0, retries=0
        )
        async with (
            open_service(settings.model_copy(update={"llm": chosen}), None, WordEmbedder()) as one,
            served(one) as found,
            found.client() as client,
            streaming(client, HELLO) as frames,
        ):
            await until(frames, "stream_chunk")
            over = await client.post(CHAT, json=HELLO)

    assert (over.status_code, over.headers["Retry-After"]) == (429, "2")
    assert "PERSONA_LLM__QUEUED" in over.json()["error"]["message"]


async def test_a_refused_call_changes_nothing_and_may_be_sent_again(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add("One.")
    async with opened(settings, model, rates={"persona": "1/second"}) as (service, _, client):
        await client.post(LIST, json={})
        refused = await client.post(CHAT, json={**HELLO, "request_id": "r1"})
        before = await rows(service.database, tables.Exchange)
        await asyncio.sleep(refused.json()["error"]["data"]["retry_after_seconds"])
        again = await client.post(CHAT, json={**HELLO, "request_id": "r1"})

    assert (refused.status_code, before) == (429, [])
    assert again.json()["response"] == "One."


async def test_a_call_costs_no_more_for_being_counted_than_it_should(
    settings: Settings, model: ScriptedModel
) -> None:
    async with opened(settings, model, rate="1000000/second; 1000000/day") as (service, _, _c):
        operation = operation_named("persona_list")
        with work_counted() as work:
            for number in range(2000):
                with await service.limits.admit(operation, Identity(f"c{number}", "", frozenset())):
                    pass

    assert work.calls < 2000 * 200, "however many callers there are"
