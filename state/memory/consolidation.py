"""Finding near duplicates among the memories of one persona: pure functions."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_mcp.state.embedding import Vector


class Mergeable(NamedTuple):
    """A memory that may be merged with others.

    Attributes:
        id: Of the memory.
        kind: What memories must share to be merged: type, visibility, witnesses and so on.
        importance: 0..1.
        created_at: Seconds since the epoch, UTC.
        vector: float32, shape (d,), of length 1; all of one length.
    """

    id: str
    kind: Hashable
    importance: float
    created_at: float
    vector: Vector


def groups_of(memories: Sequence[Mergeable], similarity: float) -> list[tuple[str, ...]]:
    """Find what is to be merged: ids, two or more a group, the one whose words are kept first.

    Greedy: the weightiest memory (then the newest, then by id) takes all of its kind that are at
    least as near as `similarity`; then the weightiest that is left does. So those that are left
    over are farther from each other than that, and a second look finds nothing more.
    """
    found = []
    kinds: dict[Hashable, list[Mergeable]] = {}
    for one in sorted(memories, key=lambda m: (-m.importance, -m.created_at, m.id)):
        kinds.setdefault(one.kind, []).append(one)
    for of_kind in kinds.values():
        if len(of_kind) > 1:
            found += groups_of_kind(of_kind, similarity)
    return found


def groups_of_kind(ordered: Sequence[Mergeable], similarity: float) -> list[tuple[str, ...]]:
    """Group memories of one kind, in this order."""
    rows = np.stack([one.vector for one in ordered])
    free: NDArray[np.bool_] = np.ones(len(ordered), dtype=np.bool_)
    found = []
    for first in range(len(ordered)):
        if not free[first]:
            continue
        free[first] = False
        behind = np.flatnonzero(free)
        near = behind[rows[behind] @ rows[first] >= similarity]
        if near.size:
            free[near] = False
            found.append((ordered[first].id, *(ordered[row].id for row in near)))
    return found
