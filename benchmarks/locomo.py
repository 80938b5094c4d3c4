"""The LoCoMo benchmark's file: conversations over many sessions, and questions on their turns.

The file is not part of this project; its licence (CC BY-NC 4.0) allows evaluation only.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CATEGORIES = {
    1: "multi-hop",
    2: "temporal",
    3: "open-domain",
    4: "single-hop",
    5: "adversarial",
}
DATE = "%I:%M %p on %d %B, %Y"
EVIDENCE = re.compile(r"D:?(\d+)\s*:\s*0*(\d+)")


@dataclass(frozen=True)
class Utterance:
    """A turn of a session.

    Attributes:
        id: `D<session>:<turn>`.
        speaker: Who said it.
        text: What was said, with what a shared picture shows.
    """

    id: str
    speaker: str
    text: str


@dataclass(frozen=True)
class Session:
    """Turns of one meeting, and when it was, in seconds since the epoch, UTC."""

    number: int
    at: float
    turns: tuple[Utterance, ...]


@dataclass(frozen=True)
class Question:
    """What is asked, and the turns that answer it."""

    text: str
    category: int
    gold: frozenset[str]


@dataclass(frozen=True)
class Talk:
    """Two people over many sessions, and the questions on them that can be scored."""

    speakers: tuple[str, str]
    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Asked:
    """A conversation that is stored: where, whose memories, and the turn of each turn id.

    Attributes:
        ends: When its last session was, in seconds since the epoch, UTC.
    """

    world_id: str
    reader: str
    turns: Mapping[str, str]
    questions: tuple[Question, ...]
    ends: float

    @property
    def evidence(self) -> frozenset[str]:
        """Return the turns that answer any of its questions."""
        return frozenset[str]().union(*(question.gold for question in self.questions))


def read_talks(path: Path) -> list[Talk]:
    """Read a file of conversations."""
    return [to_talk(entry) for entry in json.loads(path.read_text("utf-8"))]


def to_talk(entry: dict[str, Any]) -> Talk:
    """Read a conversation; questions without a turn that answers them are left out."""
    conversation = entry["conversation"]
    sessions = tuple(sessions_of(conversation))
    known = {turn.id for session in sessions for turn in session.turns}
    questions = (
        Question(
            one["question"],
            one["category"],
            frozenset(
                f"D{int(session)}:{int(turn)}"
                for text in one.get("evidence") or ()
                for session, turn in EVIDENCE.findall(text)
            )
            & known,
        )
        for one in entry["qa"]
    )
    return Talk(
        (conversation["speaker_a"], conversation["speaker_b"]),
        sessions,
        tuple(question for question in questions if question.gold),
    )


def sessions_of(conversation: dict[str, Any]) -> Iterator[Session]:
    """Read the sessions that have turns, in order."""
    numbers = sorted(
        int(match[1]) for key in conversation if (match := re.fullmatch(r"session_(\d+)", key))
    )
    for number in numbers:
        if turns := conversation[f"session_{number}"]:
            said = conversation[f"session_{number}_date_time"]
            at = datetime.strptime(said, DATE).replace(tzinfo=UTC).timestamp()
            yield Session(number, at, tuple(map(to_utterance, turns)))


def to_utterance(turn: dict[str, Any]) -> Utterance:
    """Read a turn."""
    picture = turn.get("blip_caption")
    shares = f" [shares {picture}]" if picture else ""
    session, number = (int(part) for part in turn["dia_id"].removeprefix("D").split(":"))
    return Utterance(f"D{session}:{number}", turn["speaker"], turn["text"] + shares)
