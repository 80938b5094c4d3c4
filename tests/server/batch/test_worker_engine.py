"""Dialogues held by workers come to the same, byte for byte, whatever becomes of a worker.

Workers are processes of this machine, or Ray's.
"""

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from persona_mcp.config.settings import LLMSettings, Settings
from persona_mcp.server.batch.dialogue_host import dialogue_host
from persona_mcp.server.batch.dialogue_worker import Event, Faulty, Stopped, Worker
from persona_mcp.server.batch.local_engine import LocalEngine
from persona_mcp.server.batch.model_pool import open_pool
from persona_mcp.server.batch.process_crew import ProcessCrew, open_processes, processors
from persona_mcp.server.batch.ray_cluster import (
    connect,
    known_before,
    loaded_ray,
    open_ray,
)
from persona_mcp.server.batch.worker_engine import Hand, LostError, WorkerEngine
from persona_mcp.server.batch.worker_shares import shared_out
from persona_mcp.state.batch.codec import call_json, outcome_json, read_outcome
from persona_mcp.state.batch.values import Engine, Finished, Job, RecordedCall, TurnTold, Work
from persona_mcp.state.dialogue_spec import START, Endpoint, ModelSpec
from persona_mcp.state.errors import BadSnapshot, Cancelled, InvalidParams, NotConfigured
from tests.model_server import Behaviour, ModelServer
from tests.processes import children
from tests.small_worlds import cast, job

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

Opened = Callable[..., Awaitable[WorkerEngine]]

SETTINGS = Settings(_env_file=None)
JOBS = [job(number, "ada", "ben", max_turns=2 + number % 4) for number in range(6)]


def model_of(server: ModelServer, slots: int = 4) -> ModelSpec:
    return ModelSpec(name="openai:test", endpoints=[Endpoint(url=server.url, slots=slots)])


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    """A model whose replies depend on the prompt alone."""
    async with ModelServer("hashed") as running:
        yield running


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def opened(request: pytest.FixtureRequest, compiled: None) -> Opened:
    """Opens an engine over two workers."""
    if request.param == "processes":
        return open_processes
    request.getfixturevalue("cluster")
    return open_ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not made for this machine")
    ray = loaded_ray()
    connect(ray, 2)
    yield
    ray.shutdown()


@asynccontextmanager
async def workers_of(
    opened: Opened, server: ModelServer, made: Any = None
) -> AsyncIterator[WorkerEngine]:
    engine = await opened(SETTINGS, model_of(server), 2, 2, made)
    try:
        yield engine
    finally:
        await engine.aclose()


async def world() -> bytes:
    host = dialogue_host(SETTINGS)
    try:
        return await host.begin_world(cast(), START)
    finally:
        await host.aclose()


def unheard(turn: TurnTold) -> None:
    """Nobody watches."""


Told = Callable[[TurnTold], None]


async def all_of(engine: Engine, frozen: bytes, told: Told = unheard) -> list[bytes]:
    """Hold all, and write what came of each."""
    held = await asyncio.gather(*(engine.hold(Work(one, frozen), told) for one in JOBS))
    return [written(one) for one in held]


def written(one: Finished) -> bytes:
    """Write all that is to be the same; an outcome's JSON leaves measured times out."""
    return "\n".join([outcome_json(one.outcome), *map(call_json, one.calls)]).encode()


async def alone(server: ModelServer, frozen: bytes, jobs: list[Job] = JOBS) -> list[bytes]:
    """Hold all in this process, one after the other."""
    pool = open_pool(SETTINGS.llm, model_of(server, 1))
    engine = LocalEngine(dialogue_host(SETTINGS), pool, at_once=1)
    held = [written(await engine.hold(Work(one, frozen), unheard)) for one in jobs]
    await engine.aclose()
    return held


async def test_two_workers_come_to_the_same_as_one_process_if_one_is_killed_too(
    opened: Opened, server: ModelServer
) -> None:
    frozen, kept, told = await world(), list[RecordedCall](), list[tuple[int, int]]()
    turns = [(one.place.index, turn) for one in JOBS for turn in range(1, one.talk.max_turns + 1)]
    killed: list[int] = []

    async def made(call: RecordedCall) -> None:
        kept.append(call)

    def hears(turn: TurnTold) -> None:
        told.append((turn.index, turn.turn))

    def kills(turn: TurnTold) -> None:
        hears(turn)
        if not killed and turn.turn == 2:
            busiest = max(engine.hands, key=lambda hand: len(hand.held))
            killed.append(busiest.pid)
            os.kill(busiest.pid, signal.SIGKILL)

    expected = await alone(server, frozen)
    async with workers_of(opened, server, made) as engine:
        pids = {hand.pid for hand in engine.hands}
        for watch in (hears, kills):
            kept.clear()
            told.clear()
            assert await all_of(engine, frozen, watch) == expected
            assert sorted(told) == turns  # once each, though some were said again
            assert sorted((call.index, call.number + 1) for call in kept) == turns
        left = {hand.pid for hand in engine.hands}

    assert len(pids) == 2 and os.getpid() not in pids
    assert killed[0] in pids - left


