"""Steps of a relationship's graph: appraise, validate, apply, persist; conversations share them."""

from dataclasses import dataclass
from typing import Annotated, NotRequired

from langgraph.channels import UntrackedValue
from typing_extensions import TypedDict

from persona_mcp.nodes.parts import Parts
from persona_mcp.state import appraisal as appraisals
from persona_mcp.state import compatibility, effects, personas, relationship
from persona_mcp.state.appraisal import Appraisal, Role
from persona_mcp.state.arrow import AppraisedBy, Event, Origin, Priors
from persona_mcp.state.compatibility import Profile
from persona_mcp.state.effects import RelationshipChange
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.ids import derived_id
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.persona import Persona
from persona_mcp.state.traits import BigFive, big_five

SECONDS = 60.0
NOTABLE = 0.1
SHOWN_WORDS = 12


@dataclass(frozen=True)
class Act:
    """An utterance, as the owner of an arrow takes it.

    Attributes:
        text: What was said.
        role: received by the owner of the arrow, or returned (the owner's own words).
        appraisal: How it is taken.
        appraiser: None if nobody could say, and it is taken as neutral.
        note: Why the appraiser that was asked did not answer.
    """

    text: str
    role: Role
    appraisal: Appraisal
    appraiser: AppraisedBy | None = "local"
    note: str | None = None


class RelationshipInput(TypedDict):
    """Something that was said to a persona outside of a conversation's graph."""

    world_id: str
    event_id: str
    """Names the event; running it again changes nothing."""
    persona_id: str
    partner_id: str
    text: str
    """What the partner said to the persona."""
    at: NotRequired[float]


class RelationshipUpdate(TypedDict, total=False):
    """What the steps write."""

    appraisal: Annotated[Appraisal, UntrackedValue(Appraisal, guard=False)]
    persona: Annotated[Persona, UntrackedValue(Persona, guard=False)]
    change: Annotated[RelationshipChange, UntrackedValue(RelationshipChange, guard=False)]
    affinity: float
    trust: float
    respect: float
    intimacy: float


class RelationshipRun(RelationshipInput, RelationshipUpdate):
    """Everything that the steps read."""


async def appraise_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Appraise what was said.

    Reads: text.
    Writes: appraisal.

    Raises:
        ModelError: The embedder did not answer.
    """
    return RelationshipUpdate(appraisal=await parts.appraiser.appraise(state["text"]))


async def validate_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Check who is concerned.

    Reads: world_id, persona_id, partner_id.
    Writes: persona.

    Raises:
        NotFound: The persona is not there.
        InvalidParams: A persona has no relationship to itself.
    """
    persona = await parts.database.read(personas.find, state["world_id"], state["persona_id"])
    if persona.id == state["partner_id"]:
        fault = {"field": "partner_id", "allowed": "somebody else", "given": persona.id}
        raise InvalidParams.of([fault])
    return RelationshipUpdate(persona=persona)


async def apply_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Compute what it changes.

    Reads: persona, partner_id, text, appraisal, at.
    Writes: change.
    """
    act = Act(state["text"], "received", state["appraisal"])
    at = state.get("at", parts.now())
    event_id = derived_id(state["world_id"], state["event_id"], "relationship")
    return RelationshipUpdate(
        change=change_of(parts, state["persona"], state["partner_id"], act, at, event_id)
    )


async def persist_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Append the event and say how the persona sees the partner now.

    Reads: world_id, change.
    Writes: affinity, trust, respect, intimacy.

    Raises:
        StorageUnavailable: The database did not answer; nothing was stored.
    """
    laws = parts.laws.effects.relationships
    arrow = await parts.database.write(
        effects.add_relationship_change, state["world_id"], None, state["change"], laws
    )
    values = relationship.shown(arrow, laws)
    return RelationshipUpdate(
        affinity=values.affinity,
        trust=values.trust,
        respect=values.respect,
        intimacy=values.intimacy,
    )


def change_of(
    parts: Parts,
    persona: Persona,
    partner_id: str,
    act: Act,
    at: float,
    event_id: str,
    turn_id: str | None = None,
) -> RelationshipChange:
    """Compute the event that an act appends to the persona's arrow to its partner."""
    laws = parts.laws.effects.relationships
    owner = big_five(persona.spec.personality_traits)
    weight = appraisals.weights(act.role, laws)
    size = appraisals.turn_size(laws)
    minutes = talk_cost(len(act.text.split()), parts.laws.effects.interaction) / SECONDS
    event = Event(
        at=at,
        seq=0,
        deltas=appraisals.deltas(act.appraisal, size, weight, owner, minutes, laws),
        kind="turn",
        context="conversation",
        appraisal=act.appraisal,
        size=size,
        weight=weight.omega,
        disclosure_weight=weight.disclosure,
        direct=weight.direct,
        minutes=minutes,
    )
    return RelationshipChange(
        id=event_id,
        from_id=persona.id,
        to_id=partner_id,
        event=event,
        priors=first_impression(persona, owner, parts),
        why=reason_of(act),
        origin=Origin(turn_id=turn_id, appraiser=act.appraiser, note=act.note),
    )


def first_impression(persona: Persona, owner: BigFive, parts: Parts) -> Priors:
    """Compute how a persona sees a human whom it has never met."""
    own = compatibility.profile_of(persona.spec)
    match = compatibility.static_compatibility(own, Profile())
    return relationship.priors(match, owner, parts.laws.effects.relationships)


def reason_of(act: Act) -> str:
    """Say in a few words why an act counts: `warm: “Thank you, that was kind”`."""
    taken = act.appraisal
    words = [
        word
        for value, word in (
            (taken.warmth, "warm" if taken.warmth > 0 else "hostile"),
            (taken.reliability, "reliable" if taken.reliability > 0 else "unreliable"),
            (taken.competence, "able" if taken.competence > 0 else "inept"),
            (taken.disclosure, "personal"),
        )
        if abs(value) > NOTABLE
    ]
    said = act.text.split()
    shown = " ".join(said[:SHOWN_WORDS]) + (" …" if len(said) > SHOWN_WORDS else "")
    neutral = "neutral" if act.appraiser else "not appraised, the embedder does not answer"
    return f"{' and '.join(words) or neutral}: “{shown}”"
