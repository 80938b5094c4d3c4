"""Relationships' effects in SQL: append-only events, and the arrows that are a fold of them.

Each function works inside the caller's transaction, reads the cache, appends, and writes the
cache. An effect whose id is there already is left alone, so a repeated write changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, func, select

from persona_mcp.state import effect_statements as statements
from persona_mcp.state import relationship, tables
from persona_mcp.state.arrow import NOWHERE, Origin
from persona_mcp.state.emotion import EmotionParams
from persona_mcp.state.interaction import InteractionParams
from persona_mcp.state.relationship import Arrow, Event, Priors, RelationshipParams
from persona_mcp.state.relationship_store import read_log

E = tables.RelationshipEvent
R = tables.RelationshipState


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
class EffectParams:
    """The constants of the laws that effects are folded by."""

    relationships: RelationshipParams
    emotions: EmotionParams
    interaction: InteractionParams


def read_arrow(connection: Connection, world_id: str, from_id: str, to_id: str) -> Arrow | None:
    """Return an arrow as it stood after its last event; None if there was none."""
    found = statements.ARROW.scalar(connection, world=world_id, who=from_id, whom=to_id)
    return Arrow(**found) if found else None


def arrows_among(
    connection: Connection,
    world_id: str,
    ids: Sequence[str],
    now: float,
    params: RelationshipParams,
) -> dict[tuple[str, str], Arrow]:
    """Return the arrows between some personas and users as time has left them.

    Args:
        connection: An open transaction.
        world_id: Where.
        ids: Whose.
        now: Seconds since the epoch, UTC; not before their last events.
        params: The constants.

    Returns:
        By (who, whom); those who never met have none.
    """
    rows = statements.ARROWS.all(connection, world=world_id, ids=list(ids))
    return {
        (row.from_id, row.to_id): relationship.decay(Arrow(**row.arrow), now, params)
        for row in rows
    }


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
        state = {"its_arrow": dict(vars(arrow)), "its_as_of": arrow.as_of, "its_seq": event.seq}
        statements.KEEP_ARROW.run(connection, {**keys, **state})
    else:
        begin_cache(connection, world_id, change.from_id, change.to_id, arrow, event.seq)
    return arrow


def begin_cache(
    connection: Connection, world_id: str, from_id: str, to_id: str, arrow: Arrow, seq: int
) -> None:
    """Write an arrow's cache where there is none."""
    statements.BEGIN_ARROW.run(
        connection,
        {
            "world_id": world_id,
            "from_id": from_id,
            "to_id": to_id,
            "arrow": dict(vars(arrow)),
            "as_of": arrow.as_of,
            "last_seq": seq,
        },
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
        "appraisal": dict(vars(event.appraisal)) if event.appraisal else None,
        "size": event.size,
        "weight": event.weight,
        "disclosure_weight": event.disclosure_weight,
        "minutes": event.minutes,
        "direct": event.direct,
        "deltas": dict(vars(event.deltas)),
        "priors": dict(vars(event.priors)) if event.priors else None,
        "bond": event.bond,
        **vars(change.origin),
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
