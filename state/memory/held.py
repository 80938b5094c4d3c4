"""What a reader may know, held in memory: what a search costs grows slowly with what was said.

A reader's memories are read once. Each search then asks SQL what was added since, and whether any
was changed, which triggers write down (`stamps`). No texts are held, only what a score needs of
them; whatever a search returns is read from SQL.
"""

import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, String, bindparam, func, or_, select

from persona_mcp.state import tables
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.embedding import Vector
from persona_mcp.state.index.exact import Shard, its_memory, unpack_rows
from persona_mcp.state.memory.asked import Asked
from persona_mcp.state.memory.memories import (
    EVERYTHING,
    REACHABLE,
    Found,
    candidates_query,
    reading,
)
from persona_mcp.state.memory.memory import OPEN
from persona_mcp.state.memory.pool import spoken_of
from persona_mcp.state.memory.postings import Postings
from persona_mcp.state.memory.retrieval import NOWHERE, Numbers, Pool, Turns
from persona_mcp.state.memory.stamps import EVERYBODY
from persona_mcp.state.prepared import Prepared

M = tables.Memory
V = tables.MemoryVector
S = tables.MemoryStamp
W = tables.World
WORLD, READER = bindparam("world", type_=String), bindparam("reader", type_=String)
IDLE_S = 60.0
"""What was searched so recently is not let go for what another reader may know, in seconds."""
FAR = 10_000
"""Behind so many rows of a table, whoever's they are, all is read anew, not looked through."""
LEAST = 16
"""What a view takes beside its memories, in memories."""
MARKS = Prepared(
    select(
        select(func.max(M.seq)).scalar_subquery().label("memories"),
        select(func.max(V.seq)).scalar_subquery().label("vectors"),
        *(
            select(S.stamp).where(S.world_id == WORLD, S.owner == owner).scalar_subquery()
            for owner in (READER, EVERYBODY)
        ),
        select(W.created_at).where(W.id == WORLD).scalar_subquery(),
    )
)
# With a limit it is read by its key; without one SQLite reads through the world.
LATER = select(M.seq).where(M.seq > bindparam("after", type_=INTEGER)).limit(FAR)
NEWER = Prepared(candidates_query(LATER.subquery()))
NEW_VECTORS = Prepared(
    select(V.memory_id, V.vector)
    .join(M, its_memory())
    .where(
        # By the key of the table: the conditions on it that an index knows are kept from it.
        V.seq > bindparam("after", type_=INTEGER),
        V.world_id + "" == WORLD,
        V.model_id + "" == bindparam("model", type_=String),
        or_(V.persona_id + "" == READER, *(M.visibility == one for one in OPEN)),
    )
)
Key = tuple[str, str, str]
"""World, reader and embedder."""


class Marks(NamedTuple):
    """How far SQL was when it was read.

    Attributes:
        memories: Newest `seq` of all memories.
        vectors: Newest `seq` of all vectors.
        unchanged: Stamps of the reader's memories and of those that are open to all, and when the
            world was made: the same while none of it was changed or deleted.
    """

    memories: int
    vectors: int
    unchanged: tuple[float | None, ...]

    def reaches(self, other: "Marks") -> bool:
        """Tell whether what was read up to here has all that was there at the other."""
        return self.memories >= other.memories and self.vectors >= other.vectors

    def beyond(self, other: "Marks") -> "Marks":
        """Return how far both have been read: what was newest may be deleted meanwhile."""
        furthest = max(self.memories, other.memories), max(self.vectors, other.vectors)
        return Marks(*furthest, self.unchanged)


