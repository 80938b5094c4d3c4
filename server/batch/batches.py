"""A whole batch: its runs side by side, the waves of each one after the other.

A wave's dialogues are held in worlds of their own, made from the run's world as it stood when the
wave began. Once all of them are over, what happened is folded into it in order of their numbers, so
who was held first, by whom, and next to what makes no difference. What is finished is read from the
store, whoever held it; the rest is held, again if need be, with its recorded calls played.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from persona_mcp.server.batch.casts import Casts
from persona_mcp.server.batch.places import Places
from persona_mcp.server.batch.rows import PAGE, spoken
from persona_mcp.server.batch.store import BatchStore
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.values import (
    Engine,
    Finished,
    Job,
    Outcome,
    Place,
    TurnTold,
    Work,
)
from persona_mcp.state.errors import Cancelled

log = structlog.get_logger(__name__)

SPARE_RUNS = 16
"""Runs that are gone on with at once beyond the dialogues that are: each has a world in memory, and
the more of them the less is left for one worker alone at the end."""
Event = Mapping[str, Any]
Told = Callable[[Event], None]
"""Is told what happens: `event` is started, turn, dialogue_done, dialogue_failed, wave or finished.
"""


@dataclass(frozen=True)
class Summary:
    """What came of a batch; all but the time counts what was done before it was gone on with, too.

    Attributes:
        total: Dialogues of the batch.
        done: Those that came to their end.
        failed: Those that did not.
        turns: Said in both.
        calls: Of the model, in both.
        stopped: It was asked to stop before all were held.
        wall_s: How long it took this time, in seconds.
        busy: Share of that time for which the thread that asked for it worked, 0..1.
    """

    total: int
    done: int
    failed: int
    turns: int
    calls: int
    stopped: bool
    wall_s: float
    busy: float

    @property
    def complete(self) -> bool:
        """Whether every dialogue was held, those that failed too."""
        return self.done + self.failed == self.total


async def run_batch(
    plan: BatchPlan,
    casts: Casts,
    store: BatchStore,
    engine: Engine,
    worlds: Worlds,
    told: Told,
    stopping: asyncio.Event,
) -> Summary:
    """Hold every dialogue of a batch that is not in its store yet.

    Args:
        plan: What is to be held.
        casts: Who is cast.
        store: Keeps what comes of it; the engine's `made` keeps calls in it as well.
        engine: Where dialogues are held; closed by who opened it.
        worlds: Begins worlds, and folds what happened into them.
        told: Is told what happens, on the loop.
        stopping: Once set nothing new is begun, and dialogues end where their turn ends.

    Raises:
        StorageUnavailable: The store does not take what is to be kept.
        PersonaError: A world could not be begun or folded. A dialogue that fails is an outcome.
    """
    began, worked = time.monotonic(), time.thread_time()
    before = await store.counts()
    told(
        {
            "event": "started",
            "dialogues": plan.total,
            "done": before.done,
            "failed": before.failed,
            "turns": before.turns,
            "turns_max": plan.turns_max,
        }
    )
    anything = before.done + before.failed > 0
    batch = Batch(plan, casts, store, engine, worlds, told, stopping, anything)
    watching = asyncio.create_task(stop_when(stopping, engine), name="batch stop")
    try:
        await batch.hold()
    finally:
        watching.cancel()
    kept = await store.counts()
    done = kept.done + kept.failed == plan.total
    wall_s = time.monotonic() - began
    return Summary(
        plan.total,
        kept.done,
        kept.failed,
        kept.turns,
        kept.calls,
        stopped=stopping.is_set() and not done,
        wall_s=wall_s,
        busy=min(1.0, (time.thread_time() - worked) / wall_s),
    )


async def stop_when(stopping: asyncio.Event, engine: Engine) -> None:
    """Have the engine stop once that is wished for."""
    await stopping.wait()
    await engine.stop()


@dataclass
class Batch:
    """A batch while it is run; see `run_batch`.

    Attributes:
        resumed: Something of it may be in the store.
        places: For dialogues that are held.
    """

    plan: BatchPlan
    casts: Casts
    store: BatchStore
    engine: Engine
    worlds: Worlds
    told: Told
    stopping: asyncio.Event
    resumed: bool = True
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        """Have as many places as the engine."""
        self.places = Places(self.engine.at_once, self.engine.crowd)

    async def hold(self) -> None:
        """Hold all runs, a bounded number of them at once."""
        most = SPARE_RUNS + self.engine.at_once
        under_way: set[asyncio.Task[None]] = set()
        try:
            with self.places.expecting():
                for arm, repeat in self.plan.runs():
                    if self.stopping.is_set():
                        break
                    if len(under_way) >= most:
                        under_way = await some_done(under_way)
                    work = self.hold_run(arm, repeat)
                    under_way.add(asyncio.create_task(work, name=f"run {arm} {repeat}"))
            while under_way:
                under_way = await some_done(under_way)
        finally:
            await ended(under_way)

    async def hold_run(self, arm: int, repeat: int) -> None:
        """Hold the waves of a run, from the first one on that is not finished."""
        waves = self.plan.amount(arm).waves
        if self.stopping.is_set() or (self.resumed and await self.is_over(arm, repeat, waves)):
            return
        frozen = await self.world_before(arm, repeat, waves - 1)
        if frozen is not None:
            await self.hold_wave(await self.jobs(arm, repeat, waves - 1, frozen), frozen, 1)

    async def world_before(self, arm: int, repeat: int, end: int) -> bytes | None:
        """Return the world of a run as it stands when a wave begins; holds those before it.

        Returns:
            The world, frozen; None if it was stopped meanwhile.
        """
        begins = self.plan.arms[arm].spec.starts_at
        frozen = await self.worlds.begin(self.casts.of(arm), begins)
        for wave in range(end):
            jobs = await self.jobs(arm, repeat, wave, frozen)
            if not await self.hold_wave(jobs, frozen, self.plan.amount(arm).waves - wave):
                return None
            frozen = await self.worlds.fold(frozen, self.store, jobs)
        return frozen

    async def held(self, place: Place) -> tuple[Job, bytes, Outcome] | None:
        """Find a dialogue, its world and what came of it; what is not kept is held first.

        Returns:
            None if it is not kept, and it was asked to stop.
        """
        frozen = await self.world_before(place.arm, place.repeat, place.wave)
        if frozen is None:
            return None
        jobs = await self.jobs(place.arm, place.repeat, place.wave, frozen)
        job = jobs[place.number]
        if not await self.store.count(place.index, place.index) and not self.stopping.is_set():
            await self.places.take((0, 0, place.index))
            await self.hold_dialogue(job, frozen)
        outcome = await self.store.outcome(place.index)
        return None if outcome is None else (job, frozen, outcome)

    async def is_over(self, arm: int, repeat: int, waves: int) -> bool:
        """Tell whether all dialogues of a run are kept."""
        first = self.plan.first_index(arm, repeat, 0)
        last = self.plan.jobs(arm, repeat, waves - 1, 0.0)[-1].place.index
        return await self.store.count(first, last) == last - first + 1

    async def jobs(self, arm: int, repeat: int, wave: int, frozen: bytes) -> Sequence[Job]:
        """Return the dialogues of a wave that begins in a frozen world, at their time."""
        now = await self.worlds.time_in(frozen)
        return self.plan.jobs(arm, repeat, wave, now + self.plan.gap_s(arm, wave))

    async def hold_wave(self, jobs: Sequence[Job], frozen: bytes, waves_left: int) -> bool:
        """Hold what is left of a wave.

        Returns:
            Whether all of it is over; false after it was asked to stop.
        """
        holding: set[asyncio.Task[None]] = set()
        begun = 0
        try:
            with self.places.expecting():
                async for job in self.open_jobs(jobs):
                    await self.places.take((-waves_left, -job.talk.max_turns, job.place.index))
                    if self.stopping.is_set():
                        self.places.give()
                        break
                    begun += 1
                    work = self.hold_dialogue(job, frozen)
                    holding.add(asyncio.create_task(work, name=f"dialogue {job.place.index}"))
                    holding = await reaped(holding)
            while holding:
                holding = await some_done(holding)
        finally:
            await ended(holding)
        over = await self.store.count(*ends(jobs)) == len(jobs)
        if over and begun:
            self.told(wave_event(jobs))
        return over

    async def open_jobs(self, jobs: Sequence[Job]) -> AsyncIterator[Job]:
        """Give the dialogues of a wave that are not kept, in order."""
        for start in range(0, len(jobs), PAGE):
            page = jobs[start : start + PAGE]
            finished = await self.store.finished(*ends(page))
            for job in page:
                if job.place.index not in finished:
                    yield job

    async def hold_dialogue(self, job: Job, frozen: bytes) -> None:
        """Hold one dialogue, in a place that was taken for it, and keep what came of it."""
        try:
            played = await self.store.calls(job.place.index)
            held = await self.engine.hold(Work(job, frozen, played), self.turn_told)
            await self.store.keep(held)
        except Cancelled:
            if not self.stopping.is_set():
                raise
            return
        finally:
            self.places.give()
        self.told(event_of(held))

    def turn_told(self, turn: TurnTold) -> None:
        """Pass on that a turn was said."""
        self.told(
            {
                "event": "turn",
                "dialogue": turn.index,
                "turn": turn.turn,
                "speaker": turn.speaker,
                "tokens": turn.tokens,
                "text": turn.text,
            }
        )


def event_of(held: Finished) -> Event:
    """Write what came of a dialogue as an event."""
    outcome = held.outcome
    told: dict[str, Any] = {
        "event": f"dialogue_{outcome.status}",
        "dialogue": outcome.job.place.index,
        "arm": outcome.job.place.arm,
        "repeat": outcome.job.place.repeat,
        "wave": outcome.job.place.wave,
        "number": outcome.job.place.number,
        "turns": spoken(outcome),
        "calls": outcome.calls,
    }
    if outcome.error is None:
        return {**told, "exit_reason": outcome.exit_reason}
    return {**told, "error": dict(outcome.error)}


def wave_event(jobs: Sequence[Job]) -> Event:
    """Write that a wave is over as an event."""
    place = jobs[0].place
    return {
        "event": "wave",
        "arm": place.arm,
        "repeat": place.repeat,
        "wave": place.wave,
        "dialogues": len(jobs),
    }


def ends(jobs: Sequence[Job]) -> tuple[int, int]:
    """Return the first and the last place of a wave; those between are all of it."""
    return jobs[0].place.index, jobs[-1].place.index


async def some_done(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until at least one has ended, and return the others; raises what it failed with."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return await reaped(tasks)


async def reaped(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Return those that have not ended; raises what one failed with."""
    for task in [task for task in tasks if task.done()]:
        await task
    return {task for task in tasks if not task.done()}


async def ended(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what is still under way, and wait for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
