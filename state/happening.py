"""What happens between parties outside of a conversation, written once: events and feelings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, String, bindparam, select

from persona_mcp.state import relationship, tables
from persona_mcp.state.effects import (
    EffectParams,
    RelationshipChange,
    add_relationship_change,
    read_arrow,
)
from persona_mcp.state.errors import Conflict
from persona_mcp.state.feelings import FeelingChange, add_feeling_change
from persona_mcp.state.ids import derived_id
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.relationship import Arrow, RelationshipParams
from persona_mcp.state.relationship_store import read_log

E = tables.RelationshipEvent
KNOWN = Prepared(
    select(E).where(E.world_id == bindparam("world", type_=String), E.id.in_(listed("ids")))
)
COMPARED = ("from_id", "to_id", "kind", "context", "source_id")
COMPARED_AS_GIVEN = ("appraisal", "size", "minutes", "why")
"""Of an event whose values the caller gave; what an appraiser says may differ the next time."""
SLOTS = ("forward", "backward")

Pair = tuple[str, str]


@dataclass(frozen=True)
class Happening:
    """What is about to be written.

    Attributes:
        id: Names it; the same one again changes nothing.
        pair: Who acted and toward whom; their two arrows are what it is asked for.
        relationships: Events, each on an arrow of its own.
        feelings: What it does to personas.
        at: When, in seconds since the epoch, UTC.
    """

    id: str
    pair: Pair
    relationships: tuple[RelationshipChange, ...]
    feelings: tuple[FeelingChange, ...]
    at: float


@dataclass(frozen=True)
class Outcome:
    """How the two see each other right after it.

    Attributes:
        forward: How the actor sees the other; None where nothing is known of it.
        backward: The other way round.
        event_ids: What was appended, or had been before.
    """

    forward: Arrow | None
    backward: Arrow | None
    event_ids: tuple[str, ...]


def event_id(world_id: str, happening_id: str, *slot: str) -> str:
    """Name an event of a happening by its place in it, whoever is concerned."""
    return derived_id(world_id, happening_id, "relationship", *slot)


def write_happening(
    connection: Connection, world_id: str, happening: Happening, params: EffectParams
) -> Outcome:
    """Append what happened and fold it; a repeated one is answered as it was the first time.

    Raises:
        Conflict: Something else is stored under its name; nothing was written.
    """
    changes = {change.id: change for change in happening.relationships}
    pair_ids = [event_id(world_id, happening.id, slot) for slot in SLOTS]
    known = {
        row.id: row
        for row in KNOWN.all(connection, world=world_id, ids=sorted({*changes, *pair_ids}))
    }
    laws = params.relationships
    arrows: dict[Pair, Arrow | None]
    if not known:
        arrows = {
            (c.from_id, c.to_id): add_relationship_change(connection, world_id, None, c, laws)
            for c in happening.relationships
        }
        for feeling in happening.feelings:
            ids = feeling_ids(world_id, happening.id, feeling)
            add_feeling_change(connection, world_id, None, feeling, ids, happening.at, params)
    elif known.keys() == changes.keys() and all(same(known[id], changes[id]) for id in known):
        arrows = {
            (row.from_id, row.to_id): arrow_after(connection, world_id, row, laws)
            for row in known.values()
        }
    else:
        raise Conflict(
            "request_id: it was used for another event; use a new one", field="request_id"
        )
    at = max(known[id].at for id in known) if known else happening.at
    forward, backward = (
        arrows.get(pair) or arrow_at(connection, world_id, pair, at, laws)
        for pair in (happening.pair, happening.pair[::-1])
    )
    return Outcome(forward, backward, tuple(changes))


def feeling_ids(world_id: str, happening_id: str, change: FeelingChange) -> tuple[str, ...]:
    """Name the impulse and the costs of a happening, the same each time."""
    names = ("impulse", *(f"talk{n}" for n in range(len(change.talk))))
    return tuple(derived_id(world_id, happening_id, change.persona.id, name) for name in names)


def same(row: Any, change: RelationshipChange) -> bool:
    """Tell whether a stored event is the one that was to be appended."""
    event = change.event
    new: Mapping[str, Any] = {
        "from_id": change.from_id,
        "to_id": change.to_id,
        "kind": event.kind,
        "context": event.context,
        "source_id": change.origin.source_id,
        "appraisal": asdict(event.appraisal) if event.appraisal else None,
        "size": event.size,
        "minutes": event.minutes,
        "why": change.why,
    }
    given = change.origin.appraiser in ("quality", "given")
    names = (*COMPARED, *COMPARED_AS_GIVEN) if given else COMPARED
    return all(getattr(row, name) == new[name] for name in names)


def arrow_after(
    connection: Connection, world_id: str, row: Any, params: RelationshipParams
) -> Arrow | None:
    """Return an arrow as it stood after one of its events."""
    log = read_log(connection, world_id, row.from_id, row.to_id)
    until = [event for event in log.events if event.seq <= row.seq]
    return relationship.fold(until, params, log.first)


def arrow_at(
    connection: Connection, world_id: str, pair: Pair, at: float, params: RelationshipParams
) -> Arrow | None:
    """Return an arrow as it stands at a time, or after its last event if that is later."""
    arrow = read_arrow(connection, world_id, *pair)
    return relationship.decay(arrow, at, params) if arrow else None
