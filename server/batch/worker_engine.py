"""Dialogues held by workers in processes of their own: on this machine, or on a Ray cluster.

```
WorkerEngine     here: who holds what, what is told, what to do when a worker is gone
├── Crew         starts workers: processes of this machine (worker_process), Ray's (ray_crew)
└── Hand         a worker as it is seen from here
    └── Worker   elsewhere, one process each (dialogue_worker): the same `run_dialogue`
```
What a worker makes comes here turn by turn, each with the calls that it is made of, and is kept
here. So a worker that is gone takes nothing with it but the turn that it was at: another one plays
the calls that came, and goes on.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Protocol

import structlog

from persona_mcp.server.batch.dialogue_worker import Event
from persona_mcp.server.batch.hearing import Hearing, is_unanswered
from persona_mcp.server.batch.local_engine import Made, Told
from persona_mcp.server.batch.model_pool import REST_S
from persona_mcp.server.batch.recorded_model import kept_problem
from persona_mcp.server.batch.worker_shares import slots_of
from persona_mcp.state.batch.values import Finished, Job, Outcome, RecordedCall, Work
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.errors import Cancelled, InternalError, NotConfigured, PersonaError
from persona_mcp.state.folding import ADDED

log = structlog.get_logger(__name__)

CLOSE_S = 10.0
"""Limit of a worker's own end, in seconds; then it is ended."""
TRIES = 3
"""Workers that a dialogue may lose: it may be what ends them. The last one holds it alone, so that
it does not take with it whoever was beside it each time."""
REPLACED = 3
"""Workers that are started anew, for each there is at the beginning."""


class LostError(Exception):
    """A worker is gone, and with it what it was at."""


class DownError(Exception):
    """None of a worker's servers answers, and another worker has one that was not asked."""


class Hand(ABC):
    """A worker as it is seen from here.

    Attributes:
        model: Its share of the places at the model.
        slots: How many these are.
        servers: Addresses of the servers that they are at; none where the batch names none.
        pid: Of its process.
        held: Dialogues that it holds.
        kept: For one dialogue alone; no other one is given to it.
        rests_until: None of its servers answered; others are preferred until then, by the loop's
            clock.
    """

    def __init__(self, model: ModelSpec, pid: int) -> None:
        """Begin with nothing to do."""
        self.model = model
        self.slots = slots_of(model)
        self.servers = frozenset(end.url for end in model.endpoints)
        self.pid = pid
        self.held: set[Hearing] = set()
        self.kept = False
        self.rests_until = 0.0

    @property
    def load(self) -> float:
        """Return how much each of its places has still to do: turns, and an end for each talk."""
        return sum(heard.turns_left + 1 for heard in self.held) / self.slots

    @abstractmethod
    def hold(
        self, job: Job, frozen: bytes, played: tuple[RecordedCall, ...]
    ) -> AsyncGenerator[list[Event]]:
        """Have it hold a dialogue, and yield what it tells; see `Worker.hold`.

        Closed before the end, it has the worker leave off.

        Raises:
            LostError: It is gone.
            InternalError: It failed.
        """

    @abstractmethod
    def crowd(self, crowded: bool) -> None:
        """Tell it whether dialogues wait, or the last ones are held; see `Engine`."""

    @abstractmethod
    def stop(self) -> None:
        """Have every dialogue end where its turn ends."""

    @abstractmethod
    async def close(self) -> None:
        """Have it end, and wait for that; who does not is killed by the caller."""

    @abstractmethod
    def kill(self) -> None:
        """End it now, if it has not ended; it may only be out of reach."""


class Crew(Protocol):
    """Where workers are started."""

    async def hire(self, share: ModelSpec) -> Hand:
        """Start a worker that has this share of the places at the model.

        Raises:
            NotConfigured: It did not start.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what workers share; they have ended."""
        ...


