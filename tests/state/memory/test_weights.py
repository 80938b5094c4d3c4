"""How much memories weigh, in numbers alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.memory.params import RetentionParams
from persona_mcp.state.memory.weights import BINS, by_tenths, read_weights
from tests.state.rows import NOW, remember

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

DAY_S = 86_400.0


@given(st.lists(st.floats(0, 1)))
def test_every_share_is_counted_in_its_tenth(shares: list[float]) -> None:
    counts = by_tenths(shares)

    assert (len(counts), sum(counts)) == (BINS, len(shares))
    for tenth in range(BINS):
        expected = [s for s in shares if min(int(s * BINS), BINS - 1) == tenth]
        assert counts[tenth] == len(expected)


@pytest.mark.parametrize(("share", "tenth"), [(0.0, 0), (0.3, 3), (0.7, 7), (0.999, 9), (1.0, 9)])
def test_a_tenth_begins_with_its_edge_and_the_last_one_has_both(share: float, tenth: int) -> None:
    assert by_tenths([share]).index(1) == tenth


async def test_weights_are_those_of_one_persona_and_of_what_is_not_archived(
    database: Database, world: str
) -> None:
    await remember(database, "m1", "It froze.", importance=0.5, now=NOW - 90 * DAY_S)
    await remember(database, "m2", "It thawed.", importance=0.2, pinned=True, now=NOW - 90 * DAY_S)
    await remember(database, "used", "It rained.", importance=0.0, now=NOW - 90 * DAY_S)
    await remember(database, "gone", "It snowed.", values={"archived_at": NOW})
    await remember(database, "off", "It hailed.", values={"active": False})
    await remember(database, "his", "He sailed.", persona_id="tobin")
    use = {"memory_id": "used", "exchange_id": "x", "conversation_id": "c", "at": NOW}
    with database.writing() as connection:
        connection.execute(insert(tables.MemoryUse).values(world_id="main", active=True, **use))

    weights = await database.read(read_weights, "main", "mara")

    assert sorted(weights.importance) == [0.0, 0.2, 0.5]
    left = dict(zip(weights.importance, weights.retention(NOW, RetentionParams()), strict=True))
    assert left == {0.0: 1.0, 0.2: 1.0, 0.5: pytest.approx(0.5)}
    assert weights.uses.sum() == 1


async def test_a_persona_without_memories_has_no_weights(database: Database, world: str) -> None:
    weights = await database.read(read_weights, "main", "mara")

    assert weights.importance.shape == (0,)
    assert by_tenths(weights.retention(NOW, RetentionParams())) == [0] * BINS
    assert np.array_equal(weights.pinned, [])
