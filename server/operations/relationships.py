"""How one party sees another: the shapes that operations on relationships share, and get."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state import relationship
from persona_mcp.state.appraisal import Deltas
from persona_mcp.state.arrow import Arrow, Contribution, Shown
from persona_mcp.state.effects import read_arrow
from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.explaining import contributions, influence
from persona_mcp.state.fields import Id, Reference
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.relationship_store import Log, Logged, read_log

REASONS = 3
WHO_SEES = "Who sees: a persona's id or name, from persona_list"
WHO_IS_SEEN = "Who is seen: from persona_list, or the user_id of who used persona_chat"
Source = Literal["witnessed", "told"]


class RelationshipGetArguments(Arguments):
    """Arguments of relationship_get."""

    persona1_id: Reference = Field(description=WHO_SEES)
    persona2_id: Reference = Field(description=WHO_IS_SEEN)
    without: Annotated[list[Id], Field(max_length=100)] = Field(
        default_factory=list,
        description="Events, from relationship_history of the same two: what_if tells how it would "
        "be if they had not happened",
    )


class View(Result):
    """How one party sees another, in public numbers."""

    affinity: float = Field(description="Dislike -1 to liking 1")
    trust: float = Field(description="-1 to 1")
    respect: float = Field(description="-1 to 1")
    intimacy: float = Field(description="0 to 1; never more than familiarity and trust allow")
    familiarity: float = Field(description="0 to 1; never falls")
    relationship_type: str
    compatibility_score: float = Field(description="0 to 1; 0.5 is neutral")


class Relationship(View):
    """How one party sees another now."""

    persona1_id: str
    persona2_id: str
    relationship_strength: float = Field(description="-1 to 1, all dimensions together")
    interaction_count: int
    total_interaction_time: float = Field(description="Minutes")
    recent_interaction_quality: float = Field(description="Warmth of the last contact, -1 to 1")
    first_meeting: str | None
    last_interaction: str | None
    as_of: str


class Latent(Result):
    """Parts of the latent values: they add up, and a shown value is the tanh of their sum."""

    affinity: float
    trust: float
    respect: float
    disclosure: float = Field(description="Personal things told; intimacy grows with it")


class Reason(Result):
    """An event that bears on how one party sees another now."""

    event_id: str
    at: str
    kind: str
    why: str
    source: Source = Field(description="Whether the persona was there, or was told")
    contribution: Latent = Field(description="What is left now of what it added")
    weight: float = Field(description="Size of all that, by the dimensions' shares of strength")


class RelationshipGet(Result):
    """Result of relationship_get."""

    exists: bool
    relationship: Relationship | None
    reverse: Relationship | None = Field(description="The other direction, if there is one")
    reasons: list[Reason] = Field(
        description="The three events that weigh most in persona1's view now, the weightiest first"
    )
    what_if: Relationship | None = Field(
        description="persona1's view without the events of `without`; null where none are given, "
        "or nothing else ever happened between the two"
    )
    message: str | None


@operation("Get a relationship", "relationship", "read")
async def relationship_get(call: Call, arguments: RelationshipGetArguments) -> RelationshipGet:
    """Return how a persona sees another persona or a user now, and why: affinity, trust, respect.

    Relationships have a direction: persona1's view of persona2 is not persona2's of persona1. The
    reasons are events, which relationship_history lists.
    """
    laws, now = call.store.laws.effects.relationships, time.time()
    one, other = await the_two(call, arguments.persona1_id, arguments.persona2_id)

    def read(connection: Connection) -> RelationshipGet:
        there = arrow_now(connection, call.world_id, one, other, now, laws)
        back = arrow_now(connection, call.world_id, other, one, now, laws)
        log = read_log(connection, call.world_id, one, other)
        what_if = imagined(log, arguments.without, now, laws)
        return RelationshipGet(
            exists=there is not None,
            relationship=shown(one, other, there, back, laws) if there else None,
            reverse=shown(other, one, back, there, laws) if back else None,
            reasons=reasons_of(log, now, laws),
            what_if=shown(one, other, what_if, back, laws) if what_if else None,
            message=None if there else f"'{one}' has not met '{other}' yet",
        )

    return await call.store.database.read(read)


async def the_two(call: Call, one: str, other: str) -> tuple[str, str]:
    """Find the ids of a persona and of another persona or a user.

    Raises:
        NotFound: One of them is not there.
        InvalidParams: They are the same.
    """
    found = (await call.store.personas.resolve(call.world_id, one)).id, await party(call, other)
    check_different(*found)
    return found


def check_different(one: str, other: str) -> None:
    """Make sure that nobody is compared with itself.

    Raises:
        InvalidParams: They are the same.
    """
    if one == other:
        raise InvalidParams.one("persona2_id", "somebody else", other)


def imagined(log: Log, without: list[str], now: float, laws: RelationshipParams) -> Arrow | None:
    """Return how it would be if some events had not happened; the first impression stays.

    Raises:
        NotFound: An event is not of this arrow.
    """
    known = {entry.id for entry in log.entries}
    unknown = next((id for id in without if id not in known), None)
    if unknown is not None:
        raise NotFound(
            f"event '{unknown}' not found in how persona1 sees persona2; take event ids from "
            "relationship_history of the same two, in the same order",
            kind="event",
            id=unknown,
        )
    arrow = log.without(without).fold(laws) if without else None
    return relationship.decay(arrow, now, laws) if arrow else None


def reasons_of(log: Log, now: float, laws: RelationshipParams) -> list[Reason]:
    """Return the events that weigh most now; of two that weigh the same, the later one first."""
    parts = [part for _, part in contributions(log.events, now, laws, log.first).events]
    weighed = [
        (influence(part, laws), entry, part) for entry, part in zip(log.entries, parts, strict=True)
    ]
    weighed.sort(key=lambda one: (one[0], one[1].event.at, one[1].event.seq), reverse=True)
    return [
        Reason(
            event_id=entry.id,
            at=rfc3339(entry.event.at),
            kind=entry.event.kind,
            why=entry.why,
            source=source_of(entry),
            contribution=latent(part),
            weight=weight,
        )
        for weight, entry, part in weighed[:REASONS]
    ]


def source_of(entry: Logged) -> Source:
    """Tell whether the arrow's owner was there."""
    return "told" if entry.origin.source_id else "witnessed"


