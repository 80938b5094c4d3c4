"""The operation that tells how a persona came to see somebody as it does: event by event."""

import time
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.operations.relationship_reading import NEXT, Cursor, Limit
from persona_mcp.server.operations.relationships import (
    WHO_IS_SEEN,
    WHO_SEES,
    Latent,
    Source,
    latent,
    source_of,
    the_two,
)
from persona_mcp.state import relationship
from persona_mcp.state.arrow import Contribution, Shown
from persona_mcp.state.explaining import Step, contributions, course, influence
from persona_mcp.state.fields import WHOLE, Moment, Reference
from persona_mcp.state.moments import check_span, rfc3339
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.relationship_store import Log, Logged, read_log

Dimension = Literal["affinity", "trust", "respect", "intimacy"]
LATENT = {"intimacy": "disclosure"}
"""What drives a dimension, where that has a name of its own."""


class RelationshipHistoryArguments(Arguments):
    """Arguments of relationship_history."""

    persona1_id: Reference = Field(description=WHO_SEES)
    persona2_id: Reference = Field(description=WHO_IS_SEEN)
    dimension: Dimension | None = Field(
        None, description="Only events that changed it; top then goes by what is left of that"
    )
    since: Moment | None = Field(None, description="Happened at this time or later")
    until: Moment | None = Field(None, description="Happened before this time")
    top: Annotated[int, Field(ge=1, le=100), WHOLE] | None = Field(
        None,
        description="Only so many, those that weigh most now, the weightiest first: why it is so",
    )
    limit: Limit = Field(50, description="Events a page")
    cursor: Cursor | None = Field(None, description=NEXT)


class ShownAppraisal(Result):
    """How the act was taken."""

    warmth: float = Field(description="Hostile -1 to kind 1; moves affinity")
    reliability: float = Field(description="Treacherous -1 to dependable 1; moves trust")
    competence: float = Field(description="Inept -1 to able 1; moves respect")
    disclosure: float = Field(description="Nothing personal 0 to a deep secret 1")


class Values(Result):
    """The dimensions as they are shown, or changes of them."""

    affinity: float
    trust: float
    respect: float
    intimacy: float
    familiarity: float


class ValuesAfter(Values):
    """An arrow just after an event."""

    relationship_strength: float


class Delta(Result):
    """What an event changed at its time."""

    latent: Latent
    shown: Values


class HistoryEvent(Result):
    """Something that happened to how one party sees another."""

    event_id: str
    at: str
    kind: str = Field(description="turn, update, hearsay, aside (only seen) or bond")
    context: str = Field(description="Kind of meeting")
    why: str
    appraisal: ShownAppraisal | None = Field(description="How it was taken; null for a bond")
    appraiser: str | None = Field(
        description="local, model, quality (from interaction_quality) or given; null: nobody could"
    )
    note: str | None = Field(description="Why the appraiser that was asked did not answer")
    minutes: float
    size: float = Field(description="How much the kind and length of the event weigh")
    weight: float = Field(description="How much of that counts here: 1 if it was done to persona1")
    bond: str | None = Field(description="The new bond, on events of the kind bond")
    delta: Delta
    values_after: ValuesAfter
    contribution: Latent = Field(description="What is left now of what it added")
    source: Source = Field(description="Whether persona1 was there, or was told")
    source_id: str | None = Field(description="Who told it")
    source_turn: str | None = Field(description="Id of the turn that it comes from")
    exchange_id: str | None


class RelationshipHistory(Result):
    """Result of relationship_history."""

    persona1_id: str
    persona2_id: str
    events: list[HistoryEvent] = Field(description="Oldest first, or with top weightiest first")
    total_count: int = Field(description="Of all pages")
    baseline: Latent = Field(
        description="What first impression, nature and bond hold up now: with the contributions of "
        "all events it makes up the latent values"
    )
    next_cursor: str | None


class Told(NamedTuple):
    """An event with what it did, and what of that is left."""

    entry: Logged
    step: Step
    left: Contribution


@operation("History of a relationship", "relationship", "read", core=False)
async def relationship_history(
    call: Call, arguments: RelationshipHistoryArguments
) -> RelationshipHistory:
    """List what happened to how a persona sees somebody: why, how it was taken, what it changed.

    With top it answers why the relationship is as it is now. It is persona1's side: what it said,
    heard, saw or was told.
    """
    check_span(arguments.since, arguments.until)
    laws, now = call.store.laws.effects.relationships, time.time()
    one, other = await the_two(call, arguments.persona1_id, arguments.persona2_id)

    def read(connection: Connection) -> RelationshipHistory:
        log = read_log(connection, call.world_id, one, other)
        why = contributions(log.events, now, laws, log.first)
        told = chosen(told_of(log, [part for _, part in why.events], laws), arguments, laws)
        after = int(arguments.cursor or 0)
        page = told[after : after + arguments.limit]
        end = after + len(page)
        return RelationshipHistory(
            persona1_id=one,
            persona2_id=other,
            events=[shown_event(each, laws) for each in page],
            total_count=len(told),
            baseline=latent(why.baseline),
            next_cursor=str(end) if end < len(told) else None,
        )

    return await call.store.database.read(read)


def told_of(log: Log, left: Sequence[Contribution], laws: RelationshipParams) -> list[Told]:
    """Put each event together with what it did."""
    steps = course(log.events, laws, log.first)
    return [Told(*each) for each in zip(log.entries, steps, left, strict=True)]


def chosen(
    told: list[Told], arguments: RelationshipHistoryArguments, laws: RelationshipParams
) -> list[Told]:
    """Keep the events that are asked for, in the order that is asked for."""
    since, until = arguments.since, arguments.until
    name = LATENT.get(arguments.dimension or "", arguments.dimension)
    kept = [
        each
        for each in told
        if (since is None or each.entry.event.at >= since)
        and (until is None or each.entry.event.at < until)
        and (name is None or getattr(each.entry.event.deltas, name))
    ]
    if arguments.top is None:
        return kept

    def weight(each: Told) -> tuple[float, float, int]:
        left = influence(each.left, laws) if name is None else abs(getattr(each.left, name))
        return left, each.entry.event.at, each.entry.event.seq

    return sorted(kept, key=weight, reverse=True)[: arguments.top]


def shown_event(told: Told, laws: RelationshipParams) -> HistoryEvent:
    """Show an event."""
    entry, event = told.entry, told.entry.event
    before, after = (relationship.shown(one, laws) for one in (told.step.before, told.step.after))
    was, values = values_of(before), values_of(after)
    taken = event.appraisal
    return HistoryEvent(
        event_id=entry.id,
        at=rfc3339(event.at),
        kind=event.kind,
        context=event.context,
        why=entry.why,
        appraisal=ShownAppraisal(**vars(taken)) if taken else None,
        appraiser=entry.origin.appraiser,
        note=entry.origin.note,
        minutes=event.minutes,
        size=event.size,
        weight=event.weight,
        bond=event.bond,
        delta=Delta(
            latent=latent(event.deltas),
            shown=Values(**{name: now - was[name] for name, now in values.items()}),
        ),
        values_after=ValuesAfter(**values, relationship_strength=after.strength),
        contribution=latent(told.left),
        source=source_of(entry),
        source_id=entry.origin.source_id,
        source_turn=entry.origin.turn_id,
        exchange_id=entry.exchange_id,
    )


def values_of(shown: Shown) -> dict[str, float]:
    """Return the dimensions."""
    return {name: getattr(shown, name) for name in Values.model_fields}
