"""Saved states in SQL: a world as it was, by name and version, and back into a world."""

import asyncio
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, tuple_

from persona_mcp.state import tables
from persona_mcp.state.cursors import bad_cursor
from persona_mcp.state.database import Database
from persona_mcp.state.errors import BadSnapshot, NotFound
from persona_mcp.state.personas import world_exists
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.snapshots.check import check_references, checked
from persona_mcp.state.snapshots.file import Opened, digest, open_payload, payload_of
from persona_mcp.state.snapshots.load import (
    Clash,
    Plan,
    embed_missing,
    merge_rows,
    plan_merge,
    replace_rows,
)
from persona_mcp.state.snapshots.rows import Rows, Selection, counted, read_rows, shown
from persona_mcp.state.snapshots.tables import FORMAT

T = tables.Snapshot
ABOUT = tuple(column for column in T.__table__.c if column.name not in ("payload", "world_id"))
LEVEL = 6
AUTOMATIC = "before-load"
"""Name of what is saved before a load replaces a world."""
AUTOMATIC_KEPT = 10
"""Of a world; older ones go as new ones are made."""
Mode = Literal["replace", "merge"]


@dataclass(frozen=True)
class About:
    """What is said of a state when it is saved.

    Attributes:
        id: Its key in the world.
        name: What it is called.
        created_at: Seconds since the epoch, UTC.
        note: What else is said about it.
        automatic: A load makes it, before it replaces the world.
    """

    id: str
    name: str
    created_at: float
    note: str = ""
    automatic: bool = False


@dataclass(frozen=True, kw_only=True)
class Saved(About):
    """A saved state, without what is in it.

    Attributes:
        version: 1, 2, ... of its name.
        format: Of the payload.
        sha256: Of the payload.
        size: Bytes of the payload, before it is compressed.
        counts: Rows by table.
    """

    version: int
    format: str
    sha256: str
    size: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Which:
    """Which saved state is meant: by its id, or by name and version, the newest one without it."""

    id: str | None = None
    name: str = "default"
    version: int | None = None


@dataclass(frozen=True)
class Wish:
    """How a saved state is to be loaded.

    Attributes:
        world_id: Where; it is made if it is not there.
        mode: In place of what is there, or beside it.
        model_id: Of the embedder whose vectors are needed.
        vector_bytes: Of one of its vectors; None if that is not known.
        previous_id: What is replaced is saved under this id.
        now: Seconds since the epoch, UTC.
    """

    world_id: str
    mode: Mode
    model_id: str
    vector_bytes: int | None
    previous_id: str
    now: float


@dataclass(frozen=True)
class Loaded:
    """What loading did, or would do.

    Attributes:
        written: Rows by table.
        known: Rows that were there already, with the same content.
        to_embed: Memories that this embedder is still to embed.
        clashes: Why it cannot be done; in a dry run only.
        replaced: Rows by table that were there, of what is replaced.
        previous: What was saved before it was replaced; None if nothing was.
        made: The world was made for it.
    """

    written: dict[str, int]
    known: int = 0
    to_embed: int = 0
    clashes: tuple[Clash, ...] = ()
    replaced: dict[str, int] = field(default_factory=dict)
    previous: Saved | None = None
    made: bool = False


