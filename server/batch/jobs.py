"""Batches of dialogues that are held in the background of a process, one after the other.

```
BatchJobs     claims what waits, and what a process that ended has left
└── Watch     looks after one batch: notes how far it is, and whether it is to stop
```

What was said is in the batch's folder after each reply of the model, so whoever claims a batch goes
on with it where it was left: at the last turn, at the outputs, or at what is still to become part
of its world. Each of these can be done twice.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import structlog

from persona_mcp.server.batch.batches import Summary
from persona_mcp.server.batch.course import Course
from persona_mcp.server.batch.folder import batch_path
from persona_mcp.server.batch.holding import Lent, Opened, Waits, open_batch
from persona_mcp.server.wire import problem_of
from persona_mcp.state.batch.kept_batch import BatchStatus, KeptBatch, Key
from persona_mcp.state.batch.kept_batches import BatchLost, BatchRows
from persona_mcp.state.callers import called_by, known_as
from persona_mcp.state.errors import Conflict, InternalError, PersonaError, StorageUnavailable
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.worker import Worker

log = structlog.get_logger(__name__)

LATER_S = 30.0
"""After this a batch that could not be gone on with is tried again, in seconds."""
LATEST_S = 3600.0
"""Or when its caller's limits say so; but no later than this."""


class BatchJobs(Worker):
    """Holds batches until it is stopped.

    Attributes:
        rows: The batches of this database, in the name of this process.
    """

    def __init__(self, rows: BatchRows, lent: Lent, now: Callable[[], float] = time.time) -> None:
        """Hold batches with what is lent, by this clock."""
        super().__init__("dialogues", lent.settings.dialogues.poll_s)
        self.rows = rows
        self._now = now
        self._lent = lent
        self._watch: Watch | None = None
        self._later: dict[Key, float] = {}
        """Batches that could not be gone on with, and when that is tried again."""

    @property
    def asked_to_stop(self) -> bool:
        """Whether what is held now is to end where its turn ends."""
        return self._watch is not None and self._watch.stopping.is_set()

    async def turn(self) -> None:
        """Hold every batch that nobody holds, the one that waits longest first."""
        await self._remove_old()
        while not self._stopping:
            now = time.monotonic()
            self._later = {key: at for key, at in self._later.items() if at > now}
            batch = await self.rows.claim(self._now(), self._later)
            if batch is None:
                return
            await self._held(batch)

    def wake(self) -> None:
        """Say that a batch waits, or that one is to be stopped."""
        super().wake()
        if self._watch is not None:
            self._watch.look()

    def stop(self) -> None:
        """End `run` where the turns of what is held now end."""
        super().stop()
        if self._watch is not None:
            self._watch.stopping.set()

    async def _held(self, batch: KeptBatch) -> None:
        """Hold a batch that this process has claimed, or leave it to be gone on with later."""
        self._watch = watch = Watch(
            self.rows, batch, self._lent.settings.dialogues.note_s, self._now
        )
        if self._stopping:
            watch.stopping.set()
        looking = asyncio.create_task(watch.run(), name="dialogues watch")
        try:
            with called_by(known_as(batch.caller_id)):
                await self._carried_out(batch, watch)
        except BatchLost:
            log.info("dialogue left to others", dialogue_id=batch.id)
        except asyncio.CancelledError:
            await asyncio.shield(self._let_go(batch))
            raise
        except Waits as waits:
            await self._put_off(batch, waits.error)
        except (StorageUnavailable, Conflict) as error:  # or another process is in its folder still
            await self._put_off(batch, error)
        except PersonaError as error:
            await self._end(batch, watch, "failed", problem_of(error))
        except Exception:  # it must not be tried again for ever
            log.exception("dialogue failed", dialogue_id=batch.id)
            ours = InternalError()
            await self._end(batch, watch, "failed", problem_of(ours))
        finally:
            self._watch = None
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _carried_out(self, batch: KeptBatch, watch: "Watch") -> None:
        """Hold what is left of a batch, and write what became of it.

        Raises:
            BatchLost: Another process holds it.
            PersonaError: It could not be begun, or not be kept.
        """
        if batch.reason is not None:  # its process ended before it could stop
            await self.rows.end(batch, "cancelled", batch.progress, None, time.time())
            return
        async with open_batch(batch, self._lent) as opened:
            watch.course = await opened.course()
            summary = await opened.hold(watch.course, watch.stopping)
            watch.check()
            if not summary.complete:
                await self._stopped(batch, watch)
                return
            if batch.keep and batch.kept_at is None:
                await opened.become_part(self.rows, time.time())
            status, error = await what_became(opened, summary)
        await self.rows.end(batch, status, watch.course.progress, error, time.time())

    async def _stopped(self, batch: KeptBatch, watch: "Watch") -> None:
        """Write that a batch was cancelled, or leave it to the next process."""
        if watch.cancelled:
            await self._end(batch, watch, "cancelled", None)
        else:
            await watch.note()
            await self._let_go(batch)

    async def _end(
        self, batch: KeptBatch, watch: "Watch", status: BatchStatus, error: dict[str, Any] | None
    ) -> None:
        progress = watch.course.progress if watch.course else batch.progress
        with contextlib.suppress(BatchLost):
            await self.rows.end(batch, status, progress, error, time.time())

    async def _put_off(self, batch: KeptBatch, error: PersonaError) -> None:
        """Have a batch wait, and others go first."""
        log.warning("a dialogue waits", dialogue_id=batch.id, reason=error.message)
        told_s = error.data.get("retry_after_seconds", 0.0)
        self._later[batch.key] = time.monotonic() + max(LATER_S, min(told_s, LATEST_S))
        await self._let_go(batch, problem_of(error))

    async def _let_go(self, batch: KeptBatch, why: dict[str, Any] | None = None) -> None:
        with contextlib.suppress(StorageUnavailable):  # as nobody holds it, it is claimed again
            await self.rows.let_go(batch, why)

    async def _remove_old(self) -> None:
        """Delete batches that were over long ago, if that is wished for: files first."""
        days = self._lent.settings.dialogues.kept_days
        if not days:
            return
        for world_id, id in await self.rows.old(time.time() - days * DAY_S):
            path = batch_path(self._lent.settings.data_dir, world_id, id)
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            await self.rows.forget(world_id, id)


