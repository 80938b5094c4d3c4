"""The rows of a world, out of SQL and into it, in the form that a saved state has them.

In that form a row is a JSON object without its world: bytes are base64, and what belongs to one
process (leases, runs in the middle of something) is not there.
"""

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select

from persona_mcp.state.snapshots.tables import BY_NAME, KEPT, PARTS, PLACE, WORLD, Kept, Part

Row = dict[str, Any]
Rows = dict[str, list[Row]]
Key = tuple[Any, ...]
RESTING = frozenset({"done", "failed", "cancelled", "interrupted"})
MANY = 500
"""Rows that are written by one statement."""


@dataclass(frozen=True)
class Selection:
    """Which part of a world is meant.

    Attributes:
        parts: What of it.
        persona_ids: Of whom; None for everybody.
    """

    parts: tuple[Part, ...] = PARTS
    persona_ids: frozenset[str] | None = None


def read_rows(connection: Connection, world_id: str) -> Rows:
    """Read everything of a world that can be saved, as it lies in SQL; `shown` makes JSON of it."""
    return {kept.name: read_table(connection, world_id, kept) for kept in KEPT}


def read_chosen(connection: Connection, world_id: str, selection: Selection) -> Rows:
    """Read the parts of a world that are of some personas, and nothing of anybody else.

    A relationship counts if both of its ends are meant; one with a user is left out.

    Args:
        connection: A transaction that reads.
        world_id: Where.
        selection: Parts and personas; not everybody.
    """
    ids = sorted(selection.persona_ids or ())
    rows: Rows = {kept.name: [] for kept in KEPT}
    for kept in KEPT:
        if kept.part in selection.parts:
            rows[kept.name] = read_table(connection, world_id, kept, whose(kept, world_id, ids))
    return rows


def whose(kept: Kept, world_id: str, ids: Sequence[str]) -> list[ColumnElement[bool]]:
    """Say which rows of a table are of some personas."""
    columns = kept.table.c
    if kept.name == "personas":
        return [columns.id.in_(ids)]
    if "persona_id" in columns:
        return [columns.persona_id.in_(ids)]
    if "from_id" in columns:
        return [columns.from_id.in_(ids), columns.to_id.in_(ids)]
    if "memory_id" in columns:
        memories = BY_NAME["memories"].table.c
        its = (memories[WORLD] == world_id, memories.persona_id.in_(ids))
        return [columns.memory_id.in_(select(memories.id).where(*its))]
    return []


def read_table(
    connection: Connection, world_id: str, kept: Kept, which: Sequence[ColumnElement[bool]] = ()
) -> list[Row]:
    """Read the rows of one table."""
    order = [kept.table.c.seq] if kept.ordered else [kept.table.c[name] for name in kept.key]
    query = select(*kept.columns).where(kept.table.c[WORLD] == world_id, *which).order_by(*order)
    found = [dict(row._mapping) for row in connection.execute(query)]
    return [at_rest(row) for row in found] if kept.name == "exchanges" else found


def at_rest(exchange: Row) -> Row:
    """Have an exchange that somebody was running, or waited for, end where it was begun."""
    if exchange["status"] in RESTING:
        return exchange
    ended = exchange["finished_at"] or exchange["created_at"]
    return {**exchange, "status": "interrupted", "finished_at": ended}


def shown(rows: Rows, selection: Selection) -> Rows:
    """Choose rows and write them as a saved state has them, sorted by their keys."""
    chosen = choose(rows, selection)
    return {kept.name: shown_table(kept, chosen[kept.name]) for kept in KEPT}


def shown_table(kept: Kept, rows: Iterable[Row]) -> list[Row]:
    """Write the rows of one table, which are in the order that is to be kept."""
    found = [{name: written(kept, name, value) for name, value in row.items()} for row in rows]
    if kept.ordered:
        found = [{**row, PLACE: place} for place, row in enumerate(found, start=1)]
    return sorted(found, key=lambda row: key_of(kept, row))


def key_of(kept: Kept, row: Mapping[str, Any]) -> Key:
    """Return what names a row within its world."""
    return tuple(row[name] for name in kept.key)


def written(kept: Kept, column: str, value: Any) -> Any:
    """Write a value of a row as JSON."""
    if column in kept.pairs:
        return [list(pair) for pair in value.items()]
    return base64.b64encode(value).decode() if type(value) is bytes else value


def choose(rows: Rows, selection: Selection) -> Rows:
    """Keep the rows of the parts and the personas that are meant."""
    found = {k.name: rows[k.name] if k.part in selection.parts else [] for k in KEPT}
    if selection.persona_ids is None:
        return found
    others = {row["id"] for row in rows["personas"]} - selection.persona_ids
    for name, its in found.items():
        found[name] = [row for row in its if is_of(name, row, selection.persona_ids, others)]
    drop_orphans(found)
    return found


def is_of(name: str, row: Row, ours: Collection[str], others: Collection[str]) -> bool:
    """Tell whether a row is of these personas and of no other one; users do not count."""
    match name:
        case "personas":
            return row["id"] in ours
        case "visual_contexts":
            return row["target_kind"] != "persona" or row["target"] in ours
        case "conversations":
            return not {*row["participants"], row["persona_id"]} & set(others)
        case "relationship_events" | "relationship_states":
            return row["from_id"] not in others and row["to_id"] not in others
    return row.get("persona_id") not in others


def drop_orphans(rows: Rows) -> None:
    """Take out what refers to a row that was not chosen."""
    for kept in KEPT:
        for column, target in kept.refers.items():
            if target in ("conversations", "exchanges", "turns", "memories"):
                there = {row["id"] for row in rows[target]} | {None}
                rows[kept.name] = [row for row in rows[kept.name] if row[column] in there]


def write_rows(connection: Connection, world_id: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Write checked rows into a world, inside a transaction; those with a place in its order."""
    for kept in KEPT:
        its = rows[kept.name]
        if kept.ordered:
            its = sorted(its, key=lambda row: row[PLACE])
        values = [
            {WORLD: world_id, **kept.defaults, **{k: v for k, v in row.items() if k != PLACE}}
            for row in its
        ]
        for start in range(0, len(values), MANY):
            connection.execute(insert(kept.table), values[start : start + MANY])


def counted(rows: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """Count the rows of each table."""
    return {kept.name: len(rows[kept.name]) for kept in KEPT}
