"""Summing up what has left the window of a conversation: when, which turns, and without a model."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.state.exchange import Turn

SUMMARY = "summary"
"""The type of such a memory."""
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
MadeBy = Literal["model", "extractive"]


class SummaryParams(BaseModel):
    """How turns are summed up that no prompt shows word for word any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(
        10, ge=2, le=200, description="Turns that leave the window before they are summed up"
    )
    tokens: int = Field(60, ge=16, le=1000, description="Longest summary of them, in tokens")
    shown: int = Field(
        3, ge=0, le=20, description="Summaries that a large model is shown, the newest"
    )
    overdue: int = Field(
        4, ge=1, le=100, description="Summaries made at once where several are due, the newest"
    )

    def deep(self, window: int, summaries: int) -> int:
        """Return how many of the last turns hold the window and so many summaries behind it."""
        return window + (summaries + 1) * self.every


@dataclass(frozen=True)
class Summary:
    """What some turns come to.

    Attributes:
        id: Of the memory.
        text: In a few sentences.
        from_turn: Number of the first turn.
        to_turn: Number of the last one.
        made_by: A model, or the weightiest sentences as they were said.
    """

    id: str
    text: str
    from_turn: int
    to_turn: int
    made_by: MadeBy


class Sentence(NamedTuple):
    """Something that was said.

    Attributes:
        speaker: Who said it.
        text: The sentence.
        weight: What it weighs, 0..1.
    """

    speaker: str
    text: str
    weight: float


def is_due(before: int, after: int, window: int, every: int) -> bool:
    """Tell whether an exchange has filled another `every` turns that are out of the window.

    Args:
        before: Turns of the conversation before it.
        after: Turns after it.
        window: Turns that a prompt shows word for word.
        every: Turns that are summed up together.
    """
    return max(0, after - window) // every > max(0, before - window) // every


def spans_of(
    turns: Sequence[Turn], window: int, summed_to: int, params: SummaryParams
) -> list[tuple[Turn, ...]]:
    """Return the turns that are to be summed up, those of one summary together, oldest first.

    Args:
        turns: The last turns of the conversation, oldest first.
        window: How many of them a prompt still shows.
        summed_to: Number of the last turn that is summed up; 0 if none is.
        params: How many turns a summary has.
    """
    left = [turn for turn in turns[: max(0, len(turns) - window)] if turn.number > summed_to]
    whole = len(left) - len(left) % params.every
    spans = [tuple(left[at : at + params.every]) for at in range(0, whole, params.every)]
    return spans[-params.overdue :]


def sentences_of(
    turns: Sequence[Turn], weigh: Callable[[str], float], names: dict[str, str]
) -> list[Sentence]:
    """Split turns into sentences and weigh each; speakers by their names, others by their ids."""
    return [
        Sentence(names.get(turn.speaker_id, turn.speaker_id), text.strip(), weigh(text))
        for turn in turns
        for text in SENTENCE_END.split(turn.content)
        if text.strip()
    ]


def tokens_of(text: str, bytes_per_token: float) -> int:
    """Estimate the tokens of a text, on the safe side."""
    return math.ceil(len(text.encode()) / bytes_per_token)


def extract(sentences: Sequence[Sentence], most_tokens: int, bytes_per_token: float) -> str:
    """Pick the weightiest sentences that fit into a limit, and put them in order.

    Of sentences that weigh the same the earlier one goes first; what is said twice counts once.
    Where none fits, the weightiest is cut.
    """
    room = math.floor(most_tokens * bytes_per_token)
    order = sorted(range(len(sentences)), key=lambda at: (-sentences[at].weight, at))
    picked: list[int] = []
    for at in order:
        if any(sentences[at][:2] == sentences[other][:2] for other in picked):
            continue
        wider = written([sentences[n] for n in sorted([*picked, at])])
        if len(wider.encode()) <= room:
            picked.append(at)
    if not picked and sentences:
        return written([sentences[order[0]]]).encode()[:room].decode(errors="ignore")
    return written([sentences[at] for at in sorted(picked)])


def written(sentences: Sequence[Sentence]) -> str:
    """Write sentences one after the other, each speaker's name where it is another's turn."""
    text, speaker = "", None
    for sentence in sentences:
        lead = "" if sentence.speaker == speaker else f"{sentence.speaker}: "
        text = f"{text} {lead}{sentence.text}"
        speaker = sentence.speaker
    return text.strip()
