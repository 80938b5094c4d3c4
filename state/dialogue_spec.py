"""What a batch of dialogues is asked for with: the shape of its file, and of dialogue_start."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.state.dialogue import Condition, Intervention, Presence, Speakers, Whisper
from persona_mcp.state.fields import WHOLE, Id, Moment, Number, Reference, Text
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.request import GENERAL

PERSONAS_MAX = 1000
PARTICIPANTS_MAX = 12
DIALOGUES_MAX = 1_000_000
"""Of one batch: arms x repeats x dialogues of all waves."""
ARMS_MAX = 10_000
"""Combinations of a grid."""
START = 1_767_254_400.0
"""2026-01-01T08:00:00Z: when the simulated time of a batch begins, unless it says otherwise."""

Seed = Annotated[int, Field(ge=0, lt=2**31), WHOLE]
Count = Annotated[int, Field(ge=1, le=100_000), WHOLE]
Topic = Annotated[Text, Field(min_length=1, max_length=200)]
Output = Literal["parquet", "sharegpt", "openai", "graphml", "report"]
OUTPUTS: tuple[Output, ...] = ("parquet", "sharegpt", "openai", "graphml", "report")


class Strict(BaseModel):
    """Refuses what it does not know; nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CastEntry(Strict):
    """One persona of a batch: inline, from a card, or one that is there already.

    With neither `persona` nor `card` it is the one of that id (or name) in the data folder's world,
    or a bundled one, with its memories and how it sees the others of the cast.
    """

    persona: PersonaSpec | None = Field(None, description="Who it is, said here")
    card: Annotated[Text, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Path of a character card (JSON, PNG, CHARX), from the file's folder"
    )
    source: Reference | None = Field(
        None, description="Id or name in the data folder, if it is not the id here"
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="Fields of a persona that are different here"
    )
    memories: Annotated[
        list[Annotated[Text, Field(min_length=1, max_length=2000)]], Field(max_length=1000)
    ] = Field(default_factory=list, description="Sentences that it alone knows at the beginning")


class Tie(Strict):
    """How one sees another at the beginning, as a meeting before it."""

    of: Id = Field(description="Who sees")
    to: Id = Field(description="Who is seen")
    quality: Annotated[Number, Field(ge=-1, le=1)] = Field(
        description="How their meetings went, -1..1"
    )
    minutes: Annotated[Number, Field(ge=0, le=10_000)] = Field(
        60.0, description="How long they have met, in minutes"
    )
    context: Annotated[Text, Field(min_length=1, max_length=60)] = Field(
        "conversation", description="What kind of meeting, as of relationship_update"
    )


class TalkSpec(Strict):
    """One dialogue; in a wave only what is different from `dialogue` is said."""

    participants: Annotated[list[Id], Field(min_length=2, max_length=PARTICIPANTS_MAX)] | None = (
        Field(None, description="Who talks, ids of the cast; left out: all of it")
    )
    witnesses: Annotated[list[Id], Field(max_length=PARTICIPANTS_MAX)] = Field(
        default_factory=list, description="Who overhears it and says nothing"
    )
    scene: Annotated[Text, Field(max_length=2000)] = Field(
        "", description="Where and when it takes place; everybody there knows it"
    )
    topics: Annotated[list[Topic], Field(min_length=1, max_length=100)] = Field(
        default_factory=lambda: [GENERAL],
        description="What it is about; of several one is drawn by the seed",
    )
    speakers: Speakers = Field("round_robin", description="How the next speaker is chosen")
    first_speaker: Id | None = Field(None, description="Who begins; left out: by initiative")
    max_turns: Annotated[int, Field(ge=1, le=500), WHOLE] = Field(20, description="1..500")
    token_budget: Annotated[int, Field(ge=51, le=32768), WHOLE] = Field(
        8000, description="Tokens for all that is said, 51..32768"
    )
    minutes: Annotated[Number, Field(ge=0.5, le=1440)] = Field(
        60.0, description="Simulated time that it may take, in minutes"
    )
    bow_out: bool = Field(True, description="A persona that has had enough ends it")
    ignore_availability: bool = Field(
        True, description="Tired or busy personas talk, too; false: such a dialogue fails"
    )
    stagnation: Annotated[int, Field(ge=0, le=100), WHOLE] = Field(
        4, description="It ends after so many turns that say nothing new; 0: never"
    )
    joins: Annotated[list[Presence], Field(max_length=PARTICIPANTS_MAX)] = Field(
        default_factory=list, description="Who comes later: it knows only what it hears from then"
    )
    leaves: Annotated[list[Presence], Field(max_length=PARTICIPANTS_MAX)] = Field(
        default_factory=list, description="Who goes before the end, and hears nothing from then"
    )
    whispers: Annotated[list[Whisper], Field(max_length=500)] = Field(
        default_factory=list, description="Turns that only some hear"
    )
    interventions: Annotated[list[Intervention], Field(max_length=500)] = Field(
        default_factory=list, description="What a narrator brings in, at a turn or when"
    )
    ends_when: Condition | None = Field(None, description="It ends when this holds")