class Watch:
    """Looks after one batch while it is held.

    Attributes:
        stopping: Set once dialogues are to end where their turn ends.
        cancelled: A caller asked for that.
        course: How far it is; None before that is known.
    """

    def __init__(
        self, rows: BatchRows, batch: KeptBatch, every_s: float, now: Callable[[], float]
    ) -> None:
        """Look this often, in seconds, by this clock."""
        self._now = now
        self.stopping = asyncio.Event()
        self.cancelled = False
        self.course: Course | None = None
        self._lost = False
        self._rows = rows
        self._batch = batch
        self._every_s = every_s
        self._look = asyncio.Event()

    def look(self) -> None:
        """Look now."""
        self._look.set()

    def check(self) -> None:
        """See to it that the batch is still ours.

        Raises:
            BatchLost: It is not.
        """
        if self._lost:
            raise BatchLost

    async def run(self) -> None:
        """Look until cancelled, or until the batch is another's."""
        while not self._lost:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._look.wait()
            self._look.clear()
            await self.note()

    async def note(self) -> None:
        """Write how far it is, and look whether it is to stop."""
        progress = self.course.progress if self.course else self._batch.progress
        try:
            reason = await self._rows.note(self._batch, progress, self._now())
        except BatchLost:
            self._lost = True
            self.stopping.set()
        except StorageUnavailable as error:  # the lease is longer than a look
            log.warning("not noted how far a dialogue is", reason=error.message)
        else:
            if reason is not None:
                self.cancelled = True
                self.stopping.set()


async def what_became(
    opened: Opened, summary: Summary
) -> tuple[BatchStatus, dict[str, Any] | None]:
    """Return how a batch ended: failed, with the first reason, if every dialogue of it did."""
    if summary.done:
        return "completed", None
    return "failed", await opened.first_error()
