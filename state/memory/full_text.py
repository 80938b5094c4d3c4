"""Full-text search over memories, in SQL.

SQLite: an FTS5 table that keeps no text of its own (a view of `memories` has it) and is kept in
step by triggers, so that a row and its words are written in one transaction. PostgreSQL:
`full_text_postgres`.
"""

import re

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    column,
    func,
    literal_column,
    select,
    table,
)

from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.prepared import listed
from persona_mcp.state.tables import Memory

TABLE = "memory_words"
SOURCE = "memory_words_source"
WORDS = table(TABLE, column("rowid"))
POSSESSIVE = re.compile(r"['\u2019]s\b", re.IGNORECASE)
TERMS_USED = 64
"""More words than this in one query add cost and no meaning."""

# No stop word carries what a memory is about; left in, they cost 6 points of recall (measured).
STOP_WORDS = frozenset(
    word
    for line in (
        "a an the and or but if of at by for with about to from in on is are was were be been",
        "being am do does did doing have has had having i you he she it we they me him her us",
        "them my your his its our their this that these those what which who whom when where why",
        "how so as not no can could will would should just than then there here up out any some",
    )
    for word in line.split()
)

SCOPE = (
    "'o' || hex({row}.world_id || '/' || {row}.persona_id)"
    " || ' v' || hex({row}.world_id || '/' || {row}.visibility)"
)
"""Whose a memory is, and how far it may be seen: a word each, in full-text search as well.

So a search for one persona reads through its rows alone. In hexadecimal, since an id may hold what
is no part of a word.
"""
TEXT_ONLY = "1.0, 0.0"
"""What each column weighs in a score."""
NAMES = "indexed_text, scope"
NEW, OLD = (f"{row}.indexed_text, {SCOPE.format(row=row)}" for row in ("new", "old"))
FORGET = f"INSERT INTO {TABLE}({TABLE}, rowid, {NAMES}) VALUES ('delete', old.seq, {OLD});"
LEARN = f"INSERT INTO {TABLE}(rowid, {NAMES}) VALUES (new.seq, {NEW});"
COMPARE_WORDS = f"INSERT INTO {TABLE}({TABLE}, rank) VALUES ('integrity-check', 1)"
"""Fails where the index and the memories do not agree; changes nothing."""
CHANGED = "indexed_text, world_id, persona_id, visibility"
SQLITE_SCHEMA = (
    f"CREATE VIEW {SOURCE} AS "
    f"SELECT seq, indexed_text, {SCOPE.format(row='memories')} AS scope FROM memories",
    f"CREATE VIRTUAL TABLE {TABLE} USING fts5("
    f"{NAMES}, content='{SOURCE}', content_rowid='seq', tokenize='porter unicode61')",
    f"CREATE TRIGGER memories_words_insert AFTER INSERT ON memories BEGIN {LEARN} END",
    f"CREATE TRIGGER memories_words_delete AFTER DELETE ON memories BEGIN {FORGET} END",
    f"CREATE TRIGGER memories_words_update AFTER UPDATE OF {CHANGED} ON memories "
    f"BEGIN {FORGET} {LEARN} END",
    f"INSERT INTO {TABLE}({TABLE}) VALUES ('rebuild')",
)
SQLITE_DROP = (
    "DROP TRIGGER memories_words_insert",
    "DROP TRIGGER memories_words_delete",
    "DROP TRIGGER memories_words_update",
    f"DROP TABLE {TABLE}",
    f"DROP VIEW IF EXISTS {SOURCE}",
)


def create_words(connection: Connection) -> None:
    """Make the full-text index and what keeps it in step, on SQLite, and fill it."""
    for statement in SQLITE_SCHEMA:
        connection.exec_driver_sql(statement)


def drop_words(connection: Connection) -> None:
    """Undo `create_words`."""
    for statement in SQLITE_DROP:
        connection.exec_driver_sql(statement)


def is_full_text_table(name: str) -> bool:
    """Tell FTS5's own tables from ours."""
    return name == TABLE or name.startswith(f"{TABLE}_")


def terms_of(query: str) -> list[str]:
    """Return the distinct words that are worth searching for, in order; none may be left.

    Operators of the full-text syntax are no words, so nothing of a query is ever taken as one.
    """
    words = re.findall(r"[^\W_]+", POSSESSIVE.sub("", query))
    # The full-text index folds case by rules of its own, so the words go to it as they are.
    distinct = {folded: w for w in words if (folded := w.casefold()) not in STOP_WORDS}
    return list(distinct.values())[:TERMS_USED]


def match_of(query: str, world_id: str, reader: str) -> str:
    """Write a query in the full-text syntax: any of its words, in what the reader may find.

    It narrows: who may know a memory is for SQL to say. Empty without words.
    """
    if not (terms := terms_of(query)):
        return ""
    words = " OR ".join(f'"{term}"' for term in terms)
    readable = " OR ".join(readable_words(world_id, reader))
    return f"indexed_text : ({words}) AND scope : ({readable})"


def match_own(term: str, world_id: str, owner: str) -> str:
    """Write a query for a word of `terms_of` in the memories of one persona."""
    return f'indexed_text : "{term}" AND scope : {owned_by(world_id, owner)}'


def readable_words(world_id: str, reader: str) -> tuple[str, ...]:
    """Return the words of `SCOPE` of which everything that a reader may find has one."""
    return (
        owned_by(world_id, reader),
        *(seen_as(world_id, how) for how in ("public", "shared")),
    )


def owned_by(world_id: str, owner: str) -> str:
    """Return the word of whose a memory is, as `SCOPE` has it."""
    return f"o{f'{world_id}/{owner}'.encode().hex()}"


def seen_as(world_id: str, visibility: str) -> str:
    """Return the word of how far a memory may be seen, as `SCOPE` has it."""
    return f"v{f'{world_id}/{visibility}'.encode().hex()}"


def words_query(fits: ColumnElement[bool]) -> Select[int, float, bool]:
    """Return the query for memories by their words, best first: seq, score, whether it fits.

    Parameters: matched, most. Whether a memory fits is looked up for the best alone.

    Args:
        fits: Which memories may be found, as a condition on the table of memories.
    """
    score: ColumnElement[float] = literal_column(f"-bm25({TABLE}, {TEXT_ONLY})").label("score")
    matched = literal_column(TABLE).op("MATCH")(bindparam("matched", type_=String))
    best = (
        select(WORDS.c.rowid, score)
        .where(matched)
        .order_by(score.desc(), WORDS.c.rowid)
        .limit(bindparam("most", type_=INTEGER))
        .subquery()
    )
    return (
        select(best.c.rowid, best.c.score, Memory.seq.is_not(None))
        .outerjoin(Memory, and_(Memory.seq == best.c.rowid, fits))
        .order_by(best.c.score.desc(), best.c.rowid)
    )


def count_query() -> Select[str, int]:
    """Return the query that counts, for each of several searches, the memories that match it.

    Parameter: searches, a list of what is written by `match_own`.
    """
    searches = listed("searches").subquery()
    matched = literal_column(TABLE).op("MATCH")(searches.c.value)
    having = select(func.count()).select_from(WORDS).where(matched).scalar_subquery()
    return select(searches.c.value, having)
