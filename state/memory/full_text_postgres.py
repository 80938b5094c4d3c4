"""Full-text search over memories on PostgreSQL: a table of `tsvector`, kept in step by a trigger.

`ts_rank` knows nothing of how rare a word is: it picks candidates, which the caller scores by BM25.
The words are those of SQLite's index whatever the locale of the database is: accents and case are
taken off and what is no letter or digit becomes a space before PostgreSQL splits the text.
"""

from functools import cache
from string import ascii_uppercase
from unicodedata import combining, normalize

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    cast,
    column,
    func,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import REGCONFIG

from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.memory.full_text import TABLE, owned_by, readable_words, terms_of
from persona_mcp.state.prepared import listed
from persona_mcp.state.tables import Memory

CANDIDATES = 200
"""So many of the best by `ts_rank` hold what is best by BM25 (measured: reference of retrieval)."""
BY_LENGTH = 1
"""`ts_rank` is divided by 1 + the logarithm of a text's length."""
WORDS = table(TABLE, column("seq", INTEGER), column("words"))
CONFIGURATION = cast("persona_words", REGCONFIG)
LETTERS = ((0x80, 0x530), (0x1E00, 0x2000))
"""Latin, Greek and Cyrillic: where case and accents are taken off."""
NO_WORD = (
    r"\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b4\u00b6-\u00b8\u00bb-\u00bf"
    r"\u00d7\u00f7\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff\u3000-\u3004\u3008-\u3020\u3030"
    r"\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
"""Signs, spaces and marks, as a set of an expression."""
SCOPE = (
    "'o' || encode(convert_to(given.world_id || '/' || given.persona_id, 'UTF8'), 'hex'), "
    "'v' || encode(convert_to(given.world_id || '/' || given.visibility, 'UTF8'), 'hex')"
)
"""As `full_text.SCOPE` has it."""
DROP = (
    "DROP TRIGGER memories_words ON memories",
    f"DROP TABLE {TABLE}",
    "DROP FUNCTION memory_words_learn()",
    "DROP FUNCTION memory_words_of(memories)",
    "DROP FUNCTION plain_words(text)",
    "DROP TEXT SEARCH CONFIGURATION persona_words",
    "DROP TEXT SEARCH DICTIONARY persona_stems",
)


@cache
def schema() -> tuple[str, ...]:
    """Return the statements that make the index, and fill it."""
    letters, plain = plain_letters()
    return (
        # No stop words: the query has none, and a memory may be of nothing else.
        "CREATE TEXT SEARCH DICTIONARY persona_stems (TEMPLATE = snowball, LANGUAGE = english)",
        "CREATE TEXT SEARCH CONFIGURATION persona_words (COPY = pg_catalog.english)",
        "ALTER TEXT SEARCH CONFIGURATION persona_words "
        "ALTER MAPPING REPLACE english_stem WITH persona_stems",
        "CREATE FUNCTION plain_words(given text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT "
        "CASE WHEN octet_length(given) = char_length(given) THEN given "
        r"ELSE translate(regexp_replace(given, '[\u0300-\u036f]', '', 'g'), "
        f"'{letters}', '{plain}') END $$",
        f"CREATE FUNCTION memory_words_of(given memories) RETURNS tsvector LANGUAGE sql STABLE AS "
        "$$ SELECT to_tsvector('persona_words', "
        f"regexp_replace(plain_words(given.indexed_text), '[{NO_WORD}]+', ' ', 'g')) "
        f"|| array_to_tsvector(ARRAY[{SCOPE}]) $$",
        f"CREATE TABLE {TABLE} (seq BIGINT PRIMARY KEY REFERENCES memories (seq) "
        "ON DELETE CASCADE, words tsvector NOT NULL)",
        f"CREATE INDEX ix_{TABLE}_words ON {TABLE} USING gin (words)",
        "CREATE FUNCTION memory_words_learn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"INSERT INTO {TABLE} (seq, words) VALUES (new.seq, memory_words_of(new)) "
        "ON CONFLICT (seq) DO UPDATE SET words = excluded.words; RETURN NULL; END $$",
        "CREATE TRIGGER memories_words AFTER INSERT "
        "OR UPDATE OF indexed_text, world_id, persona_id, visibility "
        "ON memories FOR EACH ROW EXECUTE FUNCTION memory_words_learn()",
        f"INSERT INTO {TABLE} (seq, words) SELECT m.seq, memory_words_of(m) FROM memories AS m",
    )


def plain_letters() -> tuple[str, str]:
    """Return letters that have case or accents, and each without, in the same order."""
    found = {}
    for first, last in LETTERS:
        for letter in map(chr, range(first, last)):
            bare = [c for c in normalize("NFKD", letter.casefold()) if not combining(c)]
            if letter.isalpha() and len(bare) == 1 and bare[0].isalnum() and bare[0] != letter:
                found[letter] = bare[0]
    return "".join(found), "".join(found.values())


@cache
def plain() -> dict[int, str | None]:
    """Return what takes case and accents off, for `str.translate`; as `plain_words` does in SQL."""
    marks = dict.fromkeys(range(0x300, 0x370))
    upper = {ord(letter): letter.lower() for letter in ascii_uppercase}
    return {**marks, **upper, **{ord(a): b for a, b in zip(*plain_letters(), strict=True)}}


def create_words(connection: Connection) -> None:
    """Make the index and what keeps it in step, and fill it."""
    for statement in schema():
        connection.exec_driver_sql(statement)


def drop_words(connection: Connection) -> None:
    """Undo `create_words`."""
    for statement in DROP:
        connection.exec_driver_sql(statement)


def any_of(query: str) -> str:
    """Write a query for any of its words, as `to_tsquery` takes it; empty without words.

    A word is of letters and digits alone, so nothing of a query is taken as an operator.
    """
    words = (word for term in terms_of(query) if (word := term.translate(plain())))
    return " | ".join(f"'{word}'" for word in dict.fromkeys(words))


def readable_by(world_id: str, reader: str) -> str:
    """Write the query for what a reader may find, as `to_tsquery` takes it."""
    return " | ".join(f"'{word}'" for word in readable_words(world_id, reader))


def match_own(term: str, world_id: str, owner: str) -> str:
    """Write a query for a word of `terms_of` in the memories of one persona; empty without one."""
    words = any_of(term)
    return f"({words}) & '{owned_by(world_id, owner)}'" if words else ""


def words_query(fits: ColumnElement[bool]) -> Select[int, float, bool, str | None]:
    """Return the query for memories by their words, best by `ts_rank` first.

    Columns: seq, rank, whether it fits, its text if it does. Parameters: matched (`any_of`),
    readable (`readable_by`), most.

    Args:
        fits: Which memories may be found, as a condition on the table of memories.
    """
    matched = func.to_tsquery(CONFIGURATION, bindparam("matched", type_=String))
    readable = func.to_tsquery(CONFIGURATION, bindparam("readable", type_=String))
    rank: ColumnElement[float] = func.ts_rank(WORDS.c.words, matched, BY_LENGTH).label("rank")
    best = (
        select(WORDS.c.seq, rank)
        .where(WORDS.c.words.op("@@")(matched.op("&&")(readable)))
        .order_by(rank.desc(), WORDS.c.seq)
        .limit(bindparam("most", type_=INTEGER))
        .subquery()
    )
    return (
        select(best.c.seq, best.c.rank, Memory.seq.is_not(None), Memory.indexed_text)
        .outerjoin(Memory, and_(Memory.seq == best.c.seq, fits))
        .order_by(best.c.rank.desc(), best.c.seq)
    )


def count_query() -> Select[str, int]:
    """Return the query that counts, for each of several searches, the memories that match it.

    Parameter: searches, a list of what is written by `match_own`.
    """
    searches = listed("searches").subquery()
    matched = func.to_tsquery(CONFIGURATION, searches.c.value)
    having = (
        select(func.count())
        .select_from(WORDS)
        .where(WORDS.c.words.op("@@")(matched))
        .scalar_subquery()
    )
    return select(searches.c.value, having)
