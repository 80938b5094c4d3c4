"""Relationships as the product writes them, for tests that look at them."""

from dataclasses import asdict, replace
from itertools import permutations
from typing import Any

from sqlalchemy import insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.arrow import NOWHERE, Arrow, Event, Origin, Priors
from persona_mcp.state.database import Database
from persona_mcp.state.effects import (
    RelationshipChange,
    add_relationship_change,
    refold_arrow,
)
from persona_mcp.state.ids import name_key
from persona_mcp.state.relationship import Appraisal, Deltas, RelationshipParams, begin

NOW = 1_700_000_000.0
DAY = 86_400.0
LAWS = RelationshipParams()
KIND = Deltas(affinity=0.2, trust=0.1, respect=0.05, disclosure=0.1, contact=0.1)
CRUEL = Deltas(affinity=-0.3, trust=-0.4, respect=-0.1, contact=0.1)
E = tables.RelationshipEvent


def happen(
    database: Database,
    id: str,
    from_id: str,
    to_id: str,
    deltas: Deltas = KIND,
    *,
    at: float = NOW,
    why: str = "kind words",
    origin: Origin = NOWHERE,
    **event: Any,
) -> Arrow:
    """Append an event to an arrow."""
    values: dict[str, Any] = {"appraisal": Appraisal(warmth=0.5), "minutes": 1.0, **event}
    change = RelationshipChange(
        id, from_id, to_id, Event(at, 0, deltas, **values), Priors(0.1, 0.02), why, origin
    )
    with database.writing() as connection:
        return add_relationship_change(connection, "main", None, change, LAWS)


def switch_off(database: Database, from_id: str, to_id: str, *ids: str) -> None:
    """Take events back, as a conversation that is rewound does."""
    with database.writing() as connection:
        connection.execute(update(E).where(E.id.in_(ids)).values(active=False))
        refold_arrow(connection, "main", from_id, to_id, LAWS)


def keep_arrow(database: Database, from_id: str, to_id: str, arrow: Arrow) -> None:
    """Write an arrow's cache as if its events had made it so."""
    R = tables.RelationshipState
    its = R.world_id == "main", R.from_id == from_id, R.to_id == to_id
    with database.writing() as connection:
        connection.execute(update(R).where(*its).values(arrow=asdict(arrow)))


def delete_persona(database: Database, persona_id: str) -> None:
    """Delete a persona, as it is kept: hidden, its name free."""
    P = tables.Persona
    with database.writing() as connection:
        connection.execute(
            update(P).where(P.id == persona_id).values(deleted_at=NOW, name_key=None)
        )


def crowd(database: Database, count: int) -> list[str]:
    """Fill the world with personas of whom each has met each; return their ids, in order."""
    P = tables.Persona
    with database.writing() as connection:
        row = dict(connection.execute(select(P).limit(1)).one()._mapping)
        made = [{"id": f"p{n:03}", "name": f"P {n:03}"} for n in range(count)]
        people = [{**row, **one, "name_key": name_key(one["name"])} for one in made]
        connection.execute(insert(P), people)
        ids = [person["id"] for person in people]
        arrow = replace(begin(Priors(0.1, 0.02), NOW), interactions=3, contact=0.4)
        state = {"world_id": "main", "arrow": asdict(arrow), "as_of": NOW, "last_seq": 1}
        ends = [{"from_id": a, "to_id": b, **state} for a, b in permutations(ids, 2)]
        connection.execute(insert(tables.RelationshipState), ends)
        return ids
