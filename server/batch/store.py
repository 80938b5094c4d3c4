"""What a batch has done so far, in a file of its own: outcomes, recorded calls, measured times.

An outcome that was acknowledged outlives a kill and a power cut, a call of an unfinished dialogue a
kill, so a batch that was cut off goes on with what is here. Everything is kept under its key (the
dialogue, and the call's number), so a write that is repeated changes nothing.
"""

import asyncio
import json
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from persona_mcp.server.batch.rows import (
    NAME,
    PAGE,
    SCHEMA,
    Counts,
    connected,
    read_counts,
    translated,
    write_calls,
    write_finished,
)
from persona_mcp.state.batch import codec
from persona_mcp.state.batch.values import Finished, Outcome, RecordedCall
from persona_mcp.state.errors import PersonaError

__all__ = ["NAME", "BatchStore", "open_batch_store"]

T = TypeVar("T")
GATHER_S = 0.01
"""From the beginning of one write to that of the next one, at least, in seconds."""
Write = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True)
class Waiting:
    """Something that is to be written.

    Attributes:
        write: Writes it.
        lasting: It must outlive a power cut too, not a kill alone.
        kept: Who waits for it.
    """

    write: Write
    lasting: bool
    kept: asyncio.Future[None]


class BatchStore:
    """The file; one process at a time writes it, which the folder's lock sees to."""

    def __init__(self, path: Path) -> None:
        """Name the file; `open_batch_store` opens it."""
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch store")
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._written_at = -GATHER_S
        self._calls: dict[int, dict[int, RecordedCall]] = {}

    async def keep(self, finished: Finished) -> None:
        """Keep what came of a dialogue, with its calls; returns once it cannot be lost any more.

        Raises:
            StorageUnavailable: It cannot be written.
        """
        # Of a dialogue whose calls were kept as they came only the outcome is left to be written.
        kept = self._calls.pop(finished.outcome.job.place.index, {})
        calls = [call for call in finished.calls if kept.get(call.number) != call]
        await self._put(lambda opened: write_finished(opened, finished, calls), lasting=True)

    async def keep_call(self, call: RecordedCall) -> None:
        """Keep a call of a dialogue that is not done yet; a kill does not lose it from then on.

        Raises:
            StorageUnavailable: It cannot be written.
        """
        await self._put(lambda connection: write_calls(connection, (call,)), lasting=False)
        self._calls.setdefault(call.index, {})[call.number] = call

    async def add_calls(self, calls: list[RecordedCall]) -> None:
        """Keep calls that were recorded elsewhere.

        Raises:
            StorageUnavailable: They cannot be written.
        """
        await self._put(lambda connection: write_calls(connection, calls), lasting=False)

    async def _put(self, write: Write, *, lasting: bool) -> None:
        """Have something written, and wait until it is."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(write, lasting, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._flush(), name="batch store")
        await kept

    async def _flush(self) -> None:
        """Write all that waits in one transaction, again and again: one commit for many."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            # Each transaction costs two changes of thread: where many come, they come together.
            await asyncio.sleep(max(0.0, self._written_at + GATHER_S - loop.time()))
            self._written_at = loop.time()
            waiting, self._waiting = self._waiting, []
            fault: PersonaError | None = None
            try:
                await self._call(partial(write_all, waiting))
            except PersonaError as error:
                fault = error
            for kept in (one.kept for one in waiting if not one.kept.done()):
                if fault is None:
                    kept.set_result(None)
                else:
                    kept.set_exception(fault)
        self._writing = None

    async def calls(self, place: int) -> tuple[RecordedCall, ...]:
        """Return the recorded calls of a dialogue in order, from its first on without a gap."""

        def read(connection: sqlite3.Connection) -> tuple[RecordedCall, ...]:
            query = "SELECT number, call FROM calls WHERE place = ? ORDER BY number"
            found = connection.execute(query, (place,)).fetchall()
            whole = [text for at, (number, text) in enumerate(found) if at == number]
            return tuple(codec.read_call(text) for text in whole)

        return await self._call(read)

    async def finished(self, first: int, last: int) -> set[int]:
        """Return which dialogues from one to another (both counted) are kept."""

        def read(connection: sqlite3.Connection) -> set[int]:
            query = "SELECT place FROM outcomes WHERE place BETWEEN ? AND ?"
            return {row[0] for row in connection.execute(query, (first, last))}

        return await self._call(read)

    async def count(self, first: int, last: int) -> int:
        """Count the dialogues from one to another (both counted) that are kept."""

        def read(connection: sqlite3.Connection) -> int:
            query = "SELECT count(*) FROM outcomes WHERE place BETWEEN ? AND ?"
            return int(connection.execute(query, (first, last)).fetchone()[0])

        return await self._call(read)

    async def outcome(self, place: int) -> Outcome | None:
        """Return what came of a dialogue; None if it is not kept."""

        def read() -> Outcome | None:
            with closing(self.outcomes(place, place)) as found:
                return next(found, None)

        return await asyncio.to_thread(read)

    def outcomes(self, first: int = 0, last: int | None = None) -> Generator[Outcome]:
        """Read outcomes in order of their places, one at a time; not on the loop.

        Args:
            first: Place of the first one.
            last: Place of the last one, counted too; None for all.
        """
        query = "SELECT measured, outcome FROM outcomes WHERE place BETWEEN ? AND ? ORDER BY place"
        for measured, packed in self._rows(query, first, last):
            with translated():
                outcome = codec.read_outcome(zlib.decompress(packed), json.loads(measured))
            yield outcome

    def recording(self) -> Generator[str]:
        """Read the calls of all dialogues as lines, in order; not on the loop."""
        query = "SELECT call FROM calls WHERE place BETWEEN ? AND ? ORDER BY place, number"
        for (text,) in self._rows(query, 0, None):
            yield text

    def timings(self) -> Iterator[tuple[int, Mapping[str, float]]]:
        """Read what was measured, by place, in order; not on the loop."""
        query = "SELECT place, measured FROM outcomes WHERE place BETWEEN ? AND ? ORDER BY place"
        for place, measured in self._rows(query, 0, None):
            with translated():
                times = json.loads(measured)
            yield place, times

    def _rows(self, query: str, first: int, last: int | None) -> Iterator[tuple[Any, ...]]:
        """Read on a connection of this thread's own, however long somebody takes to read on."""
        with translated(), closing(connected(self._path)) as connection:
            yield from connection.execute(query, (first, 2**62 if last is None else last))

    async def counts(self) -> Counts:
        """Count what is kept."""
        return await self._call(read_counts)

    async def models(self) -> list[str]:
        """Name the models that answered, sorted."""

        def read(connection: sqlite3.Connection) -> list[str]:
            query = (
                "SELECT DISTINCT json_extract(call, '$.model') AS model FROM calls "
                "WHERE model <> '' ORDER BY model"
            )
            return [row[0] for row in connection.execute(query)]

        return await self._call(read)

    async def places_failed(self, after: int = -1) -> list[int]:
        """Return where dialogues failed, the first ones after a place."""

        def read(connection: sqlite3.Connection) -> list[int]:
            query = "SELECT place FROM outcomes WHERE status = 'failed' AND place > ? ORDER BY 1"
            return [row[0] for row in connection.execute(f"{query} LIMIT ?", (after, PAGE))]

        return await self._call(read)

    async def places_after(self, place: int) -> list[int]:
        """Return the next dialogues of which anything is kept."""

        def read(connection: sqlite3.Connection) -> list[int]:
            query = (
                "SELECT place FROM outcomes WHERE place > :after UNION "
                "SELECT place FROM calls WHERE place > :after ORDER BY 1 LIMIT :most"
            )
            found = connection.execute(query, {"after": place, "most": PAGE})
            return [row[0] for row in found]

        return await self._call(read)

    async def forget(self, calls_kept: Mapping[int, int]) -> None:
        """Forget what came of dialogues, and their calls from a number on, all or nothing.

        Args:
            calls_kept: How many calls are kept, by place.
        """
        for place in calls_kept:
            self._calls.pop(place, None)

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                for place, kept in calls_kept.items():
                    connection.execute("DELETE FROM outcomes WHERE place = ?", (place,))
                    connection.execute(
                        "DELETE FROM calls WHERE place = ? AND number >= ?", (place, kept)
                    )

        await self._call(write)

    async def fact(self, name: str) -> Any:
        """Return what is noted about the whole batch under a name; None if nothing is."""

        def read(connection: sqlite3.Connection) -> Any:
            query = "SELECT value FROM facts WHERE name = ?"
            row = connection.execute(query, (name,)).fetchone()
            return json.loads(row[0]) if row else None

        return await self._call(read)

    async def note_fact(self, name: str, value: Any) -> None:
        """Note something about the whole batch."""

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value))
                )

        await self._call(write)

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            with translated():
                if self._connection is None:
                    self._connection = connected(self._path)
                return work(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def open(self) -> None:
        """Open the file, and make its tables.

        Raises:
            StorageUnavailable: It cannot be opened.
        """
        await self._call(lambda connection: connection.executescript(SCHEMA))

    async def aclose(self) -> None:
        """Write what waits, and close the file."""
        if self._writing is not None:
            await self._writing
        if self._connection is not None:
            await self._call(lambda connection: connection.close())
        self._thread.shutdown()


@asynccontextmanager
async def open_batch_store(path: Path) -> AsyncIterator[BatchStore]:
    """Open the store of a batch; its file is made.

    Raises:
        StorageUnavailable: It cannot be opened.
    """
    store = BatchStore(path)
    try:
        await store.open()
        yield store
    finally:
        await store.aclose()


def write_all(waiting: list[Waiting], connection: sqlite3.Connection) -> None:
    """Write in one transaction, which outlives a power cut if any of it must.

    What was written before such a one then does, too: they are in one log.
    """
    level = "FULL" if any(one.lasting for one in waiting) else "NORMAL"
    connection.execute(f"PRAGMA synchronous={level}")
    with connection:
        for one in waiting:
            one.write(connection)
