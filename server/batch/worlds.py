"""The worlds of a batch's runs: how one begins, what time it is in it, how it goes on."""

import asyncio
from collections.abc import Sequence
from contextlib import closing

from persona_mcp.config.database import empty_database
from persona_mcp.server.batch.dialogue_host import DialogueHost
from persona_mcp.server.batch.store import BatchStore
from persona_mcp.state import folding, small_world
from persona_mcp.state.batch.values import Cast, Job
from persona_mcp.state.memory.importance import load_words


def empty_world() -> bytes:
    """Make what every world is a copy of, and read what it is filled by. Blocks."""
    load_words()
    return empty_database()


def seen(task: "asyncio.Task[bytes]") -> None:
    """Take note of what a task failed with: who needs it is told, and there may be nobody."""
    if not task.cancelled():
        task.exception()


class Worlds:
    """Makes frozen worlds, away from the loop."""

    def __init__(self, host: DialogueHost) -> None:
        """Use what dialogues are held with, its embedder for what is known at the beginning too.

        What every world is a copy of is begun to be made, once a process: workers start meanwhile.
        """
        self.host = host
        self._empty = asyncio.create_task(asyncio.to_thread(empty_world), name="empty world")
        self._empty.add_done_callback(seen)
        # Runs begin at the same time: the first one makes what they all need.
        self._making = asyncio.Lock()
        self._begun: tuple[Cast, float, bytes] | None = None
        self._read: tuple[bytes, float] = b"", 0.0

    async def begin(self, cast: Cast, starts_at: float) -> bytes:
        """Make the world that a run begins in; the runs of an arm begin alike, in one world.

        Raises:
            InvalidParams: The cast does not fit into one world.
            ModelError: The embedder did not answer.
            StorageUnavailable: There is no room for temporary files.
        """
        async with self._making:
            await asyncio.shield(self._empty)
            if self._begun is None or self._begun[0] is not cast or self._begun[1] != starts_at:
                self._begun = cast, starts_at, await self.host.begin_world(cast, starts_at)
            return self._begun[2]

    async def time_in(self, frozen: bytes) -> float:
        """Return when the last thing in a world happened, in seconds since the epoch, UTC."""
        async with self._making:
            if self._read[0] is not frozen:
                self._read = frozen, await asyncio.to_thread(small_world.latest, frozen)
            return self._read[1]

    async def fold(self, frozen: bytes, store: BatchStore, jobs: Sequence[Job]) -> bytes:
        """Make the dialogues of a wave, which are all kept, part of the world they began in."""
        first, last = jobs[0].place.index, jobs[-1].place.index

        def work() -> bytes:
            with closing(store.outcomes(first, last)) as outcomes:
                return folding.fold(frozen, outcomes, self.host.laws.effects)

        return await asyncio.to_thread(work)
