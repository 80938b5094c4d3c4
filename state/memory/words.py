"""Memories by their words, on either database: what differs between the two is known here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, bindparam, func, select

from persona_mcp.state.dialect import is_postgres
from persona_mcp.state.memory import full_text, full_text_postgres
from persona_mcp.state.memory.lexical import Statistics, bm25
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.tables import Memory

WIDER = 2
"""The full-text index is asked for so many times more than wanted: not all may be shown."""
OWN = Prepared(
    select(func.count()).where(
        Memory.world_id == bindparam("world", type_=String),
        Memory.persona_id == bindparam("reader", type_=String),
    )
)
HAVING = Prepared(full_text.count_query())
HAVING_ON_POSTGRES = Prepared(full_text_postgres.count_query())


def create_words(connection: Connection) -> None:
    """Make the full-text index and what keeps it in step, and fill it (a migration calls it)."""
    which = full_text_postgres if is_postgres(connection) else full_text
    which.create_words(connection)


def drop_words(connection: Connection) -> None:
    """Undo `create_words`."""
    which = full_text_postgres if is_postgres(connection) else full_text
    which.drop_words(connection)


@dataclass(frozen=True)
class WordQuery:
    """What is asked for.

    Attributes:
        text: Any text.
        world_id: Where.
        reader: Who asks.
        limit: How many, at most.
        params: How PostgreSQL's candidates are scored.
    """

    text: str
    world_id: str
    reader: str
    limit: int
    params: RetrievalParams


class WordSearch:
    """A search by words among the memories that fit a condition, kept as a `Prepared` is."""

    def __init__(self, fits: ColumnElement[bool]) -> None:
        """Keep the queries for both databases.

        Args:
            fits: Which memories may be found, as a condition on the table of memories.
        """
        self._on_sqlite = Prepared(full_text.words_query(fits))
        self._on_postgres = Prepared(full_text_postgres.words_query(fits))

    def best(
        self, connection: Connection, asked: WordQuery, fitting: Mapping[str, Any]
    ) -> dict[int, float]:
        """Find memories by their words, the best first.

        Args:
            connection: An open transaction.
            asked: What for.
            fitting: The parameters of the condition.

        Returns:
            Score (above 0, higher is better) by the memory's `seq`. Source: SQLite's bm25(),
            negated; on PostgreSQL `lexical.bm25` over the best by `ts_rank`.
        """
        if is_postgres(connection):
            return self._of_postgres(connection, asked, fitting)
        matched = full_text.match_of(asked.text, asked.world_id, asked.reader)
        if not matched:
            return {}
        most = WIDER * asked.limit
        while True:
            rows = self._on_sqlite.all(connection, matched=matched, most=most, **fitting)
            found = {seq: score for seq, score, fits in rows if fits}
            if len(found) >= asked.limit or len(rows) < most:
                return dict(list(found.items())[: asked.limit])
            most *= WIDER

    def _of_postgres(
        self, connection: Connection, asked: WordQuery, fitting: Mapping[str, Any]
    ) -> dict[int, float]:
        matched = full_text_postgres.any_of(asked.text)
        if not matched:
            return {}
        readable = full_text_postgres.readable_by(asked.world_id, asked.reader)
        texts = self._candidates(
            connection,
            max(full_text_postgres.CANDIDATES, asked.limit),
            {"matched": matched, "readable": readable, **fitting},
        )
        known = statistics(connection, asked.text, asked.world_id, asked.reader)
        found = bm25(asked.text, list(texts.values()), known, asked.params)
        scores = {seq: score for seq, score in zip(texts, found, strict=True) if score > 0}
        in_order = sorted(scores, key=lambda seq: (-scores[seq], seq))
        return {seq: scores[seq] for seq in in_order[: asked.limit]}

    def _candidates(
        self, connection: Connection, count: int, given: Mapping[str, Any]
    ) -> dict[int, str]:
        """Return the texts of the best by `ts_rank` of those that fit, by `seq`."""
        most = WIDER * count
        while True:
            rows = self._on_postgres.all(connection, most=most, **given)
            found = {seq: text for seq, _, fits, text in rows if fits}
            if len(found) >= count or len(rows) < most:
                return dict(list(found.items())[:count])
            most *= WIDER


def statistics(connection: Connection, query: str, world_id: str, owner: str) -> Statistics:
    """Count a persona's own memories, and those that have each word of a query."""
    memories = OWN.scalar(connection, world=world_id, reader=owner)
    on_postgres = is_postgres(connection)
    match_own = full_text_postgres.match_own if on_postgres else full_text.match_own
    searches = {
        match: term
        for term in full_text.terms_of(query)
        if (match := match_own(term, world_id, owner))
    }
    having = HAVING_ON_POSTGRES if on_postgres else HAVING
    counted = having.all(connection, searches=list(searches))
    return Statistics(memories, {searches[search]: number for search, number in counted})
