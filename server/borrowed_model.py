"""The server's own model and embedder, lent to a batch: it waits behind chats, and closes nothing.

A reply of a chat that finds no free place fails after a while, since somebody waits for it. A batch
has time: it asks again.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from persona_mcp.server.model_pool import ModelPool, Post
from persona_mcp.state.embedding import Embedder, Vector
from persona_mcp.state.errors import DeadlineExceeded
from persona_mcp.state.model import ChatModel, Chunk, Message, ModelInfo, Offer, Sampling

log = structlog.get_logger(__name__)

QUEUE = "queue"
"""Stage of a reply that found no free place in time."""
OWN = "the server's own model"


class BorrowedModel:
    """A `ChatModel` for a batch; closing it leaves the server's model open."""

    def __init__(self, model: ChatModel) -> None:
        """Lend this model."""
        self._model = model

    async def info(self) -> ModelInfo:
        """Say which model answers; see `ChatModel`."""
        return await self._model.info()

    async def offered(self) -> Offer:
        """Say which models there are; see `ChatModel`."""
        return await self._model.offered()

    async def check(self) -> str:
        """Say whether it is there; see `ChatModel`."""
        return await self._model.check()

    async def aclose(self) -> None:
        """Give it back."""

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply; see `ChatModel`. The wait for a free place has no limit."""
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


def borrowed_pool(model: ChatModel, places: int) -> ModelPool:
    """Make a pool of the server's own model, from which a batch takes so many places at most."""
    return ModelPool([Post(OWN, BorrowedModel(model), places)])