async def test_a_dialogue_goes_to_the_worker_whose_others_have_the_least_to_say(
    opened: Opened, server: ModelServer
) -> None:
    frozen, held = await world(), list[tuple[int, list[int]]]()

    async def looks(call: RecordedCall) -> None:
        its = [sorted(one.work.job.place.index for one in hand.held) for hand in engine.hands]
        held.append((call.index, next(one for one in its if call.index in one)))

    long, short = job(0, "ada", "ben", max_turns=12), job(1, "ada", "ben", max_turns=1)
    third = job(2, "ada", "ben", max_turns=1)
    async with workers_of(opened, server, looks) as engine:
        await asyncio.gather(
            *(engine.hold(Work(one, frozen), unheard) for one in (long, short, third))
        )
        assert [hand.load for hand in engine.hands] == [0.0, 0.0]

    assert not any({0, 1} <= set(its) or {0, 2} <= set(its) for _, its in held)


async def test_whether_dialogues_wait_bears_on_no_result(
    opened: Opened, server: ModelServer
) -> None:
    frozen = await world()

    expected = await alone(server, frozen)
    async with workers_of(opened, server) as engine:
        for crowded in (True, False):
            engine.crowd(crowded)
            assert await all_of(engine, frozen) == expected


class MortalHand(Hand):
    """A worker that ends at once, and notes what it was told of who waits."""

    def __init__(self) -> None:
        super().__init__(ModelSpec(slots=1), os.getpid())
        self.crowded: list[bool] = []

    async def hold(
        self, job: Job, frozen: bytes, played: tuple[RecordedCall, ...]
    ) -> AsyncGenerator[list[Event]]:
        raise LostError("it ended")
        yield []

    def crowd(self, crowded: bool) -> None:
        self.crowded.append(crowded)

    def stop(self) -> None:
        """There is nothing to stop."""

    async def close(self) -> None:
        """It has ended."""

    def kill(self) -> None:
        """It has ended."""


class MortalCrew:
    """Starts workers that end at once."""

    def __init__(self) -> None:
        self.hired: list[MortalHand] = []

    async def hire(self, share: ModelSpec) -> Hand:
        self.hired.append(MortalHand())
        return self.hired[-1]

    async def aclose(self) -> None:
        """They share nothing."""


async def test_workers_are_told_whether_dialogues_wait_those_that_replace_others_too() -> None:
    crew = MortalCrew()
    engine = WorkerEngine(crew, [ModelSpec(slots=1)], 1, None)
    await engine.begin()
    engine.crowd(True)

    held = await engine.hold(Work(JOBS[0], b""), unheard)
    await engine.aclose()

    assert held.outcome.status == "failed"
    assert [hand.crowded for hand in crew.hired] == [[False, True], [True], [True]]


async def test_a_dialogue_that_ends_its_workers_is_given_up_and_the_next_one_is_held(
    opened: Opened, server: ModelServer
) -> None:
    frozen, pids = await world(), list[int]()
    long = job(0, "ada", "ben", max_turns=9)

    async def kills(call: RecordedCall) -> None:
        for hand in engine.hands:
            if call.index == 0 and hand.held:
                pids.append(hand.pid)
                os.kill(hand.pid, signal.SIGKILL)

    async with workers_of(opened, server, kills) as engine:
        held = await engine.hold(Work(long, frozen), unheard)
        next_one = await engine.hold(Work(JOBS[1], frozen), unheard)

    assert len(set(pids)) == 3
    assert held.outcome.status == "failed"
    assert held.outcome.error is not None
    assert "3 workers ended while they held this dialogue" in held.outcome.error["message"]
    assert read_outcome(outcome_json(held.outcome)) == held.outcome
    assert [written(next_one)] == await alone(server, frozen, [JOBS[1]])


async def test_a_dialogue_that_ends_its_workers_does_not_take_others_with_it(
    opened: Opened, server: ModelServer
) -> None:
    frozen = await world()
    jobs = [job(number, "ada", "ben", max_turns=9) for number in range(4)]

    async def kills(call: RecordedCall) -> None:
        if call.index == 0:
            os.kill(engine.hands[0].pid, signal.SIGKILL)

    engine = await opened(SETTINGS, model_of(server), len(jobs), 1, kills)
    try:
        held = await asyncio.gather(*(engine.hold(Work(one, frozen), unheard) for one in jobs))
    finally:
        await engine.aclose()

    assert [one.outcome.status for one in held] == ["failed", "done", "done", "done"]
    assert [written(one) for one in held[1:]] == await alone(server, frozen, jobs[1:])


