"""Fields that say what happened between two, as they come from outside."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.state.fields import Number, Text

MEETING_MINUTES = 5.0
"""How long a meeting lasts when nobody says."""

Signed = Annotated[Number, Field(ge=-1, le=1)]
Minutes = Annotated[Number, Field(ge=0, le=1440)]
Context = Annotated[Text, Field(min_length=1, max_length=60)]
Why = Annotated[Text, Field(max_length=500)]
Direction = Literal["both", "forward", "backward"]


class GivenAppraisal(BaseModel):
    """How an act is taken by the one it is done to, as the caller says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warmth: Signed = Field(0.0, description="Hostile -1 to kind 1; moves affinity")
    reliability: Signed = Field(0.0, description="Treacherous -1 to dependable 1; moves trust")
    competence: Signed = Field(0.0, description="Inept -1 to able 1; moves respect")
    disclosure: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.0, description="Nothing personal 0 to a deep secret 1; moves intimacy"
    )
