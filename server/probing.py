"""Whether the language model is there: asked within a limit, and not again for a while."""

import asyncio
import time
from dataclasses import dataclass

from persona_mcp.state.errors import PersonaError
from persona_mcp.state.model import ChatModel

KEPT_S = 10.0
"""How long an answer counts, in seconds."""


@dataclass(frozen=True)
class Found:
    """What a look found.

    Attributes:
        at: When, in seconds of the monotonic clock.
        ok: The model is there.
        detail: Which one, or what to do about it.
    """

    at: float
    ok: bool
    detail: str


class Probe:
    """Looks whether a model is there."""

    def __init__(self, model: ChatModel, limit_s: float) -> None:
        """Look at this model, each time for at most so many seconds."""
        self._model = model
        self._limit_s = limit_s
        self._asking = asyncio.Lock()
        self._last: Found | None = None

    async def look(self) -> Found:
        """Return what was found in the last ten seconds, else look; many callers share a look."""
        async with self._asking:
            if self._last is None or time.monotonic() - self._last.at > KEPT_S:
                ok, detail = await self._ask()
                self._last = Found(time.monotonic(), ok, detail)
            return self._last

    async def _ask(self) -> tuple[bool, str]:
        try:
            async with asyncio.timeout(self._limit_s):
                return True, await self._model.check()
        except PersonaError as error:
            return False, error.message
        except TimeoutError:
            return False, f"the model did not answer within {self._limit_s:g} s"
