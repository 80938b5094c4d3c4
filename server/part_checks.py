"""What is looked at to say how each part is: it is used once, or was seen at work a moment ago.

No detail has a path, an address or a secret in it.
"""

import asyncio
import shutil
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from sqlalchemy import select

from persona_mcp.server.checking import Checking, Seen
from persona_mcp.state.dialect import POSTGRES
from persona_mcp.state.errors import ModelError, PersonaError, StorageUnavailable
from persona_mcp.state.memory.words import statistics
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.worker import Worker

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

LEAST_FREE_BYTES = 256 * 1024**2
"""With less the next writes may fail."""
GIGABYTE = 1024**3
WORD, NOBODY = "health", "-"
"""What is searched for and embedded, and for whom."""
EMBEDDER_KEPT_S = 60.0
"""An embedder that embedded something within this time is not asked again, in seconds."""


class PartChecks:
    """The checks of a service's parts."""

    def __init__(self, service: "Service", worlds: Collection[str] | None = None) -> None:
        """Check these parts.

        Args:
            service: Whose.
            worlds: Whose memories are counted that wait; None for those of all.
        """
        self._service = service
        self._worlds = worlds

    def all(self) -> Mapping[str, Checking]:
        """Return every check, by the part's name."""
        service = self._service
        pool = {}
        if service.database.engine.dialect.name == POSTGRES:
            pool = {"pool": self.pool}
        return {
            "database": self.database,
            **pool,
            "checkpoints": self.checkpoints,
            "vector_index": self.vector_index,
            "full_text": self.full_text,
            "model": self.model,
            "embedder": self.embedder,
            "queue": self.queue,
            "disk": self.disk,
            "upkeep": lambda: worker(service.upkeep),
            "batches": lambda: worker(service.batches),
            "limits": service.limits.check,
        }

    async def database(self) -> str:
        """Ask the database for a number.

        Raises:
            StorageUnavailable: It does not answer.
        """
        database = self._service.database
        await database.read(Prepared(select(1)).scalar)
        return f"{database.engine.dialect.name} answers"

    async def pool(self) -> str:
        """Say how many connections transactions have now."""
        found = self._service.database.connections()
        if not found:
            return "each transaction opens a connection"
        return f"{found['used']} of {found['size']} connections are in use"

    async def checkpoints(self) -> str:
        """Look for a checkpoint that is not there.

        Raises:
            StorageUnavailable: They cannot be read.
        """
        try:
            await self._service.checkpointer.aget_tuple({"configurable": {"thread_id": NOBODY}})
        except PersonaError:
            raise
        except Exception as error:  # the drivers of both databases have trees of their own
            raise StorageUnavailable(
                "the checkpoints cannot be read, and without them nobody can talk; `persona "
                "doctor` tells more"
            ) from error
        return "can be read"

    async def vector_index(self) -> str:
        """Ask the index whether it is there, and see what is still to be put into it.

        Raises:
            StorageUnavailable: It does not answer.
        """
        index = self._service.index
        trouble = f"; {index.trouble}" if index.trouble else ""
        await index.check()
        waiting = await self._service.indexer.pending(self._worlds)
        return f"{index.kind}; {waiting} memories wait{trouble}"

    async def full_text(self) -> str:
        """Search for a word.

        Raises:
            StorageUnavailable: The index of words is damaged, or the database does not answer.
        """
        await self._service.database.read(statistics, WORD, NOBODY, NOBODY)
        return "a word was searched for"

    async def model(self) -> Seen:
        """Ask whether the model is there, unless that was asked a moment ago.

        Raises:
            ModelError: It is not.
        """
        found = await self._service.probe.look()
        if not found.ok:
            raise ModelError(found.detail)
        return Seen(found.detail, time.monotonic() - found.at)

    async def embedder(self) -> Seen:
        """Have a word embedded, unless it embedded something a moment ago.

        Raises:
            ModelError: It does not answer.
        """
        embedder, metrics = self._service.embedder, self._service.metrics
        if time.monotonic() - metrics.embedded_at > EMBEDDER_KEPT_S:
            await embedder.embed_documents([WORD])
        return Seen(f"{embedder.model_id} answers", time.monotonic() - metrics.embedded_at)

    async def queue(self) -> Seen:
        """See what waits to be embedded, and whether that is worked off.

        Raises:
            StorageUnavailable: Some of it cannot be, or none of it at present.
        """
        indexer = self._service.indexer
        waiting = await indexer.pending(self._worlds)
        lost = await indexer.given_up(self._worlds)
        if lost:
            raise StorageUnavailable(
                f"{lost} memories could not be embedded, words alone find them; when the embedder "
                "is well, run `persona memory reindex`"
            )
        if waiting and indexer.trouble:
            raise StorageUnavailable(f"{waiting} memories wait: {indexer.trouble}")
        return Seen(f"{waiting} memories wait", time.monotonic() - indexer.looked_at)

    async def disk(self) -> str:
        """See how much room there is.

        Raises:
            StorageUnavailable: Too little, or the data folder cannot be read.
        """
        try:
            room = await asyncio.to_thread(shutil.disk_usage, self._service.settings.data_dir)
        except OSError as error:
            raise StorageUnavailable("the data folder cannot be read") from error
        free = f"{room.free / GIGABYTE:.1f} of {room.total / GIGABYTE:.1f} GB free"
        if room.free < LEAST_FREE_BYTES:
            raise StorageUnavailable(f"{free}: make room, or the next writes fail")
        return free


async def worker(works: Worker) -> Seen:
    """See whether the last turn of a worker failed.

    Raises:
        StorageUnavailable: It did; it is tried again.
    """
    if works.trouble:
        raise StorageUnavailable(f"{works.trouble}; it is tried again")
    return Seen("looks for work", time.monotonic() - works.looked_at)
