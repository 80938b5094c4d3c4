"""What pruning looks at, read in blocks: all of it, in one order, and alike much in each block."""

import numpy as np
import pytest
from sqlalchemy import func, select, update

from persona_mcp.state.database import Database
from persona_mcp.state.memory.columns import BLOCK, M, block_of, read_columns
from persona_mcp.state.memory.uses import add_uses
from tests.state.rows import NOW, fill

pytestmark = pytest.mark.anyio

IN_TURNS = [1, 2, 3, 7, 50, 64]


async def test_many_blocks_make_one_table_in_the_order_in_which_it_was_written(
    database: Database, world: str
) -> None:
    ids = fill(database, 3 * BLOCK)
    fill(database, 9, persona_id="tobin")
    used = {ids[BLOCK]: 2, ids[5]: 1, ids[-1]: 3}
    with database.writing() as connection:
        connection.execute(update(M).where(M.id == ids[7]).values(id="x" * 64))
        connection.execute(update(M).where(M.id == ids[8]).values(pinned=True))
        for id, conversations in used.items():
            for number in range(conversations):
                add_uses(connection, "main", [id], f"c{number}", f"x{id}{number}", NOW + number)
    ids[7] = "x" * 64

    with database.reading() as connection:
        found = read_columns(connection, "main", "mara")
        some = read_columns(connection, "main", "mara", ids[:4])
        none = read_columns(connection, "main", "nobody")

    assert found.ids.astype(str).tolist() == ids
    assert found.importance.tolist() == [0.2 + 0.4 * n / len(ids) for n in range(len(ids))]
    assert np.flatnonzero(found.pinned).tolist() == [8]
    assert found.accesses.tolist() == [used.get(id, 0) for id in ids]
    assert found.used_at.tolist() == [NOW + used[id] - 1 if id in used else 0 for id in ids]
    assert (some.ids.astype(str).tolist(), len(none)) == (ids[:4], 0)


@pytest.mark.parametrize("personas", IN_TURNS)
async def test_no_block_is_much_larger_however_many_personas_remember_in_turns(
    database: Database, world: str, personas: int
) -> None:
    fill(database, 20 * BLOCK)
    for blocks in (7, 8, 13, 20):
        count = blocks * BLOCK // personas
        query = (
            select(func.count())
            .where(M.seq % personas == 0)
            .where(M.seq <= count * personas)
            .group_by(block_of(M.seq))
        )
        with database.reading() as connection:
            sizes = connection.execute(query, {"blocks": count // BLOCK + 1}).scalars().all()

        assert max(sizes) <= 2 * BLOCK
