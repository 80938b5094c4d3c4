"""Summaries in SQL: made of the turns on one line of exchanges, memories of one persona."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, String, bindparam, select

from persona_mcp.state import conversations, tables
from persona_mcp.state.conversations import chain_of, exchanges_of, witnesses_of
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.exchange import Turn
from persona_mcp.state.ids import derived_id
from persona_mcp.state.memory.importance import Importance
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import Source, add_memories, read_memories
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.summarising import SUMMARY, Summary, SummaryParams, spans_of

M = tables.Memory
WORLD, PERSONA = bindparam("world", type_=String), bindparam("persona", type_=String)
COLUMNS = (M.id, M.content, M.origin)
MADE = Prepared(
    select(*COLUMNS).where(
        M.world_id == WORLD,
        # By their exchanges: by the persona's memories SQLite would go through all of a talk.
        M.persona_id + "" == PERSONA,
        M.memory_type == SUMMARY,
        M.exchange_id.in_(listed("exchanges")),
    )
)
OF_TALK = (
    M.world_id == WORLD,
    M.persona_id == PERSONA,
    M.conversation_id == bindparam("talk", type_=String),
    # Of several turns, so of none: an index tells them apart from what was made of one.
    M.turn_number.is_(None),
    M.memory_type == SUMMARY,
    M.active,
    M.archived_at.is_(None),
)
ALL_OF_TALK = Prepared(select(M.content).where(*OF_TALK).order_by(M.seq))


def recent_query() -> Select[*tuple[Any, ...]]:
    """Return the query for the last summaries on the line of exchanges that ends with a head."""
    chain = chain_of(bindparam("deep", type_=INTEGER))
    return (
        select(*COLUMNS)
        .where(*OF_TALK, M.exchange_id.in_(select(chain.c.id)))
        .order_by(M.seq.desc())
        .limit(bindparam("most", type_=INTEGER))
    )


@dataclass(frozen=True)
class Outgrown:
    """A conversation in which more turns than a summary has are out of the window.

    Attributes:
        world_id: Where.
        conversation_id: Which.
        persona_id: Whose memory the summaries are.
        head: The exchange that ends the line of turns.
        turns_each: How many turns each exchange has at least.
    """

    world_id: str
    conversation_id: str
    persona_id: str
    head: str
    turns_each: int = 1


@dataclass(frozen=True)
class Span:
    """Turns that are to be summed up together.

    Attributes:
        turns: What the persona heard or said, oldest first.
        witnesses: Who heard all of it.
    """

    turns: tuple[Turn, ...]
    witnesses: tuple[str, ...]


def unsummed(
    connection: Connection, talk: Outgrown, window: int, params: SummaryParams
) -> list[Span]:
    """Read the turns that are out of the window and not summed up, those of a summary together.

    A summary that was archived was made: it is not made again.
    """
    turns = conversations.window(
        connection,
        talk.world_id,
        talk.conversation_id,
        talk.persona_id,
        talk.head,
        params.deep(window, params.overdue),
        talk.turns_each,
    )
    made = MADE.all(
        connection,
        world=talk.world_id,
        persona=talk.persona_id,
        exchanges=sorted({turn.exchange_id for turn in turns}),
    )
    summed_to = max((row.origin["to_turn"] for row in made), default=0)
    spans = spans_of(turns, window, summed_to, params)
    heard = witnesses_of(connection, talk.world_id, [t.id for span in spans for t in span])
    return [Span(span, heard_all(span, heard)) for span in spans]


def heard_all(turns: Sequence[Turn], heard: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return who heard every one of some turns, in order of their ids."""
    return tuple(sorted(set.intersection(*(set(heard[turn.id]) for turn in turns))))


def add_summary(
    connection: Connection,
    talk: Outgrown,
    span: Span,
    text: str,
    made_by: str,
    weighed: Importance,
    now: float,
) -> bool:
    """Write a summary as a memory, inside a transaction.

    Its id is derived from the last turn: made twice, by whichever process, it is there once. It
    belongs to the exchange of that turn, and is switched off with it.

    Returns:
        Whether it was not there yet.
    """
    first, last = span.turns[0], span.turns[-1]
    key = derived_id(talk.world_id, talk.persona_id, SUMMARY, last.id)
    if read_memories(connection, talk.world_id, [key]):
        return False
    memory = NewMemory(
        id=key,
        persona_id=talk.persona_id,
        content=text,
        importance=weighed.value,
        importance_terms=dict(weighed.terms),
        witnesses=span.witnesses,
        memory_type=SUMMARY,
        origin={"from_turn": first.number, "to_turn": last.number, "made_by": made_by},
    )
    source = Source(talk.conversation_id, last.exchange_id, {})
    add_memories(connection, talk.world_id, [memory], now, source)
    return True


def recent(
    connection: Connection, talk: Outgrown, window: int, before: int, params: SummaryParams
) -> list[Summary]:
    """Read the last summaries of what a persona's window does not show, oldest first.

    Args:
        connection: An open transaction.
        talk: Whose, and on which line of exchanges.
        window: Turns that a prompt shows word for word.
        before: Number of the first turn that it shows.
        params: How many summaries.
    """
    rows = RECENT.all(
        connection,
        world=talk.world_id,
        persona=talk.persona_id,
        talk=talk.conversation_id,
        head=talk.head,
        deep=exchanges_of(params.deep(window, params.shown), talk.turns_each),
        most=params.shown,
    )
    return [summary for summary in reversed(rows) if summary.to_turn < before]


def summed_up(
    connection: Connection, world_id: str, conversation_id: str, persona_id: str
) -> str | None:
    """Return what a persona remembers of a conversation as summed up; None if that is nothing."""
    rows = ALL_OF_TALK.all(connection, world=world_id, persona=persona_id, talk=conversation_id)
    return "\n".join(row.content for row in rows) or None


def to_summary(row: Row[Any]) -> Summary:
    """Read a row."""
    about = row.origin
    return Summary(row.id, row.content, about["from_turn"], about["to_turn"], about["made_by"])


RECENT = Prepared(recent_query(), made=to_summary)
