"""A worker: holds dialogues with a host and a model of its own, and tells as it goes.

Where it runs it does not know: Ray makes an actor of it (`ray_crew`), or a process of this machine
serves it over pipes (`worker_process`).
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from persona_mcp.server.batch.dialogue_host import DialogueHost
from persona_mcp.server.batch.local_engine import hold_one
from persona_mcp.server.batch.model_pool import ModelPool
from persona_mcp.server.batch.recorded_model import kept_problem
from persona_mcp.state.batch.values import Finished, Job, RecordedCall, TurnTold, Work
from persona_mcp.state.errors import Cancelled


@dataclass(frozen=True)
class Stopped:
    """A dialogue ended where its turn ended, as it was asked to.

    Attributes:
        message: For people.
    """

    message: str


@dataclass(frozen=True)
class Faulty:
    """A dialogue came to no outcome.

    Attributes:
        problem: Why: code, message and data.
    """

    problem: Mapping[str, Any]


Event = RecordedCall | TurnTold | Finished | Stopped | Faulty
ENDS = (Finished, Stopped, Faulty)


class Worker:
    """Holds dialogues, many at once, on one event loop."""

    def __init__(self, host: DialogueHost, pool: ModelPool) -> None:
        """Take over what dialogues are held with.

        Args:
            host: Laws, limits, embedder.
            pool: This worker's share of the places at the model.
        """
        self._host = host
        self._pool = pool
        self._stopped = False

    async def ready(self) -> int:
        """Read the files that dialogues need, and return the id of this process."""
        await self._host.read()
        return os.getpid()

    async def hold(
        self, job: Job, frozen: bytes, played: tuple[RecordedCall, ...]
    ) -> AsyncGenerator[list[Event]]:
        """Hold one dialogue, and yield what happens, in order; the last event ends it.

        A call comes before the turn that is made of it, and with it: whoever has the turn has the
        call, and one message carries both.

        Args:
            job: Which.
            frozen: The world of its run.
            played: Calls of it that are recorded already.
        """
        events: asyncio.Queue[Event] = asyncio.Queue()
        holding = asyncio.create_task(self._held(Work(job, frozen, played), events))
        try:
            ended = False
            while not ended:
                batch = [await events.get()]
                while isinstance(batch[-1], RecordedCall) or not events.empty():
                    batch.append(await events.get())
                ended = isinstance(batch[-1], ENDS)
                yield batch
        finally:
            holding.cancel()
            with suppress(asyncio.CancelledError):
                await holding

    async def _held(self, work: Work, events: "asyncio.Queue[Event]") -> None:
        async def made(call: RecordedCall) -> None:
            events.put_nowait(call)

        try:
            finished = await hold_one(
                self._host, self._pool, work, events.put_nowait, lambda: self._stopped, made
            )
        except Cancelled as error:
            events.put_nowait(Stopped(error.message))
        except Exception as error:
            events.put_nowait(Faulty(kept_problem(error)))
        else:
            events.put_nowait(finished)

    async def crowd(self, crowded: bool) -> None:
        """Take it that dialogues wait, or that the last ones are held; see `Engine`."""
        self._pool.crowd(crowded)

    async def stop(self) -> None:
        """Have every dialogue end where its turn ends."""
        self._stopped = True

    async def close(self) -> None:
        """Let go of the model and the embedder."""
        await self._pool.aclose()
        await self._host.aclose()
