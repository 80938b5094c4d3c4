"""Whether the server says truly how it is: alive, ready, degraded, down or stopping."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.config.database import open_database
from persona_mcp.server.checking import Check, tried
from persona_mcp.server.health import Health, Report
from persona_mcp.server.service import Service
from persona_mcp.state.errors import ModelError
from tests.doubles import ScriptedModel
from tests.http_server import Served, served, with_limits

pytestmark = pytest.mark.anyio

PARTS = [
    *("database", "checkpoints", "vector_index", "full_text", "model", "embedder", "queue", "disk"),
    *("upkeep", "batches", "limits", "mcp"),
]


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(with_limits(service, checks_kept_s=0.0)) as running:
        yield running


async def look(found: Served, what: str = "ready") -> tuple[int, dict[str, Any]]:
    async with found.client() as client:
        answer = await client.get(f"/health/{what}")
    return answer.status_code, answer.json()


def states(report: dict[str, Any]) -> dict[str, bool]:
    return {name: check["ok"] for name, check in report["checks"].items()}


@pytest.mark.sqlite
async def test_a_server_that_runs_is_alive_and_ready_with_the_state_of_each_part(
    found: Served,
) -> None:
    assert await look(found, "live") == (200, {"status": "ok"})

    status, report = await look(found)

    assert (status, report["status"]) == (200, "ok")
    assert states(report) == dict.fromkeys(PARTS, True)
    assert all(check["latency_ms"] >= 0 and check["detail"] for check in report["checks"].values())
    assert "sqlite" in report["checks"]["database"]["detail"]


@pytest.mark.sqlite
async def test_without_its_model_it_serves_what_it_can(found: Served, model: ScriptedModel) -> None:
    model.down = "scripted does not answer; start it"

    status, report = await look(found)

    assert (status, report["status"]) == (200, "degraded")
    assert states(report) == {**dict.fromkeys(PARTS, True), "model": False}
    assert report["checks"]["model"]["detail"] == "scripted does not answer; start it"


@pytest.mark.sqlite
async def test_without_its_database_it_is_down_but_alive(found: Served, tmp_path: Path) -> None:
    elsewhere = found.service.settings.model_copy(update={"data_dir": tmp_path / "gone"})
    gone = open_database(elsewhere)
    found.app.state.health = Health(
        replace(found.service, database=gone), found.app.state.doors["/mcp"].app
    )

    status, report = await look(found)
    await gone.aclose()

    assert (status, report["status"]) == (503, "down")
    assert states(report)["database"] is False
    assert str(tmp_path) not in report["checks"]["database"]["detail"]
    assert (await look(found, "live"))[0] == 200


@pytest.mark.sqlite
async def test_with_a_broken_mcp_door_it_is_down(found: Served) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    found.app.state.health = Health(found.service, broken)

    status, report = await look(found)

    assert (status, report["status"]) == (503, "down")
    assert states(report) == {**dict.fromkeys(PARTS, True), "mcp": False}
    assert "500" in report["checks"]["mcp"]["detail"]


async def test_while_it_stops_nobody_is_sent_to_it(found: Served) -> None:
    await found.service.runs.stop()

    status, report = await look(found)

    assert (status, report["status"]) == (503, "stopping")


async def test_looks_in_quick_succession_share_one_report(service: Service) -> None:
    async with served(with_limits(service, checks_kept_s=3600.0)) as found:
        looks = await asyncio.gather(*(look(found) for _ in range(5)))

    latencies = {report["checks"]["mcp"]["latency_ms"] for _, report in looks}
    assert len(latencies) == 1


async def test_the_call_of_mcp_leaves_no_session_behind(found: Served) -> None:
    for _ in range(3):
        await look(found)
    async with found.client() as client:
        missing = await client.post(
            "/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
            headers={"Mcp-Session-Id": "none", "Accept": "application/json, text/event-stream"},
        )

    assert missing.status_code == 404
    assert not [task for task in asyncio.all_tasks() if "run_stateful" in repr(task)]


async def test_a_check_has_a_limit_and_tells_nothing_of_a_defect() -> None:
    async def hangs() -> str:
        await asyncio.Event().wait()
        return "never"

    async def refuses() -> str:
        raise ModelError("not there")

    async def breaks() -> str:
        raise RuntimeError("secret place")

    found = [await tried(check, 0.02) for check in (hangs, refuses, breaks)]

    assert [check.ok for check in found] == [False, False, False]
    assert [check.detail for check in found] == [
        "no answer within 0.02 s",
        "not there",
        "failed on our side; the log has the cause",
    ]


@pytest.mark.parametrize(
    ("failed", "status"),
    [([], "ok"), (["model"], "degraded"), (["vector_index"], "degraded"), (["mcp"], "down")],
)
def test_only_parts_that_are_needed_take_it_down(failed: list[str], status: str) -> None:
    checks = {name: Check(name not in failed, 1.0, "") for name in PARTS}

    assert Report(0.0, checks).status == status


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready"])
async def test_a_monitor_that_asks_for_the_head_alone_is_answered_as_one_that_reads(
    found: Served, path: str
) -> None:
    async with found.client() as client:
        read = await client.get(path)
        head = await client.head(path)

    assert (head.status_code, head.content) == (read.status_code, b"")
    assert head.headers["content-type"] == read.headers["content-type"]
