"""Malformed and oversized frames on every door: each is answered with an error, or cut off."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks.faults.running import Broken, Fault, now
from benchmarks.faults.site import QUICK, Site
from benchmarks.faults.slow import LEFT_OVER, given_back
from persona_mcp.config.server_settings import ServerSettings, WebSocketSettings
from tests.processes import PERSONA, environment, variables

CHAT, STREAM = "/api/v1/persona/chat", "/api/v1/persona/chat_stream"
MCP = ("/mcp", "/x/all/mcp")
BODY_BYTES = ServerSettings().max_body_bytes
FRAME_BYTES = WebSocketSettings().frame_bytes
LIMIT_S = 60.0
LINE_BYTES = 4_000_000
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "x"}
LEGACY = {"mcp-protocol-version": "2025-11-25"}
ERAS = {"modern": MODERN, "legacy": LEGACY}
HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
REFUSED = range(400, 500)
HANDSHAKE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "faults", "version": "1"},
    },
}


def bodies() -> Iterator[bytes]:
    """Give what no door can take for a request."""
    yield b""
    yield b"{"
    yield b"\xff\xfe\x00{}"
    yield b"null"
    yield b"[]"
    yield b'"text"'
    yield b'{"persona_id": "aria", "message": NaN}'
    yield b'{"persona_id": ' + b"9" * 5000 + b"}"
    yield b"[" * 100_000
    yield b'{"a":' * 50_000
    yield json.dumps({"persona_id": "aria", "message": "Hello.", "x" * 100_000: 1}).encode()
    yield json.dumps({"jsonrpc": "2.0", "id": {"no": "id"}, "method": 7}).encode()
    yield b'{"message": "' + b"x" * BODY_BYTES + b'"}'


async def over_http(site: Site) -> AsyncIterator[str]:
    """Send each to each door of HTTP, and say what was not refused."""
    doors: list[tuple[str, dict[str, str]]] = [(CHAT, {}), (STREAM, {"last-event-id": "5"})]
    doors += [(path, headers) for path in MCP for headers in ERAS.values()]
    async with site.client() as client:
        for path, headers in doors:
            for body in bodies():
                try:
                    answer = await client.post(
                        site.url + path, content=body, headers={**HEADERS, **headers}
                    )
                except httpx.HTTPError:
                    continue  # cut off: a body that is too long need not be read
                told = answer.status_code == httpx.codes.OK and "error" in answer.text
                if answer.status_code not in REFUSED and not told:
                    yield f"{path} answered {answer.status_code} to {body[:40]!r}"
        wrong = await client.get(f"{site.url}{STREAM}/none", headers={"last-event-id": "x" * 500})
        if wrong.status_code not in REFUSED:
            yield f"a stream that is not there answered {wrong.status_code}"


def heads() -> Iterator[bytes]:
    """Give what is no HTTP, or too much of it."""
    start = b"POST /api/v1/persona/chat HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n"
    yield b"GET\r\n\r\n"
    yield b"GET / HTTP/9.9\r\n\r\n"
    yield start + b"X-Long: " + b"x" * 200_000 + b"\r\n\r\n"
    yield start + b"X: y\r\n" * 5000 + b"\r\n"
    yield start + b"Content-Length: -5\r\n\r\n"
    yield start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    yield start + b"Content-Length: 10\r\nContent-Length: 20\r\n\r\n{}"


async def over_sockets(site: Site) -> AsyncIterator[str]:
    """Send what is no HTTP; it must be refused or cut off within the time limit."""
    where = httpx.URL(site.url)
    for head in heads():
        reader, writer = await asyncio.open_connection(where.host, where.port)
        try:
            writer.write(head)
            with suppress(OSError):  # it may have been cut off by now
                writer.write_eof()
            async with asyncio.timeout(LIMIT_S):
                answer = await reader.read()
            if answer and not answer.startswith(b"HTTP/1.1 4"):
                yield f"{answer[:40]!r} was the answer to {head[:40]!r}"
        except ConnectionError:
            continue
        finally:
            writer.close()


async def over_websockets(site: Site) -> AsyncIterator[str]:
    """Send malformed and oversized messages to the WebSocket door."""
    url = site.url.replace("http", "ws", 1) + "/ws"
    messages: list[str | bytes] = [body.decode("latin-1") for body in bodies()]
    messages = [one for one in messages if len(one) <= FRAME_BYTES]
    messages += [b"\x00\x01", "x" * (FRAME_BYTES + 1)]
    for message in messages:
        async with connect(url, proxy=None, max_size=None) as socket:
            if fault := await answered_with_error(socket, message):
                yield fault
    async with connect(url, proxy=None, max_size=None) as socket:
        if fault := await answered_with_error(socket, "x" * (3 * FRAME_BYTES)):
            yield fault


async def answered_with_error(socket: ClientConnection, message: str | bytes) -> str | None:
    """Send a message; its answer is an error, or the end of the connection."""
    try:
        await socket.send(message)
        async with asyncio.timeout(LIMIT_S):
            told = json.loads(await socket.recv())
    except ConnectionClosed:
        return None
    answers = told if isinstance(told, list) else [told]
    if all("error" in one for one in answers):
        return None
    return f"the socket answered {str(told)[:80]} to {message[:40]!r}"


async def over_stdio(site: Site) -> AsyncIterator[str]:
    """Write malformed and oversized lines to `persona mcp`; a handshake behind them is answered."""
    given = variables(site.folder / "stdio", site.model.openai_url, **QUICK)
    process = await asyncio.create_subprocess_exec(
        PERSONA,
        "mcp",
        env=environment(**given),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=LINE_BYTES,
    )
    assert process.stdin and process.stdout
    try:
        for body in bodies():
            process.stdin.write(body.replace(b"\n", b" ") + b"\n")
        process.stdin.write(json.dumps(HANDSHAKE).encode() + b"\n")
        await process.stdin.drain()
        async with asyncio.timeout(LIMIT_S):
            while True:
                line = await process.stdout.readline()
                if not line:
                    yield "stdio ended instead of answering"
                    return
                told: dict[str, Any] = json.loads(line)
                if told.get("id") == 1 and "result" in told:
                    return
    except TimeoutError:
        yield "stdio did not answer a handshake behind malformed lines"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def malformed(broken: Broken) -> float:
    """Send all of it under load; the server goes on, answers errors, and leaks nothing."""
    site = broken.site
    before, told = site.open_files(), len(broken.load.said)
    wrong = [
        fault
        for door in (over_http, over_sockets, over_websockets, over_stdio)
        async for fault in door(site)
    ]
    assert not wrong, "; ".join(wrong)
    assert len(broken.load.said) > told, "nobody was served meanwhile"
    gone = now()
    await given_back(broken, before + LEFT_OVER)
    return gone


FAULTS = [
    Fault(
        "malformed-frames",
        "Malformed and oversized frames were sent to every door: REST, streams, MCP in both eras, "
        "WebSocket, stdio, and bare sockets.",
        malformed,
        rounds=3,
        felt=False,
    )
]
