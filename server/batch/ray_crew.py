"""Workers of a Ray cluster, or of one that is started here for the batch."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import structlog

from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.dialogue_host import dialogue_host
from persona_mcp.server.batch.dialogue_worker import Event, Worker
from persona_mcp.server.batch.model_pool import open_pool
from persona_mcp.server.batch.worker_engine import Hand, LostError
from persona_mcp.state.batch.values import Job, RecordedCall, Work
from persona_mcp.state.correlation import correlation
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.errors import InternalError, NotConfigured

log = structlog.get_logger(__name__)

READY_S = 180.0
"""Limit of the start of a worker, in seconds: it imports everything, and may have to be placed."""
WORLDS_KEPT = 64


class RayWorker(Worker):
    """A worker that Ray makes an actor of."""

    def __init__(self, settings: Settings, model: ModelSpec, correlation_id: str | None) -> None:
        """Open what dialogues are held with.

        Args:
            settings: In effect where the batch was begun.
            model: This worker's share of the places at the model.
            correlation_id: Of the command that runs the batch, for the lines of the log.
        """
        configure_logging(settings.log)
        super().__init__(dialogue_host(settings), open_pool(settings.llm, model))
        self._correlation_id = correlation_id

    async def _held(self, work: Work, events: "asyncio.Queue[Event]") -> None:
        with correlation(self._correlation_id):  # Ray runs each call in a context of its own
            await super()._held(work, events)


class RayHand(Hand):
    """A worker of Ray's as it is seen from here."""

    def __init__(
        self, ray: Any, actor: Any, put: Callable[[bytes], Any], model: ModelSpec, pid: int
    ) -> None:
        """Take over.

        Args:
            ray: The library, connected.
            actor: Ray's handle.
            put: Puts a world where every worker can read it, and returns its reference.
            model: Its share of the places at the model.
            pid: Of its process.
        """
        super().__init__(model, pid)
        self._ray = ray
        self._actor = actor
        self._put = put

    async def hold(
        self, job: Job, frozen: bytes, played: tuple[RecordedCall, ...]
    ) -> AsyncGenerator[list[Event]]:
        """Have it hold a dialogue, and yield what it tells; see `Hand`.

        Raises:
            LostError: It is gone.
            InternalError: It failed.
        """
        errors = self._ray.exceptions
        world = self._put(frozen)
        stream = self._actor.hold.options(num_returns="streaming").remote(job, world, played)
        ended = False
        try:
            async for told in stream:
                yield await told
            ended = True
        except errors.RayTaskError as error:
            raise InternalError("a worker failed; its log has the cause") from error
        except errors.RayError as error:
            ended = True
            raise LostError(type(error).__name__) from error
        finally:
            if not ended:
                with suppress(errors.RayError):
                    self._ray.cancel(stream)

    def crowd(self, crowded: bool) -> None:
        """Tell it whether dialogues wait to be begun."""
        self._actor.crowd.remote(crowded)

    def stop(self) -> None:
        """Have every dialogue end where its turn ends."""
        self._actor.stop.remote()

    async def close(self) -> None:
        """Have it let go of the model and the embedder."""
        with suppress(self._ray.exceptions.RayError):
            await self._actor.close.remote()

    def kill(self) -> None:
        """End it now."""
        self._ray.kill(self._actor)


class RayCrew:
    """A `Crew` of Ray's workers; made by `ray_cluster.open_ray`."""

    def __init__(self, ray: Any, start: Callable[[ModelSpec], Any], *, ours: bool) -> None:
        """Take over; nothing is started yet.

        Args:
            ray: The library, connected.
            start: Makes an actor of `RayWorker` that has this share of the model.
            ours: The connection is closed with the crew.
        """
        self._ray = ray
        self._start = start
        self._ours = ours
        self._worlds: OrderedDict[str, Any] = OrderedDict()

    async def hire(self, share: ModelSpec) -> Hand:
        """Start a worker.

        Raises:
            NotConfigured: It did not start.
        """
        actor = self._start(share)
        try:
            async with asyncio.timeout(READY_S):
                pid = await actor.ready.remote()
        except TimeoutError as error:
            raise NotConfigured(
                f"a worker of Ray did not start within {READY_S:g} s: the cluster has no room for "
                "so many of one processor each; give fewer --workers"
            ) from error
        except self._ray.exceptions.RayError as error:
            log.error("worker did not start", exc_info=error)
            raise NotConfigured(
                "a worker of Ray did not start: every machine of the cluster needs this version of "
                "persona-mcp with the extra ray; the log has the cause"
            ) from error
        except asyncio.CancelledError:
            self._ray.kill(actor)
            raise
        return RayHand(self._ray, actor, self._put, share, pid)

    def _put(self, frozen: bytes) -> Any:
        """Put a world where every worker can read it, once."""
        key = hashlib.sha256(frozen).hexdigest()
        found = self._worlds.pop(key, None)
        self._worlds[key] = self._ray.put(frozen) if found is None else found
        if len(self._worlds) > WORLDS_KEPT:  # a dialogue that is held keeps its own
            self._worlds.popitem(last=False)
        return self._worlds[key]

    async def aclose(self) -> None:
        """Let go of the worlds, and of the cluster where it was started for this."""
        self._worlds.clear()
        if self._ours:
            await asyncio.to_thread(self._ray.shutdown)
