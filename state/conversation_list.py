"""Conversations of a world by who is in them, when they began, and whether they go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from persona_mcp.state import tables
from persona_mcp.state.conversations import to_conversation
from persona_mcp.state.cursors import bad_cursor
from persona_mcp.state.dialect import members
from persona_mcp.state.exchange import Conversation, ConversationStatus

C = tables.Conversation


@dataclass(frozen=True)
class WantedTalks:
    """Which conversations are listed.

    Attributes:
        participant: Only those that this party talks in.
        status: Only active or ended ones.
        since: Begun at this time or later, seconds since the epoch, UTC.
        until: Begun before this time.
    """

    participant: str | None = None
    status: ConversationStatus | None = None
    since: float | None = None
    until: float | None = None


def list_conversations(
    connection: Connection,
    world_id: str,
    wanted: WantedTalks,
    limit: int,
    after: str | None = None,
) -> tuple[list[Conversation], int]:
    """Return a page of conversations, the last begun first, and how many there are in all.

    Args:
        connection: An open transaction.
        world_id: Where.
        wanted: Which.
        limit: Of the page.
        after: Id of the last one of the page before.

    Raises:
        InvalidParams: None of this world has that id.
    """
    which = conditions(world_id, wanted)
    total = connection.scalar(select(func.count()).select_from(C).where(*which)) or 0
    if after is not None:
        which = (*which, behind(connection, world_id, after))
    query = select(C).where(*which).order_by(C.started_at.desc(), C.id).limit(limit)
    rows: Sequence[Any] = connection.execute(query).all()
    return [to_conversation(row) for row in rows], total


def conditions(world_id: str, wanted: WantedTalks) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that conversations are listed under."""
    which: list[ColumnElement[bool]] = [C.world_id == world_id]
    if wanted.participant is not None:
        party = members(C.participants)
        mine = select(party).where(party == wanted.participant).correlate(C)
        which.append(mine.exists())
    if wanted.status is not None:
        which.append(C.status == wanted.status)
    if wanted.since is not None:
        which.append(C.started_at >= wanted.since)
    if wanted.until is not None:
        which.append(C.started_at < wanted.until)
    return tuple(which)


def behind(connection: Connection, world_id: str, after: str) -> ColumnElement[bool]:
    """Return the condition that a conversation comes behind another one in the list.

    Raises:
        InvalidParams: That one is not there.
    """
    its = C.world_id == world_id, C.id == after
    began = connection.scalar(select(C.started_at).where(*its))
    if began is None:
        raise bad_cursor(after, "conversation was replaced")
    return or_(C.started_at < began, and_(C.started_at == began, C.id > after))
