"""The steps of a relationship's graph: appraise, validate, apply, persist."""

from collections.abc import Iterator
from dataclasses import asdict, replace

from sqlalchemy import Connection

from persona_mcp.nodes.feeling import feeling_of
from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.relationship import (
    SECONDS,
    Act,
    Occasion,
    Participant,
    act_of,
    change_of,
    character_of,
    reason_of,
)
from persona_mcp.nodes.relationship_state import (
    Given,
    RelationshipInput,
    RelationshipRun,
    RelationshipUpdate,
    View,
    given_of,
)
from persona_mcp.state import appraisal as appraisals
from persona_mcp.state import personas, relationship
from persona_mcp.state.appraisal import DEFAULT_CONTEXT, Appraisal
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.feelings import FeelingChange
from persona_mcp.state.happening import Happening, event_id, write_happening
from persona_mcp.state.ids import timed_id
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.meeting import MEETING_MINUTES
from persona_mcp.state.telling import trust_in
from persona_mcp.state.validation import validate


async def appraise_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Check what is given, and say how it is taken.

    Reads: what the run was started with.
    Writes: act; world_id and event_id, where they were left out.

    Raises:
        InvalidParams: A value is wrong, or nothing says how it is to be taken.
        ModelError: The embedder did not answer.
    """
    given = validate(Given, {"act": given_of(state)}).act
    return RelationshipUpdate(
        world_id=given.get("world_id", parts.world),
        event_id=given.get("event_id") or timed_id(),
        act=await taken(parts, given),
    )


async def taken(parts: Parts, given: RelationshipInput) -> Act:
    """Say how it is taken.

    Raises:
        InvalidParams: Nothing says how it is to be taken.
        ModelError: The embedder did not answer.
    """
    text, laws = given.get("text", ""), parts.laws.effects.relationships
    role: appraisals.Role = "received" if text else "joint"
    if appraisal := given.get("appraisal"):
        return Act(text, role, Appraisal(**appraisal.model_dump()), "given")
    if (quality := given.get("quality")) is not None:
        found = appraisals.appraisal_for(quality, given.get("context", DEFAULT_CONTEXT), laws)
        return Act(text, role, found, "quality")
    if text:
        return act_of(text, role, await parts.appraiser.appraise(text))
    raise InvalidParams.one(
        "quality", "required, where there is neither a text nor an appraisal", "nothing"
    )


async def validate_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Find out who is concerned, and how.

    Reads: world_id, actor_id, receiver_id, direction, witnesses, told_by, act.
    Writes: pair, views, teller.

    Raises:
        NotFound: None of the two is a persona, or one of them is a deleted one.
        InvalidParams: It is one and the same, nobody's view would be kept, or it is told by one of
            the two.
    """
    return await parts.database.read(concerned, state)


def concerned(connection: Connection, state: RelationshipRun) -> RelationshipUpdate:
    """Find out who is concerned, inside a transaction."""
    world_id = state["world_id"]
    actor, receiver = (
        participant(connection, world_id, state[name]) for name in ("actor_id", "receiver_id")
    )
    if actor.id == receiver.id:
        raise InvalidParams.one("receiver_id", "somebody else than the actor", receiver.id)
    if actor.persona is None and receiver.persona is None:
        raise NotFound.of("persona", receiver.id)
    pair = (actor.id, receiver.id)
    if teller_id := state.get("told_by"):
        teller = participant(connection, world_id, teller_id)
        if receiver.persona is None or teller.id in pair:
            raise InvalidParams.one("told_by", "somebody else, who tells a persona", teller.id)
        told = View(receiver.persona, actor, "told", ("backward",))
        return RelationshipUpdate(pair=pair, views=(told,), teller=teller.id)
    views = tuple(moved_views(actor, receiver, state))
    if not views:
        allowed = "both, or the one of the two that is a persona's view: a human's is not kept"
        raise InvalidParams.one("direction", allowed, state.get("direction") or "nothing")
    seen = [personas.find(connection, world_id, name) for name in state.get("witnesses") or ()]
    acted = (actor, receiver) if state["act"].role == "joint" else (actor,)
    aside = tuple(
        View(witness, one, "aside", ("aside", witness.id, one.id))
        for witness in {persona.id: persona for persona in seen}.values()
        if witness.id not in pair
        for one in acted
    )
    return RelationshipUpdate(pair=pair, views=(*views, *aside))


