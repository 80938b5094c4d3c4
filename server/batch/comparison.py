"""Ways that one dialogue went, side by side: where they part, how they end, what is left of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from persona_mcp.server.terminal import printable
from persona_mcp.state.batch.reading import SaidTurn, said
from persona_mcp.state.batch.values import Outcome
from persona_mcp.state.continuation import reason_in_words

ORIGINAL = "original"
SHOWN = ("affinity", "trust", "respect", "intimacy", "strength")
"""Dimensions of a relationship that are compared."""
Compared = dict[str, Any]


def compared(original: Outcome, others: Sequence[Outcome]) -> list[Compared]:
    """Describe ways that a dialogue went, the original one first.

    Each has its name, status, exit_reason, error, turns, tokens, `parts_at` (the first turn that is
    not as in the original, None if all are the same) and relationships at the end.
    """
    first = said(original)
    named = [(ORIGINAL, original), *((fork_name(n), one) for n, one in enumerate(others, 1))]
    return [described(name, outcome, first) for name, outcome in named]


def fork_name(number: int) -> str:
    """Name a fork, counted from 1."""
    return f"fork {number}"


def described(name: str, outcome: Outcome, first: Sequence[SaidTurn]) -> Compared:
    """Describe one way that a dialogue went."""
    turns = said(outcome)
    return {
        "name": name,
        "status": outcome.status,
        "exit_reason": outcome.exit_reason,
        "error": dict(outcome.error) if outcome.error is not None else None,
        "turns": sum(turn.kind != "narrated" for turn in turns),
        "tokens": sum(turn.tokens for turn in turns),
        "parts_at": parting(first, turns),
        "relationships": [
            {"of": of, "to": to, **{name: shown[name] for name in SHOWN}}
            for (of, to), shown in sorted(outcome.after.items())
        ],
    }


def parting(one: Iterable[SaidTurn], other: Iterable[SaidTurn]) -> int | None:
    """Return the number of the first turn that is not the same in both; None if all are."""
    for pair in zip_longest(one, other):
        said_in = [turn and (turn.speaker, turn.text, turn.heard_by, turn.kind) for turn in pair]
        if said_in[0] != said_in[1]:
            return min(turn.number for turn in pair if turn is not None)
    return None


def transcript(outcome: Outcome, names: Mapping[str, str]) -> Iterator[str]:
    """Write a dialogue as lines of text, without control characters: it is read in terminals.

    Args:
        outcome: Of it.
        names: Of the personas, by id.
    """
    return map(printable, transcript_lines(outcome, names))


def transcript_lines(outcome: Outcome, names: Mapping[str, str]) -> Iterator[str]:
    """Write a dialogue as lines of text, with all that is in it."""
    for turn in said(outcome):
        speaker = names.get(turn.speaker, turn.speaker)
        if turn.kind == "narrated":
            yield f"{turn.number}. ({turn.text})"
        elif turn.kind == "whispered":
            heard = ", ".join(names.get(one, one) for one in turn.heard_by)
            yield f"{turn.number}. {speaker} (to {heard} alone): {turn.text}"
        else:
            yield f"{turn.number}. {speaker}: {turn.text}"
    if outcome.error is not None:
        yield f"(failed: {outcome.error.get('message', '')})"
    else:
        yield f"(ended: {reason_in_words(outcome.exit_reason)})"
