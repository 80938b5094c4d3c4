"""What a process counts: calls, the model's work, what waits, and who is connected."""

import asyncio
from typing import Any

import httpx
import pytest

from persona_mcp.server.metrics import BUCKETS, Metrics, quantile
from persona_mcp.server.service import Service
from persona_mcp.state.errors import InvalidParams, ModelError, NotFound, PersonaError
from tests.calls import call, say
from tests.doubles import Fails, Hangs, Says, ScriptedModel
from tests.http_server import served

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
    assert set(after) == {"memories", "given_up", "replies", "model"}


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
