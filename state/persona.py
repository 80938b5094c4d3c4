"""Who a persona is, as a value: what an operation or a file may say, and what is stored."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from persona_mcp.state.continuation import ExitReason
from persona_mcp.state.fields import WHOLE, Number, Text, lower
from persona_mcp.state.interaction import Priority

TraitName = Annotated[Text, Field(min_length=1, max_length=40)]
TraitValue = (
    Annotated[Number, Field(ge=0, le=100)] | Annotated[Text, Field(min_length=1, max_length=200)]
)
Topic = Annotated[Text, Field(min_length=1, max_length=60)]
Preference = Annotated[int, Field(ge=0, le=100), WHOLE]
Ability = Annotated[int, Field(ge=1, le=20), WHOLE]
Line = Annotated[Text, Field(min_length=1, max_length=400)]
SCALES = (1, 100)


def with_known_scale(traits: dict[str, Any]) -> dict[str, Any]:
    """Refuse a scale other than 1 and 100."""
    if traits.get("scale", SCALES[0]) not in SCALES:
        raise ValueError("scale 1 or 100")
    return traits


class Example(BaseModel):
    """A short exchange that shows how the persona talks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: Line = Field(description="What somebody says")
    reply: Line = Field(description="What the persona answers")
    memory: Line | None = Field(
        None, description="What it remembers when it answers; shows that memories are to be used"
    )


class PersonaSpec(BaseModel):
    """Everything that can be said of a persona when it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[Text, Field(min_length=1, max_length=80)] = Field(
        description="Its name, unique in the world whatever the case"
    )
    description: Annotated[Text, Field(max_length=8000)] = Field(
        "", description="Who it is, in the words that the model reads"
    )
    personality_traits: Annotated[
        dict[TraitName, TraitValue], Field(max_length=64), AfterValidator(with_known_scale)
    ] = Field(
        default_factory=dict,
        description="Big Five names and trait words with 0..100 (or 0..1), or text; "
        "the key scale (1 or 100) says which for the Big Five",
    )
    topic_preferences: Annotated[dict[Topic, Preference], Field(max_length=128)] = Field(
        default_factory=dict, description="Topics it likes (100) or shuns (0); 50 when not named"
    )
    charisma: Ability = Field(10, description="How it draws others, 1..20")
    intelligence: Ability = Field(10, description="How it thinks, 1..20")
    social_rank: Annotated[Text, Field(min_length=1, max_length=40), AfterValidator(lower)] = Field(
        "commoner", description="Standing, such as noble, merchant, scholar, performer, peasant"
    )
    social_energy: Annotated[Number, Field(ge=20, le=200)] = Field(
        100.0, description="Energy that it recovers to"
    )
    available_time: Annotated[Number, Field(ge=60, le=86400)] = Field(
        300.0, description="Time for talk that it recovers to, in seconds"
    )
    current_priority: Priority = Field("none", description="What it is busy with")
    tags: Annotated[
        list[Annotated[Text, Field(min_length=1, max_length=40)]], Field(max_length=32)
    ] = Field(default_factory=list, description="Words to find it by")
    system_prompt: Annotated[Text, Field(max_length=20000)] = Field(
        "", description="Instructions that stand before everything else in its prompts"
    )
    exit_lines: dict[ExitReason, Annotated[list[Line], Field(max_length=20)]] = Field(
        default_factory=dict, description="What it says when it ends a talk, by reason"
    )
    examples: Annotated[list[Example], Field(max_length=16)] = Field(
        default_factory=list, description="Short exchanges that show how it talks"
    )


@dataclass(frozen=True)
class Persona:
    """A stored persona.

    Attributes:
        id: Its key in the world.
        version: 1, 2, ...; turns and events keep the one they saw.
        spec: What it is.
        created_at: Seconds since the epoch, UTC.
        updated_at: Seconds since the epoch, UTC.
    """

    id: str
    version: int
    spec: PersonaSpec
    created_at: float
    updated_at: float

    @property
    def name(self) -> str:
        """Return what it is called."""
        return self.spec.name

    def trait(self, name: str) -> Any:
        """Return a trait by its name, None if it has none."""
        return self.spec.personality_traits.get(name)
