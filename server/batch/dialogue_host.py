"""What one process needs once to hold dialogues of a batch: laws, limits, embedder, appraiser."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from persona_mcp.config.database import empty_database
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import Settings
from persona_mcp.nodes.appraising import ModelAppraiser
from persona_mcp.nodes.parts import Laws, Limits
from persona_mcp.server.store import laws_of
from persona_mcp.state import small_turns
from persona_mcp.state.appraiser import Appraiser
from persona_mcp.state.batch.values import Cast
from persona_mcp.state.embedding import Embedder, RecentQueries, Vector, pack
from persona_mcp.state.inline_database import Copies, InlineDatabase
from persona_mcp.state.local_appraiser import LocalAppraiser
from persona_mcp.state.memory.importance import load_words
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.model import ChatModel
from persona_mcp.state.small_turns import Unembedded
from persona_mcp.state.small_world import begin_world

TEXTS_KEPT = 4096
"""Vectors of texts that may be asked for again, by other dialogues too; 6 MB at 384 dimensions."""


class TextEmbedder(RecentQueries):
    """Embeds one text at a time, and keeps what it has embedded.

    A model of several texts at once may round each of them otherwise than alone: what a dialogue
    comes to must not depend on what else is held.
    """

    def __init__(self, embedder: Embedder, most: int = TEXTS_KEPT) -> None:
        """Ask this embedder for what is not kept, and keep no more than `most` of each kind."""
        super().__init__(embedder, most)
        self._documents: OrderedDict[str, Vector] = OrderedDict()

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts to be found, one after the other: float32, shape (n, d).

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        if not texts:
            return await self._embedder.embed_documents(texts)
        return np.stack([await self._document(text) for text in texts])

    async def _document(self, text: str) -> Vector:
        known = self._documents.get(text)
        if known is None:
            known = (await self._embedder.embed_documents([text]))[0]
        return self._keep(self._documents, text, known)


@dataclass(frozen=True)
class DialogueHost:
    """Made once a process, by `dialogue_host`.

    Attributes:
        laws: Constants of everything that happens in a dialogue.
        limits: Of prompts and attempts.
        retrieval: Weights of a search.
        embedder: One text at a time.
        local: The appraiser that needs no model.
        asks_model: Utterances are appraised by the model, as the settings say.
        copies: Of worlds, for those who hold dialogues in them.
    """

    laws: Laws
    limits: Limits
    retrieval: RetrievalParams
    embedder: Embedder
    local: LocalAppraiser
    asks_model: bool
    copies: Copies = field(default_factory=Copies)

    def appraiser(self, model: ChatModel) -> Appraiser:
        """Return how utterances are taken where this model writes the replies.

        A model that appraises has no limit but its own: one that the clock cut off would be cut
        off elsewhere in a replay.
        """
        return ModelAppraiser(model, self.local, None) if self.asks_model else self.local

    async def read(self) -> None:
        """Read the files that each dialogue needs, away from the loop; else the first one waits."""
        await self.local.read()
        await asyncio.to_thread(load_words)

    async def begin_world(self, cast: Cast, starts_at: float) -> bytes:
        """Make the world that a run begins in, with the vectors of all that is known there.

        Args:
            cast: Who is in it.
            starts_at: When, in seconds since the epoch, UTC; never before what somebody brings.

        Returns:
            The world, frozen.

        Raises:
            InvalidParams: The cast does not fit into one world.
            ModelError: The embedder did not answer.
        """
        laws = self.laws
        made = begin_world(empty_database(), cast, starts_at, laws.effects, laws.importance)
        with InlineDatabase(made) as database:
            rows = await database.read(small_turns.without_vector, self.embedder.model_id)
            if rows:
                await self.embed(database, rows)
            return database.freeze()

    async def embed(self, database: InlineDatabase, rows: Sequence[Unembedded]) -> None:
        """Write the vectors of memories of a small world.

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        vectors = await self.embedder.embed_documents([row.indexed_text for row in rows])
        packed = [pack(vector) for vector in vectors]
        await database.write(small_turns.add_vectors, rows, packed, self.embedder.model_id)

    async def aclose(self) -> None:
        """Let go of the embedder, and of worlds."""
        self.copies.close()
        await self.embedder.aclose()


def dialogue_host(settings: Settings, embedder: Embedder | None = None) -> DialogueHost:
    """Make what dialogues are held with, by the settings.

    Args:
        settings: Of the laws, the prompts, the search and the embedder; no data folder is opened.
        embedder: In place of the one that they name.
    """
    ours = TextEmbedder(embedder or open_embedder(settings.embedder))
    return DialogueHost(
        laws=laws_of(settings),
        limits=Limits(
            settings.conversation.window_turns,
            settings.prompts.memories,
            settings.conversation.attempts,
        ),
        retrieval=settings.retrieval,
        embedder=ours,
        local=LocalAppraiser(ours),
        asks_model=settings.relationships.appraiser == "model",
    )
