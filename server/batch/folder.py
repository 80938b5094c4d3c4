"""The folder of a batch: what lies in it, who may write it, and when it is finished.

`manifest.json` is written last, so a folder has one only if everything that it names is there.
Outputs are written beside and moved into place, so no file is ever half there.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from persona_mcp.server.batch.casts import Casts, casts_of_text
from persona_mcp.server.batch.outputs import DIALOGUES, FILES
from persona_mcp.server.batch.rows import NAME as STORE
from persona_mcp.server.batch.rows import is_unused
from persona_mcp.server.batch.store import BatchStore, open_batch_store
from persona_mcp.state.errors import Conflict, NotFound, StorageUnavailable

FOLDER = "dialogues"
"""Below the data folder: a folder for each world, in it one for each batch."""
SPEC, CAST, RECORDING = "spec.yaml", "cast.json", "recording.jsonl"
MANIFEST, TIMINGS, LOCK = "manifest.json", "timings.jsonl", "run.lock"
FORKS, NEW = "forks", ".new"
OUTPUTS = (DIALOGUES, *(name for names in FILES.values() for name in names))
STORED = (STORE, f"{STORE}-wal", f"{STORE}-shm")
HALF = frozenset(f"{name}{NEW}" for name in (SPEC, CAST, MANIFEST))
"""What a process that was killed while it wrote a file may leave."""
OURS = frozenset({SPEC, CAST, RECORDING, MANIFEST, TIMINGS, LOCK, FORKS, NEW, *OUTPUTS, *STORED})
OURS |= HALF
"""All that may lie in the folder of a batch."""
WORKED_ON = "another process works on that batch now; wait for it, or stop it with Ctrl-C"


def world_path(data_dir: Path, world_id: str) -> Path:
    """Return the folder of a world's batches."""
    return data_dir / FOLDER / world_id


def batch_path(data_dir: Path, world_id: str, batch_id: str) -> Path:
    """Return the folder of a batch."""
    return world_path(data_dir, world_id) / batch_id


