"""The language model as callers have it: within their limits, and counted as theirs."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from persona_mcp.server.limits import Limits
from persona_mcp.server.measured import MeasuredModel
from persona_mcp.server.model_layer import ModelLayer
from persona_mcp.state.callers import current_caller
from persona_mcp.state.continuation import estimated_tokens
from persona_mcp.state.continuation_params import ContinuationParams
from persona_mcp.state.model import ChatModel, Chunk, Message, Sampling

if TYPE_CHECKING:
    from persona_mcp.server.store import Store


def metered(store: "Store", model: ChatModel) -> ChatModel:
    """Have a model's replies measured, and metered for its callers."""
    measured = MeasuredModel(model, store.metrics)
    return MeteredModel(measured, store.limits, store.settings.continuation)


class MeteredModel(ModelLayer):
    """A `ChatModel` whose replies count for whoever the work is done for."""

    def __init__(self, model: ChatModel, limits: Limits, laws: ContinuationParams) -> None:
        """Stand before a model.

        Args:
            model: Who replies.
            limits: What callers may have of it.
            laws: How tokens are estimated that nobody has counted.
        """
        super().__init__(model)
        self._limits = limits
        self._laws = laws

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply; see `ChatModel`. What was made of one that was stopped counts too.

        Raises:
            LimitExceeded: The caller's tokens of today are used up; the model was not asked.
            RateLimited: The model is asked too often; it was not asked.
            ModelError: As the one behind.
            DeadlineExceeded: Likewise.
        """
        caller = current_caller()
        await self._limits.admit_model_call(caller)
        said: list[str] = []
        counted: int | None = None
        try:
            async with aclosing(self._model.stream(messages, sampling)) as chunks:
                async for chunk in chunks:
                    said.append(chunk.text)
                    counted = chunk.output_tokens or counted
                    yield chunk
        finally:
            if counted is None:
                counted = estimated_tokens(len("".join(said).split()), self._laws)
            self._limits.spending.note(caller.id, counted)