class WorkerEngine:
    """An `Engine` over workers in processes of their own.

    Attributes:
        at_once: How many dialogues are held at the same time; more wait.
        hands: The workers that there are now.
    """

    def __init__(
        self,
        crew: Crew,
        shares: list[ModelSpec],
        at_once: int,
        made: Made | None,
    ) -> None:
        """Take over; nothing is started yet.

        Args:
            crew: Starts workers; closed with the engine.
            shares: The model's places, shared out: a worker each.
            at_once: Dialogues held at the same time.
            made: Keeps each call of the model, as it comes.
        """
        self.at_once = at_once
        self.hands: list[Hand] = []
        self._crew = crew
        self._shares = shares
        self._made = made
        self._places = asyncio.Semaphore(at_once)
        self._hiring: set[asyncio.Task[None]] = set()
        self._replacements = REPLACED * len(shares)
        self._change = asyncio.Event()
        self._crowded = False
        self._stopped = False

    async def begin(self) -> None:
        """Start the workers; where one does not start, none is left.

        Raises:
            NotConfigured: One did not start.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for share in self._shares:
                    group.create_task(self._hire(share))
        except BaseException as error:
            await asyncio.shield(self.aclose())
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from error
            raise

    async def hold(self, work: Work, told: Told) -> Finished:
        """Hold one dialogue to its end; see `Engine`. A worker that is gone is replaced.

        Where none of a worker's servers answers, one that has others goes on.

        Raises:
            Cancelled: It was asked to stop.
            BadSnapshot: What is recorded of it is of something else.
            StorageUnavailable: A call could not be kept.
            NotConfigured: No worker is left.
        """
        async with self._places:
            heard = Hearing(work, told, self._made)
            lost = 0
            while lost < TRIES:
                if self._stopped:
                    raise Cancelled("the batch was stopped; run it again to go on")
                try:
                    if lost == TRIES - 1:
                        return await self._held_alone(heard)
                    return await self._held_by(await self._least_loaded(heard), heard)
                except LostError:
                    lost += 1
                except DownError:
                    continue
            return given_up(work.job)

    async def _held_alone(self, heard: Hearing) -> Finished:
        """Have a worker hold a dialogue and nothing else; waits for what it is still at.

        Raises:
            LostError: The worker is gone.
            DownError: Another one has to.
        """
        while True:
            hand = await self._least_loaded(heard)
            hand.kept = True
            try:
                while hand.held and hand in self.hands:
                    await self._change.wait()
                if hand in self.hands:
                    return await self._held_by(hand, heard)
            finally:
                hand.kept = False
                self._changed()

    async def _held_by(self, hand: Hand, heard: Hearing) -> Finished:
        """Have a worker hold a dialogue, from what is recorded of it on.

        One that is gone is replaced.

        Raises:
            LostError: The worker is gone.
            DownError: Another one has to.
        """
        job, frozen, played = heard.work.job, heard.work.frozen, heard.calls
        hand.held.add(heard)
        try:
            async with aclosing(hand.hold(job, frozen, played)) as told:
                async for batch in told:
                    for event in batch:
                        self._pass_on_if_down(hand, event, heard)
                        finished = await heard.take(event)
                        if finished is not None:
                            return finished
            raise LostError("it said nothing more")
        except LostError as error:
            self._lost(hand, str(error))
            raise
        finally:
            hand.held.discard(heard)
            self._changed()

    def _pass_on_if_down(self, hand: Hand, event: Event, heard: Hearing) -> None:
        """Look whether a worker's servers are down; the call is not kept: others can make it.

        Raises:
            DownError: They are, and another worker has a server that has not failed this call.
        """
        if not is_unanswered(event):
            return
        hand.rests_until = asyncio.get_running_loop().time() + REST_S
        heard.down |= hand.servers
        if any(other.servers - heard.down for other in self.hands):
            log.info("a dialogue goes to a worker with other servers", pid=hand.pid)
            raise DownError

    async def _least_loaded(self, heard: Hearing) -> Hand:
        """Return the worker with the least to do; waits where none takes a dialogue now.

        One that has a server that did not fail it comes first, then one that does not rest.

        Raises:
            NotConfigured: None is left.
        """
        while self.hands or self._hiring:
            fit = [hand for hand in self.hands if hand.servers - heard.down] or self.hands
            free = [hand for hand in fit if not hand.kept]
            if free:
                now = asyncio.get_running_loop().time()
                return min(free, key=lambda one: (one.rests_until > now, one.load))
            await self._change.wait()
        raise NotConfigured("no worker is left: the log tells why they ended")

    def _changed(self) -> None:
        """Have all who wait for a worker look again."""
        self._change.set()
        self._change = asyncio.Event()

    def _lost(self, hand: Hand, why: str) -> None:
        """Have a worker that is gone replaced; the first dialogue that meets it does."""
        if hand not in self.hands:
            return
        self.hands.remove(hand)
        log.warning("worker is gone", pid=hand.pid, reason=why)
        hand.kill()
        if self._replacements:
            self._replacements -= 1
            task = asyncio.create_task(self._replace(hand.model), name="hire worker")
            self._hiring.add(task)
            task.add_done_callback(self._hired)

    def _hired(self, task: asyncio.Task[None]) -> None:
        self._hiring.discard(task)
        self._changed()

    async def _replace(self, share: ModelSpec) -> None:
        try:
            await self._hire(share)
        except PersonaError as error:
            log.warning("worker is not replaced", reason=error.message)

    async def _hire(self, share: ModelSpec) -> None:
        hand = await self._crew.hire(share)
        self.hands.append(hand)
        hand.crowd(self._crowded)
        if self._stopped:
            hand.stop()

    def crowd(self, crowded: bool) -> None:
        """Take it that dialogues wait, or that the last ones are held; see `Engine`."""
        self._crowded = crowded
        for hand in self.hands:
            hand.crowd(crowded)

    async def stop(self) -> None:
        """Have every dialogue end where its turn ends."""
        self._stopped = True
        for hand in self.hands:
            hand.stop()

    async def aclose(self) -> None:
        """Let go of the workers, and of what they share."""
        for task in self._hiring:
            task.cancel()
        await asyncio.gather(*self._hiring, return_exceptions=True)
        hands, self.hands = self.hands, []
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(hand.close() for hand in hands))
        for hand in hands:
            hand.kill()
        await self._crew.aclose()


def given_up(job: Job) -> Finished:
    """Return the outcome of a dialogue that no worker lived through."""
    error = InternalError(
        f"{TRIES} workers ended while they held this dialogue, so it was given up: the log, or "
        "Ray's, tells why (often too little memory); --retry-failed holds it again"
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