@dataclass(frozen=True)
class BatchFolder:
    """A folder that this process has locked, with its store open.

    Attributes:
        path: Of the folder.
        store: What the batch has done.
        spec_sha256: Of the specification's bytes.
    """

    path: Path
    store: BatchStore
    spec_sha256: str

    @property
    def finished(self) -> bool:
        """Whether every dialogue was held, and all outputs are there."""
        return (self.path / MANIFEST).exists()

    def casts(self) -> Casts | None:
        """Read who is cast; None before that was written. Blocks."""
        path = self.path / CAST
        return casts_of_text(path.read_bytes()) if path.exists() else None

    def write_casts(self, casts: Casts) -> None:
        """Write who is cast. Blocks."""
        write_file(self.path / CAST, [casts.text()])

    def reopen(self) -> None:
        """Have it count as not finished; its outputs are written anew at the end. Blocks."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    @contextlib.contextmanager
    def beside(self, *, keep: bool = False) -> Iterator[Path]:
        """Give a folder for new outputs; what is in it at the end moves into place. Blocks.

        After an exception nothing has changed.

        Args:
            keep: Outputs of before that are not made again stay; else they are gone.
        """
        new = self.path / NEW
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            yield new
            made = sorted(path.name for path in new.iterdir())
            for name in set() if keep else {*OUTPUTS, RECORDING, TIMINGS} - set(made):
                (self.path / name).unlink(missing_ok=True)
            for name in made:
                settle(new / name)
                (new / name).replace(self.path / name)
        finally:
            shutil.rmtree(new, ignore_errors=True)


@asynccontextmanager
async def begin_folder(
    path: Path, spec: bytes, *, resume: bool = False, force: bool = False
) -> AsyncIterator[BatchFolder]:
    """Open the folder of a batch, and make it if it is not there.

    Args:
        path: Of the folder.
        spec: The specification as it was given.
        resume: What is there already may be gone on with.
        force: Another batch that is there is thrown away.

    Raises:
        Conflict: Another process runs it; it holds another batch or other files; or this batch was
            begun there, and `resume` is false.
        NotFound: This batch is finished there, and its store is gone.
        StorageUnavailable: It cannot be written.
    """
    if not (path / LOCK).exists():  # what is refused is refused before there is one
        check_folder(path, spec, resume=resume, force=force)
    with writable(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        sha256 = hashlib.sha256(spec).hexdigest()
        with writable(path):
            prepare(path, spec, sha256, resume=resume, force=force)
        if (path / MANIFEST).exists():
            check_store(path)
        async with open_batch_store(path / STORE) as store:
            yield BatchFolder(path, store, sha256)


@asynccontextmanager
async def open_folder(path: Path) -> AsyncIterator[BatchFolder]:
    """Open the folder of a batch that was begun.

    Raises:
        NotFound: There is none, or its store is gone.
        Conflict: Another process runs it.
    """
    spec = spec_in(path)
    with locked(path):
        check_store(path)
        async with open_batch_store(path / STORE) as store:
            yield BatchFolder(path, store, hashlib.sha256(spec).hexdigest())


def spec_in(path: Path) -> bytes:
    """Read the specification in a batch's folder.

    Raises:
        NotFound: There is none.
    """
    try:
        return (path / SPEC).read_bytes()
    except OSError:
        raise NotFound(
            f"no batch in '{path.name}': it has no {SPEC}; name the folder that was given as --out",
            kind="batch",
            id=path.name,
        ) from None


def check_store(path: Path) -> None:
    """See to it that a batch's store is there: one made anew would be empty.

    Raises:
        NotFound: It is not.
    """
    if not (path / STORE).is_file():
        raise NotFound(
            f"no {STORE} in '{path.name}', which has all that was done: what is finished can be "
            "verified and forked without it; run it anew with another --out, or --force",
            kind="batch",
            id=path.name,
        )


def check_folder(path: Path, spec: bytes, *, resume: bool, force: bool) -> None:
    """Look whether `begin_folder` could be given a folder; nothing is made. Blocks.

    Raises:
        PersonaError: As `begin_folder`.
    """
    with writable(path):
        check_place(path)
        if not path.exists():
            return
        if (path / LOCK).exists() and is_locked(path):
            raise Conflict(WORKED_ON)
        sha256 = hashlib.sha256(spec).hexdigest()
        goes_on = is_begun(path, sha256, resume=resume, force=force)
    if goes_on and (path / MANIFEST).exists():
        check_store(path)


def check_place(path: Path) -> None:
    """Look whether a folder is one that can be written, or could be made; nothing is made. Blocks.

    Raises:
        OSError: It is not.
    """
    nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def prepare(path: Path, spec: bytes, sha256: str, *, resume: bool, force: bool) -> None:
    """See to it that a folder holds this batch and nothing else.

    Raises:
        Conflict: As `begin_folder`.
    """
    if not is_begun(path, sha256, resume=resume, force=force):
        clear(path)
        write_file(path / SPEC, [spec])


def is_begun(path: Path, sha256: str, *, resume: bool, force: bool) -> bool:
    """Tell whether this batch is there and gone on with, or else whether it may begin there.

    Raises:
        Conflict: As `begin_folder`.
    """
    there = {entry.name for entry in path.iterdir()} - {LOCK, *HALF}
    old = path / SPEC
    same = old.exists() and hashlib.sha256(old.read_bytes()).hexdigest() == sha256
    # Nothing was held: somebody could not be cast, or no model answered.
    bare = STORE in there and there <= {SPEC, CAST, *STORED}
    unused = bare and not force and is_unused(path)
    if same and not force and not unused:
        if not resume and not (path / MANIFEST).exists():
            raise Conflict(
                "this batch was begun in that folder already: add --resume to go on with it, or "
                "--force to begin anew"
            )
        return True
    strange = sorted(there - OURS)
    marks = {STORE, MANIFEST} if strange else {STORE, MANIFEST, SPEC}
    if there and not there & marks:  # no batch, whatever its files are called
        first = (strange or sorted(there))[0]
        raise Conflict(
            f"that folder holds other files ({first}): give another --out, an empty or new one"
        )
    if there and not force and not unused:
        why = "its specification is not the same" if SPEC in there else f"its {SPEC} is gone"
        raise Conflict(
            f"that folder holds another batch ({why}): give another --out, or --force to throw the "
            "other one away"
        )
    return False


def clear(path: Path) -> None:
    """Take everything out of a folder that is a batch's, the manifest first; nothing else."""
    for name in (MANIFEST, SPEC, *sorted(OURS - {MANIFEST, SPEC, LOCK})):
        found = path / name
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that works in a folder.

    Raises:
        Conflict: Another one is.
        StorageUnavailable: It cannot be written.
    """
    lock = FileLock(path / LOCK, thread_local=False)
    try:
        with writable(path):
            lock.acquire(timeout=0)
    except Timeout:
        raise Conflict(WORKED_ON) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Tell whether a process works in a folder now."""
    lock = FileLock(path / LOCK, thread_local=False)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that we cannot write to
        return is_held(path / LOCK)


def is_held(file: Path) -> bool:
    """Tell whether a process has locked a file that we can only read."""
    if sys.platform == "win32":
        return False
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none
        return False
    return False


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn an error of the file system into ours.

    Raises:
        StorageUnavailable: In place of one.
    """
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise StorageUnavailable(
            f"the folder '{path.name}' cannot be used ({error.strerror or 'no folder'}); what is "
            "kept in it stays: mend that and try again, or give another --out"
        ) from error


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file under another name and move it into place: it is there whole, or not at all."""
    new = path.with_name(f"{path.name}{NEW}")
    try:
        with new.open("wb") as file:
            file.writelines(pieces)
        settle(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def settle(path: Path) -> None:
    """Have a file's bytes outlive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Return the check sum of a file; it is read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines(texts: Iterable[str]) -> Iterator[bytes]:
    """Write texts as lines."""
    for text in texts:
        yield text.encode() + b"\n"
