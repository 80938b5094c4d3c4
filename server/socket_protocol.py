"""Uvicorn's WebSocket protocol, with an end also for clients that take nothing any more."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CLOSE_S = 5.0
"""For what is still to be sent when a connection is over."""


class Socket(WebSocketsSansIOProtocol):
    """One connection; uvicorn's own waits for ever on a client who does not read the last bytes."""

    async def run_asgi(self) -> None:
        """Serve the connection, and see to it that it ends."""
        await super().run_asgi()
        self.loop.call_later(CLOSE_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """Give up a client that did not answer a ping."""
        super().keepalive_timeout()
        self.loop.call_later(CLOSE_S, self.transport.abort)
