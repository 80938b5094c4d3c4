"""The operation that shows the relationships of a world at one time, as a graph."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from persona_mcp.server.graph_files import dot, graphml
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation, rounded
from persona_mcp.server.operations.relationships import party
from persona_mcp.state import relationship
from persona_mcp.state.errors import LimitExceeded
from persona_mcp.state.fields import Moment, Number, Reference
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.relationship_graph import metrics
from persona_mcp.state.relationship_store import (
    Directed,
    Party,
    PartyKind,
    arrows_at,
    party_of,
    personas_of,
)

MOST_NODES = 500
FILES = {"graphml": graphml, "dot": dot}


class RelationshipGraphArguments(Arguments):
    """Arguments of relationship_graph."""

    persona_ids: Annotated[list[Reference], Field(max_length=MOST_NODES)] = Field(
        default_factory=list,
        description="Only these: from persona_list, or users' ids; left out: all personas, and the "
        "users that they know",
    )
    at: Moment | None = Field(None, description="As it was at this time; left out: now")
    min_familiarity: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.0, description="Only where one knows the other at least so well"
    )
    format: Literal["json", "graphml", "dot"] = Field(
        "json", description="graphml and dot (Graphviz) come as text, in document"
    )


class Node(Result):
    """Who is in the graph."""

    id: str
    name: str = Field(description="A user is called by its id")
    kind: PartyKind


class Edge(Result):
    """How one sees another."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)

    from_id: str = Field(serialization_alias="from", description="Id of who sees")
    to_id: str = Field(serialization_alias="to", description="Id of who is seen")
    affinity: float
    trust: float
    respect: float
    intimacy: float
    familiarity: float
    strength: float
    type: str


class ShownMetrics(Result):
    """The graph in numbers, each 0..1; null where there is nothing to divide by."""

    reciprocity: float | None = Field(
        description="Share of the edges between personas that have one coming back"
    )
    balance: float | None = Field(
        description="Share of the triads whose bonds multiply to plus: a friend's friend is a "
        "friend, and so is an enemy's enemy"
    )
    density: float | None = Field(
        description="Share of the possible edges that are there; users have none of their own"
    )


class RelationshipGraph(Result):
    """Result of relationship_graph."""

    nodes: list[Node] = Field(description="Empty where document has them")
    edges: list[Edge] = Field(description="Empty where document has them")
    metrics: ShownMetrics
    at: str
    format: str
    document: str | None = Field(description="The graph as text, where graphml or dot is asked for")


@operation("Graph of relationships", "relationship", "read", core=False)
async def relationship_graph(
    call: Call, arguments: RelationshipGraphArguments
) -> RelationshipGraph:
    """Show who sees whom how, now or at any time, as a graph with its reciprocity and balance.

    There are two edges a pair, one for each direction. GraphML is for Gephi, yEd or networkx, DOT
    for Graphviz.
    """
    laws = call.store.laws.effects.relationships
    at = time.time() if arguments.at is None else arguments.at
    ids = [await party(call, reference) for reference in arguments.persona_ids]

    def read(connection: Connection) -> RelationshipGraph:
        arrows = arrows_at(connection, call.world_id, at, laws, ids or None)
        personas = personas_of(connection, call.world_id)
        parties = named(personas, ids) if ids else everybody(personas, arrows, at)
        check_size(parties)
        return drawn(arguments, parties, arrows, at, laws)

    return await call.store.database.read(read)


def named(personas: Sequence[tuple[Party, float]], ids: Sequence[str]) -> list[Party]:
    """Return those that were asked for, in order of their ids."""
    names = {one.id: one.name for one, _ in personas}
    return [party_of(id, names.get(id)) for id in sorted(set(ids))]


def everybody(
    personas: Sequence[tuple[Party, float]], arrows: Sequence[Directed], at: float
) -> list[Party]:
    """Return the personas that were there, then the users that they knew, each in order of ids."""
    ends = {id for arrow in arrows for id in (arrow.from_id, arrow.to_id)}
    there = [one for one, made in personas if made <= at or one.id in ends]
    return [*there, *(party_of(id, None) for id in sorted(ends - {one.id for one in there}))]


def check_size(parties: Sequence[Party]) -> None:
    """Make sure that the graph is not too large to be looked at.

    Raises:
        LimitExceeded: It is.
    """
    if len(parties) > MOST_NODES:
        raise LimitExceeded(
            f"persona_ids: {len(parties)} personas and users are more than a graph may have "
            f"({MOST_NODES}); name those that you want",
            field="persona_ids",
            limit=MOST_NODES,
            found=len(parties),
        )


def drawn(
    arguments: RelationshipGraphArguments,
    parties: Sequence[Party],
    arrows: Sequence[Directed],
    at: float,
    laws: RelationshipParams,
) -> RelationshipGraph:
    """Make the graph of arrows as they stood."""
    by_ends = {(one.from_id, one.to_id): one.arrow for one in arrows}
    edges = []
    for (from_id, to_id), arrow in by_ends.items():
        values, back = relationship.shown(arrow, laws), by_ends.get((to_id, from_id))
        if values.familiarity < arguments.min_familiarity:
            continue
        edges.append(
            Edge(
                from_id=from_id,
                to_id=to_id,
                affinity=values.affinity,
                trust=values.trust,
                respect=values.respect,
                intimacy=values.intimacy,
                familiarity=values.familiarity,
                strength=values.strength,
                type=relationship.relationship_type(arrow, back, laws, values),
            )
        )
    nodes = [Node(id=one.id, name=one.name, kind=one.kind) for one in parties]
    found = metrics(parties, {(edge.from_id, edge.to_id): edge.strength for edge in edges})
    write = FILES.get(arguments.format)
    document = write(as_json(nodes), as_json(edges)) if write else None
    return RelationshipGraph(
        nodes=[] if document else nodes,
        edges=[] if document else edges,
        metrics=ShownMetrics(**vars(found)),
        at=rfc3339(at),
        format=arguments.format,
        document=document,
    )


def as_json(parts: Sequence[Result]) -> list[dict[str, Any]]:
    """Return nodes or edges as they are shown, numbers rounded."""
    return [rounded(part.model_dump(mode="json")) for part in parts]
