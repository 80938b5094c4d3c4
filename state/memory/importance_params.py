"""The constants of how much a new memory weighs."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class ImportanceParams(BaseModel):
    """Weights of importance. Source: after the original Persona MCP server, to be calibrated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Share = Field(0.35, description="Importance of a memory without any term, 0..1")
    emotion: Share = Field(0.25, description="Weight of emotion, 0..1")
    significance: Share = Field(0.2, description="Weight of significance, 0..1")
    speaker_interest: Share = Field(0.1, description="Weight of the speaker's interest, 0..1")
    listener_interest: Share = Field(0.05, description="Weight of the listener's interest, 0..1")
    engagement: Share = Field(0.1, description="Weight of engagement, 0..1")
    relationship: Share = Field(0.1, description="Weight of the relationship, 0..1")
    floor: Share = Field(0.1, description="Least importance, 0..1")
    full_words: int = Field(
        20, ge=1, le=1000, description="Distinct words, stop words aside, of a turn that says a lot"
    )
    terse_factor: float = Field(
        0.5, ge=0, le=10, description="Factor of a turn that says nothing: a greeting, a cheer"
    )
    full_factor: float = Field(1.2, ge=0, le=10, description="Factor of a turn that says a lot")
    type_factors: dict[str, Annotated[float, Field(ge=0, le=10)]] = Field(
        default_factory=dict,
        description="Factors by memory type, beside the built-in ones or in place of them, 0..10",
    )
