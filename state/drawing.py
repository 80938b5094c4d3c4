"""Everything that is drawn by lot: who speaks, how a talk is closed.

Each draw is a function of (seed, purpose, conversation, turn) and of nothing else, so a replay
draws the same whatever else was drawn.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from persona_mcp.state.continuation import ContinuationParams, ExitReason

D20 = 20
WORD_BYTES = 8
MANTISSA_BITS = 53

EXIT_LINES: Mapping[ExitReason, tuple[str, ...]] = MappingProxyType(
    {
        "urgent": (
            "Forgive me, something pressing has come up and I have to leave right away.",
            "I'm sorry to break off like this, but I'm needed elsewhere this very minute.",
            "Excuse me, this can't wait. I must run.",
        ),
        "tired": (
            "This was good, but I'm worn out. Let me rest, and we'll talk another time.",
            "My head is getting heavy. I'd better get some sleep before I nod off on you.",
            "I've enjoyed this, only I have no strength left today. Until next time.",
        ),
        "bored": (
            "I don't have much more to say on that. Let's leave it there for today.",
            "To be honest this isn't really my subject. Perhaps we'll find another one next time.",
            "I think I've heard enough about this for now, if you don't mind.",
        ),
        "budget": (
            "Let's stop here; we've covered a good deal.",
            "That seems a fair place to pause.",
            "I'll leave it at that for now.",
        ),
        "time_limit": (
            "It's getting late, so let's stop here.",
            "Our time is up, I'm afraid. Let's go on another day.",
            "I should be on my way. We can pick this up again later.",
        ),
        "natural_conclusion": (
            "Well, I think we've said what there was to say. Take care.",
            "Good, that's settled then. See you around.",
            "I'll be going now. Goodbye, and thanks for the talk.",
        ),
        "stagnation": (
            "We're going round in circles. Let's leave it there.",
            "I think we have said all this before. Another time, then.",
            "This leads us nowhere new. Let's stop while we're friends.",
        ),
    }
)
"""Lines for a persona that brings none of its own."""


def draw(seed: int | str, purpose: str, conversation_id: str, turn: int) -> float:
    """Draw a number in [0, 1), evenly spread, from a keyed hash (BLAKE2b) of the arguments."""
    bits = _bits(seed, purpose, conversation_id, turn)
    return float((bits >> (WORD_BYTES * 8 - MANTISSA_BITS)) / 2**MANTISSA_BITS)


def d20(seed: int | str, purpose: str, conversation_id: str, turn: int) -> int:
    """Roll a die of 20 sides, 1..20, by `draw`."""
    return 1 + int(D20 * draw(seed, purpose, conversation_id, turn))


def initiative(
    charisma: int, rank_level: int, energy: float, roll: int, params: ContinuationParams
) -> float:
    """Give the right to speak first: 2 * charisma + rank + floor(energy / 10) + d20."""
    rested = math.floor(energy / params.initiative_energy)
    return params.initiative_charisma * charisma + rank_level + rested + roll


def first_speaker(initiatives: Mapping[str, float]) -> str:
    """Find who starts: the highest initiative, ties by id (the first in order of the alphabet)."""
    return min(initiatives, key=lambda id: (-initiatives[id], id))


def next_speaker(
    initiatives: Mapping[str, float],
    named: Collection[str],
    last: str | None,
    lot: float,
    params: ContinuationParams,
) -> str:
    """Draw who speaks next in a group, by softmax over initiative + 4 named - 6 spoke last.

    Args:
        initiatives: By id, of those who can speak; at least one.
        named: Ids that the last turn named.
        last: Who spoke last.
        lot: From `draw`, [0, 1).
        params: Bonus and malus.
    """
    ids = sorted(initiatives)
    pulls = [
        initiatives[id]
        + (params.named_bonus if id in named else 0.0)
        - (params.spoke_malus if id == last else 0.0)
        for id in ids
    ]
    odds = [math.exp(pull - max(pulls)) for pull in pulls]
    rest = lot * math.fsum(odds)
    for id, chance in zip(ids, odds, strict=True):
        rest -= chance
        if rest < 0:
            return id
    return ids[-1]


def exit_line(
    reason: ExitReason, lot: float, own_lines: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Choose a line to leave with.

    Args:
        reason: Why the talk ends.
        lot: From `draw`, [0, 1).
        own_lines: The persona's lines by reason; the default ones stand in for a missing reason.
    """
    lines = (own_lines or {}).get(reason) or EXIT_LINES[reason]
    return lines[int(lot * len(lines))]


def _bits(seed: int | str, purpose: str, conversation_id: str, turn: int) -> int:
    key = "\x1f".join((str(seed), purpose, conversation_id, str(turn)))
    digest = hashlib.blake2b(key.encode(), digest_size=WORD_BYTES).digest()
    return int.from_bytes(digest, "big")
