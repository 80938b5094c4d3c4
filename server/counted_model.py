"""A model whose calls are counted and timed, for one dialogue of a batch."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from persona_mcp.state.model import ChatModel, Chunk, Message, ModelInfo, Offer, Sampling


class Counted:
    """Stands before a model and counts.

    Attributes:
        calls: How many replies were asked for.
        seconds: How long they took.
        said: What the last one has said so far.
    """

    def __init__(self, model: ChatModel) -> None:
        """Stand before this one."""
        self._model = model
        self.calls = 0
        self.seconds = 0.0
        self.said = ""

    async def info(self) -> ModelInfo:
        """Ask the one behind."""
        return await self._model.info()

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Pass on, and count.

        Raises:
            ModelError: As the one behind.
            DeadlineExceeded: Likewise.
        """
        self.calls += 1
        self.said = ""
        began = time.monotonic()
        try:
            async with aclosing(self._model.stream(messages, sampling)) as chunks:
                async for chunk in chunks:
                    self.said += chunk.text
                    yield chunk
        finally:
            self.seconds += time.monotonic() - began

    async def offered(self) -> Offer:
        """Ask the one behind."""
        return await self._model.offered()

    async def check(self) -> str:
        """Ask the one behind."""
        return await self._model.check()

    async def aclose(self) -> None:
        """Close the one behind."""
        await self._model.aclose()
