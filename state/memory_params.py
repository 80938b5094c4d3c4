"""The constants of memory: how memories are found, and how they fade."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["half_life", "none", "linear", "exponential", "logarithmic", "access_based"]


class RetrievalParams(BaseModel):
    """How memories are found and how many are shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int = Field(
        50, ge=1, le=1000, description="Memories taken from each side (meaning, words) for scoring"
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
