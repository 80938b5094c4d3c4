"""What an act changes of how one sees another: shared by conversations and what happens else."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from persona_mcp.nodes.parts import Parts
from persona_mcp.state import appraisal as appraisals
from persona_mcp.state import compatibility, relationship
from persona_mcp.state.appraisal import Appraisal, Role
from persona_mcp.state.appraiser import Taken, TurningPoint
from persona_mcp.state.arrow import AppraisedBy, Event, Kind, Origin, Priors
from persona_mcp.state.compatibility import Profile
from persona_mcp.state.effects import RelationshipChange
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.persona import Persona
from persona_mcp.state.traits import big_five

SECONDS = 60.0
NOTABLE = 0.1
SHOWN_WORDS = 12
KINDS: Mapping[Role, Kind] = MappingProxyType({"aside": "aside", "told": "hearsay"})
"""Of the events of those who were no part of what happened."""
TURNING_POINTS: Mapping[TurningPoint, str] = MappingProxyType(
    {
        "betrayal": "a betrayal",
        "promise_kept": "a promise kept",
        "promise_broken": "a promise broken",
        "repair": "an apology",
        "vow": "a vow",
        "rescue": "a rescue",
    }
)


@dataclass(frozen=True)
class Act:
    """An utterance or a meeting, as the owner of an arrow takes it.

    Attributes:
        text: What was said; empty for a meeting as a whole.
        role: How the owner of the arrow stands to it.
        appraisal: How it is taken.
        appraiser: None if nobody could say, and it is taken as neutral.
        note: Why the appraiser that was asked did not answer.
        turning_point: Which one it is, if it is one.
    """

    text: str
    role: Role
    appraisal: Appraisal
    appraiser: AppraisedBy | None = "local"
    note: str | None = None
    turning_point: TurningPoint | None = None


@dataclass(frozen=True)
class Participant:
    """Somebody who may be seen by a persona.

    Attributes:
        id: Of the persona or the user.
        persona: None for a human.
    """

    id: str
    persona: Persona | None = None


@dataclass(frozen=True)
class Occasion:
    """What an act is part of.

    Attributes:
        kind: turn, or update for a meeting as a whole.
        context: Kind of meeting.
        size: M of the event, >= 0.
        minutes: Time spent together, >= 0.
        why: A reason that was given; empty for one that is made of the act.
        turn_id: The turn that it was said in, if that is stored.
        source_id: Who told it, for hearsay.
        source_trust: How far the listener trusted that one then, [-1, 1].
    """

    kind: Kind
    context: str
    size: float
    minutes: float
    why: str = ""
    turn_id: str | None = None
    source_id: str | None = None
    source_trust: float = 0.0


def act_of(text: str, role: Role, taken: Taken) -> Act:
    """Make an act of an utterance and what it is taken as."""
    return Act(text, role, taken.appraisal, taken.appraiser, taken.note, taken.turning_point)


def turn_of(parts: Parts, act: Act, turn_id: str | None = None) -> Occasion:
    """Take an act as a turn of a conversation."""
    laws = parts.laws.effects
    return Occasion(
        kind="turn",
        context=appraisals.DEFAULT_CONTEXT,
        size=appraisals.turn_size(laws.relationships, turning_point=act.turning_point is not None),
        minutes=talk_cost(len(act.text.split()), laws.interaction) / SECONDS,
        turn_id=turn_id,
    )


def change_of(
    parts: Parts,
    persona: Persona,
    other: Participant,
    act: Act,
    occasion: Occasion,
    at: float,
    event_id: str,
) -> RelationshipChange:
    """Compute the event that an act appends to the persona's arrow to another party."""
    laws = parts.laws.effects.relationships
    owner = big_five(persona.spec.personality_traits)
    weight = appraisals.weights(act.role, laws, source_trust=occasion.source_trust)
    size, minutes = occasion.size, occasion.minutes
    event = Event(
        at=at,
        seq=0,
        deltas=appraisals.deltas(act.appraisal, size, weight, owner, minutes, laws),
        kind=KINDS.get(act.role, occasion.kind),
        context=occasion.context,
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
        to_id=other.id,
        event=event,
        priors=first_impression(persona, other.persona, parts),
        why=occasion.why or reason_of(act),
        origin=Origin(occasion.turn_id, occasion.source_id, act.appraiser, act.note),
    )


def first_impression(persona: Persona, other: Persona | None, parts: Parts) -> Priors:
    """Compute how a persona sees somebody whom it has never met; None is a human."""
    own = compatibility.profile_of(persona.spec)
    theirs = compatibility.profile_of(other.spec) if other else Profile()
    match = compatibility.static_compatibility(own, theirs)
    return relationship.priors(match, own.traits, parts.laws.effects.relationships)


def reason_of(act: Act) -> str:
    """Say in a few words why an act counts: `warm: “Thank you, that was kind”`."""
    said = act.text.split()
    shown = " ".join(said[:SHOWN_WORDS]) + (" …" if len(said) > SHOWN_WORDS else "")
    return f"{character_of(act)}: “{shown}”"


def character_of(act: Act) -> str:
    """Say in a few words what an act is taken as: `warm and personal, a vow`."""
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
    neutral = "neutral" if act.appraiser else "not appraised, the embedder does not answer"
    turn = f", {TURNING_POINTS[act.turning_point]}" if act.turning_point else ""
    return f"{' and '.join(words) or neutral}{turn}"
