"""Operations that look at many relationships: list, stats; and how well two personas fit."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.current import find_current
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.operations.relationships import View, arrow_now, check_different, view_of
from persona_mcp.state import relationship
from persona_mcp.state.arrow import Arrow, Shown
from persona_mcp.state.compatibility import Compatibility, compatibility, profile_of
from persona_mcp.state.fields import WHOLE, Number, Reference, Text
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import Persona
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.relationship_store import (
    Directed,
    Outgoing,
    Party,
    PartyKind,
    arrows_at,
    outgoing,
    personas_of,
    telling,
)

MOST_ACTIVE = 5
Limit = Annotated[int, Field(ge=1, le=200), WHOLE]
Cursor = Annotated[Text, Field(pattern=r"^[0-9]{1,9}$")]
NEXT = "next_cursor of the page before"


class RelationshipListArguments(Arguments):
    """Arguments of relationship_list."""

    persona_id: Reference | None = Field(
        None, description="Whose: id or name, from persona_list; left out: the session's"
    )
    min_strength: Annotated[Number, Field(ge=-1, le=1)] | None = Field(
        None, description="Only those at least as strong; enemies are below 0"
    )
    limit: Limit = Field(50, description="Relationships a page")
    cursor: Cursor | None = Field(None, description=NEXT)


class ListedRelationship(View):
    """How a persona sees somebody now."""

    other_persona_id: str
    other_name: str = Field(description="A user is called by its id")
    other_kind: PartyKind
    relationship_strength: float
    interaction_count: int
    last_interaction: str | None


class RelationshipList(Result):
    """Result of relationship_list."""

    persona_id: str
    relationships: list[ListedRelationship] = Field(description="Strongest first")
    total_relationships: int
    next_cursor: str | None


@operation("List relationships", "relationship", "read")
async def relationship_list(call: Call, arguments: RelationshipListArguments) -> RelationshipList:
    """List how one persona sees everybody whom it has met or heard of, the strongest bond first.

    It is the persona's side alone; relationship_get has both sides of two, and the reasons.
    """
    laws, now = call.store.laws.effects.relationships, time.time()
    after = int(arguments.cursor or 0)

    def read(connection: Connection) -> tuple[str, list[ListedRelationship], int]:
        owner = find_current(connection, call, arguments.persona_id).id
        found = ranked(outgoing(connection, call.world_id, owner), arguments, now, laws)
        page = found[after : after + arguments.limit]
        arrows = {one.other.id: one.arrow for one in page}
        back = telling(connection, call.world_id, owner, arrows, laws)
        return owner, [listed(one, back.get(one.other.id), now, laws) for one in page], len(found)

    owner, page, total = await call.store.database.read(read)
    end = after + len(page)
    return RelationshipList(
        persona_id=owner,
        relationships=page,
        total_relationships=total,
        next_cursor=str(end) if end < total else None,
    )


class Seen(NamedTuple):
    """How a persona sees somebody now."""

    other: Party
    arrow: Arrow
    values: Shown


def ranked(
    found: Sequence[Outgoing],
    arguments: RelationshipListArguments,
    now: float,
    laws: RelationshipParams,
) -> list[Seen]:
    """Evaluate arrows now, and order those that are strong enough."""
    seen = []
    for other, stored in found:
        arrow = relationship.decay(stored, now, laws)
        values = relationship.shown(arrow, laws)
        if arguments.min_strength is None or values.strength >= arguments.min_strength:
            seen.append(Seen(other, arrow, values))
    return sorted(seen, key=lambda one: (-one.values.strength, one.other.id))


def listed(
    one: Seen, back: Arrow | None, now: float, laws: RelationshipParams
) -> ListedRelationship:
    """Show an arrow in a list; the one that comes back bears on its type."""
    arrow, values = one.arrow, one.values
    reverse = relationship.decay(back, now, laws) if back else None
    last = arrow.last_interaction
    return ListedRelationship(
        other_persona_id=one.other.id,
        other_name=one.other.name,
        other_kind=one.other.kind,
        **view_of(arrow, reverse, values, laws),
        relationship_strength=values.strength,
        interaction_count=arrow.interactions,
        last_interaction=None if last is None else rfc3339(last),
    )


class CompatibilityArguments(Arguments):
    """Arguments of relationship_compatibility."""

    persona1_id: Reference = Field(description="A persona's id or name, from persona_list")
    persona2_id: Reference = Field(description="Another persona's id or name, from persona_list")


class Named(Result):
    """Who it is about."""

    id: str
    name: str


class CompatibilityAnalysis(Result):
    """How well two fit, and by what."""

    overall: float = Field(
        description=".35 personality + .25 social + .25 interests + .15 history, 0..1"
    )
    personality: float = Field(description="Their Big Five traits, 0..1")
    social: float = Field(description="Charisma, intelligence and rank, 0..1")
    interests: float = Field(description="The topics that both like, 0..1")
    history: float = Field(description="How they see each other now, 0..1; 0.5 if they never met")
    prediction: str = Field(description="excellent, very_good, good, challenging or difficult")


class InteractionSuggestions(Result):
    """What to make of it."""

    interaction_style: str
    recommended_topics: list[str] = Field(description="What both like most, at most five")
    potential_challenges: list[str]
    relationship_potential: str
    interaction_frequency: str


class RelationshipCompatibility(Result):
    """Result of relationship_compatibility."""

    persona1: Named
    persona2: Named
    compatibility_analysis: CompatibilityAnalysis
    interaction_suggestions: InteractionSuggestions
    existing_relationship: bool = Field(description="Whether one of them knows the other")


@operation("Compare two personas", "relationship", "read", core=False)
async def relationship_compatibility(
    call: Call, arguments: CompatibilityArguments
) -> RelationshipCompatibility:
    """Tell how well two personas fit, by who they are and how they see each other now.

    It comes with topics that both like and with what may go wrong between them. The order of the
    two makes no difference.
    """
    laws, now = call.store.laws.effects.relationships, time.time()
    one = await call.store.personas.resolve(call.world_id, arguments.persona1_id)
    other = await call.store.personas.resolve(call.world_id, arguments.persona2_id)
    check_different(one.id, other.id)

    def read(connection: Connection) -> list[Arrow | None]:
        ends = (one.id, other.id), (other.id, one.id)
        return [arrow_now(connection, call.world_id, *two, now, laws) for two in ends]

    arrows = [arrow for arrow in await call.store.database.read(read) if arrow]
    strengths = [relationship.shown(arrow, laws).strength for arrow in arrows]
    fit = compatibility(profile_of(one.spec), profile_of(other.spec), strengths)
    return RelationshipCompatibility(
        persona1=named(one),
        persona2=named(other),
        compatibility_analysis=analysis_of(fit),
        interaction_suggestions=InteractionSuggestions(
            interaction_style=fit.interaction_style,
            recommended_topics=list(fit.recommended_topics),
            potential_challenges=list(fit.challenges),
            relationship_potential=fit.relationship_potential,
            interaction_frequency=fit.frequency,
        ),
        existing_relationship=bool(arrows),
    )


def named(persona: Persona) -> Named:
    """Name a persona."""
    return Named(id=persona.id, name=persona.name)


def analysis_of(fit: Compatibility) -> CompatibilityAnalysis:
    """Show how well two fit."""
    return CompatibilityAnalysis(
        overall=fit.overall,
        personality=fit.personality,
        social=fit.social,
        interests=fit.interests,
        history=fit.history,
        prediction=fit.prediction,
    )


class RelationshipStatsArguments(Arguments):
    """Arguments of relationship_stats."""


class ActivePersona(Result):
    """A persona that had many contacts."""

    persona_id: str
    name: str
    interactions: int = Field(description="Its contacts with everybody")


class RelationshipStatistics(Result):
    """The relationships of a world in numbers."""

    total_relationships: int = Field(description="Pairs of which one knows the other")
    total_directed: int = Field(description="How one sees another: up to two a pair")
    relationship_types: dict[str, int] = Field(description="Of the directed ones, by type")
    average_compatibility: float | None = Field(
        description="Mean compatibility_score of the directed ones, 0..1; null if there is none"
    )
    total_interactions: int = Field(description="Contacts, those of a pair counted once")
    most_active_personas: list[ActivePersona] = Field(description="At most five, the first first")


class RelationshipStats(Result):
    """Result of relationship_stats."""

    relationship_statistics: RelationshipStatistics
    timestamp: str


@operation("Count relationships", "relationship", "read", core=False)
async def relationship_stats(
    call: Call, arguments: RelationshipStatsArguments
) -> RelationshipStats:
    """Count the relationships of the world by type, with the most active personas."""
    laws, now = call.store.laws.effects.relationships, time.time()

    def read(connection: Connection) -> RelationshipStatistics:
        names = {one.id: one.name for one, _ in personas_of(connection, call.world_id)}
        return statistics_of(arrows_at(connection, call.world_id, now, laws), names, laws)

    return RelationshipStats(
        relationship_statistics=await call.store.database.read(read), timestamp=rfc3339(now)
    )


def statistics_of(
    arrows: list[Directed], names: dict[str, str], laws: RelationshipParams
) -> RelationshipStatistics:
    """Count arrows as they stand now.

    Both arrows of a pair count its contacts; where they differ (hearsay is none), the greater
    number is taken.
    """
    by_ends = {(one.from_id, one.to_id): one.arrow for one in arrows}
    types, contacts, pairs = Counter[str](), Counter[str](), dict[tuple[str, str], int]()
    scores = []
    for (from_id, to_id), arrow in by_ends.items():
        values, back = relationship.shown(arrow, laws), by_ends.get((to_id, from_id))
        types[relationship.relationship_type(arrow, back, laws, values)] += 1
        contacts[from_id] += arrow.interactions
        pair = min(from_id, to_id), max(from_id, to_id)
        pairs[pair] = max(pairs.get(pair, 0), arrow.interactions)
        scores.append(values.compatibility_score)
    active = sorted(contacts, key=lambda id: (-contacts[id], id))[:MOST_ACTIVE]
    return RelationshipStatistics(
        total_relationships=len(pairs),
        total_directed=len(by_ends),
        relationship_types=dict(sorted(types.items())),
        average_compatibility=sum(scores) / len(scores) if scores else None,
        total_interactions=sum(pairs.values()),
        most_active_personas=[
            ActivePersona(persona_id=id, name=names[id], interactions=contacts[id]) for id in active
        ],
    )
