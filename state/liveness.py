"""Which processes on this data folder are alive.

Each process holds the lock of a file of its own; the system lets go of it however the process ends.
So what a killed process was doing is known to be interrupted at once, without waiting for its lease
to run out. Of a process on another machine or folder `Presence` may know more, where they share a
PostgreSQL database; otherwise only its lease counts.
"""

import contextlib
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from persona_mcp.state.ids import derived_id, new_id
from persona_mcp.state.presence import Presence

TAG_LENGTH = 12
NAME = "folder"
"""File with the folder's own name: two machines, or containers, may call all else the same."""
STALE_S = 86_400.0
"""A dead process's file is removed after a day: a young one may be about to be locked."""


class Liveness:
    """This process's sign of life, and the look at others'.

    Attributes:
        owner: The name under which this process takes leases.
    """

    def __init__(self, folder: Path) -> None:
        """Show this process as alive in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        place = (socket.gethostname(), folder.resolve().as_posix(), name_of(folder))
        self._tag = derived_id(*place)[:TAG_LENGTH]
        self._presence: Presence | None = None
        self.owner = f"{self._tag}-{new_id()}"
        self._remove_stale()
        self._lock = FileLock(self._file(self.owner), thread_local=False)
        self._lock.acquire()

    def is_gone(self, owner: str) -> bool:
        """Tell whether the process `owner` is known to have ended."""
        if owner == self.owner:
            return False
        if not owner.startswith(self._tag):
            return self._presence is not None and self._presence.is_gone(owner)
        return not self._file(owner).exists() or self._is_free(self._file(owner))

    def now(self) -> float:
        """Return the time that leases are held by, in seconds since the epoch.

        It is the database's, where processes of several machines share it.
        """
        return time.time() if self._presence is None else self._presence.now()

    def ask(self, presence: Presence) -> None:
        """Have it know of processes elsewhere."""
        self._presence = presence

    def close(self) -> None:
        """Show this process as ended."""
        self._lock.release()
        with contextlib.suppress(OSError):
            self._file(self.owner).unlink()

    def _file(self, owner: str) -> Path:
        return self._folder / f"{owner}.lock"

    def _is_free(self, file: Path) -> bool:
        lock = FileLock(file, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

    def _remove_stale(self) -> None:
        for file in self._folder.glob("*.lock"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > STALE_S and self._is_free(file):
                    file.unlink()


def name_of(folder: Path) -> str:
    """Return the name that the folder was given by whoever used it first."""
    file = folder / NAME
    with FileLock(folder / f"{NAME}.name", thread_local=False):
        if not file.exists():
            file.write_text(new_id(), encoding="utf-8")
        return file.read_text("utf-8")
