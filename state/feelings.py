"""Feelings' effects in SQL: append-only impulses and costs, and the caches that fold them.

Each function works inside the caller's transaction. Emotions and what a persona has left for
talking are moved on at the same moments, those of its impulses, and do not touch each other: so
the log alone says in which order the numbers are to be added up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from persona_mcp.state import effect_statements as statements
from persona_mcp.state import emotion, interaction, tables
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.emotion import EmotionalState, Impulses
from persona_mcp.state.errors import Conflict
from persona_mcp.state.interaction import InteractionState
from persona_mcp.state.persona import Persona, PersonaSpec
from persona_mcp.state.traits import big_five

P = tables.PersonaState
C = tables.Conversation
COOLDOWNS = "cooldowns"
"""In the plan of a conversation that has ended: until when it lets each of its personas rest."""
NOTHING_SET: Mapping[str, float] = {}


@dataclass(frozen=True)
class Feelings:
    """What a persona feels and has left, at one time."""

    emotion: EmotionalState
    interaction: InteractionState


@dataclass(frozen=True)
class FeelingChange:
    """What happens to a persona's feelings at one moment.

    Attributes:
        persona: Whose.
        impulse: Push on the emotions, applied once.
        talk: Seconds of talk and share (1 speaker, 0.5 listener) of each turn, in order.
        why: A short reason for people.
        absolute: Values of emotions that are set after the push, by their names.
    """

    persona: Persona
    impulse: Impulses
    talk: tuple[tuple[float, float], ...]
    why: str
    absolute: Mapping[str, float] | None = None


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
            replace(feelings.interaction, priority=persona.spec.current_priority),
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
    found = stored_feelings(connection, world_id, persona.id)
    return at_time(found, persona, now, params) if found else at_rest(persona, now, params)


def stored_feelings(connection: Connection, world_id: str, persona_id: str) -> Feelings | None:
    """Return a persona's feelings as they stood after its last effect; None if there was none."""
    row = statements.FEELINGS.first(connection, world=world_id, persona=persona_id)
    return to_feelings(row) if row else None


def to_feelings(row: Row[Any]) -> Feelings:
    """Read a row."""
    return Feelings(EmotionalState(**row.emotion), InteractionState(**row.interaction))


def add_feeling_change(
    connection: Connection,
    world_id: str,
    exchange_id: str | None,
    change: FeelingChange,
    ids: tuple[str, ...],
    now: float,
    params: EffectParams,
) -> Feelings:
    """Append an impulse and the turns' costs to a persona, and return its feelings after them.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        exchange_id: The exchange that it comes from, if it comes from one.
        change: What happens.
        ids: Of the impulse, then of each turn's cost; derived from what they come from.
        now: Seconds since the epoch, UTC.
        params: The constants.
    """
    persona = change.persona
    keys = {"world": world_id, "persona": persona.id}
    cached = stored_feelings(connection, world_id, persona.id)
    there, mood_seq, energy_seq = statements.BEFORE_IMPULSE.first(connection, **keys, key=ids[0])
    mood_seq, energy_seq = mood_seq or 0, energy_seq or 0
    if cached is not None and there is not None:
        return cached
    before = cached or at_rest(persona, now, params)
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
    pushed = {
        "id": ids[0],
        "seq": mood_seq + 1,
        "impulse": dict(vars(change.impulse)),
        "absolute": dict(change.absolute) if change.absolute else None,
    }
    statements.ADD_IMPULSE.run(connection, {**base, **pushed})
    rows = [
        {**base, "id": id, "seq": seq, "talk_s": talk_s, "share": share}
        for seq, (id, (talk_s, share)) in enumerate(
            zip(ids[1:], change.talk, strict=True), start=energy_seq + 1
        )
    ]
    if rows:
        statements.ADD_COSTS.run(connection, rows)
    pushes = [(change.impulse, change.absolute)]
    after = moved(felt, pushes, change.talk, params)
    seqs = (mood_seq + 1, energy_seq + len(rows))
    keep_feelings(connection, world_id, persona.id, after, seqs, new=cached is None)
    return after


def moved(
    felt: Feelings,
    pushes: Sequence[tuple[Impulses, Mapping[str, float] | None]],
    talk: Sequence[tuple[float, float]],
    params: EffectParams,
) -> Feelings:
    """Apply what happens at one moment: pushes and values that are set, then costs, in order."""
    mood, left = felt.emotion, felt.interaction
    for push, absolute in pushes:
        mood = replace(emotion.apply(mood, push), **(absolute or NOTHING_SET))
    for talk_s, share in talk:
        left = interaction.after_talk(left, talk_s, share, params.interaction)
    return Feelings(mood, left)


