"""A memory, as a value, and how it is written for search."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from persona_mcp.state.moments import DAY_S

OPEN = ("public", "shared")
"""Visibilities of which others are given candidates; who was there is for the caller to check."""
HEARSAY = "hearsay"
"""The type of what was told; it stays that for good, however often it is passed on."""


@dataclass(frozen=True)
class NewMemory:
    """A memory that is about to be stored.

    Attributes:
        id: Its key; derived from the turn, so that a repeated write finds its row.
        persona_id: Its owner.
        content: The bare text.
        importance: 0..1.
        importance_terms: What the importance is made of.
        witnesses: Parties that may know it because they were there; the owner always is.
        speaker_id: Who said it; None for what nobody said.
        speaker_name: What that one, or who told it, is called.
        turn_id: The turn that it is made from.
        related_personas: Whom it is shared with, where it is shared.
        details: What the caller wants to keep beside it.
        source_id: Who told it, for hearsay.
        origin: What else is known of where it comes from.
        heading: What it stands under in a document; is searched with it.
    """

    id: str
    persona_id: str
    content: str
    importance: float
    importance_terms: dict[str, float]
    witnesses: tuple[str, ...] = ()
    speaker_id: str | None = None
    speaker_name: str = ""
    turn_id: str | None = None
    memory_type: str = "conversation"
    visibility: str = "private"
    emotional_valence: float = 0.0
    related_personas: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    pinned: bool = False
    source_id: str | None = None
    origin: dict[str, Any] | None = None
    heading: str = ""

    def indexed_text(self, now: float) -> str:
        """Return what is embedded and searched: day and speaker help both sides (measured).

        Prompts show it too: hearsay says there that it is.
        """
        if self.memory_type == HEARSAY:
            told = f"{self.speaker_name} told you" if self.speaker_name else "You were told"
            return f"[{day(now)}] {told}: {self.content}"
        if self.speaker_name:
            return f"[{day(now)}] {self.speaker_name}: {self.content}"
        return f"{self.heading}: {self.content}" if self.heading else self.content


@dataclass(frozen=True)
class Memory:
    """A stored memory.

    Attributes:
        indexed_text: With day and speaker in front.
        accessed_count: In how many conversations it was in the prompt of a done exchange.
        used_at: When that was for the first time in the last of them; None if it never was.
        source_id: Who told it, for hearsay.
    """

    id: str
    version: int
    persona_id: str
    content: str
    indexed_text: str
    memory_type: str
    speaker_id: str | None
    importance: float
    emotional_valence: float
    visibility: str
    related_personas: tuple[str, ...]
    pinned: bool
    conversation_id: str | None
    exchange_id: str | None
    turn_id: str | None
    archived_at: float | None
    created_at: float
    updated_at: float
    accessed_count: int = 0
    used_at: float | None = None
    source_id: str | None = None

    def age_days(self, now: float) -> float:
        """Return the days since it was last used, else made."""
        return max(0.0, now - (self.used_at or self.created_at)) / DAY_S


@dataclass(frozen=True)
class Revision:
    """What a change of a memory replaced.

    Attributes:
        version: Of the memory before it.
        before: The fields that it changed, as they were.
        replaced_at: When, seconds since the epoch, UTC.
    """

    version: int
    before: dict[str, Any]
    replaced_at: float


@dataclass(frozen=True)
class WholeMemory:
    """A stored memory with what a search does not need.

    Attributes:
        memory: The rest.
        importance_terms: What its importance is made of.
        details: What the caller wanted to keep beside it.
        witnesses: Who may know it because they were there, in order of their ids.
        origin: What else is known of where it comes from; None if nothing is.
        revisions: What its changes replaced, the oldest first.
    """

    memory: Memory
    importance_terms: dict[str, float]
    details: dict[str, Any]
    witnesses: tuple[str, ...]
    origin: dict[str, Any] | None = None
    revisions: tuple[Revision, ...] = ()


@dataclass(frozen=True)
class Sought:
    """Which memories a search is for, among those that the reader may know.

    Attributes:
        memory_type: Only of this type.
        min_importance: Only those at least as important, 0..1.
        shared: Others' memories too that are shared with the reader.
        public: Others' memories too that are public.
        private: The reader's own too that are private.
    """

    memory_type: str | None = None
    min_importance: float = 0.0
    shared: bool = True
    public: bool = True
    private: bool = True


ANYTHING = Sought()


@dataclass(frozen=True)
class Recalled:
    """A memory that a search found.

    Attributes:
        memory: What was found.
        similarity: Cosine to the query, limited to [0, 1]; 0 while it has no vector.
        score: What it is ranked by; comparable within one search only.
        parts: What the score is made of.
    """

    memory: Memory
    similarity: float
    score: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recall:
    """What a search found.

    Attributes:
        hits: Best first; ties by id.
        degraded: Why words alone were searched; empty when they were not.
        withheld: Ids of what would have been found, but was to be left out.
        shown: Turns whose memories were left out, since they are shown beside what was found.
    """

    hits: tuple[Recalled, ...]
    degraded: str = ""
    withheld: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()


def day(at: float) -> str:
    """Write a time's day: `8 May 2023`."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%B %Y}"
