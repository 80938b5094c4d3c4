"""Which dense index serves: Chroma in a server or in its folder, else exact scoring."""

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from filelock import FileLock
from sqlalchemy import bindparam, select

from persona_mcp.config.settings import Settings
from persona_mcp.state.database import Database
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.index.vector_index import VectorIndex
from persona_mcp.state.memory_tables import MemoryVector
from persona_mcp.state.prepared import Prepared

if TYPE_CHECKING:
    from persona_mcp.state.index.chroma_home import ChromaFolder

log = structlog.get_logger(__name__)

LOCK = "chroma.lock"
FOLDER = "chroma"
SCOPE = "chroma.scope"
MISSING = "the folder of the dense index is missing"
EMBEDDED = Prepared(
    select(MemoryVector.seq).where(MemoryVector.model_id == bindparam("model")).limit(1)
)


async def open_index(
    settings: Settings, database: Database, model_id: str, anew: bool = False
) -> VectorIndex:
    """Open the index that the setting asks for and that can be had.

    Chroma's folder belongs to one process at a time; the others score the vectors in SQL. The lock
    is free again after `aclose`, and when the process dies. A folder that is damaged or missing is
    begun anew, and the index says so (`fault`): SQL has all that was in it.

    Args:
        settings: Of the program.
        database: Where the vectors are.
        model_id: Of the embedder that made them.
        anew: Throw Chroma's folder away first.
    """
    chroma: VectorIndex | None = None
    if settings.index.kind != "exact":
        embedded = await database.read(EMBEDDED.scalar, model=model_id) is not None
        opened = open_server if settings.index.url else open_locked
        chroma = await asyncio.to_thread(opened, settings, model_id, anew, embedded)
    return chroma or ExactIndex(database, model_id, settings.index.shards_cached)


def open_server(settings: Settings, model_id: str, anew: bool, embedded: bool) -> VectorIndex:
    """Name the server that keeps the index; it is connected when it is needed."""
    from persona_mcp.state.index import chroma as chroma_index  # noqa: PLC0415 - take over a second
    from persona_mcp.state.index import chroma_home  # noqa: PLC0415 - take over a second

    chosen = settings.index
    token = chosen.token.get_secret_value()
    home = chroma_home.ChromaServer(chosen.url, token, chosen.request_s, scope_of(settings))
    return chroma_index.ChromaIndex(home, model_id)


def scope_of(settings: Settings) -> str:
    """Return the name of this data folder at a server that others may use too; made once."""
    file = settings.data_dir / SCOPE
    try:
        with file.open("x", encoding="ascii") as new:
            new.write(uuid.uuid4().hex)
    except FileExistsError:
        pass
    return file.read_text("ascii").strip()


def open_locked(
    settings: Settings, model_id: str, anew: bool, embedded: bool
) -> VectorIndex | None:
    """Open Chroma if this process gets the folder; blocks.

    Args:
        settings: Of the program.
        model_id: Of the embedder.
        anew: Throw the folder away first.
        embedded: There are vectors in SQL that the folder should have.
    """
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
    from persona_mcp.state.index import chroma as chroma_index  # noqa: PLC0415 - takes over a second

    folder = settings.data_dir / FOLDER
    if anew:
        remove(folder)
    try:
        home = open_folder(folder, embedded and not anew)
    except StorageUnavailable as error:
        lock.release()
        log.warning(
            "the dense index cannot be made anew; this process scores exactly",
            reason=error.message,
        )
        return None
    home.released = lock.release
    return chroma_index.ChromaIndex(home, model_id)


def open_folder(folder: Path, embedded: bool) -> "ChromaFolder":
    """Open the folder; begin it anew if it is damaged, or missing where there are vectors.

    Raises:
        StorageUnavailable: It cannot be made anew either.
    """
    from persona_mcp.state.index import chroma_home  # noqa: PLC0415 - takes over a second

    fault = ""
    if embedded and (not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))):
        fault = MISSING
    try:
        home = chroma_home.open_chroma(folder)
    except StorageUnavailable as error:
        fault = error.message
        remove(folder)
        home = chroma_home.open_chroma(folder)
    if fault:
        log.warning(
            "the dense index is made anew from the database, and exact scoring answers meanwhile",
            reason=fault,
        )
    home.fault = fault
    return home


def remove(folder: Path) -> None:
    """Delete the folder, or the file in its place; what cannot be deleted stays."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_file():
        folder.unlink()
