"""The server's own model, lent to a batch."""

import pytest

from persona_mcp.server.batch.borrowed_model import BorrowedModel, borrowed_pool
from persona_mcp.state.errors import DeadlineExceeded, ModelError
from persona_mcp.state.model import Message, Sampling
from tests.doubles import Fails, ScriptedModel

pytestmark = pytest.mark.anyio

ASKED = [Message("user", "Good evening.")]
SAMPLING = Sampling(max_tokens=20, temperature=0.5)
FULL = DeadlineExceeded("no free place at the model", stage="queue")


async def said(model: BorrowedModel) -> str:
    return "".join([chunk.text async for chunk in model.stream(ASKED, SAMPLING)])


async def test_a_batch_asks_again_where_it_found_no_free_place_in_time() -> None:
    model = ScriptedModel(Fails(FULL), Fails(FULL), "Good evening to you.")

    assert await said(BorrowedModel(model)) == "Good evening to you."
    assert len(model.history) == 3


@pytest.mark.parametrize(
    "error", [ModelError("it broke off"), DeadlineExceeded("no first token", stage="first_token")]
)
async def test_every_other_fault_is_the_dialogues(error: Exception) -> None:
    model = ScriptedModel(Fails(error), "Never said.")

    with pytest.raises(type(error)):
        await said(BorrowedModel(model))
    assert len(model.history) == 1


async def test_giving_it_back_leaves_the_servers_model_open() -> None:
    model = ScriptedModel()

    await borrowed_pool(model, 2).aclose()

    assert not model.closed
