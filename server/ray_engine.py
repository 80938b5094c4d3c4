"""Dialogues held by workers of a Ray cluster, or of one that is started here for the batch.

```
RayEngine        here: who holds what, what is told, what to do when a worker is gone
└── Worker       elsewhere, one process each (ray_worker): the same `run_dialogue`
```
What a worker makes comes here turn by turn, each with the calls that it is made of, and is kept
here. So a worker that is gone takes nothing with it but the turn that it was at: another one plays
the calls that came, and goes on.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from persona_mcp.server.local_engine import Made, Told
from persona_mcp.server.ray_worker import Event, Faulty, Stopped
from persona_mcp.server.recorded_model import error_of, kept_problem
from persona_mcp.state.batch import Finished, Job, Outcome, RecordedCall, TurnTold, Work
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.errors import Cancelled, InternalError, NotConfigured
from persona_mcp.state.folding import ADDED

log = structlog.get_logger(__name__)

READY_S = 180.0
"""Limit of the start of a worker, in seconds: it imports everything, and may have to be placed."""
CLOSE_S = 10.0
TRIES = 3
"""Workers that a dialogue may lose: it may be what ends them."""
REPLACED = 3
"""Workers that are started anew, for each there is at the beginning."""
WORLDS_KEPT = 64


@dataclass(eq=False)
class Hand:
    """A worker as it is seen from here.

    Attributes:
        actor: Ray's handle.
        model: Its share of the places at the model.
        slots: How many these are.
        pid: Of its process.
        busy: Dialogues that it holds.
    """

    actor: Any
    model: ModelSpec
    slots: int
    pid: int = 0
    busy: int = 0


class LostError(Exception):
    """A worker is gone, and with it what it was at."""


class RayEngine:
    """An `Engine` over workers in processes of their own; made by `ray_cluster.open_ray`.

    Attributes:
        at_once: How many dialogues are held at the same time; more wait.
        hands: The workers that there are now.
    """

    def __init__(
        self,
        ray: Any,
        start: Callable[[ModelSpec], Any],
        shares: list[ModelSpec],
        at_once: int,
        made: Made | None,
        *,
        ours: bool,
        tries: int = TRIES,
    ) -> None:
        """Take over; nothing is started yet.

        Args:
            ray: The library, connected.
            start: Makes an actor that has this share of the model.
            shares: The model's places, shared out: a worker each.
            at_once: Dialogues held at the same time.
            made: Keeps each call of the model, as it comes.
            ours: The connection is closed with the engine.
            tries: Workers that a dialogue may lose before it is given up.
        """
        self.at_once = at_once
        self.hands: list[Hand] = []
        self._ray = ray
        self._start = start
        self._shares = shares
        self._made = made
        self._ours = ours
        self._tries = tries
        self._places = asyncio.Semaphore(at_once)
        self._hiring: set[asyncio.Task[None]] = set()
        self._replacements = REPLACED * len(shares)
        self._worlds: OrderedDict[str, Any] = OrderedDict()
        self._stopped = False

    async def begin(self) -> None:
        """Start the workers.

        Raises:
            NotConfigured: One did not start.
        """
        self.hands += await asyncio.gather(*(self._hired(share) for share in self._shares))

    async def hold(self, work: Work, told: Told) -> Finished:
        """Hold one dialogue to its end; see `Engine`. A worker that is gone is replaced.

        Raises:
            Cancelled: It was asked to stop.
            BadSnapshot: What is recorded of it is of something else.
            StorageUnavailable: A call could not be kept.
            NotConfigured: No worker is left.
        """
        async with self._places:
            heard = Hearing(work, told, self._made)
            for _ in range(self._tries):
                if self._stopped:
                    raise Cancelled("the batch was stopped; run it again to go on")
                hand = await self._least_busy()
                try:
                    return await self._held_by(hand, heard)
                except LostError as error:
                    self._lost(hand, str(error))
            return given_up(work.job, self._tries)

    async def _held_by(self, hand: Hand, heard: "Hearing") -> Finished:
        """Have a worker hold a dialogue, from what is recorded of it on.

        Raises:
            LostError: The worker is gone.
        """
        job, played = heard.work.job, heard.calls
        hand.busy += 1
        try:
            world = self._world(heard.work.frozen)
            async for batch in self._events(hand.actor, job, world, played):
                for event in batch:
                    finished = await heard.take(event)
                    if finished is not None:
                        return finished
        finally:
            hand.busy -= 1
        raise LostError("it said nothing more")

    async def _events(self, actor: Any, *given: Any) -> AsyncIterator[list[Event]]:
        """Yield what a worker tells; one that nobody listens to any more is told to leave off.

        Raises:
            LostError: It is gone.
        """
        errors = self._ray.exceptions
        stream = actor.hold.options(num_returns="streaming").remote(*given)
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

    def _world(self, frozen: bytes) -> Any:
        """Put a world where every worker can read it, once."""
        key = hashlib.sha256(frozen).hexdigest()
        found = self._worlds.pop(key, None)
        self._worlds[key] = self._ray.put(frozen) if found is None else found
        if len(self._worlds) > WORLDS_KEPT:  # a dialogue that is held keeps its own
            self._worlds.popitem(last=False)
        return self._worlds[key]

    async def _least_busy(self) -> Hand:
        """Return the worker with the most room; waits for one that is being started.

        Raises:
            NotConfigured: None is left.
        """
        while not self.hands and self._hiring:
            await asyncio.wait(self._hiring, return_when=asyncio.FIRST_COMPLETED)
        if not self.hands:
            raise NotConfigured("no worker of Ray is left: its logs tell why they ended")
        return min(self.hands, key=lambda hand: hand.busy / hand.slots)

    def _lost(self, hand: Hand, why: str) -> None:
        """Have a worker that is gone replaced; the first dialogue that meets it does."""
        if hand not in self.hands:
            return
        self.hands.remove(hand)
        log.warning("worker is gone", pid=hand.pid, reason=why)
        self._ray.kill(hand.actor)  # it may only be out of reach
        if self._replacements:
            self._replacements -= 1
            task = asyncio.create_task(self._replace(hand.model), name="ray worker")
            self._hiring.add(task)
            task.add_done_callback(self._hiring.discard)

    async def _replace(self, share: ModelSpec) -> None:
        try:
            self.hands.append(await self._hired(share))
        except NotConfigured as error:
            log.warning("worker is not replaced", reason=error.message)

    async def _hired(self, share: ModelSpec) -> Hand:
        """Start a worker.

        Raises:
            NotConfigured: It did not start.
        """
        hand = Hand(self._start(share), share, slots_of(share))
        try:
            async with asyncio.timeout(READY_S):
                hand.pid = await hand.actor.ready.remote()
        except TimeoutError as error:
            raise NotConfigured(
                f"a worker of Ray did not start within {READY_S:g} s: the cluster has no room for "
                f"{len(self._shares)} of one processor each; give fewer --workers"
            ) from error
        except self._ray.exceptions.RayError as error:
            log.error("worker did not start", exc_info=error)
            raise NotConfigured(
                "a worker of Ray did not start: every machine of the cluster needs this version of "
                "persona-mcp with the extra ray; the log has the cause"
            ) from error
        except asyncio.CancelledError:
            self._ray.kill(hand.actor)
            raise
        if self._stopped:
            hand.actor.stop.remote()
        return hand

    async def stop(self) -> None:
        """Have every dialogue end where its turn ends."""
        self._stopped = True
        for hand in self.hands:
            hand.actor.stop.remote()

    async def aclose(self) -> None:
        """Let go of the workers, and of the cluster where it was started for them."""
        for task in self._hiring:
            task.cancel()
        await asyncio.gather(*self._hiring, return_exceptions=True)
        hands, self.hands = self.hands, []
        closing = [hand.actor.close.remote() for hand in hands]
        with suppress(TimeoutError, self._ray.exceptions.RayError):
            async with asyncio.timeout(CLOSE_S):
                for closed in closing:
                    await closed
        for hand in hands:
            self._ray.kill(hand.actor)
        self._worlds.clear()
        if self._ours:
            await asyncio.to_thread(self._ray.shutdown)


class Hearing:
    """What is heard of one dialogue, over all workers that hold it.

    Attributes:
        work: Which one.
        calls: Recorded so far, in order.
    """

    def __init__(self, work: Work, told: Told, made: Made | None) -> None:
        """Begin with what is recorded already."""
        self.work = work
        self._told = told
        self._made = made
        self._calls = {call.number: call for call in work.played}
        self._turns = 0

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """Return the calls that the next worker need not make."""
        return tuple(self._calls[number] for number in sorted(self._calls))

    async def take(self, event: Event) -> Finished | None:
        """Keep a call, tell of a turn the first time, and return what ends the dialogue.

        Raises:
            Cancelled: It was asked to stop.
            PersonaError: It came to no outcome, or a call could not be kept.
        """
        match event:
            case RecordedCall():
                if self._made is not None:
                    await self._made(event)
                self._calls[event.number] = event
            case TurnTold():
                if event.turn > self._turns:
                    self._turns = event.turn
                    self._told(event)
            case Finished():
                return event
            case Stopped():
                raise Cancelled(event.message)
            case Faulty():
                raise error_of(event.problem)
        return None


def given_up(job: Job, workers: int) -> Finished:
    """Return the outcome of a dialogue that so many workers did not live through."""
    error = InternalError(
        f"{workers} workers ended while they held this dialogue, so it was given up: Ray's logs "
        "tell why (often too little memory); --retry-failed holds it again"
    )
    outcome = Outcome(
        job=job,
        status="failed",
        exit_reason="",
        error=kept_problem(error),
        rows={kept.name: [] for kept in ADDED},
        before={},
        after={},
        ended_at=job.starts_at,
        calls=0,
    )
    return Finished(outcome, ())


def slots_of(share: ModelSpec) -> int:
    """Return how many places a share has."""
    return sum(end.slots for end in share.endpoints) or share.slots or 1
