"""Summaries made in the background: one after the other, and never in the way of a reply."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from persona_mcp.state.callers import Identity, called_by, current_caller
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.summaries import Outgrown

log = structlog.get_logger(__name__)


class Summaries:
    """Takes the conversations that have outgrown their windows, and has them summed up.

    What is lost with the process is made when the conversation goes on: nothing is kept here.
    """

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._waiting: dict[tuple[str, str, str], tuple[Outgrown, Identity]] = {}
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def ask(self, talk: Outgrown) -> None:
        """Have a conversation summed up, for whoever said what outgrew its window.

        Of one that waits already, its newest end counts.
        """
        key = talk.world_id, talk.conversation_id, talk.persona_id
        self._waiting[key] = talk, current_caller()
        self._idle.clear()
        self._changed.set()

    async def settled(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def run(self, sum_up: Callable[[Outgrown], Awaitable[object]]) -> None:
        """Work until cancelled; what fails is logged, and made when the conversation goes on."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                talk, caller = self._waiting.pop(next(iter(self._waiting)))
                try:
                    with called_by(caller):
                        await sum_up(talk)
                except PersonaError as error:
                    log.warning("not summed up", reason=error.message, code=error.code)
                except Exception:  # it outlives a defect: no exchange depends on it
                    log.exception("not summed up", conversation_id=talk.conversation_id)
            self._idle.set()