class View:
    """What one reader may know: a row for each memory, in no order.

    Rows are only ever added. Whoever adds to it or searches it holds the lock of `HeldMemories`.
    """

    def __init__(self, reader: str, marks: Marks) -> None:
        """Hold nothing yet."""
        self.marks = marks
        self.used_at = 0.0
        self._reader = reader
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._turns = Turns()
        self._speakers: dict[str, str] = {}
        self._of_turns: dict[str, list[int]] = {}
        """Rows by the turn that they remember."""
        self._archived = array("b")
        self._has_archived = False
        self._words = Postings()
        self._vectors = Shard()
        self._rows_of_vectors, self._vectors_of_rows = array("q"), array("q")

    def __len__(self) -> int:
        """Count the memories."""
        return len(self._ids)

    def has_vector(self, memory_id: str) -> bool:
        """Tell whether the vector of a memory is held."""
        return memory_id in self._vectors

    def add(self, found: Sequence[Found], vectors: Mapping[str, bytes], marks: Marks) -> None:
        """Add what was read up to these marks; vectors of memories that it lacks are left out.

        Raises:
            StorageUnavailable: Vectors are of another length than those before; it is as it was.
        """
        new = {row.id for row in found}
        known = [id for id in vectors if id in self._rows or id in new]
        if known:
            self._vectors.extend(known, unpack_rows([vectors[id] for id in known]))
        for row in found:
            self._add(row)
        for at in [self._rows[id] for id in known]:
            self._vectors_of_rows[at] = len(self._rows_of_vectors)
            self._rows_of_vectors.append(at)
        self.marks = marks

    def _add(self, row: Found) -> None:
        self._rows[row.id] = len(self._ids)
        self._turns.add(spoken_of(row, self._speakers))
        if row.turn_id is not None:
            self._of_turns.setdefault(row.turn_id, []).append(len(self._ids))
        self._ids.append(row.id)
        is_archived = row.archived_at is not None
        self._archived.append(is_archived)
        self._has_archived |= is_archived
        self._vectors_of_rows.append(NOWHERE)
        self._words.add(row.indexed_text, row.persona_id == self._reader)

    def pool(self, asked: Asked, vector: Vector) -> Pool:
        """Take the best by meaning, the best by words, and what stands around them.

        Args:
            asked: What for.
            vector: Its meaning.

        Raises:
            StorageUnavailable: Vectors are of another length than this one.
        """
        cosines = self._vectors.cosines(vector)
        lexical = self._words.scores(asked.text, asked.params)
        near, alike = self._best(cosines, lexical, asked.candidates)
        rows = self._turns.beside([*near, *alike])
        vectors = np.frombuffer(self._vectors_of_rows, dtype=np.int64)[rows]
        dense, has_vector = np.full(len(rows), np.nan), vectors != NOWHERE
        dense[has_vector] = cosines[vectors[has_vector]]
        return Pool(
            ids=self._ids,
            rows=rows,
            dense=dense,
            lexical=lexical[rows],
            turns=self._turns.taken(rows),
            wanted=self._wanted(asked.shown)[rows],
        )

    def _wanted(self, shown: Collection[str]) -> NDArray[np.bool_]:
        """Tell of each row whether it may be returned."""
        wanted = ~np.frombuffer(self._archived, dtype=np.bool_)
        wanted[[row for turn in shown for row in self._of_turns.get(turn, ())]] = False
        return wanted

    def _best(self, cosines: Vector, lexical: Numbers, most: int) -> tuple[list[int], list[int]]:
        """Return the rows that are best by meaning and best by words, none that is archived."""
        rows = np.frombuffer(self._rows_of_vectors, dtype=np.int64)
        if self._has_archived:
            is_archived = np.frombuffer(self._archived, dtype=np.bool_)
            cosines = np.where(is_archived[rows], -np.inf, cosines)
            lexical = np.where(is_archived, 0.0, lexical)
        near = best_rows(cosines, -np.inf, self._vectors.ids, most)
        return rows[near].tolist(), best_rows(lexical, 0.0, self._ids, most)


def best_rows(scores: Numbers | Vector, least: float, ids: Sequence[str], most: int) -> list[int]:
    """Return the best of the rows that score more than the least, ties by id, in any order."""
    border = least
    if len(scores) > most:
        border = np.partition(scores, len(scores) - most)[len(scores) - most]
    is_best = scores >= border if border > least else scores > least
    best: list[int] = np.flatnonzero(is_best).tolist()
    if len(best) > most:
        best = sorted(best, key=lambda row: (-scores[row], ids[row]))[:most]
    return best


