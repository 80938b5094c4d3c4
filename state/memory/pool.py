"""A pool to score, made of rows that a search has read."""

from collections.abc import Sequence

from persona_mcp.state.embedding import Vector, dots, unpack
from persona_mcp.state.memory.memories import Found
from persona_mcp.state.memory.retrieval import Pool, Spoken, Turns

TURN = "conversation"
"""The type of a memory that is a turn, word for word."""


def cosines(blobs: Sequence[bytes | None], vector: Vector | None) -> list[float | None]:
    """Compare stored vectors with one; None where one of the two is not there."""
    there = [blob for blob in blobs if blob is not None]
    if vector is None or not there:
        return [None] * len(blobs)
    rows = unpack(b"".join(there)).reshape(len(there), -1)
    found = iter(dots(rows, vector).tolist())
    return [None if blob is None else next(found) for blob in blobs]


def pool_of(rows: Sequence[Found], lexical: Sequence[float], vector: Vector | None) -> Pool:
    """Make a pool of rows and the scores of their words."""
    turns, speakers = Turns(), dict[str, str]()
    for row in rows:
        turns.add(spoken_of(row, speakers))
    dense = cosines([row.vector for row in rows], vector)
    return Pool([row.id for row in rows], dense, lexical, turns, range(len(rows)))


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
