"""Relationships read from SQL: who has an arrow to whom, and the log behind one.

A deleted persona is nobody: its arrows are left out, and those to it. Who is not a persona is a
user; only the arrows from personas to users are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json
from sqlalchemy import (
    Connection,
    Float,
    Select,
    String,
    Text,
    and_,
    bindparam,
    cast,
    or_,
    select,
)
from sqlalchemy.orm import aliased

from persona_mcp.state import relationship, tables
from persona_mcp.state.appraisal import Appraisal, Deltas
from persona_mcp.state.arrow import Arrow, Event, Origin, Priors
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.relationship_params import RelationshipParams

PartyKind = Literal["persona", "user"]

E = tables.RelationshipEvent
R = tables.RelationshipState
P = tables.Persona
OWNER, OTHER = aliased(P), aliased(P)
WORLD = bindparam("world", type_=String)
FROM, TO = bindparam("who", type_=String), bindparam("whom", type_=String)
ALWAYS = 1e300
"""Later than any time."""
FIRST = 1
"""The number of the event that began an arrow, and holds its priors."""


class Party(NamedTuple):
    """Who may be at an end of an arrow.

    Attributes:
        id: In the world.
        name: A user is called by its id.
        kind: Whether it is a persona.
    """

    id: str
    name: str
    kind: PartyKind


class Outgoing(NamedTuple):
    """An arrow of a persona, as it stood after its last event."""

    other: Party
    arrow: Arrow


class Directed(NamedTuple):
    """An arrow with its ends."""

    from_id: str
    to_id: str
    arrow: Arrow


@dataclass(frozen=True)
class Logged:
    """An event as it is kept.

    Attributes:
        id: In the world.
        exchange_id: What it comes from, if that is an exchange.
        why: A short reason; it may quote what was said, which its arrow's owner heard.
        event: What the fold reads.
        origin: Where it comes from.
    """

    id: str
    exchange_id: str | None
    why: str
    event: Event
    origin: Origin


@dataclass(frozen=True)
class Log:
    """What happened to an arrow.

    Attributes:
        first: Priors of the event that began it, also where that one is switched off.
        entries: (n,), those that count, in the order of the fold.
    """

    first: Priors | None
    entries: tuple[Logged, ...]

    @property
    def events(self) -> list[Event]:
        """What the fold reads."""
        return [entry.event for entry in self.entries]

    def without(self, ids: Sequence[str]) -> "Log":
        """Return the log as it would be if some events had not happened."""
        return Log(self.first, tuple(entry for entry in self.entries if entry.id not in set(ids)))

    def fold(self, params: RelationshipParams) -> Arrow | None:
        """Return the arrow after its last event; None without events."""
        return relationship.fold(self.events, params, self.first)


def arrows_query(among: bool) -> Select[*tuple[Any, ...]]:
    """Return the query for the arrows of a world, or for those among some parties."""
    owner = and_(OWNER.world_id == R.world_id, OWNER.id == R.from_id)
    other = and_(OTHER.world_id == R.world_id, OTHER.id == R.to_id)
    query = (
        select(R.from_id, R.to_id, cast(R.arrow, Text))
        .join(OWNER, owner)
        .outerjoin(OTHER, other)
        .where(R.world_id == WORLD, OWNER.deleted_at.is_(None), OTHER.deleted_at.is_(None))
        .order_by(R.from_id, R.to_id)
    )
    if not among:
        return query
    return query.where(R.from_id.in_(listed("ids")), R.to_id.in_(listed("ids")))


OUTGOING = Prepared(
    select(R.to_id, OTHER.name, cast(R.arrow, Text))
    .outerjoin(OTHER, and_(OTHER.world_id == R.world_id, OTHER.id == R.to_id))
    .where(R.world_id == WORLD, R.from_id == FROM, OTHER.deleted_at.is_(None))
    .order_by(R.to_id)
)
INCOMING = Prepared(
    select(R.from_id, cast(R.arrow, Text)).where(
        R.world_id == WORLD,
        R.from_id.in_(listed("ids")),
        R.to_id == TO,
        or_(
            R.from_id.in_(listed("wanted")),
            R.arrow["bond"].as_string() != "none",
            R.arrow["respect_latent"].as_float() >= bindparam("respect", type_=Float),
        ),
    )
)
ARROWS, AMONG = Prepared(arrows_query(among=False)), Prepared(arrows_query(among=True))
LOG = Prepared(
    select(E)
    .where(
        E.world_id == WORLD,
        E.from_id == FROM,
        E.to_id == TO,
        or_(E.at <= bindparam("until", type_=Float), E.seq == FIRST),
    )
    .order_by(E.seq)
)
PERSONAS = Prepared(
    select(P.id, P.name, P.created_at)
    .where(P.world_id == WORLD, P.deleted_at.is_(None))
    .order_by(P.id)
)


def outgoing(connection: Connection, world_id: str, persona_id: str) -> list[Outgoing]:
    """Return a persona's arrows, in order of the others' ids."""
    rows = OUTGOING.all(connection, world=world_id, who=persona_id)
    return [Outgoing(party_of(to_id, name), arrow_of(arrow)) for to_id, name, arrow in rows]


def telling(
    connection: Connection,
    world_id: str,
    persona_id: str,
    arrows: Mapping[str, Arrow],
    params: RelationshipParams,
) -> dict[str, Arrow]:
    """Return the arrows to a persona that bear on what its own are called; most do not.

    Args:
        connection: An open transaction.
        world_id: Where.
        persona_id: Whose arrows are named.
        arrows: They, by the ids of those whom it sees.
        params: The constants.

    Returns:
        Arrows as they are stored, by the ids that they come from.
    """
    wanted = [id for id, arrow in arrows.items() if relationship.asks_for_reverse(arrow, params)]
    least = relationship.least_respect(params)
    its: dict[str, Any] = {"ids": list(arrows), "wanted": wanted, "respect": least}
    rows = INCOMING.all(connection, world=world_id, whom=persona_id, **its)
    return {from_id: arrow_of(arrow) for from_id, arrow in rows}


def arrow_of(text: str) -> Arrow:
    """Read an arrow to the last bit, three times as fast as the standard library does."""
    return Arrow(**from_json(text))


def party_of(id: str, persona_name: str | None) -> Party:
    """Return who is called so: a persona, else a user."""
    return Party(id, id, "user") if persona_name is None else Party(id, persona_name, "persona")


def personas_of(connection: Connection, world_id: str) -> list[tuple[Party, float]]:
    """Return the personas of a world and when they were made, in order of their ids."""
    rows = PERSONAS.all(connection, world=world_id)
    return [(party_of(row.id, row.name), row.created_at) for row in rows]


def arrows_at(
    connection: Connection,
    world_id: str,
    at: float,
    params: RelationshipParams,
    ids: Sequence[str] | None = None,
) -> list[Directed]:
    """Return the arrows of a world as they stood at a time, in order of their ends' ids.

    An arrow whose last event is later is folded anew, up to that time.

    Args:
        connection: An open transaction.
        world_id: Where.
        at: Seconds since the epoch, UTC; one to come shows what time alone will do.
        params: The constants.
        ids: Only those from one of these to one of these; None for all.
    """
    rows = (
        ARROWS.all(connection, world=world_id)
        if ids is None
        else AMONG.all(connection, world=world_id, ids=list(ids))
    )
    found = []
    for from_id, to_id, values in rows:
        stored = arrow_of(values)
        log = None if stored.as_of <= at else read_log(connection, world_id, from_id, to_id, at)
        arrow = log.fold(params) if log else stored
        if arrow is not None:
            found.append(Directed(from_id, to_id, relationship.decay(arrow, at, params)))
    return found


def read_log(
    connection: Connection, world_id: str, from_id: str, to_id: str, until: float = ALWAYS
) -> Log:
    """Return what happened to an arrow and counts, up to a time."""
    rows = LOG.all(connection, world=world_id, who=from_id, whom=to_id, until=until)
    begun = next((Priors(**row.priors) for row in rows if row.priors), None)
    entries = [to_logged(row) for row in rows if row.active and row.at <= until]
    return Log(begun, tuple(sorted(entries, key=lambda one: (one.event.at, one.event.seq))))


def to_logged(row: Any) -> Logged:
    """Read a row."""
    event = Event(
        at=row.at,
        seq=row.seq,
        deltas=Deltas(**row.deltas),
        kind=row.kind,
        context=row.context,
        appraisal=Appraisal(**row.appraisal) if row.appraisal else None,
        size=row.size,
        weight=row.weight,
        disclosure_weight=row.disclosure_weight,
        direct=row.direct,
        minutes=row.minutes,
        priors=Priors(**row.priors) if row.priors else None,
        bond=row.bond,
    )
    origin = Origin(row.turn_id, row.source_id, row.appraiser, row.note)
    return Logged(row.id, row.exchange_id, row.why, event, origin)
