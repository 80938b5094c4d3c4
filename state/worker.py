"""Work in the background of a process: done again and again, until it is stopped."""

import asyncio
import time
from abc import ABC, abstractmethod

import structlog

from persona_mcp.state.errors import PersonaError

log = structlog.get_logger(__name__)


class Worker(ABC):
    """Looks for work at least every so many seconds, and when it is woken.

    Attributes:
        looked_at: When it last came to the end of its work, or was made; of `time.monotonic`.
        trouble: Why its last turn failed; empty if it did not.
    """

    def __init__(self, name: str, poll_s: float) -> None:
        """Go by this name in the log."""
        self._name = name
        self._poll_s = poll_s
        self._wake = asyncio.Event()
        self._stopping = False
        self.looked_at = time.monotonic()
        self.trouble = ""
        self._stopped_at = 0.0

    @property
    def stopping_s(self) -> float:
        """How long ago it was first asked to stop, in seconds; 0 before."""
        return time.monotonic() - self._stopped_at if self._stopping else 0.0

    @abstractmethod
    async def turn(self) -> None:
        """Do all that there is to do; leave it as soon as `_stopping` is set."""

    def wake(self) -> None:
        """Say that there is work."""
        self._wake.set()

    def stop(self) -> None:
        """End `run` after what it is at: a cut in the middle is no clean end."""
        if not self._stopping:
            self._stopping, self._stopped_at = True, time.monotonic()
        self._wake.set()

    async def run(self) -> None:
        """Work until stopped; a failure is logged and tried again."""
        while not self._stopping:
            self._wake.clear()
            try:
                await self.turn()
                self.looked_at, self.trouble = time.monotonic(), ""
            except PersonaError as error:
                self.trouble = error.message
                log.warning(f"{self._name} waits", reason=error.message, code=error.code)
            except Exception:  # it outlives a defect; the next turn tries again
                self.trouble = "it failed on our side; the log has the cause"
                log.exception(f"{self._name} failed")
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
            except TimeoutError:
                continue
