"""What personas have open to each other, in numbers."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, String, bindparam, case, cast, func, or_, select

from persona_mcp.state import tables
from persona_mcp.state.memory.memory import OPEN
from persona_mcp.state.prepared import Prepared

M = tables.Memory
P = tables.Persona


@dataclass(frozen=True)
class OpenCounts:
    """What a persona has open to others.

    Attributes:
        shared: Memories that it shares with somebody.
        public: Memories that everybody may know.
        cross_references: Memories that name others, whether they are open or not.
    """

    shared: int
    public: int
    cross_references: int


def number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """Count the rows of a group that fit."""
    return func.sum(case((condition, 1), else_=0))


NAMES_SOMEBODY = cast(M.related_personas, String) != "[]"
OPENED = Prepared(
    select(
        M.persona_id,
        number(M.visibility == "shared"),
        number(M.visibility == "public"),
        number(NAMES_SOMEBODY),
    )
    .join(P, (P.world_id == M.world_id) & (P.id == M.persona_id))
    .where(
        M.world_id == bindparam("world", type_=String),
        M.active,
        M.archived_at.is_(None),
        P.deleted_at.is_(None),
        or_(M.visibility.in_(OPEN), NAMES_SOMEBODY),
    )
    .group_by(M.persona_id)
    .order_by(M.persona_id)
)


def count_open(connection: Connection, world_id: str) -> dict[str, OpenCounts]:
    """Count what each persona of a world has open to others, by its id.

    Who has nothing is left out; archived memories do not count.
    """
    rows = OPENED.all(connection, world=world_id)
    return {persona_id: OpenCounts(*counts) for persona_id, *counts in rows}
