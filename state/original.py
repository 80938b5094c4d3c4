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
from persona_mcp.state.fields import LAST_MOMENT

Row = dict[str, Any]
CHROMA = "chroma.sqlite3"
SUFFIXES = (".db", ".sqlite", ".sqlite3")
TABLES = (
    *("personas", "persona_interaction_states", "relationships"),
    *("conversations", "conversation_turns", "memories"),
)
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
    files = [f for f in sorted(folder.rglob("*")) if f.suffix in SUFFIXES and f.is_file()]
    for file in files:
        try:
            with closing(
                sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
            ) as db:
                db.row_factory = sqlite3.Row
                (read_chroma if file.name == CHROMA else read_tables)(db, file.name, found)
        except (OSError, sqlite3.Error) as error:
            found.unread.append(f"{file.name}: {error}")
        log = file.with_name(f"{file.name}-wal")
        if log.exists() and log.stat().st_size:
            found.unread.append(
                f"{log.name}: writes that are not in the file yet; stop the old server properly, "
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


def read_tables(db: sqlite3.Connection, file: str, found: Original) -> None:
    """Read the tables that are known, and tell of the others."""
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if "personas" not in names:
        found.unread.append(f"{file}: it has no table personas, so it is not the original's")
        return
    for name in names:
        count = db.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]
        if name in TABLES:
            found.rows[name] += read_rows(db, name, found)
        elif count and not name.startswith("sqlite_"):
            found.unread.append(f"{file}: table {name} with {count} rows is not known")


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
    for record in records.values():
        if record.get("content"):
            found.memories[record["id"]] = record
        else:
            found.unread.append(
                f"{file}: record {record['id']} of {record['collection']} has no text"
            )


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
