"""Memories written out whole: read a page at a time, as JSON, JSON lines or CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, func, select

from persona_mcp.state import tables
from persona_mcp.state.cursors import bad_cursor
from persona_mcp.state.database import Database
from persona_mcp.state.memory.memory import Memory
from persona_mcp.state.memory.store import read_memories
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.prepared import Prepared, listed

M = tables.Memory
W = tables.MemoryWitness
Format = Literal["json", "jsonl", "csv"]
READ_AT_ONCE = 500
"""Memories in one statement; databases limit its parameters."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet may take for the start of a formula."""

IDS = listed("ids")
DETAILS = Prepared(
    select(M.id, M.details, M.importance_terms).where(
        M.world_id == bindparam("world"), M.id.in_(IDS)
    )
)
WITNESSES = Prepared(
    select(W.memory_id, W.party_id).where(W.world_id == bindparam("world"), W.memory_id.in_(IDS))
)


@dataclass(frozen=True)
class Page:
    """Some of a persona's memories, in the order in which they were stored.

    Attributes:
        records: What is written of each.
        ids: Of each, what the next page begins behind. Not its number, which counts the memories of
            other worlds too.
        total: How many memories there are on all pages.
        more: Whether there are any behind these.
    """

    records: list[dict[str, Any]]
    ids: list[str]
    total: int
    more: bool


async def read_page(
    database: Database,
    world_id: str,
    persona_id: str,
    archived: bool,
    after: str | None,
    limit: int,
) -> Page:
    """Read a persona's own memories whole, from one moment.

    Args:
        database: Where they are.
        world_id: Which world.
        persona_id: Whose.
        archived: Those that are archived too.
        after: Behind this memory; None for the first page.
        limit: At most so many.

    Raises:
        InvalidParams: The memory that it is to begin behind is not there.
    """
    its = [M.world_id == world_id, M.persona_id == persona_id, M.active]
    if not archived:
        its.append(M.archived_at.is_(None))

    def read(connection: Connection) -> Page:
        place = 0 if after is None else place_of(connection, world_id, persona_id, after)
        query = select(M.id).where(*its, M.seq > place).order_by(M.seq).limit(limit + 1)
        total = connection.scalar(select(func.count()).where(*its)) or 0
        found = connection.execute(query).all()
        records: list[dict[str, Any]] = []
        for start in range(0, min(len(found), limit), READ_AT_ONCE):
            rows = found[start : min(start + READ_AT_ONCE, limit)]
            records += read_records(connection, world_id, [row.id for row in rows])
        return Page(records, [row.id for row in found[:limit]], total, len(found) > limit)

    return await database.read(read)


def place_of(connection: Connection, world_id: str, persona_id: str, memory_id: str) -> int:
    """Return where a persona's memory stands among all.

    Raises:
        InvalidParams: It has none of this id.
    """
    its = M.world_id == world_id, M.persona_id == persona_id, M.id == memory_id
    found: int | None = connection.scalar(select(M.seq).where(*its))
    if found is None:
        raise bad_cursor(memory_id, "memory was purged")
    return found


def read_records(connection: Connection, world_id: str, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Read what is written of each memory, in the order of these ids."""
    memories = {memory.id: memory for memory in read_memories(connection, world_id, ids)}
    rest = {row.id: row for row in DETAILS.all(connection, world=world_id, ids=ids)}
    witnesses: dict[str, list[str]] = {}
    for memory_id, party in sorted(map(tuple, WITNESSES.all(connection, world=world_id, ids=ids))):
        witnesses.setdefault(memory_id, []).append(party)
    return [
        record_of(memories[id], rest[id].details, rest[id].importance_terms, witnesses.get(id, []))
        for id in ids
    ]


def record_of(
    memory: Memory, details: Mapping[str, Any], terms: Mapping[str, float], witnesses: list[str]
) -> dict[str, Any]:
    """Return what is written of a memory, as JSON values: everything but its vector."""
    return {
        "id": memory.id,
        "persona_id": memory.persona_id,
        "content": memory.content,
        "memory_type": memory.memory_type,
        "speaker_id": memory.speaker_id,
        "importance": memory.importance,
        "importance_terms": dict(terms),
        "emotional_valence": memory.emotional_valence,
        "visibility": memory.visibility,
        "related_personas": list(memory.related_personas),
        "witnesses": witnesses,
        "pinned": memory.pinned,
        "metadata": dict(details),
        "conversation_id": memory.conversation_id,
        "source_turn": memory.turn_id,
        "accessed_count": memory.accessed_count,
        "version": memory.version,
        "created_at": rfc3339(memory.created_at),
        "updated_at": rfc3339(memory.updated_at),
        "archived_at": None if memory.archived_at is None else rfc3339(memory.archived_at),
    }


def written(
    records: Sequence[Mapping[str, Any]], format: Format, first: bool, most_bytes: int
) -> tuple[str, int]:
    """Write records, as many as fit, and at least one.

    Args:
        records: What is written of each.
        format: json: a list; jsonl: an object a line; csv: a row each, by RFC 4180.
        first: Whether it is the first page: of CSV, that one has the names of the columns.
        most_bytes: As UTF-8; the last record may go beyond it.

    Returns:
        The text, and how many records are in it.
    """
    lines: list[str] = []
    size = 0
    if format == "csv" and first and records:
        lines.append(csv_line(list(records[0])))
    names = len(lines)
    for record in records:
        if size >= most_bytes:
            break
        lines.append(csv_line(list(record.values())) if format == "csv" else json_of(record))
        size += len(lines[-1].encode())
    count = len(lines) - names
    match format:
        case "json":
            return "[" + ",\n".join(lines) + "]", count
        case "jsonl":
            return "".join(line + "\n" for line in lines), count
        case "csv":
            return "".join(lines), count


def json_of(value: object) -> str:
    """Write a value as JSON in one line."""
    return json.dumps(value, ensure_ascii=False)


def csv_line(values: Sequence[object]) -> str:
    """Write a row of CSV; lists and objects as JSON, nothing as an empty cell."""
    line = io.StringIO()
    csv.writer(line).writerow([cell_of(value) for value in values])
    return line.getvalue()


def cell_of(value: object) -> object:
    """Return what stands in a cell: text that a spreadsheet would compute gets a quote in front."""
    if isinstance(value, (list, dict, bool)):
        return json_of(value)
    if isinstance(value, str) and value.startswith(FORMULA):
        return "'" + value
    return "" if value is None else value