def latent(part: Contribution | Deltas) -> Latent:
    """Show parts of the latent values."""
    return Latent(
        affinity=part.affinity,
        trust=part.trust,
        respect=part.respect,
        disclosure=part.disclosure,
    )


async def party(call: Call, reference: str) -> str:
    """Find a persona, else a user who has talked to one.

    Raises:
        NotFound: Neither is there.
    """
    try:
        return (await call.store.personas.resolve(call.world_id, reference)).id
    except NotFound:
        if await call.store.conversations.knows_user(call.world_id, reference):
            return reference
        raise


def arrow_now(
    connection: Connection,
    world_id: str,
    one: str,
    other: str,
    now: float,
    laws: RelationshipParams,
) -> Arrow | None:
    """Return how one sees the other now."""
    arrow = read_arrow(connection, world_id, one, other)
    return relationship.decay(arrow, now, laws) if arrow else None


def shown(
    one: str, other: str, arrow: Arrow, reverse: Arrow | None, laws: RelationshipParams
) -> Relationship:
    """Show an arrow."""
    values = relationship.shown(arrow, laws)
    return Relationship(
        persona1_id=one,
        persona2_id=other,
        **view_of(arrow, reverse, values, laws),
        relationship_strength=values.strength,
        interaction_count=arrow.interactions,
        total_interaction_time=arrow.minutes,
        recent_interaction_quality=arrow.last_quality,
        first_meeting=None if arrow.first_meeting is None else rfc3339(arrow.first_meeting),
        last_interaction=None
        if arrow.last_interaction is None
        else rfc3339(arrow.last_interaction),
        as_of=rfc3339(arrow.as_of),
    )


def view_of(
    arrow: Arrow, reverse: Arrow | None, values: Shown, laws: RelationshipParams
) -> dict[str, Any]:
    """Return the fields of `View`; the arrow that comes back bears on the type."""
    return {
        "affinity": values.affinity,
        "trust": values.trust,
        "respect": values.respect,
        "intimacy": values.intimacy,
        "familiarity": values.familiarity,
        "relationship_type": relationship.relationship_type(arrow, reverse, laws, values),
        "compatibility_score": values.compatibility_score,
    }
