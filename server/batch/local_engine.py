"""Dialogues held in this process: many at the same time, as they wait for the model most of it."""

import asyncio
from collections.abc import Awaitable, Callable

from persona_mcp.server.batch.dialogue_host import DialogueHost
from persona_mcp.server.batch.model_pool import ModelPool
from persona_mcp.server.batch.recorded_embedder import recording_host
from persona_mcp.server.batch.recorded_model import RecordedModel
from persona_mcp.server.batch.run_dialogue import run_dialogue
from persona_mcp.state.batch.values import Finished, RecordedCall, TurnTold, Work
from persona_mcp.state.errors import Cancelled

A_SLOT, LEAST, MOST = 4, 16, 1024
"""Dialogues held at once for each place at the model, so that none is ever free for want of a
question; and how many at least and at most."""
Made = Callable[[RecordedCall], Awaitable[None]]
Told = Callable[[TurnTold], None]


class LocalEngine:
    """An `Engine` in this process, on one event loop.

    Attributes:
        at_once: How many dialogues are held at the same time; more wait.
    """

    def __init__(
        self,
        host: DialogueHost,
        pool: ModelPool | None,
        at_once: int | None = None,
        made: Made | None = None,
    ) -> None:
        """Take over what dialogues are held with; it is closed with the engine.

        Args:
            host: Laws, limits, embedder.
            pool: Who writes the replies; None to play recordings only.
            at_once: How many dialogues are held at the same time; None for enough to keep every
                place at the model busy.
            made: Keeps each call of the model as it is made.
        """
        self.at_once = at_once or enough_for(pool)
        self._host = host
        self._pool = pool
        self._made = made
        self._places = asyncio.Semaphore(self.at_once)
        self._stopped = False

    async def hold(self, work: Work, told: Told) -> Finished:
        """Hold one dialogue to its end; see `Engine`.

        Raises:
            Cancelled: It was asked to stop.
            BadSnapshot: What is recorded of it is of something else.
            StorageUnavailable: A call could not be kept.
        """
        async with self._places:
            if self._stopped:
                raise Cancelled("the batch was stopped; run it again to go on")
            stopping = self._is_stopped
            return await hold_one(self._host, self._pool, work, told, stopping, self._made)

    def crowd(self, crowded: bool) -> None:
        """Take it that dialogues wait, or that the last ones are held; see `Engine`."""
        if self._pool is not None:
            self._pool.crowd(crowded)

    async def stop(self) -> None:
        """Have every dialogue end where its turn ends."""
        self._stopped = True

    def _is_stopped(self) -> bool:
        return self._stopped

    async def aclose(self) -> None:
        """Let go of the model and the embedder."""
        if self._pool is not None:
            await self._pool.aclose()
        await self._host.aclose()


async def hold_one(
    host: DialogueHost,
    pool: ModelPool | None,
    work: Work,
    told: Told,
    stopping: Callable[[], bool],
    made: Made | None,
) -> Finished:
    """Hold one dialogue to its end, with what is recorded of it and the model for what is not.

    Raises:
        Cancelled: It was asked to stop.
        BadSnapshot: What is recorded of it is of something else.
        StorageUnavailable: A call could not be kept.
        ModelError: The embedder does not answer where it did when this was recorded.
    """
    turns = work.job.talk.max_turns
    seat = None if pool is None else pool.seat(turns)

    def turned(turn: TurnTold) -> None:
        if seat is not None:
            seat.turns_left = max(0, turns - turn.turn)
        told(turn)

    model = RecordedModel(seat, work.job.place.index, work.played, made)
    ours = await recording_host(host, model)
    outcome = await run_dialogue(ours, work.job, work.frozen, model, turned, stopping)
    if model.fault is not None:
        raise model.fault
    return Finished(outcome, model.calls)


def enough_for(pool: ModelPool | None) -> int:
    """Return how many dialogues keep every place of the model busy to the end."""
    return min(MOST, max(LEAST, A_SLOT * (0 if pool is None else pool.slots)))
