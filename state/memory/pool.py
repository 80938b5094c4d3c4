"""A pool to score, made of rows that a search has read."""

from collections.abc import Sequence

import numpy as np

from persona_mcp.state.embedding import Vector, dots, unpack
from persona_mcp.state.memory.memories import Found
from persona_mcp.state.memory.retrieval import Numbers, Pool, Spoken, Turns

TURN = "conversation"
"""The type of a memory that is a turn, word for word."""


def cosines(blobs: Sequence[bytes | None], vector: Vector | None) -> Numbers:
    """Compare stored vectors with one, shape (blobs,); NaN where one of the two is not there."""
    found = np.full(len(blobs), np.nan)
    there = [at for at, blob in enumerate(blobs) if blob is not None]
    if vector is not None and there:
        rows = unpack(b"".join(blob for blob in blobs if blob is not None))
        found[there] = dots(rows.reshape(len(there), -1), vector)
    return found


def pool_of(
    rows: Sequence[Found],
    lexical: Sequence[float],
    vector: Vector | None,
    wanted: Sequence[bool],
) -> Pool:
    """Make a pool of rows, the scores of their words, and which of them may be returned."""
    turns, speakers = Turns(), dict[str, str]()
    for row in rows:
        turns.add(spoken_of(row, speakers))
    places = np.arange(len(rows))
    return Pool(
        [row.id for row in rows],
        places,
        cosines([row.vector for row in rows], vector),
        np.array(lexical, dtype=np.float64),
        turns.taken(places),
        np.array(wanted, dtype=np.bool_),
    )


def spoken_of(found: Found, speakers: dict[str, str]) -> Spoken | None:
    """Read what is known of a turn; None for a memory that is none.

    Args:
        found: The memory.
        speakers: Speakers by what stands before a text; what is new is added.
    """
    if found.turn_id is None or found.memory_type != TURN or found.conversation_id is None:
        return None
    before = found.indexed_text[: len(found.indexed_text) - len(found.content)]
    if before not in speakers:
        speakers[before] = before.partition("] ")[2].rstrip().removesuffix(":")
    where = found.persona_id, found.conversation_id, found.turn_number
    return Spoken(*where, found.created_at, speakers[before], found.content)