def moved_views(
    actor: Participant, receiver: Participant, state: RelationshipRun
) -> Iterator[View]:
    """Give the views of the two themselves that are kept, and asked for."""
    role, direction = state["act"].role, state.get("direction") or "both"
    if actor.persona and direction != "backward":
        own: appraisals.Role = "joint" if role == "joint" else "returned"
        yield View(actor.persona, receiver, own, ("forward",))
    if receiver.persona and direction != "forward":
        yield View(receiver.persona, actor, role, ("backward",))


def participant(connection: Connection, world_id: str, reference: str) -> Participant:
    """Find a persona by its id or name; anybody else is a human.

    Raises:
        NotFound: It was a persona, and is deleted.
    """
    try:
        persona = personas.find(connection, world_id, reference)
    except NotFound:
        if personas.HAS_ID.first(connection, world=world_id, key=reference) is not None:
            raise
        return Participant(reference)
    return Participant(persona.id, persona)


async def apply_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Compute what it changes.

    Reads: world_id, event_id, act, pair, views, teller, minutes, context, turning_point, why, at.
    Writes: happening.
    """
    at = given_of(state).get("at", parts.now())
    occasion = await occasion_of(parts, state, at)
    world_id, views = state["world_id"], state["views"]
    changes = tuple(
        change_of(
            parts,
            view.owner,
            view.other,
            replace(state["act"], role=view.role),
            occasion,
            at,
            event_id(world_id, state["event_id"], *view.slot),
        )
        for view in views
    )
    feelings = tuple(
        felt_of(parts, view, state["act"], occasion)
        for view in views
        if view.role not in ("aside", "told")
    )
    return RelationshipUpdate(
        happening=Happening(state["event_id"], state["pair"], changes, feelings, at)
    )


async def occasion_of(parts: Parts, state: RelationshipRun, at: float) -> Occasion:
    """Say what the act is part of: a turn if there is a text, else a meeting."""
    laws, act, given = parts.laws.effects, state["act"], given_of(state)
    minutes, turning = given.get("minutes"), given.get("turning_point")
    context = given.get("context", DEFAULT_CONTEXT)
    why = given.get("why", "")
    if act.text:
        turning = act.turning_point is not None if turning is None else turning
        size = appraisals.turn_size(laws.relationships, turning_point=turning)
        if minutes is None:
            minutes = talk_cost(len(act.text.split()), laws.interaction) / SECONDS
    else:
        minutes = MEETING_MINUTES if minutes is None else minutes
        if turning is None:
            turning = appraisals.is_turning_point(context, laws.relationships)
        size = appraisals.update_size(minutes, laws.relationships, turning_point=turning)
        why = why or f"{character_of(act)}: {context}, {minutes:g} min"
    occasion = Occasion("turn" if act.text else "update", context, size, minutes, why)
    teller = state.get("teller")
    if teller is None:
        return occasion
    listener = state["pair"][1]
    trust = await parts.database.read(
        trust_in, state["world_id"], listener, teller, at, laws.relationships
    )
    return replace(occasion, source_id=teller, source_trust=2 * trust - 1)


def felt_of(parts: Parts, view: View, act: Act, occasion: Occasion) -> FeelingChange:
    """Compute what it does to the feelings of one of the two; one's own words only tire."""
    laws, persona = parts.laws.effects, view.owner
    why = occasion.why or reason_of(act)
    if view.role == "joint":
        size = appraisals.update_size(occasion.minutes, laws.relationships)
        return feeling_of(parts, persona, act.appraisal, size, occasion.minutes, why)
    talk_s = talk_cost(len(act.text.split()), laws.interaction)
    own = view.role == "returned"
    return feeling_of(
        parts,
        persona,
        Appraisal() if own else act.appraisal,
        laws.emotions.turn_size,
        talk_s / SECONDS,
        why,
        ((talk_s, 1.0 if own else laws.interaction.listener_share),),
    )


async def persist_act(parts: Parts, state: RelationshipRun) -> RelationshipUpdate:
    """Append it, in one write, and say how the two see each other then.

    Reads: world_id, happening.
    Writes: forward, backward, event_ids, outcome.

    Raises:
        Conflict: Something else has happened under this event_id; nothing was stored.
        StorageUnavailable: The database did not answer; nothing was stored.
    """
    laws = parts.laws.effects

    def values(arrow: Arrow | None) -> dict[str, float] | None:
        return asdict(relationship.shown(arrow, laws.relationships)) if arrow else None

    outcome = await parts.database.write(
        write_happening, state["world_id"], state["happening"], laws
    )
    return RelationshipUpdate(
        forward=values(outcome.forward),
        backward=values(outcome.backward),
        event_ids=list(outcome.event_ids),
        outcome=outcome,
    )
