"""The constants of memory: how memories are found, how they fade, and which are archived."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["half_life", "none", "linear", "exponential", "logarithmic", "access_based"]
Strategy = Literal["importance_only", "importance_access", "importance_access_age", "lru", "fifo"]


class RetrievalParams(BaseModel):
    """How memories are found and how many are shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int = Field(
        30,
        ge=1,
        le=1000,
        description="Memories taken from each side (meaning, words) for scoring; at least as many "
        "as are asked for, and as there are turns whose memories are not wanted",
    )
    dense_weight: float = Field(0.5, ge=0, le=10, description="Weight of meaning (z-score)")
    lexical_weight: float = Field(0.5, ge=0, le=10, description="Weight of words (z-score)")
    lexical_k1: float = Field(
        0.9, ge=0, le=10, description="BM25: how soon a repeated word is enough"
    )
    lexical_b: float = Field(0.4, ge=0, le=1, description="BM25: how much a long text is held back")
    previous_weight: float = Field(0.4, ge=0, le=10, description="Weight of the turn before a turn")
    next_weight: float = Field(0.2, ge=0, le=10, description="Weight of the turn after a turn")
    session_weight: float = Field(
        1.2, ge=0, le=10, description="Weight of the best turns of the same day's talk"
    )
    session_best: int = Field(3, ge=1, le=100, description="How many of them count, as a mean")
    speaker_weight: float = Field(
        1.0, ge=0, le=10, description="Gain of a turn whose speaker alone is named"
    )
    date_weight: float = Field(1.0, ge=0, le=10, description="Gain of a turn of a named month")
    year_weight: float = Field(
        0.3, ge=0, le=10, description="Gain of a turn of a named year, where no month is named"
    )
    day_half: float = Field(
        4.0, gt=0, le=366, description="Days off a named day at which half of the gain is left"
    )
    question_penalty: float = Field(
        1.0, ge=0, le=10, description="Taken off a turn that only asks: it rarely knows"
    )
    length_weight: float = Field(
        0.3, ge=0, le=10, description="Gain of a long turn over a short one"
    )
    query_chars: int = Field(
        2000, ge=100, le=20000, description="Of a longer query, this many characters are used"
    )


class RetentionParams(BaseModel):
    """How memories fade."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        "half_life",
        description="half_life, none, or one of the original's: linear, exponential, logarithmic, "
        "access_based",
    )
    half_life_days: float = Field(
        30.0, gt=0, le=36_500, description="Half-life of a memory without importance, in days"
    )
    importance_gain: float = Field(
        4.0, ge=0, le=100, description="An importance of 1 lengthens it by this many times"
    )


class PruningParams(BaseModel):
    """Which memories are archived, when, and how many at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Strategy = Field(
        "importance_access_age",
        description="What goes first: importance_only, importance_access, importance_access_age "
        "(lowest score), lru (unused for longest), fifo (oldest)",
    )
    importance_weight: float = Field(
        0.6, ge=0, le=10, description="Weight of what is left of the importance"
    )
    access_weight: float = Field(0.3, ge=0, le=10, description="Weight of how often it was used")
    age_weight: float = Field(0.1, ge=0, le=10, description="Weight of how new it is")
    full_accesses: int = Field(
        10, ge=1, le=1_000_000, description="Conversations that used it from which more add nothing"
    )
    fresh_days: float = Field(7.0, ge=0, le=36_500, description="Entirely new until then, in days")
    old_days: float = Field(90.0, gt=0, le=36_500, description="Entirely old from then on, in days")
    old_score: float = Field(0.1, ge=0, le=1, description="What newness never goes below, 0..1")
    start: int = Field(
        900, ge=1, le=10_000_000, description="A run needs this many memories, unless it is forced"
    )
    hard_limit: int = Field(
        1000, ge=1, le=10_000_000, description="Upkeep prunes from this many memories on"
    )
    target: int = Field(800, ge=1, le=10_000_000, description="Runs go down to this many memories")
    most_share: float = Field(0.25, gt=0, le=1, description="A run takes at most this share, 0..1")
    least: int = Field(10, ge=1, le=1_000_000, description="This many memories always stay")
    pause_s: float = Field(
        3600.0, ge=0, le=31_536_000, description="Between two runs of a persona, in seconds"
    )
    kept_importance: float = Field(
        0.7, ge=0, le=1, description="What is at least so important is never archived, 0..1"
    )
    kept_accesses: int = Field(
        5, ge=1, le=1_000_000, description="What so many conversations used is never archived"
    )
    kept_unread_days: float = Field(
        30.0, ge=0, le=36_500, description="What was never used is kept for so long, in days"
    )
    kept_read_days: float = Field(
        7.0, ge=0, le=36_500, description="What was used is kept for so long after it, in days"
    )
    faded: float = Field(
        0.02, ge=0, le=1, description="Upkeep archives what less than this share is left of, 0..1"
    )
    weak: float = Field(
        0.3, ge=0, le=1, description="Weak is what at most this importance is left of, 0..1"
    )
    weak_memories: int = Field(
        50, ge=0, le=10_000_000, description="Upkeep prunes where more memories than this are weak"
    )

    removal: bool = Field(False, description="Upkeep deletes for good what a run archived long ago")
    removal_days: float = Field(
        30.0, ge=1, le=36_500, description="Long ago is at least so many days"
    )

    @model_validator(mode="after")
    def _in_order(self) -> "PruningParams":
        if not self.target <= self.start <= self.hard_limit:
            raise ValueError("in this order: target <= start <= hard_limit")
        if self.fresh_days >= self.old_days:
            raise ValueError("fresh_days must be below old_days")
        return self


class ConsolidationParams(BaseModel):
    """Which memories are so near to each other that upkeep makes one of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    similarity: float = Field(
        0.95, ge=0.5, le=1, description="Memories at least as near in meaning are merged (cosine)"
    )
    newest: int = Field(
        1000, ge=2, le=10_000, description="So many of a persona's newest memories are compared"
    )


class UpkeepParams(BaseModel):
    """The background upkeep of memories, which `memory_decay_start` switches on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    poll_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Look for worlds whose upkeep is due at least this often, in seconds",
    )
    lease_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="A process that shows no life for this long has lost it, in seconds",
    )
