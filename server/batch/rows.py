"""The tables of a batch's store, and what is written to and read from them in one thread."""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from persona_mcp.state.batch import codec
from persona_mcp.state.batch.reading import themselves
from persona_mcp.state.batch.values import Finished, Outcome, RecordedCall
from persona_mcp.state.errors import StorageUnavailable

NAME = "run.db"
BUSY_S = 30.0
QUICK = 1
"""Level of zlib: an outcome is mostly vectors and ids, which a higher one packs hardly better."""
PAGE = 500
"""Keys that are read by one statement."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    place INTEGER PRIMARY KEY, status TEXT NOT NULL, turns INTEGER NOT NULL,
    calls INTEGER NOT NULL, measured TEXT NOT NULL, outcome BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS outcomes_failed ON outcomes (place) WHERE status = 'failed';
CREATE TABLE IF NOT EXISTS calls (
    place INTEGER NOT NULL, number INTEGER NOT NULL, call TEXT NOT NULL,
    PRIMARY KEY (place, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Counts:
    """How far a batch has come.

    Attributes:
        done: Dialogues that came to their end.
        failed: Those that did not.
        turns: Said in both.
        calls: Of the model, in both.
    """

    done: int
    failed: int
    turns: int
    calls: int


def connected(path: Path) -> sqlite3.Connection:
    """Connect to the file; a commit outlives a power cut."""
    connection = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def connected_to_read(path: Path) -> sqlite3.Connection:
    """Connect to the file to read it, also where it, or its folder, cannot be written.

    SQLite makes files beside one that has a log, which are there already if somebody has it open or
    was killed. Where they are not, and cannot be made, nobody writes: it is told that all is there.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return connected(path)
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_S)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of SQLite, and of what it holds, into ours.

    Raises:
        StorageUnavailable: In place of one.
    """
    try:
        yield
    except (sqlite3.Error, zlib.error, ValueError) as error:
        raise StorageUnavailable(
            f"the batch's {NAME} cannot be read or written (locked, full, read-only or damaged); "
            "once it can, go on with --resume"
        ) from error


def write_finished(
    connection: sqlite3.Connection, finished: Finished, calls: Iterable[RecordedCall]
) -> None:
    """Write an outcome and those of its calls that are not there yet.

    Calls that it did not make in the end are gone.
    """
    outcome, place = finished.outcome, finished.outcome.job.place.index
    turns = spoken(outcome)
    packed = zlib.compress(codec.outcome_json(outcome).encode(), QUICK)
    connection.execute(
        "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)",
        (place, outcome.status, turns, outcome.calls, json.dumps(dict(outcome.measured)), packed),
    )
    connection.execute(
        "DELETE FROM calls WHERE place = ? AND number > ?",
        (place, max((call.number for call in finished.calls), default=-1)),
    )
    write_calls(connection, calls)


def spoken(outcome: Outcome) -> int:
    """Count the turns of a dialogue, without what a narrator brought in."""
    own = themselves(outcome.job)
    turns = outcome.rows.get("turns", ())
    return sum(bool(row["active"]) and row["speaker_id"] in own for row in turns)


def write_calls(connection: sqlite3.Connection, calls: Iterable[RecordedCall]) -> None:
    """Write recorded calls; one that is there is replaced."""
    connection.executemany(
        "INSERT OR REPLACE INTO calls VALUES (?, ?, ?)",
        [(call.index, call.number, codec.call_json(call)) for call in calls],
    )


def read_counts(connection: sqlite3.Connection) -> Counts:
    """Count what is kept."""
    query = (
        "SELECT count(*), coalesce(sum(status = 'failed'), 0), coalesce(sum(turns), 0), "
        "coalesce(sum(calls), 0) FROM outcomes"
    )
    kept, failed, turns, calls = connection.execute(query).fetchone()
    return Counts(kept - failed, failed, turns, calls)


def calls_under_way(folder: Path) -> int:
    """Count the kept calls of dialogues that have not come to their end. Blocks.

    Raises:
        StorageUnavailable: The store cannot be read.
    """
    if not (folder / NAME).is_file():
        return 0
    query = "SELECT count(*) FROM calls WHERE place NOT IN (SELECT place FROM outcomes)"
    with translated(), closing(connected_to_read(folder / NAME)) as connection:
        return int(connection.execute(query).fetchone()[0])


def is_unused(folder: Path) -> bool:
    """Tell whether a batch's store holds nothing yet. Blocks.

    Raises:
        StorageUnavailable: The store cannot be read.
    """
    with translated(), closing(connected(folder / NAME)) as connection:
        made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone()
        return not made or connection.execute("SELECT 1 FROM facts").fetchone() is None


def read_progress(folder: Path) -> tuple[Counts, list[tuple[int, str]]]:
    """Read how far a batch is, and which dialogues failed why, the first ones. Blocks.

    Whoever writes meanwhile is not disturbed, and nothing is made.

    Raises:
        StorageUnavailable: The store cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return Counts(0, 0, 0, 0), []
    query = "SELECT place, outcome FROM outcomes WHERE status = 'failed' ORDER BY place LIMIT ?"
    with translated(), closing(connected_to_read(path)) as connection:
        found = connection.execute(query, (PAGE,)).fetchall()
        counts = read_counts(connection)
        outcomes = [(place, codec.read_outcome(zlib.decompress(p))) for place, p in found]
    return counts, [(at, str((one.error or {}).get("message", ""))) for at, one in outcomes]
