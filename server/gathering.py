"""Numbers that are looked up when somebody asks for them: what waits, how much there is.

Never for a call: at most once in a while, and within a limit. When the database does not answer,
what was found last is told again, and that is counted.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, func, select, text

from persona_mcp.config.llm import LimitedModel
from persona_mcp.server import metric_families as names
from persona_mcp.server.loop_lag import LoopLag
from persona_mcp.server.metrics import Metrics
from persona_mcp.state import tables
from persona_mcp.state.batch.kept_batch import STATUSES
from persona_mcp.state.dialect import POSTGRES
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.model import ChatModel

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

log = structlog.get_logger(__name__)

M, B = tables.Memory, tables.Batch
MEMORIES = select(func.count(), func.count(M.archived_at))
BATCHES = select(B.status, func.count().label("number")).group_by(B.status)
POSTGRES_BYTES = text(
    "SELECT pg_database_size(current_database()), (SELECT coalesce(sum("
    "pg_total_relation_size(oid)), 0) FROM pg_class WHERE relkind = 'r' AND relnamespace = "
    "current_schema()::regnamespace AND relname LIKE 'checkpoint%')"
)
FILES = {names.DATABASE_BYTES: "persona.db", names.CHECKPOINT_BYTES: "checkpoints.db"}
PARTS_OF_FILE = ("", "-wal")


class Gathering:
    """Looks numbers up, and notes them in the metrics of a service."""

    def __init__(self, limit_s: float, kept_s: float, model: ChatModel) -> None:
        """Look for at most `limit_s` seconds, and not again for `kept_s` seconds.

        Args:
            limit_s: Whoever asks waits no longer.
            kept_s: How long what was found counts.
            model: Whose waiting replies are counted.
        """
        self._model = model
        self._limit_s = limit_s
        self._kept_s = kept_s
        self._at: float | None = None
        self._looking: asyncio.Task[None] | None = None

    async def refresh(self, service: "Service") -> None:
        """Bring the numbers up to date, unless they are; never an error.

        A look that takes longer than the limit goes on, and nobody begins another one meanwhile.
        """
        note_at_once(service, self._model)
        if self._at is not None and time.monotonic() - self._at < self._kept_s:
            return
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(service), name="gathering of numbers")
        looking = self._looking
        done, _ = await asyncio.wait([looking], timeout=self._limit_s)
        if not done:
            service.metrics.missed()

    @asynccontextmanager
    async def open(self, metrics: Metrics) -> AsyncIterator[None]:
        """Watch the event loop while the block lasts; give up a look that is under way then."""
        lag = LoopLag(metrics.late)
        try:
            yield
        finally:
            lag.stop()
            if self._looking is not None:
                self._looking.cancel()
                await asyncio.wait([self._looking])

    async def _look(self, service: "Service") -> None:
        try:
            await gather(service)
            self._at = time.monotonic()
        except (PersonaError, OSError) as error:
            service.metrics.missed()
            log.info("numbers not gathered", error=type(error).__name__)
        except Exception:  # who watches the process is told all else
            service.metrics.missed()
            log.exception("numbers not gathered")
        finally:
            self._looking = None


def note_at_once(service: "Service", model: ChatModel) -> None:
    """Note what the process knows by itself."""
    metrics, database = service.metrics, service.database
    waiting = model.waiting if isinstance(model, LimitedModel) else 0
    metrics.waiting({"replies": len(service.runs), "model": waiting, **service.limits.under_way})
    metrics.note(names.BUILD, 1, version("persona-mcp"), database.engine.dialect.name)
    for state, count in database.connections().items():
        metrics.note(names.POOL, count, state)


async def gather(service: "Service") -> None:
    """Look everything up that needs SQL or a file.

    Raises:
        StorageUnavailable: The database did not answer.
        OSError: The data folder did not.
    """
    metrics, database = service.metrics, service.database
    kept = {
        "memories": await service.indexer.pending(),
        "given_up": await service.indexer.given_up(),
    }
    metrics.waiting(kept)
    all_, archived, batches, sizes = await database.read(counted)
    metrics.note(names.MEMORIES, all_ - archived, "active")
    metrics.note(names.MEMORIES, archived, "archived")
    for status in STATUSES:
        metrics.note(names.BATCHES, batches.get(status, 0), status)
    folder = service.settings.data_dir
    found = sizes or await asyncio.to_thread(sizes_of_files, folder)
    for name, size in found.items():
        metrics.note(name, size)
    metrics.note(names.DISK_BYTES, (await asyncio.to_thread(shutil.disk_usage, folder)).free)


def counted(connection: Connection) -> tuple[int, int, dict[str, int], dict[str, int]]:
    """Count in one transaction: all memories, archived ones, batches by status, and sizes.

    The last are empty where they are those of files.
    """
    all_, archived = connection.execute(MEMORIES).one()
    batches = {row.status: int(row.number) for row in connection.execute(BATCHES)}
    if connection.dialect.name != POSTGRES:
        return all_, archived, batches, {}
    database, checkpoints = connection.execute(POSTGRES_BYTES).one()
    sizes = {names.DATABASE_BYTES: int(database), names.CHECKPOINT_BYTES: int(checkpoints)}
    return all_, archived, batches, sizes


def sizes_of_files(folder: Path) -> dict[str, int]:
    """Return the sizes of the databases in a folder, with what they have not put in order yet."""
    found = {}
    for name, file in FILES.items():
        paths = [folder / (file + part) for part in PARTS_OF_FILE]
        found[name] = sum(path.stat().st_size for path in paths if path.exists())
    return found
