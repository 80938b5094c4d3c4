"""A model whose calls are counted and timed, for one dialogue of a batch."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from persona_mcp.server.model_layer import ModelLayer
from persona_mcp.state.model import ChatModel, Chunk, Message, Sampling


class Counted(ModelLayer):
    """Stands before a model and counts.

    Attributes:
        calls: How many replies were asked for.
        seconds: How long they took.
        said: What the last one has said so far.
    """

    def __init__(self, model: ChatModel) -> None:
        """Stand before this one."""
        super().__init__(model)
        self.calls = 0
        self.seconds = 0.0
        self.said = ""

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
