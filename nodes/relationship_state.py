"""The state of a relationship's graph: what happened between two parties, and what came of it."""

from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from langgraph.channels import UntrackedValue
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from persona_mcp.nodes.relationship import Act, Participant
from persona_mcp.state.appraisal import Role
from persona_mcp.state.fields import Id, Number, Reference, Text
from persona_mcp.state.happening import Happening, Outcome
from persona_mcp.state.meeting import Context, Direction, GivenAppraisal, Minutes, Signed, Why
from persona_mcp.state.moments import FIRST_MOMENT, LAST_MOMENT
from persona_mcp.state.persona import Persona

WITNESSES = 32


def of_run(kind: type) -> UntrackedValue[Any]:
    """Return the channel of a value that is there until its run ends, however it ends.

    It is not in a checkpoint, so the next run of a thread does not find what this one was given.
    """
    return UntrackedValue(kind, guard=False)


class RelationshipInput(TypedDict):
    """Something that happened between two, of which one at least is a persona.

    With a text it is an act of the actor toward the receiver: the receiver's view of the actor
    moves, and the actor's own by a smaller share. Without one it is a meeting of both, which moves
    both views alike. How it is taken is given by an appraisal, else by the quality of the meeting,
    else said by the appraiser of the text. A human's view is not kept.
    """

    world_id: NotRequired[Annotated[Id, of_run(str)]]
    """Where; left out: the world of the settings."""
    event_id: NotRequired[Annotated[Id, of_run(str)]]
    """Names what happened; running it again changes nothing. Left out: a new one."""
    actor_id: Annotated[Reference, of_run(str)]
    """Who acted: a persona's id or name, or a user's id."""
    receiver_id: Annotated[Reference, of_run(str)]
    """Toward whom."""
    text: NotRequired[Annotated[Text, Field(min_length=1, max_length=20000), of_run(str)]]
    """What was said."""
    quality: NotRequired[Annotated[Signed, of_run(float)]]
    """Of a meeting, bad -1 to good 1."""
    minutes: NotRequired[Annotated[Minutes, of_run(float)]]
    """5 for a meeting, the time that it takes to say a text."""
    context: NotRequired[Annotated[Context, of_run(str)]]
    """Kind of meeting: conversation, help, conflict, ..."""
    appraisal: NotRequired[Annotated[GivenAppraisal, of_run(GivenAppraisal)]]
    direction: NotRequired[Annotated[Direction, of_run(str)]]
    """forward: how the actor sees the receiver; backward: the other way round."""
    turning_point: NotRequired[Annotated[bool, of_run(bool)]]
    """It weighs more than others; left out, by the context or the appraiser of the text."""
    why: NotRequired[Annotated[Why, of_run(str)]]
    witnesses: NotRequired[Annotated[list[Reference], Field(max_length=WITNESSES), of_run(list)]]
    """Personas that perceived it."""
    told_by: NotRequired[Annotated[Reference, of_run(str)]]
    """Who told the receiver what the actor did: then the receiver alone is moved, by hearsay."""
    at: NotRequired[Annotated[Number, Field(ge=FIRST_MOMENT, le=LAST_MOMENT), of_run(float)]]
    """When, in seconds since the epoch, UTC, within the years 1 to 9999; left out: now."""


class Given(BaseModel):
    """What a run is started with, to be checked."""

    act: RelationshipInput


@dataclass(frozen=True)
class View:
    """An arrow that is to be moved.

    Attributes:
        owner: Who sees.
        other: Who is seen.
        role: How the owner stands to the act.
        slot: Its place in what happened, which names its event.
    """

    owner: Persona
    other: Participant
    role: Role
    slot: tuple[str, ...]


class RelationshipOutput(TypedDict, total=False):
    """What a run ends with."""

    forward: dict[str, float] | None
    """How the actor sees the receiver right after it; none where that is not kept."""
    backward: dict[str, float] | None
    event_ids: list[str]


class RelationshipUpdate(RelationshipOutput, total=False):
    """What the steps write."""

    world_id: Annotated[Id, of_run(str)]
    event_id: Annotated[Id, of_run(str)]
    act: Annotated[Act, of_run(Act)]
    pair: Annotated[tuple[str, str], of_run(tuple)]
    views: Annotated[tuple[View, ...], of_run(tuple)]
    teller: Annotated[str, of_run(str)]
    happening: Annotated[Happening, of_run(Happening)]
    outcome: Annotated[Outcome, of_run(Outcome)]


class RelationshipRun(RelationshipInput, RelationshipUpdate):
    """Everything that the steps read."""


GIVEN = tuple(RelationshipInput.__annotations__)


def given_of(state: RelationshipRun) -> dict[str, Any]:
    """Return what the run was started with; what is empty counts as left out, as forms send it."""
    return {name: state.get(name) for name in GIVEN if state.get(name) not in (None, "")}