async def test_workers_stop_where_a_turn_ends(opened: Opened, server: ModelServer) -> None:
    server.default = Behaviour(hashed=True, delay_s=0.02)
    frozen, told, stops = await world(), list[int](), list[asyncio.Task[None]]()
    long = [job(number, "ada", "ben", max_turns=200) for number in range(2)]

    def stops_at(turn: TurnTold) -> None:
        told.append(turn.turn)
        if turn.turn == 2 and not stops:
            stops.append(asyncio.create_task(engine.stop()))

    async with workers_of(opened, server) as engine:
        held = await asyncio.gather(
            *(engine.hold(Work(one, frozen), stops_at) for one in long), return_exceptions=True
        )
        with pytest.raises(Cancelled, match="run it again to go on"):
            await engine.hold(Work(JOBS[0], frozen), unheard)

    assert [type(one) for one in held] == [Cancelled, Cancelled]
    assert max(told) < 100


async def test_a_recording_of_something_else_is_no_outcome_of_a_worker_either(
    server: ModelServer,
) -> None:
    frozen = await world()
    worker = Worker(dialogue_host(SETTINGS), open_pool(SETTINGS.llm, model_of(server)))
    asked = "0" * 64
    wrong = RecordedCall(0, 0, "reply", asked, "openai:test", "Hello.", 1, "stop", None, 8192)

    events = [batch async for batch in worker.hold(JOBS[0], frozen, (wrong,))]
    await worker.close()

    last = events[-1][-1]
    assert isinstance(last, Faulty)
    assert "dialogue 0, call 0" in last.problem["message"]
    assert last.problem["data"]["code"] == BadSnapshot.code


async def test_a_worker_tells_of_each_call_before_the_turn_that_is_made_of_it(
    server: ModelServer,
) -> None:
    frozen = await world()
    worker = Worker(dialogue_host(SETTINGS), open_pool(SETTINGS.llm, model_of(server)))

    batches = [batch async for batch in worker.hold(JOBS[1], frozen, ())]
    await worker.close()

    events = [event for batch in batches for event in batch]
    told = [
        ("call", event.number + 1) if isinstance(event, RecordedCall) else ("turn", event.turn)
        for event in events
        if isinstance(event, RecordedCall | TurnTold)
    ]
    assert told == [(kind, turn) for turn in (1, 2, 3) for kind in ("call", "turn")]
    assert isinstance(events[-1], Finished)
    assert [written(events[-1])] == await alone(server, frozen, [JOBS[1]])


async def test_a_worker_that_was_told_to_stop_ends_a_dialogue_after_its_turn(
    server: ModelServer,
) -> None:
    frozen = await world()
    worker = Worker(dialogue_host(SETTINGS), open_pool(SETTINGS.llm, model_of(server)))
    events = worker.hold(JOBS[3], frozen, ())
    await anext(events)
    await worker.stop()

    rest = [event async for batch in events for event in batch]
    await worker.close()

    assert isinstance(rest[-1], Stopped)
    assert max((event.turn for event in rest if isinstance(event, TurnTold)), default=0) < 5


def model_of_each(*servers: ModelServer) -> ModelSpec:
    """With as many workers, each has a server of its own and no other."""
    ends = [Endpoint(url=server.url, slots=1) for server in servers]
    return ModelSpec(name="openai:test", endpoints=ends)


async def test_what_a_worker_has_no_server_for_is_gone_on_with_by_one_that_has(
    opened: Opened, server: ModelServer
) -> None:
    frozen, kept = await world(), list[RecordedCall]()

    async def made(call: RecordedCall) -> None:
        kept.append(call)

    async with ModelServer("500") as breaks:
        breaks.script("hashed", "hashed")
        engine = await opened(SETTINGS, model_of_each(breaks, server), len(JOBS), 2, made)
        held = await all_of(engine, frozen)
        await engine.aclose()
        asked = len(breaks.requests)

    assert held == await alone(server, frozen)
    assert [call.error for call in kept] == [None] * len(kept)
    assert asked > 2


async def test_a_worker_without_a_server_is_left_alone_for_a_while(
    opened: Opened, server: ModelServer
) -> None:
    frozen = await world()
    async with ModelServer("404") as breaks:
        engine = await opened(SETTINGS, model_of_each(breaks, server), len(JOBS), 2)
        # Both workers at first: which of them is asked first depends on which was ready first.
        await asyncio.gather(*(engine.hold(Work(one, frozen), unheard) for one in JOBS[:2]))
        for one in JOBS[2:]:
            await engine.hold(Work(one, frozen), unheard)
        await engine.aclose()
        asked = len(breaks.requests)

    assert asked == 1


