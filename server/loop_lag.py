"""How late the event loop is: what blocks it makes everybody wait."""

import asyncio
from collections.abc import Callable

EVERY_S = 0.5


class LoopLag:
    """Looks twice a second how late it is looked."""

    def __init__(self, late: Callable[[float], None]) -> None:
        """Tell this function how late, in seconds; begins at once, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._late = late
        self._next = self._loop.call_later(EVERY_S, self._look, self._loop.time() + EVERY_S)

    def _look(self, due: float) -> None:
        now = self._loop.time()
        self._late(max(0.0, now - due))
        self._next = self._loop.call_later(EVERY_S, self._look, now + EVERY_S)

    def stop(self) -> None:
        """Look no more."""
        self._next.cancel()