class HeldMemories:
    """Views of readers; those unused for longest go where there is no room."""

    def __init__(self, each: int, most: int, now: Callable[[], float] = time.monotonic) -> None:
        """Hold none yet.

        Args:
            each: So many memories a reader may know at most to have them held.
            most: So many memories are held in all.
            now: A clock, in seconds.
        """
        self._each = each
        self._most = most
        self._now = now
        self._views: OrderedDict[Key, View] = OrderedDict()
        """The one that was used last stands last."""
        self._size = 0
        self._lock = threading.Lock()

    def pool(self, connection: Connection, asked: Asked, vector: Vector) -> Pool | None:
        """Take candidates of what the reader may know, as `View.pool` does.

        Args:
            connection: An open transaction.
            asked: What for.
            vector: Its meaning.

        Returns:
            None where the reader may know too much, or there is no room for it.

        Raises:
            StorageUnavailable: Vectors are not of one length.
        """
        key = asked.world_id, asked.reader, asked.model_id
        newest, vectors, *unchanged = MARKS.first(connection, world=key[0], reader=key[1])
        marks = Marks(newest or 0, vectors or 0, tuple(unchanged))
        view = self._followed(connection, key, marks)
        if view is None:
            view = self._read(connection, key, marks)
        if view is None:
            return None
        with self._lock:
            view.used_at = self._now()
            if key in self._views:
                self._views.move_to_end(key)
            return view.pool(asked, vector)

    def _followed(self, connection: Connection, key: Key, marks: Marks) -> View | None:
        """Return what is held of a reader, up to date; None where it must be read anew."""
        view = self._views.get(key)
        while view is not None and view.marks.unchanged == marks.unchanged:
            seen = view.marks
            if seen.reaches(marks):
                return view
            if max(marks.memories - seen.memories, marks.vectors - seen.vectors) > FAR:
                return None
            found, vectors = newer(connection, key, seen)
            with self._lock:
                if view.marks is not seen:
                    continue  # another search was faster
                is_full = self._size + len(found) > self._most
                if is_full or len(view) + len(found) > self._each:
                    return None  # it is too much now
                if any(map(view.has_vector, vectors)):
                    return None  # one was embedded anew
                view.add(found, vectors, marks.beyond(seen))
                if self._views.get(key) is view:
                    self._size += len(found)
        return None

    def _read(self, connection: Connection, key: Key, marks: Marks) -> View | None:
        """Read all that a reader may know; None where it is too much, or there is no room."""
        world_id, reader, model_id = key
        its = {"world": world_id, "reader": reader}
        count = REACHABLE.scalar(connection, **its, most=self._each + 1)
        with self._lock:
            self._drop(key)
            if count > self._each or not self._has_room(count):
                return None
        found = EVERYTHING.all(connection, model=model_id, **reading(world_id, reader))
        view = View(reader, marks)
        vectors = {row.id: row.vector for row in found if row.vector is not None}
        view.add([Found._make(row) for row in found], vectors, marks)
        with self._lock:
            self._drop(key)  # another search may have read it, too
            if self._has_room(len(view)):  # others may have been read meanwhile
                self._views[key] = view
                self._size += LEAST + len(view)
        return view

    def _has_room(self, count: int) -> bool:
        """Let go of what is unused for longest until so many more memories have room."""
        if LEAST + count > self._most:
            return False
        while self._size + LEAST + count > self._most:
            key, view = next(iter(self._views.items()))
            if self._now() - view.used_at < IDLE_S:
                return False
            self._drop(key)
        return True

    def _drop(self, key: Key) -> None:
        view = self._views.pop(key, None)
        if view is not None:
            self._size -= LEAST + len(view)


def newer(connection: Connection, key: Key, seen: Marks) -> tuple[list[Found], dict[str, bytes]]:
    """Read what a reader may know that was added since, and vectors that were."""
    world_id, reader, model_id = key
    its = {**reading(world_id, reader), "model": model_id}
    found = NEWER.all(connection, after=seen.memories, **its)
    vectors = NEW_VECTORS.all(
        connection, after=seen.vectors, world=world_id, reader=reader, model=model_id
    )
    return [Found._make(row) for row in found], dict(map(tuple, vectors))
