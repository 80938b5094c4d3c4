"""A failure of the embedder is recorded, and played again at the same place."""

import pytest

from persona_mcp.server.batch.recorded_embedder import RecordedEmbedder
from persona_mcp.server.batch.recorded_model import RecordedModel
from persona_mcp.state.errors import ModelError
from tests.doubles import FickleEmbedder, ScriptedModel

pytestmark = pytest.mark.anyio


async def recorded() -> RecordedModel:
    """Record an embedder that answered once, and failed then."""
    inner, model = FickleEmbedder(), RecordedModel(ScriptedModel(), 3)
    embedder = RecordedEmbedder(inner, model)
    await embedder.embed_query("first")
    inner.fault = ModelError("the embedder went away")
    with pytest.raises(ModelError):
        await embedder.embed_query("second")
    return model


async def test_it_fails_again_at_the_same_text_though_the_embedder_answers() -> None:
    (call,) = (model := await recorded()).calls
    again = RecordedModel(None, 3, model.calls)
    embedder = RecordedEmbedder(FickleEmbedder(), again)

    await embedder.embed_query("first")
    with pytest.raises(ModelError, match="the embedder went away"):
        await embedder.embed_query("second")
    await embedder.embed_query("second")

    assert (call.index, call.number, call.purpose, call.model) == (3, 0, "embedding", "")
    assert (again.calls, again.fault, model.fault) == ((call,), None, None)


async def test_what_fails_only_when_it_is_held_again_is_no_outcome() -> None:
    inner, again = FickleEmbedder(), RecordedModel(None, 3)
    inner.fault = ModelError("the embedder went away")

    with pytest.raises(ModelError):
        await RecordedEmbedder(inner, again).embed_documents(["first"])

    assert (again.calls, again.fault) == ((), inner.fault)
