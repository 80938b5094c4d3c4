"""The server's own model and embedder, lent to a batch: it waits behind chats, and closes nothing.

A reply of a chat that finds no free place fails after a while, since somebody waits for it. A batch
has time: it asks again. If its caller's limits say to come back much later, it is left alone till
then, so that it holds nothing up.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from persona_mcp.server.batch.model_pool import ModelPool, Post
from persona_mcp.server.model_layer import ModelLayer
from persona_mcp.state.embedding import Embedder, Vector
from persona_mcp.state.errors import DeadlineExceeded, LimitExceeded, PersonaError, RateLimited
from persona_mcp.state.model import ChatModel, Chunk, Message, Sampling

log = structlog.get_logger(__name__)

QUEUE = "queue"
"""Stage of a reply that found no free place in time."""
WAITED_S = 5.0
"""A batch waits for so long, in seconds; where limits say to come back later, it is paused."""
Paused = asyncio.Future[PersonaError]
"""Why a batch cannot go on now."""
OWN = "the server's own model"


class BorrowedModel(ModelLayer):
    """A `ChatModel` for a batch; closing it leaves the server's model open."""

    def __init__(self, model: ChatModel, paused: Paused | None = None) -> None:
        """Lend this model.

        Args:
            model: It.
            paused: Is told why nothing can be said for long; None has that raised.
        """
        super().__init__(model)
        self._paused = paused

    async def aclose(self) -> None:
        """Give it back."""

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply; see `ChatModel`. The wait for a free place has no limit.

        Who is over a limit for long is told so by `paused`, and stays here until it is cancelled.
        """
        while True:
            try:
                async with aclosing(self._model.stream(messages, sampling)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except DeadlineExceeded as error:
                if error.data.get("stage") != QUEUE:
                    raise
                log.info("a batch waits on for a place at the model")
            except (RateLimited, LimitExceeded) as error:
                await self._come_back(error)

    async def _come_back(self, error: PersonaError) -> None:
        """Wait as long as a limit says; if that is long, until the batch is left alone.

        Raises:
            PersonaError: The limit is none that time helps with.
        """
        wait_s = error.data.get("retry_after_seconds")
        if wait_s is not None and wait_s <= WAITED_S:
            await asyncio.sleep(wait_s)
            return
        if wait_s is None or self._paused is None:
            raise error
        if not self._paused.done():
            self._paused.set_result(error)
        await asyncio.Event().wait()


class BorrowedEmbedder:
    """An `Embedder` for a batch; closing it leaves the server's embedder open."""

    def __init__(self, embedder: Embedder) -> None:
        """Lend this embedder."""
        self._embedder = embedder

    @property
    def model_id(self) -> str:
        """Name of the embedder behind it."""
        return self._embedder.model_id

    async def dimension(self) -> int:
        """Length of a vector; see `Embedder`."""
        return await self._embedder.dimension()

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts to be found; see `Embedder`."""
        return await self._embedder.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        """Embed a text to find with; see `Embedder`."""
        return await self._embedder.embed_query(text)

    async def aclose(self) -> None:
        """Give it back."""


def borrowed_pool(model: ChatModel, places: int, paused: Paused | None = None) -> ModelPool:
    """Make a pool of the server's own model, from which a batch takes so many places at most."""
    return ModelPool([Post(OWN, BorrowedModel(model, paused), places)])
