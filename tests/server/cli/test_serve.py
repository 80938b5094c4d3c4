"""`persona serve` as a process: where it says it is, it answers; and it stops as it should."""

import json
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from persona_mcp.server.cli.serve import is_loopback
from tests.http_server import STREAM
from tests.model_server import Behaviour
from tests.processes import (
    LIMIT_S,
    end,
    eventually,
    model_server,
    run,
    serving,
    stop,
    stored,
    variables,
)

MESSAGE = {"persona_id": "aria", "message": "My cat is called Biscuit.", "request_id": "r1"}


def test_the_printed_address_answers_and_sigterm_ends_it_well(tmp_path: Path) -> None:
    with model_server() as models, serving(tmp_path / "data", models.openai_url) as (process, url):
        live = httpx.get(f"{url}/health/live")
        ready = httpx.get(f"{url}/health/ready", timeout=LIMIT_S).json()
        code, told = stop(process)

    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert ready["status"] == "ok", ready
    assert (code, "stopped" in told) == (0, True), told


def test_an_idle_connection_is_kept_open_for_as_long_as_the_settings_say(tmp_path: Path) -> None:
    with (
        model_server() as models,
        serving(tmp_path, models.openai_url, PERSONA_SERVER__KEEP_ALIVE_S="1") as (process, url),
    ):
        at = httpx.URL(url)
        with socket.create_connection((at.host, at.port or 80), LIMIT_S) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            received = b"".join(iter(lambda: connection.recv(1024), b""))
        stop(process)

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("stop_s", "ending", "status"),
    [("30", "stream_complete", "done"), ("0.2", "stream_cancelled", "cancelled")],
)
def test_a_stream_has_its_time_when_the_server_stops(
    tmp_path: Path, stop_s: str, ending: str, status: str
) -> None:
    slow = Behaviour("again and " * 20, delay_s=0.05)
    limits = {"PERSONA_SERVER__STOP_S": stop_s}
    events: list[tuple[str, str]] = []
    chunk = threading.Event()

    def read(url: str) -> None:
        with httpx.stream("POST", url + STREAM, json=MESSAGE, timeout=LIMIT_S) as response:
            name = ""
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((name, line.removeprefix("data: ")))
                    if name == "stream_chunk":
                        chunk.set()

    with (
        model_server(slow) as models,
        serving(tmp_path / "data", models.openai_url, **limits) as (process, url),
    ):
        reader = threading.Thread(target=read, args=(url,))
        reader.start()
        assert chunk.wait(LIMIT_S)
        code, told = stop(process)
        reader.join(LIMIT_S)
        eventually(lambda: status_of(tmp_path / "data") == status, "the exchange's end")

    name, data = events[-1]
    assert (name, code) == (ending, 0), told
    assert json.loads(data)["data"].get("reason") in (None, "shutdown")


@pytest.mark.parametrize(("stop_s", "ending"), [("30", "complete"), ("0.2", "cancelled")])
def test_a_socket_is_told_how_its_reply_ended_and_that_the_server_goes(
    tmp_path: Path, stop_s: str, ending: str
) -> None:
    slow = Behaviour("again and " * 20, delay_s=0.05)
    limits = {"PERSONA_SERVER__STOP_S": stop_s}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "persona.chat_stream", "params": MESSAGE}
    with (
        model_server(slow) as models,
        serving(tmp_path / "data", models.openai_url, **limits) as (process, url),
        connect(url.replace("http", "ws", 1) + "/ws", proxy=None) as client,
    ):
        client.send(json.dumps(ask))
        while json.loads(client.recv(LIMIT_S))["result"]["event_type"] != "stream_chunk":
            pass
        process.send_signal(signal.SIGTERM)
        last = [json.loads(frame)["result"] for frame in client][-1]
        _, told = end(process)

    assert (last["event_type"], process.returncode) == (f"stream_{ending}", 0), told
    assert last["data"].get("reason") in (None, "shutdown")
    assert client.protocol.close_code == 1001


def status_of(data_dir: Path) -> str:
    [(status,)] = stored(data_dir, "SELECT status FROM exchanges")
    return str(status)


def test_a_port_that_there_is_not_is_told_by_its_option(tmp_path: Path) -> None:
    done = run("serve", "--port", "65536", PERSONA_DATA_DIR=str(tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert "'--port'" in done.stderr
    assert "PERSONA_SERVER__PORT" not in done.stderr


def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    given = variables(tmp_path / "data", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        done = run("serve", "--port", port, **given)

    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_only_loopback_is_of_this_machine_alone(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone
