"""Effects in SQL: append-only rows, and the caches that are a fold of them.

Each function works inside the caller's transaction, reads the cache, appends, and writes the
cache. An effect whose id is there already is left alone, so a repeated write changes nothing.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from persona_mcp.state import effect_statements as statements
from persona_mcp.state import emotion, interaction, relationship, tables
from persona_mcp.state.arrow import NOWHERE, Origin
from persona_mcp.state.emotion import EmotionalState, EmotionParams, Impulses
from persona_mcp.state.interaction import InteractionParams, InteractionState
from persona_mcp.state.persona import Persona
from persona_mcp.state.relationship import Arrow, Event, Priors, RelationshipParams
from persona_mcp.state.relationship_store import read_log
from persona_mcp.state.traits import big_five

E = tables.RelationshipEvent
R = tables.RelationshipState
P = tables.PersonaState


@dataclass(frozen=True)
class RelationshipChange:
    """An event that is about to be appended to an arrow.

    Attributes:
        id: Derived from the exchange, so that a repeated write finds its row.
        from_id: Who sees.
        to_id: Who is seen.
        event: What happened; its seq is given here, its time is never before the arrow's.
        priors: Baselines, used if it is the arrow's first event.
        why: A short reason for people.
        origin: Where it comes from.
    """

    id: str
    from_id: str
    to_id: str
    event: Event
    priors: Priors
    why: str
    origin: Origin = NOWHERE


@dataclass(frozen=True)
class Feelings:
    """What a persona feels and has left, at one time."""

    emotion: EmotionalState
    interaction: InteractionState


@dataclass(frozen=True)
class FeelingChange:
    """What an exchange does to a persona's feelings.

    Attributes:
        persona: Whose.
        impulse: Push on the emotions, applied once.
        talk: Seconds of talk and share (1 speaker, 0.5 listener) of each turn, in order.
        why: A short reason for people.
    """

    persona: Persona
    impulse: Impulses
    talk: tuple[tuple[float, float], ...]
    why: str


@dataclass(frozen=True)
class EffectParams:
    """The constants of the laws that effects are folded by."""

    relationships: RelationshipParams
    emotions: EmotionParams
    interaction: InteractionParams


def read_arrow(connection: Connection, world_id: str, from_id: str, to_id: str) -> Arrow | None:
    """Return an arrow as it stood after its last event; None if there was none."""
    found = statements.ARROW.scalar(connection, world=world_id, who=from_id, whom=to_id)
    return Arrow(**found) if found else None


def add_relationship_change(
    connection: Connection,
    world_id: str,
    exchange_id: str | None,
    change: RelationshipChange,
    params: RelationshipParams,
) -> Arrow:
    """Append an event to an arrow and return the arrow after it."""
    keys = {"world": world_id, "who": change.from_id, "whom": change.to_id}
    found, seq, last = statements.BEFORE_EVENT.first(connection, **keys, key=change.id)
    cached = Arrow(**found) if found else None
    if cached is not None and seq is not None:
        return cached
    arrow = cached or relationship.begin(change.priors, change.event.at)
    # Without a cache the log may still hold events that are switched off: their numbers are taken.
    event = replace(
        change.event,
        at=max(change.event.at, arrow.as_of),
        seq=(last or 0) + 1,
        priors=None if cached else change.priors,
    )
    arrow = relationship.apply(arrow, event, params)
    statements.ADD_EVENT.run(connection, event_values(world_id, exchange_id, change, event, params))
    if cached:
        state = {"its_arrow": asdict(arrow), "its_as_of": arrow.as_of, "its_seq": event.seq}
        statements.KEEP_ARROW.run(connection, {**keys, **state})
    else:
        begin_cache(connection, world_id, change.from_id, change.to_id, arrow, event.seq)
    return arrow


def begin_cache(
    connection: Connection, world_id: str, from_id: str, to_id: str, arrow: Arrow, seq: int
) -> None:
    """Write an arrow's cache where there is none."""
    connection.execute(
        insert(R).values(
            world_id=world_id,
            from_id=from_id,
            to_id=to_id,
            arrow=asdict(arrow),
            as_of=arrow.as_of,
            last_seq=seq,
        )
    )


def event_values(
    world_id: str,
    exchange_id: str | None,
    change: RelationshipChange,
    event: Event,
    params: RelationshipParams,
) -> dict[str, Any]:
    """Write an event as a row."""
    return {
        "world_id": world_id,
        "id": change.id,
        "exchange_id": exchange_id,
        "at": event.at,
        "seq": event.seq,
        "why": change.why,
        "params_version": params.params_version,
        "from_id": change.from_id,
        "to_id": change.to_id,
        "kind": event.kind,
        "context": event.context,
        "appraisal": asdict(event.appraisal) if event.appraisal else None,
        "size": event.size,
        "weight": event.weight,
        "disclosure_weight": event.disclosure_weight,
        "minutes": event.minutes,
        "direct": event.direct,
        "deltas": asdict(event.deltas),
        "priors": asdict(event.priors) if event.priors else None,
        "bond": event.bond,
        **asdict(change.origin),
    }


def refold_arrow(
    connection: Connection,
    world_id: str,
    from_id: str,
    to_id: str,
    params: RelationshipParams,
) -> Arrow | None:
    """Make an arrow's cache anew from its active events; drops it when there is none.

    The priors stay those of the event that began it, even if that one is switched off.
    """
    arrow = read_log(connection, world_id, from_id, to_id).fold(params)
    its = (R.world_id == world_id, R.from_id == from_id, R.to_id == to_id)
    connection.execute(delete(R).where(*its))
    if arrow is not None:
        log = E.world_id == world_id, E.from_id == from_id, E.to_id == to_id
        last = connection.scalar(select(func.max(E.seq)).where(*log)) or 0
        begin_cache(connection, world_id, from_id, to_id, arrow, last)
    return arrow


def at_rest(persona: Persona, now: float, params: EffectParams) -> Feelings:
    """Return what a persona feels before anything happened to it."""
    return Feelings(
        emotion.baseline(big_five(persona.spec.personality_traits), now, params.emotions),
        InteractionState(
            as_of=now,
            energy=persona.spec.social_energy,
            time=persona.spec.available_time,
            priority=persona.spec.current_priority,
        ),
    )


def at_time(feelings: Feelings, persona: Persona, now: float, params: EffectParams) -> Feelings:
    """Let time pass over a persona's feelings."""
    rest = at_rest(persona, now, params)
    return Feelings(
        emotion.decay(feelings.emotion, rest.emotion, now, params.emotions),
        interaction.regenerate(
            feelings.interaction,
            now,
            persona.spec.social_energy,
            persona.spec.available_time,
            params.interaction,
        ),
    )


def read_feelings(
    connection: Connection, world_id: str, persona: Persona, now: float, params: EffectParams
) -> Feelings:
    """Return a persona's feelings at a time."""
    row = statements.FEELINGS.first(connection, world=world_id, persona=persona.id)
    return at_time(to_feelings(row), persona, now, params) if row else at_rest(persona, now, params)


def to_feelings(row: Row[Any]) -> Feelings:
    """Read a row."""
    return Feelings(EmotionalState(**row.emotion), InteractionState(**row.interaction))


def add_feeling_change(
    connection: Connection,
    world_id: str,
    exchange_id: str,
    change: FeelingChange,
    ids: tuple[str, ...],
    now: float,
    params: EffectParams,
) -> Feelings:
    """Append an impulse and the turns' costs to a persona, and return its feelings after them.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        exchange_id: What it comes from.
        change: What happens.
        ids: Of the impulse, then of each turn's cost; derived from the exchange.
        now: Seconds since the epoch, UTC.
        params: The constants.
    """
    persona = change.persona
    keys = {"world": world_id, "persona": persona.id}
    row = statements.FEELINGS.first(connection, **keys)
    there, mood_seq, energy_seq = statements.BEFORE_IMPULSE.first(connection, **keys, key=ids[0])
    mood_seq, energy_seq = mood_seq or 0, energy_seq or 0
    if row is not None and there is not None:
        return to_feelings(row)
    before = to_feelings(row) if row else at_rest(persona, now, params)
    at = max(now, before.emotion.as_of)
    felt = at_time(before, persona, at, params)
    base = {
        "world_id": world_id,
        "exchange_id": exchange_id,
        "persona_id": persona.id,
        "at": at,
        "why": change.why,
        "params_version": params.relationships.params_version,
    }
    pushed = {"id": ids[0], "seq": mood_seq + 1, "impulse": asdict(change.impulse)}
    statements.ADD_IMPULSE.run(connection, {**base, **pushed})
    spent = felt.interaction
    rows = []
    for number, (talk_s, share) in enumerate(change.talk, start=1):
        spent = interaction.after_talk(spent, talk_s, share, params.interaction)
        seq = energy_seq + number
        rows.append({**base, "id": ids[number], "seq": seq, "talk_s": talk_s, "share": share})
    if rows:
        statements.ADD_COSTS.run(connection, rows)
    after = Feelings(emotion.apply(felt.emotion, change.impulse), spent)
    values = {
        "emotion": asdict(after.emotion),
        "emotion_seq": mood_seq + 1,
        "interaction": asdict(after.interaction),
        "interaction_seq": energy_seq + len(rows),
    }
    keep_feelings(connection, world_id, persona.id, values, new=row is None)
    return after


def keep_feelings(
    connection: Connection,
    world_id: str,
    persona_id: str,
    values: dict[str, Any],
    *,
    new: bool,
) -> None:
    """Write the cache of a persona's feelings."""
    if new:
        keys = {"world_id": world_id, "persona_id": persona_id}
        connection.execute(insert(P).values({**keys, **values}))
    else:
        its = {f"its_{name}": value for name, value in values.items()}
        keys = {"world": world_id, "persona": persona_id}
        statements.KEEP_FEELINGS.run(connection, {**keys, **its})
