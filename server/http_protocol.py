"""Uvicorn's HTTP protocol, with limits on the head of a request, which it has none of.

A head is read before anybody knows who sends it, so it may be neither long nor slow.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from persona_mcp.config.server_settings import ServerSettings
from persona_mcp.server.wire import problem_of
from persona_mcp.state.errors import DeadlineExceeded, LimitExceeded, PersonaError

TOO_LARGE, TOO_SLOW = 431, 408
BETWEEN = 4
"""Bytes between a header's name and value, and behind it."""


def limited_http(limits: ServerSettings) -> type[HttpToolsProtocol]:
    """Return the protocol with these limits; uvicorn makes one object of it a connection."""
    return type("LimitedHttp", (Http,), {"limits": limits})


class Http(HttpToolsProtocol):
    """One connection.

    Attributes:
        limits: Of its requests' heads.
    """

    limits = ServerSettings()

    def __init__(self, *given: Any, **named: Any) -> None:
        """Begin a connection; uvicorn says what it is given."""
        super().__init__(*given, **named)
        self._in_head = True
        self._number = self._read = self._unfinished = 0
        self._fault: tuple[int, PersonaError] | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._late = self.loop.call_later(self.limits.head_s, self._is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True
        self._number = self._read = self._unfinished = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._take(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._number += 1
        self._take(len(name) + len(value) + BETWEEN)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End a head."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read; what of it is in a head that does not end is counted too."""
        began_in_head = self._in_head
        super().data_received(data)
        if not self._in_head:
            self._stop_waiting()
        elif not self.transport.is_closing():
            if self._late is None:
                self._late = self.loop.call_later(self.limits.head_s, self._is_late)
            if began_in_head:
                self._unfinished += len(data)
            if self._unfinished > self.limits.head_bytes:
                self._fault = too_large(self.limits)
                self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is none, or whose head is beyond the limits, and close."""
        if self._fault is None:
            super().send_400_response(msg)
            return
        status, error = self._fault
        body = json.dumps({"error": problem_of(error)}).encode()
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % len(body)
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _take(self, length: int) -> None:
        self._read += length
        if self._number > self.limits.head_fields or self._read > self.limits.head_bytes:
            self._fault = too_large(self.limits)
            raise ValueError("head too large")  # the parser stops, and the request is refused

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_late(self) -> None:
        """Refuse a head that does not come; a connection without any is only closed."""
        self._late = None
        if self.transport.is_closing() or not self._in_head:
            return
        if self.headers is None:
            self.transport.close()
            return
        limit = f"{self.limits.head_s:g} s"
        self._fault = (
            TOO_SLOW,
            DeadlineExceeded(
                f"the request's headers were not there within {limit} (PERSONA_SERVER__HEAD_S)"
            ),
        )
        self.send_400_response("")


def too_large(limits: ServerSettings) -> tuple[int, PersonaError]:
    """Say that a head is beyond the limits."""
    return TOO_LARGE, LimitExceeded(
        f"headers: allowed are {limits.head_fields} and {limits.head_bytes} bytes, the address "
        "among them; send less, or raise PERSONA_SERVER__HEAD_FIELDS, PERSONA_SERVER__HEAD_BYTES",
        field="headers",
    )
