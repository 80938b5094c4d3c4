"""What is to be sent to a client, in its order; a client that takes too little is let go."""

import asyncio
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

MOST_BYTES = 4 * 1024 * 1024
"""Longest answer, and the most that waits for a client who is slow to read."""


@dataclass(frozen=True)
class Close:
    """Why a connection is closed.

    Attributes:
        code: Of RFC 6455.
        reason: For people, at most 123 bytes.
    """

    code: int
    reason: str


SLOW = Close(1013, "too much waits to be read")


class Outbox:
    """A queue of frames before one connection.

    Attributes:
        full: Has the reason once too much waits.
    """

    def __init__(self, websocket: WebSocket, send_s: float) -> None:
        """Send to this connection; each frame is to be taken within `send_s` seconds."""
        self._websocket = websocket
        self._send_s = send_s
        self._frames: asyncio.Queue[str] = asyncio.Queue()
        self._bytes = 0
        self.full: asyncio.Future[Close | None] = asyncio.get_running_loop().create_future()

    def put(self, frame: str) -> None:
        """Take a frame of ASCII text; dropped when too much waits already."""
        if self._bytes > MOST_BYTES:
            if not self.full.done():
                self.full.set_result(SLOW)
            return
        self._bytes += len(frame)
        self._frames.put_nowait(frame)

    async def send_all(self) -> Close | None:
        """Send frames for ever.

        Returns:
            Why no more can be sent; None when the client is gone.
        """
        while True:
            frame = await self._frames.get()
            try:
                async with asyncio.timeout(self._send_s):
                    await self._websocket.send_text(frame)
            except TimeoutError:
                return SLOW
            except WebSocketDisconnect:
                return None
            self._bytes -= len(frame)
            self._frames.task_done()

    async def flushed(self) -> None:
        """Wait until everything has been sent."""
        await self._frames.join()
