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
from persona_mcp.state.persona import Persona

WITNESSES = 32


class RelationshipInput(TypedDict):
    """Something that happened between two, of which one at least is a persona.

    With a text it is an act of the actor toward the receiver: the receiver's view of the actor
    moves, and the actor's own by a smaller share. Without one it is a meeting of both, which moves
    both views alike. How it is taken is given by an appraisal, else by the quality of the meeting,
    else said by the appraiser of the text. A human's view is not kept.
    """

    world_id: NotRequired[Id]
    """Where; left out: the world of the settings."""
    event_id: NotRequired[Id]
    """Names what happened; running it again changes nothing. Left out: a new one."""
    actor_id: Reference
    """Who acted: a persona's id or name, or a user's id."""
    receiver_id: Reference
    """Toward whom."""
    text: NotRequired[Annotated[Text, Field(min_length=1, max_length=20000)]]
    """What was said."""
    quality: NotRequired[Signed]
    """Of a meeting, bad -1 to good 1."""
    minutes: NotRequired[Minutes]
    """5 for a meeting, the time that it takes to say a text."""
    context: NotRequired[Context]
    """Kind of meeting: conversation, help, conflict, ..."""
    appraisal: NotRequired[GivenAppraisal]
    direction: NotRequired[Direction]
    """forward: how the actor sees the receiver; backward: the other way round."""
    turning_point: NotRequired[bool]
    """It weighs more than others; left out, by the context or the appraiser of the text."""
    why: NotRequired[Why]
    witnesses: NotRequired[Annotated[list[Reference], Field(max_length=WITNESSES)]]
    """Personas that perceived it."""
    told_by: NotRequired[Reference]
    """Who told the receiver what the actor did: then the receiver alone is moved, by hearsay."""
    at: NotRequired[Number]
    """When, in seconds since the epoch, UTC; left out: now."""


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

    world_id: Id
    event_id: Id
    act: Annotated[Act, UntrackedValue(Act, guard=False)]
    pair: Annotated[tuple[str, str], UntrackedValue(tuple, guard=False)]
    views: Annotated[tuple[View, ...], UntrackedValue(tuple, guard=False)]
    teller: Annotated[str, UntrackedValue(str, guard=False)]
    happening: Annotated[Happening, UntrackedValue(Happening, guard=False)]
    outcome: Annotated[Outcome, UntrackedValue(Outcome, guard=False)]


class RelationshipRun(RelationshipInput, RelationshipUpdate):
    """Everything that the steps read."""


GIVEN = tuple(RelationshipInput.__annotations__)


def given_of(state: RelationshipRun) -> dict[str, Any]:
    """Return what the run was started with; what is empty counts as left out, as forms send it."""
    return {name: state.get(name) for name in GIVEN if state.get(name) not in (None, "")}
