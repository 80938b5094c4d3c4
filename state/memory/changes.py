"""Changes of stored memories: rewritten, archived, restored, purged, and documents put in whole."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, String, bindparam, delete, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict
from persona_mcp.state.index.work import add_work, hide
from persona_mcp.state.memory.disclosure import keep_marks
from persona_mcp.state.memory.memory import HEARSAY, NewMemory, WholeMemory
from persona_mcp.state.memory.store import add_memories, whole_of
from persona_mcp.state.prepared import Prepared, listed

M = tables.Memory
O = tables.OutboxEntry  # noqa: E741 - the table's letter, as in the other stores
WORLD = bindparam("world", type_=String)
IDS = listed("ids")
CHUNK_WORDS = "chunk_words"
"""In the details of a part of a document: how many words its parts have at most."""

STORED = Prepared(
    select(M.id, M.version, M.archived_at, M.details).where(M.world_id == WORLD, M.id.in_(IDS))
)
ADD_REVISION = Prepared(insert(tables.MemoryRevision))
PURGE = Prepared(delete(M).where(M.world_id == WORLD, M.id.in_(IDS)))
NOT_TO_EMBED = Prepared(
    delete(O).where(O.world_id == WORLD, O.memory_id.in_(IDS), O.operation == "upsert")
)


@dataclass(frozen=True)
class Change:
    """What a memory is to be; what is None stays as it is.

    Attributes:
        metadata: What is kept beside it as it is (`details` in SQL).
        archived: Archived ones are found no more, until they are restored.
    """

    content: str | None = None
    memory_type: str | None = None
    importance: float | None = None
    visibility: str | None = None
    related_personas: tuple[str, ...] | None = None
    metadata: dict[str, Any] | None = None
    pinned: bool | None = None
    archived: bool | None = None


@dataclass(frozen=True)
class Deletion:
    """What deleting memories did, or would do: ids, in the order in which they were given.

    Attributes:
        deleted: Archived or purged.
        archived: To be archived, and archived already.
        not_found: Unknown.
    """

    deleted: tuple[str, ...]
    archived: tuple[str, ...]
    not_found: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """What putting a document in did, or would do: ids, in the order of its parts.

    Attributes:
        stored: New.
        known: There already, since the same document was put in before.
        archived: Those of the known ones that are archived.
    """

    stored: tuple[str, ...]
    known: tuple[str, ...]
    archived: tuple[str, ...]


class MemoryChanges:
    """Changes memories."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def update(
        self, world_id: str, memory_id: str, change: Change, expected: int | None, now: float
    ) -> tuple[int, tuple[str, ...]]:
        """Change a memory; what is replaced is kept as a revision.

        Args:
            world_id: Where.
            memory_id: Which.
            change: What it is to be.
            expected: The version that it must have; None for any.
            now: Seconds since the epoch, UTC.

        Returns:
            Its version, and the fields that changed; without any, the version stays.

        Raises:
            NotFound: It is not there.
            Conflict: It has another version, or is hearsay that was to become something else.
        """

        def write(connection: Connection) -> tuple[int, tuple[str, ...]]:
            found = whole_of(connection, world_id, memory_id)
            version = found.memory.version
            if expected not in (None, version):
                raise Conflict(
                    f"expected_version: memory '{memory_id}' has version {version}, not "
                    f"{expected}: it was changed meanwhile; read it with memory_get and try again",
                    field="expected_version",
                    expected_version=expected,
                    version=version,
                )
            if change.memory_type not in (None, HEARSAY) and found.memory.memory_type == HEARSAY:
                raise Conflict(
                    f"memory_type: memory '{memory_id}' is hearsay and stays hearsay; leave "
                    "memory_type out, or store another memory",
                    field="memory_type",
                )
            changed = rewrite(connection, world_id, found, change, now)
            return version + bool(changed), changed

        return await self._database.write(write)

    async def delete(
        self, world_id: str, ids: Sequence[str], purge: bool, dry_run: bool, now: float
    ) -> Deletion:
        """Archive memories, or delete them for good, all in one transaction.

        Args:
            world_id: Where.
            ids: Which; unknown ones are passed over.
            purge: Delete them with all that belongs to them, in place of archiving them.
            dry_run: Only tell what would be done.
            now: Seconds since the epoch, UTC.
        """

        def plan(connection: Connection) -> Deletion:
            there = {row.id: row for row in stored(connection, world_id, ids)}
            known = [id for id in dict.fromkeys(ids) if id in there]
            gone = () if purge else (id for id in known if there[id].archived_at is not None)
            archived = tuple(gone)
            return Deletion(
                tuple(id for id in known if id not in archived),
                archived,
                tuple(id for id in dict.fromkeys(ids) if id not in there),
            )

        def write(connection: Connection) -> Deletion:
            planned = plan(connection)
            if purge:
                purge_memories(connection, world_id, planned.deleted, now)
            else:
                for id in planned.deleted:
                    found = whole_of(connection, world_id, id)
                    rewrite(connection, world_id, found, Change(archived=True), now)
            return planned

        return await (self._database.read(plan) if dry_run else self._database.write(write))

    async def put_in(
        self, world_id: str, parts: Sequence[NewMemory], dry_run: bool, now: float
    ) -> Imported:
        """Store the parts of a document that are not there yet, all in one transaction.

        Args:
            world_id: Where.
            parts: Their ids are derived from the document, so that the same one finds its own.
            dry_run: Only tell what would be stored.
            now: Seconds since the epoch, UTC.

        Raises:
            Conflict: The document is there already, split into parts of another length.
        """

        def plan(connection: Connection) -> Imported:
            there = {
                row.id: row for row in stored(connection, world_id, [part.id for part in parts])
            }
            for part in parts:
                if part.id in there:
                    check_split(there[part.id].details, part.details)
            known = tuple(part.id for part in parts if part.id in there)
            return Imported(
                tuple(part.id for part in parts if part.id not in there),
                known,
                tuple(id for id in known if there[id].archived_at is not None),
            )

        def write(connection: Connection) -> Imported:
            planned = plan(connection)
            new = set(planned.stored)
            add_memories(connection, world_id, [part for part in parts if part.id in new], now)
            return planned

        return await (self._database.read(plan) if dry_run else self._database.write(write))


