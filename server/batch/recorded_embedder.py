"""The embedder of one dialogue: where it failed stands among the recorded calls of the model.

What a dialogue makes of such a failure is the same then when it is held again from its recording,
whether the embedder answers there or not.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from persona_mcp.server.batch.dialogue_host import DialogueHost
from persona_mcp.state.embedding import Embedder, Vector
from persona_mcp.state.errors import PersonaError


class Failures(Protocol):
    """Where failures of the embedder are recorded, and played again."""

    def failure(self, said: object) -> PersonaError | None:
        """Return the recorded failure that is next, if it is of this text or these texts."""
        ...

    async def keep_failure(self, said: object, error: Exception) -> PersonaError:
        """Record a failure, and return it as it is raised."""
        ...


class RecordedEmbedder:
    """An `Embedder` whose failures are recorded."""

    def __init__(self, inner: Embedder, failures: Failures) -> None:
        """Stand before an embedder for one dialogue."""
        self._inner = inner
        self._failures = failures

    @property
    def model_id(self) -> str:
        """Name of the embedder behind it."""
        return self._inner.model_id

    async def dimension(self) -> int:
        """Length of a vector."""
        return await self._inner.dimension()

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts to be found; see `Embedder`.

        Raises:
            PersonaError: The embedder did not answer, or it did not when this was recorded.
        """
        return await self._tried(texts, lambda: self._inner.embed_documents(texts))

    async def embed_query(self, text: str) -> Vector:
        """Embed a text to find with; see `Embedder`.

        Raises:
            PersonaError: The embedder did not answer, or it did not when this was recorded.
        """
        return await self._tried(text, lambda: self._inner.embed_query(text))

    async def _tried(self, said: object, embed: Callable[[], Awaitable[Vector]]) -> Vector:
        if (failed := self._failures.failure(said)) is not None:
            raise failed
        try:
            return await embed()
        except Exception as error:
            raise await self._failures.keep_failure(said, error) from error

    async def aclose(self) -> None:
        """Leave the embedder open for others."""


async def recording_host(host: DialogueHost, failures: Failures) -> DialogueHost:
    """Return what one dialogue is held with, so that failures of its embedder are recorded.

    What all dialogues share is learned before, and no part of any.

    Raises:
        ModelError: The embedder did not answer.
        DeadlineExceeded: It took longer than its limit.
    """
    await host.local.prepare()
    embedder = RecordedEmbedder(host.embedder, failures)
    return replace(host, embedder=embedder, local=host.local.asking(embedder))
