"""Frames before one connection: their order, and the end of a client that takes too little."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.websockets import WebSocket

from persona_mcp.server.outbox import MOST_BYTES, SLOW, Outbox

pytestmark = pytest.mark.anyio


class Wire:
    """The far end of a connection: what was sent, and whether it takes more."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.gone = False

    async def receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(self, message: Any) -> None:
        await self.open.wait()
        if self.gone:
            raise OSError
        if message["type"] == "websocket.send":
            self.taken.append(message["text"])


async def outbox_on(wire: Wire, send_s: float = 5.0) -> Outbox:
    websocket = WebSocket({"type": "websocket"}, wire.receive, wire.send)
    await websocket.accept()
    return Outbox(websocket, send_s)


@asynccontextmanager
async def sending(outbox: Outbox) -> Any:
    task = asyncio.create_task(outbox.send_all())
    yield task
    task.cancel()


async def test_frames_are_sent_in_their_order() -> None:
    wire = Wire()
    outbox = await outbox_on(wire)
    for number in range(100):
        outbox.put(str(number))

    async with sending(outbox):
        await outbox.flushed()

    assert wire.taken == [str(number) for number in range(100)]


async def test_a_client_that_takes_nothing_for_too_long_is_let_go() -> None:
    wire = Wire()
    outbox = await outbox_on(wire, send_s=0.01)
    wire.open.clear()
    outbox.put("a frame")

    assert await outbox.send_all() is SLOW


async def test_a_client_that_is_gone_ends_the_sending_without_a_reason() -> None:
    wire = Wire()
    outbox = await outbox_on(wire)
    wire.gone = True
    outbox.put("a frame")

    assert await outbox.send_all() is None


async def test_too_much_that_waits_is_told_and_no_more_is_taken() -> None:
    wire = Wire()
    outbox = await outbox_on(wire)
    outbox.put("x" * MOST_BYTES)
    outbox.put("one more")
    assert not outbox.full.done()

    outbox.put("beyond")
    outbox.put("and again")

    assert outbox.full.result() is SLOW
    async with sending(outbox):
        await outbox.flushed()
    assert wire.taken[1:] == ["one more"]


async def test_what_was_sent_waits_no_more() -> None:
    wire = Wire()
    outbox = await outbox_on(wire)
    async with sending(outbox):
        for _ in range(3):
            outbox.put("x" * MOST_BYTES)
            await outbox.flushed()

    assert not outbox.full.done()
