"""Workers in processes of this machine, for as many processors as it has."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from itertools import count

import structlog

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.dialogue_worker import ENDS, Event, Faulty
from persona_mcp.server.batch.local_engine import Made, enough_for
from persona_mcp.server.batch.model_pool import open_pool
from persona_mcp.server.batch.recorded_model import error_of
from persona_mcp.server.batch.worker_engine import Hand, LostError, WorkerEngine
from persona_mcp.server.batch.worker_frames import (
    Alive,
    Begin,
    Begun,
    Crowd,
    Hold,
    Leave,
    Stop,
    Told,
    framed,
    next_frame,
)
from persona_mcp.server.batch.worker_shares import shared_out
from persona_mcp.state.batch.values import Job, RecordedCall
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.errors import NotConfigured

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-P", "-m", "persona_mcp.server.batch.worker_process")
READY_S = 60.0
"""Limit of the start of a worker, in seconds: it imports everything."""
SILENT_S = 60.0
"""Limit of the silence of a worker, in seconds; it gives a sign of life every few."""
LOOKS = 4
"""Within that. Its silence is counted in looks: while this process itself is stopped (Ctrl-Z), a
worker that goes on meanwhile is not silent."""
KILLED_S = 10.0
"""Limit of the wait for the end of a process that was killed, in seconds."""


async def open_processes(
    settings: Settings,
    model: ModelSpec,
    dialogues: int,
    workers: int | None = None,
    made: Made | None = None,
    command: Sequence[str] = COMMAND,
) -> WorkerEngine:
    """Start workers in processes of this machine.

    Args:
        settings: In effect; the workers take them over.
        model: Who writes the replies; its places are shared out to the workers.
        dialogues: How many there are to be held, >= 1.
        workers: How many, at most one for each place and dialogue; None for one a processor.
        made: Keeps each call of the model as it comes.
        command: Runs `worker_process.main`.

    Raises:
        NotConfigured: One did not start, or this system has no such pipes.
    """
    if sys.platform == "win32":
        raise NotConfigured(
            "the engine processes needs pipes that Windows does not have; use --engine ray, or WSL"
        )
    shares = shared_out(settings.llm, model, min(workers or processors(), dialogues))
    at_once = enough_for(open_pool(settings.llm, model))
    engine = WorkerEngine(ProcessCrew(settings, command), shares, at_once, made)
    await engine.begin()
    return engine


def processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ProcessHand(Hand):
    """A worker in a process of this machine, as it is seen from here."""

    def __init__(
        self, process: asyncio.subprocess.Process, share: ModelSpec, silent_s: float = SILENT_S
    ) -> None:
        """Take over a process that has begun, and end it when it is silent for `silent_s` s."""
        super().__init__(share, process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._writer, self._reader = process.stdin, process.stdout
        self._tickets = count()
        self._told: dict[int, asyncio.Queue[list[Event] | None]] = {}
        self._silent = 0
        self._reading = asyncio.create_task(self._read(), name=f"worker {process.pid}")
        self._watching = asyncio.create_task(self._watch(silent_s), name=f"watch {process.pid}")

    async def hold(
        self, job: Job, frozen: bytes, played: tuple[RecordedCall, ...]
    ) -> AsyncGenerator[list[Event]]:
        """Have it hold a dialogue, and yield what it tells; see `Hand`.

        Raises:
            LostError: It is gone.
        """
        ticket, told = next(self._tickets), asyncio.Queue[list[Event] | None]()
        self._told[ticket] = told
        ended = False
        try:
            await self._send(Hold(ticket, job, frozen, played))
            while not ended:
                batch = None if self._reading.done() and told.empty() else await told.get()
                if batch is None:
                    raise LostError(f"exit status {await self._process.wait()}")
                ended = isinstance(batch[-1], ENDS)
                yield batch
        finally:
            del self._told[ticket]
            if not ended:
                self._say(Leave(ticket))

    async def _read(self) -> None:
        """Pass on what it tells, until it is gone."""
        try:
            while True:
                told: Told | Alive = await next_frame(self._reader)
                self._silent = 0
                if isinstance(told, Told) and told.ticket in self._told:
                    self._told[told.ticket].put_nowait(told.events)
        except EOFError:
            pass  # the exit status says more
        except Exception:
            log.exception("what a worker tells cannot be read", pid=self.pid)
        finally:
            self._watching.cancel()
            kill(self._process)  # it may have closed its end only, and its end is waited for
            for queue in self._told.values():
                queue.put_nowait(None)

    async def _watch(self, silent_s: float) -> None:
        """End it when it says nothing for so long: it hangs, or was stopped."""
        while self._silent < LOOKS:
            await asyncio.sleep(silent_s / LOOKS)
            self._silent += 1
        log.warning("a worker gives no sign of life", pid=self.pid, seconds=silent_s)
        kill(self._process)

    async def _send(self, said: Hold) -> None:
        """Say something as soon as there is room.

        Raises:
            LostError: It is gone.
        """
        try:
            self._writer.write(framed(said))
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise LostError("its pipe is closed") from error

    def _say(self, said: Leave | Crowd | Stop) -> None:
        """Say something small; who is gone does not hear it."""
        with suppress(ConnectionError, RuntimeError):
            self._writer.write(framed(said))

    def crowd(self, crowded: bool) -> None:
        """Tell it whether dialogues wait to be begun."""
        self._say(Crowd(crowded))

    def stop(self) -> None:
        """Have every dialogue end where its turn ends."""
        self._say(Stop())

    async def close(self) -> None:
        """Have it let go of the model and the embedder, and end."""
        self._watching.cancel()
        self._writer.close()
        await self._process.wait()

    def kill(self) -> None:
        """End it now, if it has not ended."""
        self._watching.cancel()
        self._reading.cancel()
        kill(self._process)


class ProcessCrew:
    """A `Crew` of processes of this machine."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str] = COMMAND,
        ready_s: float = READY_S,
        silent_s: float = SILENT_S,
    ) -> None:
        """Take over; nothing is started yet.

        Args:
            settings: In effect; the workers take them over.
            command: Runs `worker_process.main`.
            ready_s: Limit of the start of a worker, in seconds.
            silent_s: Limit of its silence, in seconds.
        """
        self._settings = settings
        self._command = command
        self._ready_s = ready_s
        self._silent_s = silent_s
        self._processes: list[asyncio.subprocess.Process] = []

    async def hire(self, share: ModelSpec) -> Hand:
        """Start a worker.

        Raises:
            NotConfigured: It did not start.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for whoever started it, who tells it what to do
            )
        except OSError as error:
            raise NotConfigured(
                f"a worker cannot be started ({error.strerror or error}): give fewer --workers, or "
                "raise the limit of this system that holds it up (ulimit -n, ulimit -u)"
            ) from error
        self._processes.append(process)
        try:
            async with asyncio.timeout(self._ready_s):
                await self._begun(process, share)
        except TimeoutError as error:
            kill(process)
            raise NotConfigured(
                f"a worker did not start within {self._ready_s:g} s: the machine has too much to "
                "do; give fewer --workers"
            ) from error
        except BaseException:
            kill(process)
            raise
        return ProcessHand(process, share, self._silent_s)

    async def _begun(self, process: asyncio.subprocess.Process, share: ModelSpec) -> None:
        """Wait until a worker is there; one that says no more is given time to end, no more."""
        try:
            await begun(process, Begin(self._settings, share, current_correlation_id()))
        except (EOFError, ConnectionError) as error:
            raise NotConfigured(
                f"a worker ended at its start, with status {await process.wait()}: what it wrote "
                "is above; often it is too little memory, so give fewer --workers"
            ) from error

    async def aclose(self) -> None:
        """Wait until all have ended; who has not is killed."""
        for process in self._processes:
            kill(process)
        with suppress(TimeoutError):
            async with asyncio.timeout(KILLED_S):
                for process in self._processes:
                    await process.wait()


async def begun(process: asyncio.subprocess.Process, begin: Begin) -> None:
    """Wait until a worker is there.

    Raises:
        PersonaError: What it is to be made with does not do.
        EOFError: It ended.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(framed(begin))
    await process.stdin.drain()
    said: Begun | Faulty = await next_frame(process.stdout)
    if isinstance(said, Faulty):
        raise error_of(said.problem)


def kill(process: asyncio.subprocess.Process) -> None:
    """End a process now, if it has not ended.

    Not by its own `kill`: asyncio's takes the exit status of what has just ended from who waits.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