class SnapshotStore:
    """Saves worlds and loads them."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def save(self, world_id: str, about: About, selection: Selection) -> Saved:
        """Save a world as it stands now; what has this id already is left alone.

        Raises:
            NotFound: The world is not there.
        """
        rows = await self._database.read(read_rows, world_id)
        made, packed = await asyncio.to_thread(build, rows, selection, about)
        return await self._database.write(keep, world_id, made, packed)

    async def find(self, world_id: str, which: Which) -> Saved:
        """Return a saved state.

        Raises:
            NotFound: It is not there.
        """
        query = select(*ABOUT).where(T.world_id == world_id, *matching(which))
        row = await self._database.read(Prepared(query.order_by(T.version.desc()).limit(1)).first)
        if row is None:
            raise missing(which)
        return to_saved(row)

    async def payload(self, world_id: str, snapshot_id: str) -> bytes:
        """Return what a saved state holds.

        Raises:
            NotFound: It is not there.
            BadSnapshot: It is damaged.
        """
        query = select(T.payload).where(T.world_id == world_id, T.id == snapshot_id)
        packed = await self._database.read(Prepared(query).scalar)
        if packed is None:
            raise missing(Which(snapshot_id))
        return await asyncio.to_thread(unpacked, packed)

    async def listed(
        self, world_id: str, name: str | None, after: str | None, limit: int
    ) -> tuple[list[Saved], int]:
        """Return saved states, the newest first, and how many there are of this name on all pages.

        Raises:
            InvalidParams: That one of which `after` is the id is not there.
        """
        its = [T.world_id == world_id, *([T.name == name] if name is not None else [])]
        place = tuple_(T.created_at, T.id)

        def read(connection: Connection) -> tuple[list[Saved], int]:
            query = select(*ABOUT).where(*its).order_by(T.created_at.desc(), T.id.desc())
            if after is not None:
                last = select(T.created_at, T.id).where(T.world_id == world_id, T.id == after)
                row = connection.execute(last).first()
                if row is None:
                    raise bad_cursor(after, "saved state is gone")
                query = query.where(place < tuple_(*row))
            found = connection.execute(query.limit(limit))
            total = connection.scalar(select(func.count()).select_from(T).where(*its)) or 0
            return [to_saved(row) for row in found], total

        return await self._database.read(read)

    async def open(self, world_id: str, snapshot_id: str, sha256: str) -> Rows:
        """Return the rows of a saved state, checked.

        Raises:
            NotFound: It is not there.
            BadSnapshot: It is damaged.
        """
        payload = await self.payload(world_id, snapshot_id)
        return await asyncio.to_thread(lambda: checked(open_payload(payload, sha256).tables))

    async def plan(self, rows: Rows, wish: Wish) -> Loaded:
        """Tell what loading would do.

        Raises:
            BadSnapshot: What is saved does not hold together, or not with this world.
        """
        check_lengths(rows, wish)

        def read(connection: Connection) -> Loaded:
            there = read_rows(connection, wish.world_id)
            made = not world_exists(connection, wish.world_id)
            if wish.mode == "replace":
                check_references(rows, {})
                return Loaded(counted(rows), replaced=counted(there), made=made)
            plan = plan_merge(rows, there)
            return Loaded(counted(plan.rows), plan.known, clashes=plan.clashes, made=made)

        return await self._database.read(read)

    async def load(self, rows: Rows, wish: Wish) -> Loaded:
        """Load a saved state, in one transaction; what it replaces is saved first.

        Raises:
            BadSnapshot: What is saved does not hold together, or not with this world.
            Conflict: A merge finds other content under the same ids; all of it is told.
        """
        check_lengths(rows, wish)

        def write(connection: Connection) -> Loaded:
            made = make_world(connection, wish)
            done = (
                replaced(connection, rows, wish)
                if wish.mode == "replace"
                else merged(connection, rows, wish)
            )
            return replace(done, made=made)

        return await self._database.write(write)


def build(rows: Rows, selection: Selection, about: About) -> tuple[Saved, bytes]:
    """Make a saved state of rows: what is told of it, and its payload, compressed."""
    chosen = shown(rows, selection)
    payload = payload_of(chosen, selection)
    made = Saved(
        **vars(about),
        version=0,
        format=FORMAT,
        sha256=digest(payload),
        size=len(payload),
        counts=counted(chosen),
    )
    return made, zlib.compress(payload, LEVEL)


def keep(connection: Connection, world_id: str, made: Saved, packed: bytes) -> Saved:
    """Store a saved state as the next version of its name, inside a transaction.

    Returns:
        It, or the one that has its id already.

    Raises:
        NotFound: The world is gone.
    """
    if not world_exists(connection, world_id):
        raise NotFound.of("world", world_id)
    query = select(*ABOUT).where(T.world_id == world_id, T.id == made.id)
    if (there := connection.execute(query).first()) is not None:
        return to_saved(there)
    its = T.world_id == world_id, T.name == made.name
    last = connection.scalar(select(func.max(T.version)).where(*its)) or 0
    kept = replace(made, version=last + 1)
    connection.execute(insert(T).values(world_id=world_id, payload=packed, **vars(kept)))
    if made.automatic:
        gone = T.version <= kept.version - AUTOMATIC_KEPT
        connection.execute(delete(T).where(*its, T.automatic, gone))
    return kept


def make_world(connection: Connection, wish: Wish) -> bool:
    """Make the world that is loaded into, if it is not there; return whether it was made."""
    if world_exists(connection, wish.world_id):
        return False
    connection.execute(
        insert(tables.World).values(
            id=wish.world_id, name=wish.world_id, created_at=wish.now, bundled_at=None
        )
    )
    return True


def replaced(connection: Connection, rows: Rows, wish: Wish) -> Loaded:
    """Save what is in a world and swap it, inside a transaction."""
    check_references(rows, {})
    there = read_rows(connection, wish.world_id)
    before, previous = counted(there), None
    if any(before.values()):
        about = About(wish.previous_id, AUTOMATIC, wish.now, automatic=True)
        made, packed = build(there, Selection(), about)
        previous = keep(connection, wish.world_id, made, packed)
    replace_rows(connection, wish.world_id, rows, wish.now)
    to_embed = embed_missing(connection, wish.world_id, rows, wish.model_id, wish.now)
    return Loaded(counted(rows), to_embed=to_embed, replaced=before, previous=previous)


def merged(connection: Connection, rows: Rows, wish: Wish) -> Loaded:
    """Put what is new beside what is in a world, inside a transaction."""
    plan: Plan = plan_merge(rows, read_rows(connection, wish.world_id))
    merge_rows(connection, wish.world_id, plan)
    to_embed = embed_missing(connection, wish.world_id, plan.rows, wish.model_id, wish.now)
    return Loaded(counted(plan.rows), plan.known, to_embed)


def check_lengths(rows: Rows, wish: Wish) -> None:
    """Make sure that vectors which are to be searched are as long as the embedder's.

    Raises:
        BadSnapshot: They are not.
    """
    for row in rows["memory_vectors"]:
        found = len(row["vector"])
        if row["model_id"] == wish.model_id and wish.vector_bytes not in (None, found):
            raise BadSnapshot(
                f"memory_vectors {row['memory_id']}: vector: a vector of {wish.model_id} has "
                f"{wish.vector_bytes} bytes, this one has {found}; nothing was changed",
                table="memory_vectors",
                field="vector",
            )


def matching(which: Which) -> list[ColumnElement[bool]]:
    """Say which rows are meant."""
    if which.id is not None:
        return [T.id == which.id]
    version = [] if which.version is None else [T.version == which.version]
    return [T.name == which.name, *version]


def missing(which: Which) -> NotFound:
    """Name the saved state that is not there."""
    version = "" if which.version is None else f" version {which.version}"
    return NotFound.of("snapshot", which.id or f"{which.name}{version}")


def unpacked(packed: bytes) -> bytes:
    """Decompress a payload.

    Raises:
        BadSnapshot: It is damaged.
    """
    try:
        return zlib.decompress(packed)
    except zlib.error:
        raise BadSnapshot("the saved state is damaged in the database; load another one") from None


def to_saved(row: Row[Any]) -> Saved:
    """Read a row."""
    return Saved(**{name: getattr(row, name) for name in Saved.__dataclass_fields__})


def rows_of(opened: Opened) -> Rows:
    """Return the rows of a file that was opened, checked.

    Raises:
        BadSnapshot: They are not what they should be.
    """
    return checked(opened.tables)
