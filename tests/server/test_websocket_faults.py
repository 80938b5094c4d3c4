"""What goes wrong on a socket: garbage, clients that vanish or do not read, a server that stops."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from persona_mcp.server.rpc_methods import STREAM
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from tests.calls import rows
from tests.doubles import Hangs, ScriptedModel
from tests.http_server import Served, leaving_nothing, runs_ended, served, soon, with_limits
from tests.mcp_client import REPLY
from tests.rpc_client import Client, connected, with_sockets

pytestmark = pytest.mark.anyio

MESSAGE = {"persona_id": "aria", "message": "My cat is called Biscuit.", "request_id": "r1"}
FRAME = 2048
SHORT_S = 0.05
UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(with_sockets(service, frame_bytes=FRAME)) as running:
        yield running


@pytest.fixture
async def client(found: Served) -> AsyncIterator[Client]:
    async with connected(found) as opened:
        yield opened


async def all_gone(found: Served) -> None:
    """Wait until no connection is open."""

    async def gone() -> bool:
        return not len(found.app.state.websockets)

    await soon(gone, "the connections to end")


def code_of(closed: pytest.ExceptionInfo[ConnectionClosed]) -> int:
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("", -32700),
        ("{not JSON", -32700),
        ("[" * 1000, -32700),
        ('{"a": ' * 65 + "1" + "}" * 65, -32700),
        ("x" * (FRAME + 1), -32700),
        (b"\x00\xff", -32600),
        (json.dumps({"jsonrpc": "2.0", "method": "persona.list"}).encode(), -32600),
        ("null", -32600),
        ("[]", -32600),
    ],
    ids=["empty", "no JSON", "open", "deep", "large", "binary", "binary JSON", "null", "batch"],
)
async def test_a_frame_that_is_no_request_is_answered_and_the_connection_goes_on(
    client: Client, frame: str | bytes, code: int
) -> None:
    await client.socket.send(frame)
    told = await client.read()

    assert (told["id"], told["error"]["code"]) == (None, code)
    assert (await client.result("persona.list"))["total_count"] == 3


async def test_a_frame_that_nobody_will_read_ends_the_connection(client: Client) -> None:
    await client.socket.send("x" * (2 * FRAME + 1))
    with pytest.raises(ConnectionClosed) as closed:
        await client.read()

    assert code_of(closed) == 1009


async def test_a_long_frame_is_read_like_a_short_one(service: Service) -> None:
    async with served(service) as found, connected(found) as client:
        stored = await client.result(
            "memory.store",
            {
                "persona_id": "aria",
                "content": "A long tale.",
                "metadata": None,
                "_meta": "x" * 90_000,
            },
        )

    assert stored["stored"] is True


async def test_an_answer_that_is_too_long_is_refused(service: Service) -> None:
    wordy = "é" * 8000  # six bytes each as ASCII
    async with served(service) as found, connected(found) as client:
        for number in range(95):
            await client.result("persona.create", {"name": f"P{number}", "description": wordy})
        error = await client.error("persona.list", {"limit": 200})
        page = await client.result("persona.list", {"limit": 50})

    assert (error["code"], error["data"]["code"]) == (-32009, "limit_exceeded")
    assert len(page["personas"]) == 50


async def test_a_connection_that_asks_for_nothing_is_closed(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine", " name.")
    model.add(hanging)
    async with (
        served(with_sockets(service, idle_s=0.2)) as found,
        connected(found) as idle,
        connected(found) as waiting,
    ):
        await waiting.send("persona.chat", MESSAGE, id=1)
        with pytest.raises(ConnectionClosed) as closed:
            await idle.read()
        hanging.release.set()
        told = await waiting.read()

    assert code_of(closed) == 1000
    assert told["result"]["response"] == "A fine name."


async def test_batches_with_half_characters_are_answered_and_leave_nothing_open(
    service: Service,
) -> None:
    half = {"persona_id": "\ud800", "content": "Whose?"}
    async with (
        served(with_sockets(service, idle_s=0.5, in_flight=1, queued=40)) as found,
        connected(found) as client,
    ):
        for _ in range(3):
            wrong = [
                {"jsonrpc": "2.0", "id": id, "method": "memory.store", "params": half}
                for id in range(40)
            ]
            await client.socket.send(json.dumps(wrong))
            told = await client.read()
            assert [one["id"] for one in told] == list(range(40))
            assert {one["error"]["data"]["code"] for one in told} == {"invalid_params"}
        assert (await client.result("persona.list"))["total_count"] == 3
        with pytest.raises(ConnectionClosed) as closed:
            await client.read()

    assert code_of(closed) == 1000


async def handshaken(found: Served) -> socket.socket:
    """Open a connection by hand, that reads and answers nothing by itself."""
    loop, bare = asyncio.get_running_loop(), socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    bare.setblocking(False)
    await loop.sock_connect(bare, found.address)
    host, port = found.address
    await loop.sock_sendall(bare, UPGRADE.format(host=host, port=port).encode())
    head = await loop.sock_recv(bare, 300)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return bare


def frame_of(text: str) -> bytes:
    """Write a text frame as a client does, with a mask of zeros."""
    data = text.encode()
    assert len(data) < 1 << 16
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + data


async def test_a_client_that_answers_no_ping_is_gone(service: Service) -> None:
    async with served(with_sockets(service, ping_s=SHORT_S)) as found:
        with await handshaken(found):
            assert len(found.app.state.websockets) == 1
            await all_gone(found)


async def test_a_client_that_reads_nothing_is_let_go_and_its_reply_stopped(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(f"{'o' * 2000} " * 300)
    model.add(hanging)
    chosen = with_limits(service, grace_s=SHORT_S, send_s=0.2)
    async with served(chosen, send_buffer=4096) as found, leaving_nothing(service):
        with capture_logs() as logs, await handshaken(found) as lazy:
            request = {"jsonrpc": "2.0", "id": 1, "method": STREAM, "params": MESSAGE}
            await asyncio.get_running_loop().sock_sendall(lazy, frame_of(json.dumps(request)))
            await hanging.cancelled.wait()
            await all_gone(found)

    assert [row["status"] for row in await rows(service.database, tables.Exchange)] == ["cancelled"]
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_what_waits_for_a_slow_reader_is_limited(service: Service) -> None:
    async with served(service, send_buffer=4096) as found, leaving_nothing(service):
        with await handshaken(found) as lazy:
            loop = asyncio.get_running_loop()
            request = {"jsonrpc": "2.0", "method": "rpc.discover"}
            for number in range(60):
                asked = frame_of(json.dumps({**request, "id": number}))
                await loop.sock_sendall(lazy, asked)
            await all_gone(found)


async def test_a_write_is_carried_out_whose_client_is_gone(found: Served, service: Service) -> None:
    async with connected(found) as client:
        await client.send("memory.store", {"persona_id": "aria", "content": "Gone."}, id=1)
        client.socket.transport.abort()

    async def stored() -> bool:
        return bool(await rows(service.database, tables.Memory))

    await soon(stored, "the memory to be stored")
    await all_gone(found)


async def test_a_thousand_who_come_and_go_leave_nothing(service: Service) -> None:
    async with served(service) as found, leaving_nothing(service):

        async def come_and_go() -> None:
            for number in range(100):
                async with connected(found) as client:
                    if number % 3 == 0:
                        client.socket.transport.abort()
                    elif number % 3 == 1:
                        await client.socket.send("garbage")

        await asyncio.gather(*(come_and_go() for _ in range(10)))
        await all_gone(found)

    assert await rows(service.database, tables.Session) == []


async def test_a_server_that_stops_lets_calls_end_and_says_goodbye(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine", " name.")
    model.add(hanging)
    async with served(service) as found, connected(found) as busy, connected(found) as idle:
        await busy.send("persona.chat", MESSAGE, id=1)
        await hanging.reached.wait()
        stopping = asyncio.create_task(found.app.state.websockets.stop())
        with pytest.raises(ConnectionClosed) as closed:
            await idle.read()
        hanging.release.set()
        told = await busy.read()
        with pytest.raises(ConnectionClosed) as last:
            await busy.read()
        await stopping
        async with connected(found) as late:
            with pytest.raises(ConnectionClosed) as refused:
                await late.read()

    assert told["result"]["response"] == "A fine name."
    assert [code_of(one) for one in (closed, last, refused)] == [1001, 1001, 1001]


async def test_a_stream_is_told_that_the_server_stops(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine")
    model.add(hanging)
    async with served(service) as found, connected(found) as client:
        await client.send(STREAM, MESSAGE, id=1)
        await client.events("stream_chunk")
        await hanging.reached.wait()
        await service.runs.stop()
        await found.app.state.websockets.stop()
        events = await client.events()
        with pytest.raises(ConnectionClosed) as closed:
            await client.read()

    last: dict[str, Any] = events[-1]["result"]
    assert (last["event_type"], last["data"]["reason"]) == ("stream_cancelled", "shutdown")
    assert code_of(closed) == 1001


async def test_a_call_whose_client_is_gone_is_given_up_after_the_grace(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine")
    model.add(hanging, REPLY)
    async with served(with_limits(service, grace_s=SHORT_S)) as found, leaving_nothing(service):
        async with connected(found) as client:
            await client.send("persona.chat", MESSAGE, id=1)
            await hanging.reached.wait()
        await hanging.cancelled.wait()
        await runs_ended(service)
        async with connected(found) as client:
            again = await client.result("persona.chat", MESSAGE)

    assert again["response"] == REPLY
