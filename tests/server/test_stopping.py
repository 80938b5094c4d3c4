"""SIGTERM on the real server: nothing new, what runs ends or is stopped, and it is gone in time."""

import json
import signal
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from persona_mcp.server.service import Service
from persona_mcp.server.stopping import begin_stop
from persona_mcp.state import tables
from tests.calls import rows
from tests.doubles import Hangs, ScriptedModel
from tests.http_server import API, STREAM, served
from tests.model_server import Behaviour
from tests.processes import LIMIT_S, end, eventually, model_server, serving, stop, stored

HELLO = {"persona_id": "aria", "message": "Hello."}
STOP_S, MARGIN_S = 1.0, 20.0
"""Of the margin nearly all is for a machine on which tests run beside each other."""
QUICK = {
    "PERSONA_SERVER__STOP_S": f"{STOP_S:g}",
    "PERSONA_DIALOGUES__STOP_S": f"{STOP_S:g}",
    "PERSONA_DIALOGUES__POLL_S": "0.05",
    "PERSONA_LLM__FIRST_TOKEN_S": "600",
    "PERSONA_LLM__TOTAL_S": "600",
    "PERSONA_CONVERSATION__TOTAL_S": "600",
}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
BOTH = {"Accept": "application/json, text/event-stream"}


def in_thread(work: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def opened_mcp_stream(url: str, begun: threading.Event) -> None:
    """Open the stream of an MCP session, and read it to its end."""
    with httpx.Client(base_url=url, timeout=LIMIT_S, headers=BOTH) as client:
        made = client.post("/mcp", json=INITIALIZE)
        session = {"mcp-session-id": made.headers["mcp-session-id"]}
        client.post(
            "/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session
        )
        with (
            suppress(httpx.TransportError),  # the SDK's stream is cut off, and taken up again
            client.stream("GET", "/mcp", headers=session) as stream,
        ):
            begun.set()
            stream.read()


def read_stream(url: str, events: list[str]) -> None:
    """Read a reply as it is made."""
    with httpx.stream("POST", url + STREAM, json=HELLO, timeout=LIMIT_S) as stream:
        events += [line for line in stream.iter_lines() if line.startswith("event: ")]


def read_until_cut_off(url: str) -> None:
    """Read a reply until the server is gone."""
    with suppress(httpx.TransportError):
        read_stream(url, [])


def ask(url: str, answers: list[httpx.Response]) -> None:
    """Ask for a reply and wait for it."""
    answers.append(httpx.post(f"{url}{API}/persona/chat", json=HELLO, timeout=LIMIT_S))


def test_with_a_hanging_model_and_every_kind_of_reader_it_is_gone_in_time(tmp_path: Path) -> None:
    data, events, answers = tmp_path / "data", list[str](), list[httpx.Response]()
    talk = {"participants": ["aria", "kira"], "topic": "the sea"}
    frame = {"jsonrpc": "2.0", "id": 1, "method": "persona.chat_stream", "params": HELLO}
    with ExitStack() as stack:
        models = stack.enter_context(model_server(Behaviour("never said", delay_s=600.0)))
        process, url = stack.enter_context(serving(data, models.openai_url, **QUICK))
        mcp = threading.Event()
        threads = [
            in_thread(opened_mcp_stream, url, mcp),
            in_thread(read_stream, url, events),
            in_thread(ask, url, answers),
        ]
        httpx.post(f"{url}{API}/dialogue/start", json=talk, timeout=LIMIT_S).raise_for_status()
        socket = stack.enter_context(connect(url.replace("http", "ws", 1) + "/ws", proxy=None))
        socket.send(json.dumps(frame))
        assert mcp.wait(LIMIT_S)
        eventually(lambda: len(models.requests) == 4, "all of them to wait for the model")
        began = time.monotonic()
        code, told = stop(process)
        took_s = time.monotonic() - began
        last = [json.loads(one)["result"]["event_type"] for one in socket][-1]
        for thread in threads:
            thread.join(LIMIT_S)

    assert (code, "stopped" in told) == (0, True), told
    assert took_s < STOP_S + MARGIN_S
    assert (events[-1], last) == ("event: stream_cancelled", "stream_cancelled")
    assert socket.protocol.close_code == 1001
    problem = answers[0].json()["error"]["data"]
    assert (answers[0].status_code, problem["reason"]) == (499, "shutdown")
    assert problem["retryable"] is True
    assert {row for (row,) in stored(data, "SELECT status FROM exchanges")} == {"cancelled"}
    assert stored(data, "SELECT count(*) FROM turns") == [(0,)]
    assert stored(data, "SELECT lease_owner FROM conversations WHERE lease_owner NOTNULL") == []
    assert stored(data, "SELECT status, owner FROM batches") == [("queued", None)]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, second: signal.Signals) -> None:
    slow = {**QUICK, "PERSONA_SERVER__STOP_S": "600"}
    with (
        model_server(Behaviour("never said", delay_s=600.0)) as models,
        serving(tmp_path / "data", models.openai_url, **slow) as (process, url),
    ):
        in_thread(read_until_cut_off, url)
        eventually(lambda: models.requests, "the model to be asked")
        process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(url), "the server to stop listening")
        process.send_signal(second)
        _, told = end(process)

    assert process.returncode == 1
    assert "a second signal came" in told


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/health/live", timeout=LIMIT_S)
    except httpx.TransportError:
        return True
    return False


@pytest.mark.anyio
async def test_while_it_stops_nothing_new_is_begun_and_what_runs_can_be_waited_for(
    service: Service, model: ScriptedModel
) -> None:
    line = Hangs(after="Well.")
    model.add(line)
    mine = {**HELLO, "request_id": "r1"}
    async with served(service) as found, found.client() as client:
        running = (await client.post(f"{API}/persona/chat", json={**mine, "wait_s": 1})).json()
        begin_stop(service)
        others = [
            await client.post(f"{API}/{path}", json=given)
            for path, given in (
                ("persona/chat", {**HELLO, "request_id": "r2"}),
                ("persona/chat_stream", HELLO),
                ("persona/create", {"name": "Zed", "description": "A sailor."}),
                ("dialogue/start", {"participants": ["aria", "kira"], "topic": "the sea"}),
            )
        ]
        reads = await client.post(f"{API}/persona/list", json={})
        ready = await client.get("/health/ready")
        line.release.set()
        done = await client.post(f"{API}/persona/chat", json=mine)

    assert running["status"] == "running"
    assert {answer.status_code for answer in others} == {503}
    assert {answer.headers["Retry-After"] for answer in others} == {"5"}
    assert {answer.json()["error"]["data"]["reason"] for answer in others} == {"shutdown"}
    assert all(answer.json()["error"]["data"]["retryable"] for answer in others)
    assert "begins nothing new" in others[0].json()["error"]["message"]
    assert (reads.status_code, ready.status_code) == (200, 503)
    assert (done.status_code, done.json()["response"]) == (200, "Well.")
    assert [row["request_id"] for row in await rows(service.database, tables.Exchange)] == ["r1"]
    assert len(await rows(service.database, tables.Persona)) == 3


def test_what_is_not_closed_in_time_is_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    short = {**QUICK, "PERSONA_SERVER__STOP_S": "0.001", "PERSONA_SERVER__CLOSE_S": "0.001"}
    with (
        model_server() as models,
        serving(data, models.openai_url, **short) as (process, url),
    ):
        said = httpx.post(f"{url}{API}/persona/chat", json=HELLO, timeout=LIMIT_S).json()
        code, told = stop(process)

    assert code == 1
    assert "not everything was closed within 0.002 s (PERSONA_SERVER__STOP_S" in told
    assert stored(data, "SELECT status, response FROM exchanges") == [("done", said["response"])]
