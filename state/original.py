"""The original Persona MCP server's files, read as they are: SQLite, and Chroma's own SQLite.

Nothing is ever written there: the files are opened as immutable. What cannot be read is told.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persona_mcp.state.errors import NotFound
from persona_mcp.state.moments import LAST_MOMENT

Row = dict[str, Any]
CHROMA = "chroma.sqlite3"
SUFFIXES = (".db", ".sqlite", ".sqlite3")
MAIN = "personas.db"
KEYS = {
    "personas": ("id",),
    "persona_interaction_states": ("persona_id",),
    "relationships": ("persona1_id", "persona2_id"),
    "conversations": ("id",),
    "conversation_turns": ("id",),
    "memories": ("id",),
}
TABLES = tuple(KEYS)
OURS = {"worlds", "alembic_version"}
"""Tables that this Persona MCP's own database has, and the original's never."""
NAMED = 5
"""Rows that are left out are named up to this many; of the others, how many they are."""
JSON_COLUMNS = (
    *("personality_traits", "topic_preferences", "participants", "related_personas"),
    *("metadata", "shared_experiences", "score_history"),
)
DOCUMENT = "chroma:document"
RECORDS = (
    "SELECT c.name AS collection, e.id AS record, e.embedding_id AS id, m.key AS key, "
    "coalesce(m.string_value, m.int_value, m.float_value, m.bool_value) AS value "
    "FROM embeddings e JOIN segments s ON s.id = e.segment_id "
    "JOIN collections c ON c.id = s.collection "
    "LEFT JOIN embedding_metadata m ON m.id = e.id ORDER BY e.id"
)


@dataclass
class Original:
    """What was found.

    Attributes:
        rows: By table of the original; JSON is read, times are left as they are.
        memories: From Chroma, by id: content, collection and what stood beside it.
        unread: What could not be read, and why, for people.
    """

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    memories: dict[str, Row] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def read_original(folder: Path) -> Original:
    """Read every SQLite file of a folder and those below it.

    Raises:
        NotFound: There is none of the original's.
    """
    found = Original()
    files = [f for f in folder.rglob("*") if f.suffix in SUFFIXES and f.is_file()]
    for file in sorted(files, key=order):
        name = file.relative_to(folder).as_posix()
        try:
            with closing(
                sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
            ) as db:
                db.row_factory = sqlite3.Row
                (read_chroma if file.name == CHROMA else read_tables)(db, name, found)
        except (OSError, sqlite3.Error) as error:
            found.unread.append(f"{name}: {error}")
        log = file.with_name(f"{file.name}-wal")
        if log.exists() and log.stat().st_size:
            found.unread.append(
                f"{name}-wal: writes that are not in the file yet; stop the old server properly, "
                "and import again"
            )
    if not any(found.rows.values()) and not found.memories:
        raise NotFound(
            f"no data of the original Persona MCP found in '{folder}'; give the folder that holds "
            "its personas.db and chroma.sqlite3",
            kind="folder",
            id=str(folder),
        )
    return found


def order(file: Path) -> tuple[bool, int, Path]:
    """Put copies behind what they are copies of: the original's own name first, then less deep."""
    return file.name != MAIN, len(file.parts), file


def read_tables(db: sqlite3.Connection, file: str, found: Original) -> None:
    """Read the tables that are known, and tell of the others."""
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if "personas" not in names:
        found.unread.append(f"{file}: it has no table personas, so it is not the original's")
        return
    if ours := OURS.intersection(names):
        found.unread.append(
            f"{file}: it has a table {min(ours)}, so it is this Persona MCP's own and not the "
            "original's"
        )
        return
    for name in names:
        count = db.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]
        if name in TABLES:
            add_rows(read_rows(db, name, found), name, file, found)
        elif count and not name.startswith("sqlite_"):
            found.unread.append(f"{file}: table {name} with {count} rows is not known")


def add_rows(rows: Iterator[Row], table: str, file: str, found: Original) -> None:
    """Keep a table's rows, but for those that were read before, as where a file is a copy."""
    seen = {key_of(row, table) for row in found.rows[table]}
    again = []
    for row in rows:
        key = key_of(row, table)
        if key in seen:
            again.append(" and ".join(str(row.get(column)) for column in KEYS[table]))
            continue
        seen.add(key)
        found.rows[table].append(row)
    tell_again(f"{file}: table {table}", again, found)


def tell_again(where: str, again: list[str], found: Original) -> None:
    """Tell of what was read before, in one line however much it is: a copy repeats everything."""
    if again:
        named = ", ".join(again[:NAMED])
        more = f" and {len(again) - NAMED} more" if again[NAMED:] else ""
        found.unread.append(f"{where}: read before, and the first counts: {named}{more}")


def key_of(row: Row, table: str) -> frozenset[Any]:
    """Tell what a row is of; a relationship has no direction."""
    return frozenset(row.get(column) for column in KEYS[table])


def quoted(name: str) -> str:
    """Write a table's name, whatever is in it, as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def read_rows(db: sqlite3.Connection, table: str, found: Original) -> Iterator[Row]:
    """Read a table's rows, with their JSON."""
    for row in db.execute(f"SELECT * FROM {quoted(table)}"):
        values = dict(row)
        for column in set(JSON_COLUMNS) & set(values):
            values[column] = json_in(values[column], f"{table}.{column}", found)
        yield values


def json_in(value: object, where: str, found: Original) -> Any:
    """Read JSON of a column; what is none counts as missing, and is told."""
    if not isinstance(value, str) or not value:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        found.unread.append(f"{where}: no JSON: {value[:40]!r}")
        return None


def read_chroma(db: sqlite3.Connection, file: str, found: Original) -> None:
    """Read the records of every collection: text and what stands beside it."""
    records: dict[int, Row] = defaultdict(dict)
    for row in db.execute(RECORDS):
        record = records[row["record"]]
        record |= {"id": row["id"], "collection": row["collection"]}
        if row["key"] is not None:
            record["content" if row["key"] == DOCUMENT else row["key"]] = row["value"]
    again = []
    for record in records.values():
        if record["id"] in found.memories:
            again.append(record["id"])
        elif record.get("content"):
            found.memories[record["id"]] = record
        else:
            found.unread.append(
                f"{file}: record {record['id']} of {record['collection']} has no text"
            )
    tell_again(f"{file}: records", again, found)


def moment_of(value: object) -> float | None:
    """Read a time of the original: ISO 8601, UTC where no offset is said.

    None if it is none, or is before 1970 or after the year 9999.
    """
    if isinstance(value, (int, float)) and value > 0:
        return float(value) if value <= LAST_MOMENT else None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    made = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return made if 0 <= made <= LAST_MOMENT else None