class WaveSpec(Strict):
    """Dialogues that are held at the same time, each in a world of its own."""

    name: Annotated[Text, Field(max_length=80)] = Field("", description="For people")
    times: Count = Field(1, description="The wave is held so often, one after the other")
    gap_hours: Annotated[Number, Field(ge=0, le=87_600)] = Field(
        12.0, description="Simulated time before it, in hours; the first wave has none"
    )
    pairs: Literal["all", "drawn"] | None = Field(
        None,
        description="In place of dialogues: one for each pair of the participants, else of the "
        "cast (all), or for pairs that the seed draws, each persona in one at most (drawn)",
    )
    dialogues: Annotated[list[TalkSpec], Field(max_length=10_000)] = Field(
        default_factory=list, description="Left out, without pairs: one, as `dialogue` says"
    )


class Endpoint(Strict):
    """A server that makes replies."""

    url: Annotated[Text, Field(pattern=r"^https?://[^\s]+$", max_length=500)] = Field(
        description="Address of an Ollama or OpenAI-compatible server"
    )
    slots: Annotated[int, Field(ge=1, le=1024), WHOLE] = Field(
        4, description="Replies that it makes at once"
    )


class ModelSpec(Strict):
    """Who writes the replies; what is left out is as the settings have it."""

    name: Annotated[
        str | None, Field(pattern=r"^(auto|(ollama|openai|embedded):.+)$", max_length=200)
    ] = Field(None, description="ollama:MODEL, openai:MODEL, embedded:MODEL or auto")
    endpoints: Annotated[list[Endpoint], Field(max_length=64)] = Field(
        default_factory=list, description="Servers that share the load"
    )
    slots: Annotated[int, Field(ge=1, le=1024), WHOLE] | None = Field(
        None, description="Replies made at once, where no endpoints are named"
    )
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="Of every reply; left out: by the continue score"
    )


class DialogueSpec(Strict):
    """A whole batch.

    It is held `repeats` times for each combination of `variations` (an arm). Each of these runs
    goes through all waves in a world of its own: relationships develop from wave to wave, and runs
    know nothing of each other.
    """

    name: Annotated[Text, Field(min_length=1, max_length=80)] = Field(
        "dialogue", description="Of the batch"
    )
    description: Annotated[Text, Field(max_length=2000)] = Field("", description="For people")
    personas: Annotated[
        dict[Id, CastEntry | None], Field(min_length=2, max_length=PERSONAS_MAX)
    ] = Field(description="The cast, by id")
    relationships: Annotated[list[Tie], Field(max_length=100_000)] = Field(
        default_factory=list, description="How they see each other at the beginning"
    )
    dialogue: TalkSpec = Field(default_factory=TalkSpec, description="What holds for each dialogue")
    waves: Annotated[list[WaveSpec], Field(min_length=1, max_length=1000)] = Field(
        default_factory=lambda: [WaveSpec()], description="One after the other"
    )
    repeats: Count = Field(1, description="Runs of each arm, each with a seed of its own")
    seed: Seed = Field(1, description="Of everything that is drawn by lot")
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100_000)] | None = Field(
        None, description="The runs' seeds, in place of repeats and seed"
    )
    variations: Annotated[
        dict[str, Annotated[list[Any], Field(min_length=1, max_length=ARMS_MAX)]],
        Field(max_length=20),
    ] = Field(
        default_factory=dict,
        description="A grid: path of a field, as dialogue.scene or personas.ada.persona.charisma, "
        "to its values",
    )
    starts_at: Moment = Field(START, description="When the simulated time begins")
    model: ModelSpec = Field(default_factory=ModelSpec, description="Who writes the replies")
    outputs: list[Output] = Field(
        default_factory=lambda: list(OUTPUTS), description="Files that are made at the end"
    )
