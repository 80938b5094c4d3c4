"""How prompts are cut to what a model can take, and to whom a persona tells what is personal."""

from pydantic import BaseModel, ConfigDict, Field


class PromptParams(BaseModel):
    """Sizes of prompts, for small and large models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes_per_token: float = Field(
        3.0, ge=1, le=8, description="Bytes of UTF-8 that count as one token when a prompt is cut"
    )
    spare_tokens: int = Field(
        64, ge=0, le=4096, description="Kept free beside prompt and reply, in tokens"
    )
    memories: int = Field(6, ge=0, le=50, description="Memories that a large model is shown")
    small_window_turns: int = Field(
        6, ge=0, le=200, description="Last turns that a small model is shown"
    )
    small_memories: int = Field(2, ge=0, le=50, description="Memories that a small model is shown")
    small_feelings: int = Field(
        1, ge=0, le=7, description="Feelings beside the mood that a small model is told of"
    )
    small_similarity: float = Field(
        0.25, ge=0, le=1, description="A memory less like the message is kept from a small model"
    )
    small_reply_tokens: int = Field(
        48, ge=8, le=4096, description="Longest reply of a small model, in tokens"
    )
    small_sentences: int = Field(
        2, ge=1, le=20, description="A small model is stopped after this many sentences"
    )
    small_temperature: float = Field(0.3, ge=0, le=2, description="Randomness of a small model")
    small_min_p: float = Field(
        0.1, ge=0, le=1, description="Least probability relative to the best token, small model"
    )
    small_repeat_penalty: float = Field(
        1.1, ge=1, le=2, description="Discourages repetition, small model"
    )
    retry_temperature: float = Field(
        0.3, ge=0, le=2, description="Added to the randomness for each attempt after the first"
    )
    top_p: float = Field(0.9, gt=0, le=1, description="Probability mass that is kept")
    top_k: int = Field(40, ge=1, le=1000, description="Tokens that are kept")
    personal_types: tuple[str, ...] = Field(
        ("secret", "trauma"),
        description="Memories of these types are kept from a prompt while the persona is not close "
        "to whom it talks to, unless that one may know them anyway",
    )
    confide_intimacy: float = Field(
        0.2, ge=0, le=1, description="It tells them from this intimacy on, 0..1"
    )
    confide_trust: float = Field(
        0.4, ge=-1, le=1, description="It tells them from this trust on, -1..1"
    )
    leak_words: int = Field(
        12, ge=4, le=100, description="This many words in a row from the instructions are a leak"
    )
    length_slack: float = Field(
        1.5, ge=1, le=10, description="A reply this many times over its word cap is trimmed"
    )
