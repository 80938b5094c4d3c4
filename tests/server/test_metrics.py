"""What a process counts: calls, the model's work, what waits, and who is connected."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text

from persona_mcp.config.settings import Settings
from persona_mcp.server.loop_lag import EVERY_S, LoopLag
from persona_mcp.server.metrics import BUCKETS, Metrics, quantile
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.database import READERS
from persona_mcp.state.errors import InvalidParams, ModelError, NotFound, PersonaError
from tests.calls import call, say, watched
from tests.doubles import Fails, Hangs, Says, ScriptedModel, WordEmbedder
from tests.http_server import served
from tests.rpc_client import connected

pytestmark = pytest.mark.anyio

INFINITE = float("inf")


async def counted(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = (await call(service, "system_metrics"))["metrics"]
    return found


async def test_each_call_is_counted_under_its_operation_with_how_long_it_took(
    service: Service,
) -> None:
    for _ in range(3):
        await call(service, "persona_list")

    found = (await counted(service))["operations"]

    assert set(found) == {"persona_list"}
    its = found["persona_list"]
    assert (its["count"], its["errors"]) == (3, {})
    assert 0 < its["p50"] <= its["p95"] <= its["p99"]
    assert 0 < its["total"] < 10


async def test_calls_that_fail_are_counted_by_their_code(service: Service) -> None:
    for wrong in ({"persona_id": "nobody"}, {"persona_id": "nobody"}, {}):
        with pytest.raises((NotFound, InvalidParams)):
            await call(service, "persona_get", **wrong)
    await call(service, "persona_get", persona_id="aria")

    its = (await counted(service))["operations"]["persona_get"]

    assert its["count"] == 4
    assert its["errors"] == {"not_found": 2, "invalid_params": 1}


async def test_a_name_that_is_no_operation_adds_no_number(service: Service) -> None:
    with pytest.raises(PersonaError):
        await call(service, "persona_lisst")

    assert (await counted(service))["operations"] == {}


async def test_the_models_replies_tokens_and_failures_are_counted(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Says("Good evening.", tokens=7), Fails(ModelError("gone"), after="Good"))
    await say(service, "Good evening.")
    with pytest.raises(ModelError):
        await say(service, "Good evening.")

    its = (await counted(service))["model"]

    assert (its["count"], its["tokens"], its["errors"]) == (2, 7, {"llm_error": 1})
    assert its["first_token"]["count"] == 2
    assert its["p50"] > 0


async def test_what_waits_and_what_is_under_way_is_told(
    service: Service, model: ScriptedModel
) -> None:
    line = Hangs("Good", " evening.")
    model.add(line)
    asked = asyncio.create_task(say(service, "Good evening."))
    await line.reached.wait()

    during = (await counted(service))["queue"]
    line.release.set()
    await asked
    after = (await counted(service))["queue"]

    assert (during["replies"], after["replies"]) == (1, 0)
    assert during["given_up"] == 0
    waits = {"memories", "given_up", "calls_waiting", "model"}
    assert set(after) == {*waits, "replies", "calls", "streams"}


async def test_the_same_numbers_are_there_as_text_for_prometheus(service: Service) -> None:
    await call(service, "persona_list")

    found = await call(service, "system_metrics", format="prometheus")

    assert (found["format"], found["metrics"]) == ("prometheus", None)
    assert 'persona_operation_seconds_count{operation="persona_list"} 1.0' in found["text"]
    assert "# HELP persona_operation_seconds Calls of operations" in found["text"]
    assert 'persona_queue{what="memories"} 0.0' in found["text"]


async def test_two_services_in_one_process_count_apart(service: Service) -> None:
    other = Metrics()
    await call(service, "persona_list")

    assert service.metrics.samples()["persona_operation_seconds_count"]
    assert "persona_operation_seconds_count" not in other.samples()


async def test_over_http_they_are_served_as_text_and_connections_are_counted(
    service: Service, model: ScriptedModel
) -> None:
    line = Hangs("Good", " evening.")
    model.add(line)
    async with served(service) as found, found.client() as client:
        body = {"persona_id": "aria", "message": "Good evening."}
        chat = asyncio.create_task(client.post("/api/v1/persona/chat", json=body))
        await line.reached.wait()
        answer = await client.get("/metrics")
        line.release.set()
        assert (await chat).status_code == httpx.codes.OK

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'persona_connections{kind="http"} 2.0' in answer.text
    assert 'persona_queue{what="replies"} 1.0' in answer.text
    assert (await counted(service))["connections"] == {"http": 0}


async def test_a_wrong_host_is_told_no_numbers(service: Service) -> None:
    async with served(service) as found, found.client() as client:
        answer = await client.get("/metrics", headers={"Host": "evil.example"})

    assert answer.status_code == 421
    assert "persona_operation" not in answer.text


async def test_every_node_and_every_transaction_of_an_exchange_is_timed(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")

    found = await counted(service)

    nodes = found["nodes"]["conversation"]
    ways = ["load", "retrieve", "decide", "generate", "validate", "relate", "persist"]
    assert {name: its["count"] for name, its in nodes.items()} == dict.fromkeys(ways, 1)
    assert all(its["errors"] == 0 and its["total"] > 0 for its in nodes.values())
    for kind in ("read", "write"):
        its = found["transactions"][kind]
        assert its["count"] > 2 and its["total"] > 0 and its["errors"] == 0
        assert its["wait"]["count"] >= its["count"]
    assert found["pool"]["size"] >= found["pool"]["open"] >= found["pool"]["used"] >= 0
    assert found["embedder"]["texts"] >= 1 and found["embedder"]["errors"] == {}


async def test_exchanges_are_counted_by_what_became_of_them(
    service: Service, model: ScriptedModel
) -> None:
    hangs = Hangs("Good")
    model.add("Good evening.", Fails(ModelError("gone")), hangs)
    done = await say(service, "Good evening.", request_id="r1")
    again = await say(service, "Good evening.", request_id="r1")
    assert again["exchange_id"] == done["exchange_id"]
    with pytest.raises(ModelError):
        await say(service, "Good evening.")
    asked = asyncio.create_task(say(service, "Good evening."))
    await hangs.reached.wait()
    await service.runs.stop()
    await asyncio.gather(asked, return_exceptions=True)

    found = await counted(service)

    assert found["exchanges"] == {"done": 1, "failed": 1, "cancelled": 1}
    assert found["nodes"]["conversation"]["generate"]["errors"] == 1
    codes = service.metrics.samples()["persona_exchanges_total"]
    assert ({"outcome": "failed", "code": "llm_error"}, 1.0) in codes


async def test_what_there_is_in_all_worlds_is_counted_and_what_it_takes(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "My cat is called Biscuit.")

    sizes = (await counted(service))["sizes"]

    assert sizes["memories"]["active"] >= 1 and sizes["memories"]["archived"] == 0
    assert set(sizes["batches"].values()) == {0}
    assert sizes["database_bytes"] > 10_000 and sizes["checkpoint_bytes"] > 1_000
    assert sizes["disk_free_bytes"] > 0


async def test_it_is_counted_once_in_a_while_however_often_it_is_asked_for(
    service: Service,
) -> None:
    await counted(service)
    with watched(service.database) as statements:
        await asyncio.gather(*(counted(service) for _ in range(5)))

    assert not [one for one in statements if "memories" in one.lower()]


async def test_when_the_database_is_away_the_last_numbers_are_told_and_that_is_counted(
    settings: Settings, model: ScriptedModel
) -> None:
    server = settings.server.model_copy(update={"metrics_kept_s": 0.0})
    eager = settings.model_copy(update={"server": server})
    async with (
        open_service(eager, model, WordEmbedder()) as service,
        served(service) as found,
        found.client() as client,
    ):
        assert (await client.get("/metrics")).status_code == 200
        with service.database.writing() as connection:
            connection.execute(text("ALTER TABLE memories RENAME TO elsewhere"))
        answer = await client.get("/metrics")
        with service.database.writing() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO memories"))

    assert answer.status_code == 200
    assert 'persona_memories{state="active"} 0.0' in answer.text
    assert "persona_gather_errors_total 1.0" in answer.text


async def test_a_count_that_takes_too_long_is_not_waited_for(
    settings: Settings, model: ScriptedModel
) -> None:
    server = settings.server.model_copy(update={"metrics_s": 0.01, "metrics_kept_s": 0.0})
    quick = settings.model_copy(update={"server": server})
    held, free = threading.Event(), threading.Event()

    def holds(_: Connection) -> None:
        held.set()
        free.wait()

    async with open_service(quick, model, WordEmbedder()) as service:
        readers = [asyncio.create_task(service.database.read(holds)) for _ in range(READERS)]
        await asyncio.to_thread(held.wait)
        await service.count_waiting()
        free.set()
        await asyncio.gather(*readers)
        missed = service.metrics.samples()["persona_gather_errors_total"]

    assert missed == [({}, 1.0)]


async def test_requests_are_counted_by_door_and_status(service: Service) -> None:
    async with served(service) as found, found.client() as client:
        await client.get("/health/live")
        await client.post("/api/v1/persona/list", json={})
        await client.post("/api/v1/persona/get", json={"persona_id": "nobody"})
        await client.get("/nothing/here")
        async with connected(found) as socket:
            await socket.ask("persona.list")
            await socket.ask("persona.get", {"persona_id": "nobody"})

    assert (await counted(service))["requests"] == {
        "health": {"200": 1},
        "other": {"404": 1},
        "rest": {"200": 1, "404": 1},
        "websocket": {"200": 1, "404": 1},
    }


@pytest.mark.sqlite
async def test_over_http_parts_process_and_version_are_told_too(service: Service) -> None:
    async with served(service) as found, found.client() as client:
        answer = await client.get("/metrics")

    assert 'persona_part_up{part="database"} 1.0' in answer.text
    assert 'database="sqlite"' in answer.text and "persona_build_info{" in answer.text
    assert "_created" not in answer.text
    if Path("/proc/self").exists():
        assert "process_resident_memory_bytes" in answer.text


async def test_a_loop_that_is_blocked_is_seen_to_be_late() -> None:
    seen: list[float] = []
    told = asyncio.Event()

    def late(seconds: float) -> None:
        seen.append(seconds)
        told.set()

    lag = LoopLag(late)
    time.sleep(EVERY_S + 0.2)
    await told.wait()
    lag.stop()

    assert seen[0] >= 0.2


@pytest.mark.parametrize(
    ("ends", "share", "expected"),
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (INFINITE, 0.0)], 0.5, None),
        ([(1.0, 10.0), (INFINITE, 10.0)], 0.5, 0.5),
        ([(1.0, 10.0), (2.0, 20.0), (INFINITE, 20.0)], 0.95, 1.9),
        ([(1.0, 0.0), (2.0, 4.0), (INFINITE, 4.0)], 0.5, 1.5),
        ([(1.0, 1.0), (INFINITE, 2.0)], 0.99, 1.0),
    ],
)
def test_a_share_lies_between_the_ends_of_its_bucket(
    ends: list[tuple[float, float]], share: float, expected: float | None
) -> None:
    found = quantile(ends, share)

    assert found == (None if expected is None else pytest.approx(expected))


def test_buckets_reach_from_a_millisecond_to_beyond_the_longest_reply() -> None:
    assert list(BUCKETS) == sorted(BUCKETS)
    assert (BUCKETS[0], BUCKETS[-1]) == (0.001, 500)