def stored(connection: Connection, world_id: str, ids: Sequence[str]) -> list[Any]:
    """Read what tells how memories stand: id, version, archived_at, details."""
    return list(STORED.all(connection, world=world_id, ids=ids))


def check_split(known: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Make sure that a part which is there is of the same length as the new one.

    Raises:
        Conflict: It is not.
    """
    words = known.get(CHUNK_WORDS, new[CHUNK_WORDS])
    if words != new[CHUNK_WORDS]:
        raise Conflict(
            f"{CHUNK_WORDS}: this document is there already, in parts of {words} words; give "
            f"{CHUNK_WORDS} {words}, or purge those parts with memory_delete first",
            field=CHUNK_WORDS,
            chunk_words=words,
        )


def rewrite(
    connection: Connection, world_id: str, found: WholeMemory, change: Change, now: float
) -> tuple[str, ...]:
    """Change a memory inside a transaction, keep what it was, and have its vector follow.

    A vector has the version of its memory, so any change has it made anew.

    Returns:
        The fields that changed.
    """
    before = replaced(found, change)
    if not before:
        return ()
    memory, version = found.memory, found.memory.version + 1
    connection.execute(
        update(M)
        .where(M.world_id == world_id, M.id == memory.id)
        .values(**new_values(found, change, before, now), version=version, updated_at=now)
    )
    kept = before | ({"importance_terms": found.importance_terms} if "importance" in before else {})
    ADD_REVISION.run(
        connection,
        {
            "world_id": world_id,
            "memory_id": memory.id,
            "version": memory.version,
            "before": kept,
            "replaced_at": now,
        },
    )
    was_archived = memory.archived_at is not None
    if not (was_archived if change.archived is None else change.archived):
        add_work(connection, world_id, "upsert", {memory.id: version}, now)
    elif not was_archived:
        hide(connection, world_id, {memory.id: version}, now)
    return tuple(before)


def replaced(found: WholeMemory, change: Change) -> dict[str, Any]:
    """Return the fields that a change makes different, as they are before it."""
    memory = found.memory
    now: dict[str, Any] = {
        "metadata": found.details,
        "archived": memory.archived_at is not None,
    }
    before = {}
    for name in (field.name for field in fields(change)):
        wanted = getattr(change, name)
        present = now[name] if name in now else getattr(memory, name)
        # As JSON: Python takes true for 1, also deep inside.
        if wanted is not None and json.dumps(wanted) != json.dumps(present):
            before[name] = list(present) if isinstance(present, tuple) else present
    return before


def new_values(
    found: WholeMemory, change: Change, changed: Collection[str], now: float
) -> dict[str, Any]:
    """Return what the columns of a memory are to hold after a change."""
    memory = found.memory
    values: dict[str, Any] = {name: getattr(change, name) for name in changed}
    if "content" in values:
        in_front = memory.indexed_text.removesuffix(memory.content)
        values["indexed_text"] = in_front + values["content"]
    if "importance" in values:
        values["importance_terms"] = {}
    if "metadata" in values:
        values["details"] = values.pop("metadata")
    if "archived" in values:
        values["archived_at"] = now if values.pop("archived") else None
    return values


def purge_memories(connection: Connection, world_id: str, ids: Sequence[str], now: float) -> None:
    """Delete memories for good inside a transaction, and have every index forget them.

    Their witnesses, uses, revisions and vectors go with their rows.
    """
    versions = {row.id: row.version for row in stored(connection, world_id, ids)}
    its = {"world": world_id, "ids": list(versions)}
    keep_marks(connection, world_id, list(versions))
    NOT_TO_EMBED.run(connection, its)
    PURGE.run(connection, its)
    hide(connection, world_id, versions, now)
