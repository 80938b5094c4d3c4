"""What comes before a request is understood: its head, its body, and whose page sent it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from persona_mcp.config.server_settings import ServerSettings, WebSocketSettings
from persona_mcp.server.app import named
from persona_mcp.server.service import Service
from tests.http_server import API, Served, served, with_limits
from tests.rpc_client import connected
from tests.tokens import guarded

pytestmark = pytest.mark.anyio

PAGE = "https://studio.example"
ANY_PORT = "http://tools.example:*"
CLIENT = {"name": "test", "version": "1"}
SESSION = "mcp-session-id"
LIST = f"{API}/persona/list"
HEAD_BYTES, HEAD_FIELDS, HEAD_S, BODY_BYTES, FRAME_BYTES = 4096, 20, 0.5, 2048, 2048
LIMITS = ServerSettings(
    head_bytes=HEAD_BYTES,
    head_fields=HEAD_FIELDS,
    head_s=HEAD_S,
    max_body_bytes=BODY_BYTES,
    allowed_origins=[PAGE, ANY_PORT],
)
LIVE = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def limited(service: Service) -> Service:
    chosen = {"server": LIMITS, "websocket": WebSocketSettings(frame_bytes=FRAME_BYTES)}
    return replace(service, settings=service.settings.model_copy(update=chosen))


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(limited(service)) as running:
        yield running


async def answered(found: Served, *pieces: bytes) -> bytes:
    """Send bytes as they are, and read to the end of the connection."""
    reader, writer = await asyncio.open_connection(*found.address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def fields(number: int, length: int = 1) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (n, b"x" * length) for n in range(number))


async def test_a_head_within_the_limits_is_read_whatever_pieces_it_comes_in(
    found: Served,
) -> None:
    head = LIVE + fields(HEAD_FIELDS - 3, 100) + b"Connection: close\r\n\r\n"

    whole = await answered(found, head)
    pieces = await answered(found, *(head[n : n + 100] for n in range(0, len(head), 100)))

    assert whole.startswith(b"HTTP/1.1 200")
    assert pieces.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        LIVE + fields(HEAD_FIELDS) + b"\r\n",
        LIVE + fields(2, HEAD_BYTES // 2) + b"\r\n",
        LIVE + b"X-Long: " + b"x" * 3 * HEAD_BYTES,
        b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n" + fields(HEAD_FIELDS),
    ],
    ids=["many headers", "many bytes", "one that does not end", "a long address", "a socket"],
)
async def test_a_head_beyond_the_limits_is_refused(found: Served, head: bytes) -> None:
    told = await answered(found, *(head[n : n + 1000] for n in range(0, len(head), 1000)))

    assert told.startswith(b"HTTP/1.1 431 ")
    assert b"PERSONA_SERVER__HEAD_" in told


@pytest.mark.parametrize("begun", [b"", b"GET /health", LIVE, LIVE + b"X-Slow: "])
async def test_a_head_that_does_not_come_ends_the_connection(found: Served, begun: bytes) -> None:
    told = await answered(found, begun)

    assert told.startswith(b"HTTP/1.1 408 ") if begun else told == b""


@pytest.mark.parametrize("path", [LIST, "/mcp", "/x/all/mcp"])
async def test_a_body_beyond_the_limit_is_refused_at_every_door(found: Served, path: str) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b" " * (BODY_BYTES // 2)

    async with found.client() as client:
        whole = await client.post(path, content=b" " * (BODY_BYTES + 1), headers=headers)
        in_pieces = await client.post(path, content=pieces(), headers=headers)

    assert (whole.status_code, in_pieces.status_code) == (413, 413)


async def test_a_message_beyond_the_limit_is_refused_at_the_socket(found: Served) -> None:
    async with connected(found) as client:
        await client.socket.send("x" * (FRAME_BYTES + 1))
        too_long = await client.read()
        listed = await client.result("persona.list")
        await client.socket.send("x" * 3 * FRAME_BYTES)
        with pytest.raises(ConnectionClosed) as caught:
            await client.read()

    assert too_long["error"]["code"] == -32700
    assert listed["total_count"] == 3
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, mcp-protocol-version, "
    "mcp-session-id, mcp-method, mcp-name, last-event-id",
}


@pytest.mark.parametrize("origin", [PAGE, "http://tools.example:5173"])
@pytest.mark.parametrize("path", [LIST, "/mcp"])
async def test_a_page_that_may_call_is_told_so_before_it_shows_a_token(
    service: Service, path: str, origin: str
) -> None:
    async with guarded(limited(service)) as found, found.client() as client:
        asked = await client.options(path, headers={"Origin": origin, **PREFLIGHT})
        refused = await client.post(path, headers={"Origin": origin})

    allowed = asked.headers["access-control-allow-headers"]
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert "authorization" in allowed
    assert "mcp-session-id" in allowed
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin
    exposed = refused.headers["access-control-expose-headers"].lower()
    assert "mcp-session-id" in exposed
    assert "x-correlation-id" in exposed


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://studio.example.evil", "http://tools.example", "null"],
)
async def test_other_pages_are_refused_at_every_door(found: Served, origin: str) -> None:
    async with found.client() as client:
        for method, path in (
            ("OPTIONS", LIST),
            ("POST", LIST),
            ("POST", "/mcp"),
            ("POST", "/x/all/mcp"),
            ("GET", "/health/live"),
            ("GET", "/health/ready"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/"),
        ):
            answer = await client.request(method, path, headers={"Origin": origin, **PREFLIGHT})
            assert answer.status_code == 403, path
            assert "access-control-allow-origin" not in answer.headers
    for path in ("/ws", "/mcp"):
        assert await closed(found, path, origin) == 1008


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil"])
async def test_other_names_of_this_server_are_refused_at_every_door(
    found: Served, host: str
) -> None:
    async with found.client() as client:
        for path in ("/", LIST, "/mcp", "/health/live", "/health/ready", "/metrics"):
            answer: httpx.Response = await client.get(path, headers={"Host": host})
            assert answer.status_code == 421, path


def test_the_address_that_it_listens_on_is_a_name_of_the_server() -> None:
    assert named("192.0.2.7") == ["192.0.2.7", "192.0.2.7:*"]
    assert named("2001:db8::7") == ["[2001:db8::7]", "[2001:db8::7]:*"]
    assert named("0.0.0.0") == named("::") == []


async def closed(found: Served, path: str, origin: str) -> Any:
    async with connected(found, path, origin=origin) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await client.read()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def test_without_the_setting_no_page_elsewhere_reads_an_answer(service: Service) -> None:
    async with served(service) as found, found.client() as client:
        answer = await client.post(LIST, headers={"Origin": "http://localhost:5173"})

    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_no_more_mcp_sessions_are_open_than_may_be(service: Service) -> None:
    few = with_limits(service, mcp_sessions=2, mcp_session_idle_s=7.0)
    asked = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": CLIENT}
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": asked}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}

    async with served(few) as found, found.client() as client:
        client.headers["Accept"] = "application/json, text/event-stream"
        answers = [await client.post("/mcp", json=begin) for _ in range(3)]
        sessions = [{SESSION: answer.headers[SESSION]} for answer in answers[:2]]
        goes_on = await client.post("/mcp", json=ping, headers=sessions[1])
        await client.delete("/mcp", headers=sessions[0])
        once_more = await client.post("/mcp", json=begin)

    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2].json()["error"]["message"] == "Too many open sessions"
    assert answers[2].headers["Retry-After"] == "7"
    assert (goes_on.status_code, once_more.status_code) == (200, 200)


async def test_an_idle_connection_is_kept_open_for_its_time_and_no_longer(
    service: Service,
) -> None:
    async with served(with_limits(service, keep_alive_s=1)) as found:
        began = time.monotonic()
        told = await answered(found, LIVE + b"\r\n")
        open_s = time.monotonic() - began

    assert told.startswith(b"HTTP/1.1 200")
    assert b"connection: close" not in told.lower()
    assert 1.0 <= open_s < 30.0
