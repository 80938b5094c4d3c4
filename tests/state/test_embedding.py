import numpy as np
import pytest

from persona_mcp.state.embedding import RecentQueries, Vector, dots, pack, unpack
from persona_mcp.state.errors import ModelError
from tests.doubles import FickleEmbedder

pytestmark = pytest.mark.anyio


class Counting(FickleEmbedder):
    """Also counts the queries."""

    async def embed_query(self, text: str) -> Vector:
        self.embedded.append(text)
        return await super().embed_query(text)


async def test_a_query_that_was_asked_a_moment_ago_is_not_embedded_again() -> None:
    behind = Counting()
    queries = RecentQueries(behind, most=2)

    first = await queries.embed_query("sea")
    await queries.embed_query("sand")
    assert (await queries.embed_query("sea") == first).all()
    assert behind.embedded == ["sea", "sand"]

    await queries.embed_query("sky")  # takes the place of the one unused for longest
    await queries.embed_query("sea")
    await queries.embed_query("sand")
    assert behind.embedded == ["sea", "sand", "sky", "sand"]


async def test_a_failure_is_not_kept_and_a_kept_vector_cannot_be_changed() -> None:
    behind = Counting()
    queries = RecentQueries(behind)

    behind.fault = ModelError("the embedder does not answer")
    with pytest.raises(ModelError):
        await queries.embed_query("sea")
    behind.fault = None
    vector = await queries.embed_query("sea")

    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 2.0


def test_a_stored_vector_keeps_its_direction() -> None:
    row = np.array([0.6, 0.8], dtype=np.float32)

    assert dots(unpack(pack(row))[None], row) == pytest.approx([1.0], abs=1e-3)
