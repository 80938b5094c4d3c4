"""A saved state into a world: in place of what is there, or beside it. Inside a transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, bindparam, select, update

from persona_mcp.state import tables
from persona_mcp.state.erasing import erase_world
from persona_mcp.state.errors import Conflict
from persona_mcp.state.index.work import add_work
from persona_mcp.state.snapshots import rows as snapshot_rows
from persona_mcp.state.snapshots.check import check_references
from persona_mcp.state.snapshots.rows import Key, Row, Rows, key_of
from persona_mcp.state.snapshots.tables import KEPT, PLACE, Kept

CONFLICTS_TOLD = 1000
C, S = tables.Conversation, tables.Session
BIND = (
    update(S)
    .where(S.id == bindparam("handle"))
    .values(persona_id=bindparam("persona"), conversation_id=None)
)


@dataclass(frozen=True)
class Clash:
    """A row of a saved state that cannot be beside what is in the world.

    Attributes:
        table: Its table.
        id: Its key, parts of one joined by slashes.
        reason: What is different.
    """

    table: str
    id: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What loading does.

    Attributes:
        rows: What is written.
        known: Rows that are there already, with the same content.
        caches: Rows of caches that take the place of what is there.
        clashes: Why it cannot be done; empty if it can.
    """

    rows: Rows
    known: int = 0
    caches: tuple[tuple[Kept, Row], ...] = ()
    clashes: tuple[Clash, ...] = ()


def plan_merge(rows: Rows, there: Rows) -> Plan:
    """Tell what of a saved state is new in a world, what is there, and what cannot be beside it.

    Args:
        rows: Of the saved state, checked.
        there: Of the world, as they lie in SQL.

    Raises:
        BadSnapshot: A row refers to one that is neither in the saved state nor in the world.
    """
    check_references(
        rows, {name: {r["id"] for r in its if "id" in r} for name, its in there.items()}
    )
    new: Rows = {}
    known = 0
    caches: list[tuple[Kept, Row]] = []
    clashes: list[Clash] = []
    for kept in KEPT:
        present = {key_of(kept, row): row for row in there[kept.name]}
        new[kept.name] = []
        for row in rows[kept.name]:
            held = present.get(key_of(kept, row))
            if held is None:
                new[kept.name].append(row)
            elif kept.folds:
                caches += [(kept, latest(kept, held, row))]
            elif kept.made or same(row, held):
                known += 1
            else:
                clashes.append(Clash(kept.name, joined(key_of(kept, row)), differing(row, held)))
        clashes += taken(kept, new[kept.name], there[kept.name])
    return Plan(new, known, tuple(caches), tuple(clashes))


def same(row: Row, held: Row) -> bool:
    """Tell whether a row of a saved state says what is in the world, whatever its place there."""
    return all(value == held[name] for name, value in row.items() if name != PLACE)


def differing(row: Row, held: Row) -> str:
    """Name the columns of a row that are another way in the world."""
    names = [n for n, v in row.items() if n != PLACE and v != held[n]]
    return f"it is there already, with another {', '.join(names)}"


def taken(kept: Kept, new: Iterable[Row], there: Iterable[Row]) -> list[Clash]:
    """Find new rows that share with a row of the world what no two rows may share."""
    found = []
    for names in kept.uniques:
        held = {tuple(row[name] for name in names) for row in there}
        for row in new:
            value = tuple(row[name] for name in names)
            if None not in value and value in held:
                reason = f"another one has the same {', '.join(names)}: {joined(value)}"
                found.append(Clash(kept.name, joined(key_of(kept, row)), reason))
    return found


def joined(key: Key) -> str:
    """Write a key as one text."""
    return "/".join(str(part) for part in key)


def latest(kept: Kept, held: Row, row: Row) -> Row:
    """Take each part of a cache from the side that has folded more of the log."""
    found = dict(held)
    for counter, *others in kept.folds:
        if row[counter] > held[counter]:
            found |= {name: row[name] for name in (counter, *others)}
    return found


def conflict(clashes: tuple[Clash, ...]) -> Conflict:
    """Make the error of a merge that cannot be done."""
    first = clashes[0]
    return Conflict(
        f"{len(clashes)} of what is saved is in this world with other content, the first is "
        f"{first.table} '{first.id}' ({first.reason}); nothing was changed. Load it into a new "
        "world with `into`, or with mode=replace",
        conflicts=[vars(clash) for clash in clashes[:CONFLICTS_TOLD]],
        count=len(clashes),
    )


def replace_rows(connection: Connection, world_id: str, rows: Rows, now: float) -> None:
    """Swap everything that is in a world."""
    free_handles(connection, world_id, rows)
    erase_world(connection, world_id, now)
    snapshot_rows.write_rows(connection, world_id, rows)


def free_handles(connection: Connection, world_id: str, rows: Rows) -> None:
    """Take from session handles the personas, and the conversations begun, that are about to go.

    A handle would else stand for whoever gets the id of its persona later. A conversation that is
    only reserved stays so.
    """
    people, talks = ({row["id"] for row in rows[name]} for name in ("personas", "conversations"))
    its = and_(C.world_id == S.world_id, C.id == S.conversation_id)
    query = select(S.id, S.persona_id, C.id.label("begun")).outerjoin(C, its)
    changes = []
    for handle in connection.execute(query.where(S.world_id == world_id)):
        stays = handle.persona_id is None or handle.persona_id in people
        if stays and (handle.begun is None or handle.begun in talks):
            continue
        persona = handle.persona_id if stays else None
        changes.append({"handle": handle.id, "persona": persona})
    if changes:
        connection.execute(BIND, changes)


def merge_rows(connection: Connection, world_id: str, plan: Plan) -> None:
    """Write what is new in a world, and bring its caches up to the log.

    Raises:
        Conflict: It cannot be beside what is there.
    """
    if plan.clashes:
        raise conflict(plan.clashes)
    snapshot_rows.write_rows(connection, world_id, plan.rows)
    for kept, row in plan.caches:
        columns = kept.table.c
        its = [columns[name] == row[name] for name in kept.key]
        values = {name: value for name, value in row.items() if name not in kept.key}
        connection.execute(
            kept.table.update().where(columns.world_id == world_id, *its).values(values)
        )


def embed_missing(
    connection: Connection, world_id: str, rows: Rows, model_id: str, now: float
) -> int:
    """Ask for the vectors that the memories of a saved state do not have by this embedder.

    What was archived before anything embedded it stays so.

    Returns:
        How many memories are to be embedded.
    """
    embedded: set[tuple[str, int]] = set()
    ever: set[str] = set()
    for row in rows["memory_vectors"]:
        ever.add(row["memory_id"])
        if row["model_id"] == model_id:
            embedded.add((row["memory_id"], row["version"]))
    wanted: Mapping[str, Any] = {
        row["id"]: row["version"]
        for row in rows["memories"]
        if (row["id"], row["version"]) not in embedded
        and (row["archived_at"] is None or row["id"] in ever)
    }
    add_work(connection, world_id, "upsert", dict(wanted), now)
    return len(wanted)