def set_feelings(
    connection: Connection,
    world_id: str,
    persona: Persona,
    values: Mapping[str, float],
    why: str,
    key: str,
    now: float,
    params: EffectParams,
) -> EmotionalState:
    """Set values of a persona's emotions; a repeated one is answered as it was the first time.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        persona: Whose.
        values: By their names, each within its range.
        why: A short reason for people.
        key: Id of the change.
        now: Seconds since the epoch, UTC.
        params: The constants.

    Raises:
        Conflict: Another change is stored under its id.
    """
    known = statements.KNOWN_IMPULSE.first(connection, world=world_id, key=key)
    if known is None:
        change = FeelingChange(persona, Impulses(), (), why, values)
        return add_feeling_change(connection, world_id, None, change, (key,), now, params).emotion
    if (known.persona_id, known.absolute, known.why) != (persona.id, dict(values), why):
        raise Conflict(
            "request_id: it was used to set something else; use a new one", field="request_id"
        )
    return (
        emotion_after(connection, world_id, persona, known.seq, params)
        or at_rest(persona, known.at, params).emotion
    )


def keep_feelings(
    connection: Connection,
    world_id: str,
    persona_id: str,
    feelings: Feelings,
    seqs: tuple[int, int],
    *,
    new: bool,
) -> None:
    """Write the cache of a persona's feelings, with the last numbers of impulses and of costs."""
    values = {
        "emotion": dict(vars(feelings.emotion)),
        "emotion_seq": seqs[0],
        "interaction": dict(vars(feelings.interaction)),
        "interaction_seq": seqs[1],
    }
    if new:
        keys = {"world_id": world_id, "persona_id": persona_id}
        statements.BEGIN_FEELINGS.run(connection, {**keys, **values})
    else:
        its = {f"its_{name}": value for name, value in values.items()}
        keys = {"world": world_id, "persona": persona_id}
        statements.KEEP_FEELINGS.run(connection, {**keys, **its})


def fold_feelings(
    connection: Connection, world_id: str, persona: Persona, params: EffectParams
) -> Feelings | None:
    """Build a persona's feelings from its active log, the same bits as the cache; None without."""
    keys = {"world": world_id, "persona": persona.id}
    pushes = statements.IMPULSES.all(connection, **keys)
    costs = statements.COSTS.all(connection, **keys)
    felt = folded(lives_of(connection, world_id, persona), pushes, costs, params)
    if felt is None:
        return None
    rest = resting_until(connection, world_id, persona.id)
    return replace(felt, interaction=replace(felt.interaction, cooldown_until=rest))


def resting_until(connection: Connection, world_id: str, persona_id: str) -> float | None:
    """Return until when a persona rests after the conversations that it was in; None after none."""
    until = C.plan[(COOLDOWNS, persona_id)].as_float()
    found: float | None = connection.scalar(
        select(func.max(until)).where(C.world_id == world_id, C.status == "ended")
    )
    return found


def emotion_after(
    connection: Connection, world_id: str, persona: Persona, seq: int, params: EffectParams
) -> EmotionalState | None:
    """Return a persona's emotions as they stood after an impulse; None if none is active."""
    rows = statements.IMPULSES.all(connection, world=world_id, persona=persona.id)
    lives = lives_of(connection, world_id, persona)
    felt = folded(lives, [row for row in rows if row.seq <= seq], [], params)
    return felt.emotion if felt else None


def lives_of(connection: Connection, world_id: str, persona: Persona) -> list[Persona]:
    """Return who a persona was, oldest first, and who it is: each from its `updated_at` on."""
    rows = statements.VERSIONS.all(connection, world=world_id, persona=persona.id)
    return [
        replace(
            persona,
            version=r.version,
            spec=PersonaSpec.model_validate(r.spec),
            updated_at=r.created_at,
        )
        for r in rows
    ] or [persona]


def folded(
    lives: Sequence[Persona], pushes: Sequence[Any], costs: Sequence[Any], params: EffectParams
) -> Feelings | None:
    """Fold the rows of a log, each kind in its order; costs fall on moments of impulses."""
    moments: dict[float, tuple[list[Any], list[Any]]] = {}
    for kind, rows in enumerate((pushes, costs)):
        for row in rows:
            moments.setdefault(row.at, ([], []))[kind].append(row)
    felt: Feelings | None = None
    for at, (pushed, spent) in sorted(moments.items()):
        # A change of the persona ends the life before it: that moment is the old one's.
        persona = next((p for p in reversed(lives) if p.updated_at < at), lives[0])
        before = at_time(felt or at_rest(persona, at, params), persona, at, params)
        felt = moved(
            before,
            [(Impulses(**row.impulse), row.absolute) for row in pushed],
            [(row.talk_s, row.share) for row in spent],
            params,
        )
    return felt


def refold_feelings(
    connection: Connection, world_id: str, persona: Persona, params: EffectParams
) -> Feelings | None:
    """Make the cache of a persona's feelings anew from its log; drops it when that is empty."""
    felt = fold_feelings(connection, world_id, persona, params)
    connection.execute(delete(P).where(P.world_id == world_id, P.persona_id == persona.id))
    if felt is not None:
        keys = {"world": world_id, "persona": persona.id}
        _, *seqs = statements.BEFORE_IMPULSE.first(connection, **keys, key="")
        last = (seqs[0] or 0, seqs[1] or 0)
        keep_feelings(connection, world_id, persona.id, felt, last, new=True)
    return felt
