"""What the product asks of an embedder, and how vectors are kept in SQL."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
QUERIES_KEPT = 64
"""As many as exchanges that may be under way; a vector takes 2 to 8 kB."""


class Embedder(Protocol):
    """Texts to unit vectors; rows in the order of the texts."""

    @property
    def model_id(self) -> str:
        """Name that is stored beside each vector; vectors of two ids cannot be compared."""
        ...

    async def dimension(self) -> int:
        """Length of a vector; asked of the model once, never guessed."""
        ...

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts to be found: float32, shape (n, d), rows of length 1; (0, d) for none.

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        ...

    async def embed_query(self, text: str) -> Vector:
        """Embed a text to find with: float32, shape (d,), length 1.

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the model."""
        ...


class RecentQueries:
    """An embedder that keeps the vectors of its last queries: an exchange asks twice for a message.

    Once to find what bears on it, once to tell how it is taken.
    """

    def __init__(self, embedder: Embedder, most: int = QUERIES_KEPT) -> None:
        """Ask this embedder for what is not kept, and keep no more than `most`."""
        self._embedder = embedder
        self._most = most
        self._kept: OrderedDict[str, Vector] = OrderedDict()

    @property
    def model_id(self) -> str:
        """Name of the embedder behind it."""
        return self._embedder.model_id

    async def dimension(self) -> int:
        """Length of a vector."""
        return await self._embedder.dimension()

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts to be found; none is kept.

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        return await self._embedder.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        """Embed a text to find with, or return what it was embedded to; never a failure.

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        known = self._kept.get(text)
        if known is None:
            known = await self._embedder.embed_query(text)
        return self._keep(self._kept, text, known)

    def _keep(self, kept: OrderedDict[str, Vector], text: str, vector: Vector) -> Vector:
        vector.flags.writeable = False
        kept[text] = vector
        kept.move_to_end(text)
        if len(kept) > self._most:
            kept.popitem(last=False)
        return vector

    async def aclose(self) -> None:
        """Let go of the model."""
        await self._embedder.aclose()


def dots(rows: Vector, vector: Vector) -> Vector:
    """Return the product of each row with a vector: (n, d) and (d,) give (n,).

    In the caller's thread: the threads of a BLAS product wait busily for the next one, which costs
    more than a product of this size.
    """
    found: Vector = np.einsum("ij,j->i", rows, vector)
    return found


def pack(vector: Vector) -> bytes:
    """Turn a vector into little-endian float16 bytes, 2 a dimension (cosine kept to 1.0000)."""
    return vector.astype("<f2").tobytes()


def unpack(blob: bytes) -> Vector:
    """Turn stored float16 bytes back into float32, shape (d,)."""
    return np.frombuffer(blob, dtype="<f2").astype(np.float32)
