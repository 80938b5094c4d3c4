"""What is left of the turns that answer questions when memories are archived: by whose choice."""

import random
from collections.abc import Iterable, Sequence
from statistics import mean

from sqlalchemy import select

from benchmarks.locomo import Asked
from persona_mcp.server.operations.memory_upkeep import pruning_of
from persona_mcp.server.service import Service
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.tables import Memory

MARGIN, OF_SURVIVAL = 0.1, 0.9
"""What the product holds itself to: survival above random's, and R@10 as a share of survival."""
DRAWS = 20
"""Random prunings that the mean is of; each has a seed of its own."""


async def forget(service: Service, asked: Sequence[Asked], share: float) -> dict[str, float]:
    """Archive a share of every conversation's memories, when it ends, by the product's own score.

    Returns:
        archived: The share that was; survival: of the memories that answer questions; random and
        oldest: the same, had as many gone at random, or oldest first.
    """
    left: list[set[str]] = []
    turns: list[list[str]] = []
    for one in asked:
        run = await pruning_of(service).prune_share(one.world_id, one.reader, share, one.ends)
        query = select(Memory.turn_id, Memory.archived_at).where(Memory.world_id == one.world_id)
        rows = await service.database.read(Prepared(query.order_by(Memory.seq)).all)
        turns.append([one.turns[row.turn_id] for row in rows])
        left.append({one.turns[row.turn_id] for row in rows if row.archived_at is None})
        assert run is None or len(rows) - run.archived == len(left[-1])
    counts = [len(some) for some in left]

    def drawn(seed: int) -> Iterable[set[str]]:
        chance = random.Random(seed)
        return (set(chance.sample(all, count)) for all, count in zip(turns, counts, strict=True))

    newest = (set(all[len(all) - count :]) for all, count in zip(turns, counts, strict=True))
    return {
        "archived": 1 - sum(counts) / sum(map(len, turns)),
        "survival": survival(asked, left),
        "random": mean(survival(asked, drawn(seed)) for seed in range(DRAWS)),
        "oldest": survival(asked, newest),
    }


def survival(asked: Sequence[Asked], left: Iterable[set[str]]) -> float:
    """Return the share of the turns that answer questions that is left, over all conversations."""
    evidence = sum(len(one.evidence) for one in asked)
    kept = (len(one.evidence & some) for one, some in zip(asked, left, strict=True))
    return sum(kept) / evidence
