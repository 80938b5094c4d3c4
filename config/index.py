"""Which dense index serves: Chroma where this process holds the folder, else exact scoring."""

import asyncio
import shutil

import structlog
from filelock import FileLock

from persona_mcp.config.settings import Settings
from persona_mcp.state.database import Database
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.exact_index import ExactIndex
from persona_mcp.state.vector_index import VectorIndex

log = structlog.get_logger(__name__)

LOCK = "chroma.lock"
FOLDER = "chroma"


async def open_index(
    settings: Settings, database: Database, model_id: str, anew: bool = False
) -> VectorIndex:
    """Open the index that the setting asks for and that can be had.

    Chroma's folder belongs to one process at a time; the others, and whoever finds it damaged,
    score the vectors in SQL. The lock is free again after `aclose`, and when the process dies.

    Args:
        settings: Of the program.
        database: Where the vectors are.
        model_id: Of the embedder that made them.
        anew: Throw Chroma's folder away first: SQL has all that is in it.
    """
    chroma = None
    if settings.index.kind != "exact":
        chroma = await asyncio.to_thread(open_locked, settings, model_id, anew)
    return chroma or ExactIndex(database, model_id, settings.index.shards_cached)


def open_locked(settings: Settings, model_id: str, anew: bool) -> VectorIndex | None:
    """Open Chroma if this process gets the folder and the folder is whole; blocks."""
    # It is taken in one thread and given back in another.
    lock = FileLock(settings.data_dir / LOCK, thread_local=False)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except (OSError, NotImplementedError) as error:  # taken, or a file system without locks
        tell = log.warning if settings.index.kind == "chroma" else log.info
        tell(
            "the dense index is open in another process; this one scores exactly",
            reason=type(error).__name__,
        )
        return None
    from persona_mcp.state import chroma_folder, chroma_index  # noqa: PLC0415 - takes over a second

    folder = settings.data_dir / FOLDER
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.is_file():
            folder.unlink()
    try:
        client = chroma_folder.open_chroma(folder)
    except StorageUnavailable as error:
        lock.release()
        log.warning(
            "the dense index is damaged; this process scores exactly, "
            "and `persona memory reindex` rebuilds it",
            reason=error.message,
        )
        return None
    return chroma_index.ChromaIndex(client, folder, model_id, lock.release)