async def test_a_dialogue_that_no_worker_has_a_server_for_fails_by_its_servers_error(
    opened: Opened,
) -> None:
    frozen = await world()
    async with ModelServer("404") as one, ModelServer("404") as other:
        engine = await opened(SETTINGS, model_of_each(one, other), 2, 2)
        finished = await engine.hold(Work(JOBS[0], frozen), unheard)
        await engine.aclose()
        asked = len(one.requests), len(other.requests)

    assert finished.outcome.error is not None
    assert finished.outcome.error["data"]["status"] == 404
    assert asked == (1, 1)


def places(model: ModelSpec) -> list[tuple[str, int]] | int | None:
    return [(end.url[-1], end.slots) for end in model.endpoints] or model.slots


@pytest.mark.parametrize(
    ("slots", "workers", "shares"),
    [
        ([4], 2, [[("0", 2)], [("0", 2)]]),
        ([3, 1], 2, [[("0", 2)], [("0", 1), ("1", 1)]]),
        ([1, 1, 1], 2, [[("0", 1), ("2", 1)], [("1", 1)]]),
        ([2], 8, [[("0", 1)], [("0", 1)]]),
        ([], 3, [3, 2, 2]),
        ([], 1, [7]),
    ],
)
def test_the_places_at_the_model_are_shared_out_and_none_is_added(
    slots: list[int], workers: int, shares: list[Any]
) -> None:
    ends = [Endpoint(url=f"http://gpu{n}", slots=count) for n, count in enumerate(slots)]
    model = ModelSpec(name="ollama:llama3.1", endpoints=ends)

    parts = shared_out(LLMSettings(concurrency=7), model, workers)

    assert [places(part) for part in parts] == shares
    assert {part.name for part in parts} == {"ollama:llama3.1"}


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(NotConfigured, match=r"pip install 'persona-mcp\[ray\]'"):
        await open_ray(SETTINGS, ModelSpec(), 1)


def test_what_ray_is_told_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    here = known_before()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    opened = known_before()
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")

    assert here["RAY_AUTH_MODE"] == "token" and len(here["RAY_AUTH_TOKEN"]) == 64
    assert here["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "RAY_AUTH_TOKEN" not in opened
    assert known_before() == {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "ended at its start, with status 3"),
        ("import time; time.sleep(600)", "did not start within"),
        ("import os, time; os.close(1); time.sleep(600)", "did not start within"),
    ],
)
async def test_a_worker_that_does_not_start_is_told_of_and_none_is_left(
    code: str, reason: str
) -> None:
    crew = ProcessCrew(SETTINGS, (sys.executable, "-c", code), ready_s=2.0)
    engine = WorkerEngine(crew, [ModelSpec(slots=1)] * 2, 1, None)

    with pytest.raises(NotConfigured, match=reason):
        await engine.begin()

    assert engine.hands == []
    assert children("time.sleep(600)") == []


MUTTERS = """
import os, time
from persona_mcp.server.batch.worker_frames import LENGTH, Begun, framed
os.write(1, framed(Begun(os.getpid())) + LENGTH.pack(1) + b"?")
time.sleep(600)
"""


async def test_a_worker_that_cannot_be_understood_is_lost_and_not_waited_for() -> None:
    crew = ProcessCrew(SETTINGS, (sys.executable, "-c", MUTTERS))
    hand = await crew.hire(ModelSpec(slots=1))

    with pytest.raises(LostError, match="exit status -9"):
        await anext(hand.hold(JOBS[0], b"", ()))

    await crew.aclose()


SLEEPS = """
import os, time
from persona_mcp.server.batch.worker_frames import Begun, framed
os.write(1, framed(Begun(os.getpid())))
time.sleep(600)
"""


async def test_a_worker_that_gives_no_sign_of_life_is_lost_and_not_waited_for() -> None:
    crew = ProcessCrew(SETTINGS, (sys.executable, "-c", SLEEPS), silent_s=0.2)
    hand = await crew.hire(ModelSpec(slots=1))

    with pytest.raises(LostError, match=r"exit status -9|its pipe is closed"):
        await anext(hand.hold(JOBS[0], b"", ()))

    await crew.aclose()


async def test_a_process_that_the_system_refuses_is_told_of() -> None:
    engine = WorkerEngine(
        ProcessCrew(SETTINGS, ("/no/such/python",)), [ModelSpec(slots=1)], 1, None
    )

    with pytest.raises(NotConfigured, match=r"cannot be started .*give fewer --workers"):
        await engine.begin()


async def test_a_worker_says_why_it_cannot_be_made(compiled: None) -> None:
    wrong = ModelSpec(name="embedded:none", endpoints=[Endpoint(url="http://gpu", slots=1)])
    engine = WorkerEngine(ProcessCrew(SETTINGS), [wrong], 1, None)

    with pytest.raises(InvalidParams, match=r"model\.name"):
        await engine.begin()


def test_there_is_a_worker_for_each_processor() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
