"""Worlds as wholes: how much is in each and when it was last used, and taking one away for good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, delete, func, select

from persona_mcp.state import tables
from persona_mcp.state.erasing import erase_world
from persona_mcp.state.errors import NotFound
from persona_mcp.state.personas import near
from persona_mcp.state.table_base import Base

W = tables.World
S = tables.MemoryStamp
P = tables.Persona
C = tables.Conversation
M = tables.Memory


@dataclass(frozen=True)
class WorldUse:
    """How much is in a world.

    Attributes:
        id: Of the world.
        name: What it is called.
        personas: Deleted ones left out.
        conversations: Ended ones too.
        memories: Archived ones too.
        saved_states: Those that were made before a load, too.
        dialogues: Batches of dialogues in the background, those that are over too.
        used_at: When something was last said, remembered or changed in it, or it was made; seconds
            since the epoch, UTC.
    """

    id: str
    name: str
    personas: int
    conversations: int
    memories: int
    saved_states: int
    dialogues: int
    used_at: float


def number_of(table: Any, *which: ColumnElement[bool]) -> ScalarSelect[int]:
    """Return the query for how many rows of a table a world has."""
    counted = select(func.count()).select_from(table)
    return counted.where(table.world_id == W.id, *which).scalar_subquery()


def newest(table: type[Base], column: str) -> ScalarSelect[float | None]:
    """Return the query for the latest time in a column of a world's rows."""
    columns = table.__table__.c
    return select(func.max(columns[column])).where(columns.world_id == W.id).scalar_subquery()


USES = select(
    W.id,
    W.name,
    W.created_at,
    number_of(P, P.deleted_at.is_(None)).label("personas"),
    number_of(C).label("conversations"),
    number_of(M).label("memories"),
    number_of(tables.Snapshot).label("saved_states"),
    number_of(tables.Batch).label("dialogues"),
    newest(P, "updated_at").label("persona_at"),
    newest(C, "updated_at").label("conversation_at"),
    newest(M, "updated_at").label("memory_at"),
).order_by(W.id)


def list_worlds(connection: Connection) -> list[WorldUse]:
    """Return all worlds with how much is in each, in order of their ids."""
    return [to_use(row) for row in connection.execute(USES)]


def use_of(connection: Connection, world_id: str) -> WorldUse:
    """Return how much is in a world.

    Raises:
        NotFound: It is not there; suggests near names.
    """
    row = connection.execute(USES.where(W.id == world_id)).first()
    if row is None:
        ids = connection.scalars(select(W.id).order_by(W.id))
        raise NotFound.of("world", world_id, near(world_id, list(ids)))
    return to_use(row)


def to_use(row: Any) -> WorldUse:
    """Read a row."""
    times = (row.created_at, row.persona_at, row.conversation_at, row.memory_at)
    return WorldUse(
        row.id,
        row.name,
        row.personas,
        row.conversations,
        row.memories,
        row.saved_states,
        row.dialogues,
        max(at for at in times if at is not None),
    )


def conversations_of(connection: Connection, world_id: str) -> Sequence[str]:
    """Return the ids of a world's conversations, whose checkpoints lie elsewhere."""
    return list(connection.scalars(select(C.id).where(C.world_id == world_id)))


def remove_world(
    connection: Connection, world_id: str, now: float
) -> tuple[WorldUse, Sequence[str]]:
    """Take a world away for good with all that is in it and about it, inside a transaction.

    A reply that is being made in it is not stored. Every index sees by itself that a world is gone.

    Returns:
        What was in it, and the ids of its conversations.

    Raises:
        NotFound: It is not there; suggests near names.
    """
    found = use_of(connection, world_id)
    conversations = conversations_of(connection, world_id)
    erase_world(connection, world_id, now)
    connection.execute(delete(W).where(W.id == world_id))
    connection.execute(delete(S).where(S.world_id == world_id))
    return found, conversations
