"""What the relationships of a group are like as a whole: pure functions of who likes whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from persona_mcp.state.relationship_store import Party

Ends = tuple[str, str]


@dataclass(frozen=True)
class Metrics:
    """A graph in three numbers, each [0, 1], or None where there is nothing to divide by.

    Attributes:
        reciprocity: Share of the arrows between personas that have one coming back.
        balance: Share of the triads in which a friend's friend is a friend and an enemy's enemy
            too: the signs of the three bonds multiply to plus.
        density: Share of the possible arrows that are there; users have none of their own.
    """

    reciprocity: float | None
    balance: float | None
    density: float | None


def metrics(parties: Sequence[Party], strengths: Mapping[Ends, float]) -> Metrics:
    """Describe a graph.

    Args:
        parties: Its nodes.
        strengths: Strength of each arrow, (-1, 1), by (from, to); both ends are among the nodes.
    """
    personas = {one.id for one in parties if one.kind == "persona"}
    between = [ends for ends in strengths if ends[1] in personas]
    returned = sum(ends[::-1] in strengths for ends in between)
    possible = len(personas) * (len(parties) - 1)
    return Metrics(
        reciprocity=returned / len(between) if between else None,
        balance=balance([one.id for one in parties], strengths),
        density=len(strengths) / possible if possible else None,
    )


def balance(ids: Sequence[str], strengths: Mapping[Ends, float]) -> float | None:
    """Return the share of the triads that are balanced, [0, 1]; None without a triad.

    A bond has the sign of the sum of its arrows' strengths; a triad has three bonds that are not 0.
    With the signs as a matrix S, trace(S^3) = 6 * (balanced - unbalanced), trace(|S|^3) = 6 * all.
    Source: Heider 1946, Cartwright and Harary 1956 (structural balance).
    """
    place = {id: number for number, id in enumerate(ids)}
    sums = np.zeros((len(ids), len(ids)))
    for (from_id, to_id), strength in strengths.items():
        sums[place[from_id], place[to_id]] = strength
    signs = np.sign(sums + sums.T)
    triads = closed(np.abs(signs))
    return float((1 + closed(signs) / triads) / 2) if triads else None


def closed(matrix: np.ndarray) -> float:
    """Return trace(M^3) of a symmetric matrix."""
    return float(((matrix @ matrix) * matrix).sum())
