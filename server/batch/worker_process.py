"""The process of a worker of this machine: serves what stands at the other end of its pipes.

python -m persona_mcp.server.batch.worker_process        started by `process_crew`, never by hand
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing

import structlog

from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.dialogue_host import dialogue_host
from persona_mcp.server.batch.dialogue_worker import Faulty, Worker
from persona_mcp.server.batch.model_pool import open_pool
from persona_mcp.server.batch.recorded_model import kept_problem
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
from persona_mcp.server.event_loop import busy_runner, end_at_once
from persona_mcp.state.correlation import correlation
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.errors import PersonaError

log = structlog.get_logger(__name__)

ALIVE_S = 5.0
"""Between two signs of life, in seconds."""
Open = Callable[[Settings, ModelSpec], Worker]
"""Makes the worker of a process with the settings and a share of the places at the model."""


def open_worker(settings: Settings, share: ModelSpec) -> Worker:
    """Make a worker, and have the process log as the settings say."""
    configure_logging(settings.log)
    return Worker(dialogue_host(settings), open_pool(settings.llm, share))


def main(opened: Open = open_worker) -> None:
    """Serve standard input and output until the input ends."""
    # What anybody prints must not get among the frames.
    ours = os.dup(1)
    os.dup2(2, 1)
    end_at_once()
    with busy_runner() as runner:
        runner.run(serve(0, ours, opened))


async def serve(given: int, told: int, opened: Open, alive_s: float = ALIVE_S) -> None:
    """Serve a pair of pipes.

    Args:
        given: Descriptor of the pipe that is read.
        told: Descriptor of the pipe that is written; both are closed at the end.
        opened: Makes the worker.
        alive_s: Between two signs of life, in seconds.
    """
    reader, writer = await pipes(given, told)
    try:
        begin: Begin = await next_frame(reader)
        with correlation(begin.correlation_id):
            await serve_from(begin, reader, writer, opened, alive_s)
    except (EOFError, ConnectionError):
        return  # nobody is there any more, and what was told is kept
    finally:
        writer.close()


async def serve_from(
    begin: Begin,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    opened: Open,
    alive_s: float,
) -> None:
    """Make the worker, or tell why it cannot be made, and serve it.

    Raises:
        EOFError: The pipe that is read ended.
        ConnectionError: The pipe that is written did.
    """
    try:
        worker = opened(begin.settings, begin.share)
    except PersonaError as error:
        writer.write(framed(Faulty(kept_problem(error))))
        await writer.drain()
        return
    try:
        writer.write(framed(Begun(await worker.ready())))
        await Serving(worker, writer, alive_s).run(reader)
    finally:
        await worker.close()


async def pipes(given: int, told: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open the two ends of pipes as streams."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(given, "rb", 0))
    transport, flow = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(told, "wb", 0)
    )
    return reader, asyncio.StreamWriter(transport, flow, None, loop)


class Serving:
    """Has a worker hold what it is given, and tells what happens."""

    def __init__(self, worker: Worker, writer: asyncio.StreamWriter, alive_s: float) -> None:
        """Begin with no dialogue; `alive_s` seconds are between two signs of life."""
        self._worker = worker
        self._writer = writer
        self._alive_s = alive_s
        self._held: dict[int, asyncio.Task[None]] = {}

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Do what is asked until the pipe ends; then what is under way is left off.

        Raises:
            EOFError: The pipe ended.
        """
        beating = asyncio.create_task(self._beat(), name="signs of life")
        try:
            while True:
                await self._do(await next_frame(reader))
        finally:
            tasks = [beating, *self._held.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        """Tell again and again that the worker is there."""
        while not self._writer.is_closing():
            await asyncio.sleep(self._alive_s)
            self._writer.write(framed(Alive()))

    async def _do(self, asked: Hold | Leave | Crowd | Stop) -> None:
        match asked:
            case Hold():
                task = asyncio.create_task(self._hold(asked), name=f"dialogue {asked.ticket}")
                self._held[asked.ticket] = task
                task.add_done_callback(lambda _: self._held.pop(asked.ticket))
            case Leave():
                if asked.ticket in self._held:
                    self._held[asked.ticket].cancel()
            case Crowd():
                await self._worker.crowd(asked.crowded)
            case Stop():
                await self._worker.stop()

    async def _hold(self, asked: Hold) -> None:
        """Hold a dialogue, and tell of it; what fails is told, too, or it would be waited for."""
        events = self._worker.hold(asked.job, asked.frozen, asked.played)
        try:
            async with aclosing(events):
                async for batch in events:
                    await self._tell(Told(asked.ticket, batch))
        except ConnectionError:
            return  # nobody is there any more
        except Exception as error:
            log.exception("a dialogue could not be told of")
            await self._tell(Told(asked.ticket, [Faulty(kept_problem(error))]))

    async def _tell(self, told: Told) -> None:
        self._writer.write(framed(told))
        await self._writer.drain()


if __name__ == "__main__":
    main()
