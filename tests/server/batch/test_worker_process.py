"""The process of a worker: what it is told over its pipes it does, and what happens it tells."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from persona_mcp.config.settings import LogSettings, Settings
from persona_mcp.server.batch.dialogue_worker import Faulty, Stopped, Worker
from persona_mcp.server.batch.model_pool import ModelPool, Post
from persona_mcp.server.batch.ray_crew import RayWorker
from persona_mcp.server.batch.worker_frames import (
    LENGTH,
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
from persona_mcp.server.batch.worker_process import ALIVE_S, Open, open_worker, pipes, serve
from persona_mcp.state.anchors import load_anchors
from persona_mcp.state.batch.values import Finished, TurnTold
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.cues import load_cues
from persona_mcp.state.dialogue_spec import START, Endpoint, ModelSpec
from tests.doubles import Hangs, HashedModel, ScriptedModel
from tests.small_worlds import cast, host, job

pytestmark = pytest.mark.anyio

SETTINGS = Settings(_env_file=None)


@pytest.fixture
def usual_logging() -> Iterator[None]:
    """Leave logging as it was: a worker sets up that of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@dataclass
class Started:
    """The other end of a worker's pipes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    serving: asyncio.Task[None]

    def say(self, said: object) -> None:
        self.writer.write(framed(said))

    async def hear(self) -> Any:
        return await next_frame(self.reader)

    async def ended(self) -> None:
        self.writer.close()
        await self.serving


@asynccontextmanager
async def started(
    opened: Open, share: ModelSpec, correlation_id: str | None = None, alive_s: float = ALIVE_S
) -> AsyncIterator[Started]:
    """Serve a pair of pipes in this process."""
    (its_input, our_output), (our_input, its_output) = os.pipe(), os.pipe()
    serving = asyncio.create_task(serve(its_input, its_output, opened, alive_s))
    reader, writer = await pipes(our_input, our_output)
    begun = Started(reader, writer, serving)
    begun.say(Begin(SETTINGS, share, correlation_id))
    try:
        yield begun
    finally:
        await begun.ended()


def scripted(model: ScriptedModel) -> Open:
    """Open workers over a model with a script."""
    return lambda settings, share: Worker(host(), ModelPool([Post("it", model, 4)]))


async def world() -> bytes:
    ours = host()
    return await ours.begin_world(cast(), START)


async def test_it_tells_of_two_dialogues_under_their_tickets_to_their_ends() -> None:
    frozen, model = await world(), HashedModel()

    async with started(scripted(model), ModelSpec()) as worker:
        assert await worker.hear() == Begun(os.getpid())
        worker.say(Hold(7, job(0, "ada", "ben", max_turns=2), frozen, ()))
        worker.say(Hold(8, job(1, "ben", "cleo", max_turns=2), frozen, ()))
        told = dict[int, list[Any]]()
        while sum(isinstance(events[-1], Finished) for events in told.values()) < 2:
            said = await worker.hear()
            assert isinstance(said, Told)
            told.setdefault(said.ticket, []).extend(said.events)

    turns = {
        ticket: [(event.index, event.turn) for event in events if isinstance(event, TurnTold)]
        for ticket, events in told.items()
    }
    assert turns == {7: [(0, 1), (0, 2)], 8: [(1, 1), (1, 2)]}


async def test_it_gives_signs_of_life_while_it_has_nothing_to_tell() -> None:
    async with started(scripted(HashedModel()), ModelSpec(), alive_s=0.01) as worker:
        assert await worker.hear() == Begun(os.getpid())
        assert [await worker.hear() for _ in range(3)] == [Alive()] * 3


async def test_what_nobody_listens_to_any_more_is_left_off_and_the_rest_goes_on() -> None:
    frozen, hangs = await world(), Hangs()
    model = ScriptedModel(hangs, "Thank you, the boats made me glad.")

    async with started(scripted(model), ModelSpec()) as worker:
        await worker.hear()
        worker.say(Hold(0, job(0, "ada", "ben", max_turns=1), frozen, ()))
        await hangs.reached.wait()
        worker.say(Leave(0))
        worker.say(Leave(99))
        worker.say(Hold(1, job(1, "ada", "ben", max_turns=1), frozen, ()))
        said = await worker.hear()

    assert said.ticket == 1
    assert hangs.cancelled.is_set()


async def test_it_is_told_whether_dialogues_wait_to_be_begun() -> None:
    told = asyncio.Queue[bool]()

    class Watched(Worker):
        async def crowd(self, crowded: bool) -> None:
            await super().crowd(crowded)
            told.put_nowait(crowded)

    def opened(settings: Settings, share: ModelSpec) -> Worker:
        return Watched(host(), ModelPool([Post("model", HashedModel(), 1)]))

    async with started(opened, ModelSpec()) as worker:
        await worker.hear()
        worker.say(Crowd(True))
        worker.say(Crowd(False))
        assert [await told.get(), await told.get()] == [True, False]


async def test_it_has_read_what_its_first_dialogue_needs_before_it_says_that_it_is_there() -> None:
    load_cues.cache_clear()
    load_anchors.cache_clear()

    async with started(scripted(HashedModel()), ModelSpec()) as worker:
        assert await worker.hear() == Begun(os.getpid())
        assert load_cues.cache_info().currsize == load_anchors.cache_info().currsize == 1


async def test_told_to_stop_it_ends_a_dialogue_where_its_turn_ends() -> None:
    frozen, model = await world(), HashedModel()

    async with started(scripted(model), ModelSpec()) as worker:
        await worker.hear()
        worker.say(Stop())
        worker.say(Hold(0, job(0, "ada", "ben", max_turns=9), frozen, ()))
        events = list[Any]()
        while not (events and isinstance(events[-1], Stopped)):
            events += (await worker.hear()).events

    assert max(event.turn for event in events if isinstance(event, TurnTold)) < 9


async def test_the_end_of_its_input_ends_it_in_the_middle_of_a_reply() -> None:
    frozen, hangs = await world(), Hangs()

    async with started(scripted(ScriptedModel(hangs)), ModelSpec()) as worker:
        await worker.hear()
        worker.say(Hold(0, job(0, "ada", "ben", max_turns=1), frozen, ()))
        await hangs.reached.wait()
        await worker.ended()

        with pytest.raises(EOFError):
            await worker.hear()
    assert hangs.cancelled.is_set()


class Unwritable(Worker):
    """A worker that tells of something that no other process can have."""

    async def hold(self, *_: Any) -> AsyncGenerator[list[Any]]:
        yield [lambda: None]


async def test_a_dialogue_that_cannot_be_told_of_is_a_fault_and_not_waited_for() -> None:
    frozen = await world()

    async with started(
        lambda *_: Unwritable(host(), ModelPool([Post("it", HashedModel(), 1)])), ModelSpec()
    ) as worker:
        await worker.hear()
        worker.say(Hold(0, job(0, "ada", "ben"), frozen, ()))
        said = await worker.hear()

    assert isinstance(said.events[-1], Faulty)
    assert said.ticket == 0


class Noting(Worker):
    """A worker that tells under which id its lines would be logged."""

    async def hold(self, *_: Any) -> AsyncGenerator[list[Any]]:
        yield [Stopped(str(current_correlation_id()))]


async def test_what_it_logs_is_under_the_id_of_the_command_that_started_it() -> None:
    frozen = await world()

    async with started(
        lambda *_: Noting(host(), ModelPool([Post("it", HashedModel(), 1)])), ModelSpec(), "batch-7"
    ) as worker:
        await worker.hear()
        worker.say(Hold(0, job(0, "ada", "ben"), frozen, ()))
        said = await worker.hear()

    assert said.events == [Stopped("batch-7")]


async def test_what_it_cannot_be_made_with_is_told() -> None:
    wrong = ModelSpec(name="embedded:none", endpoints=[Endpoint(url="http://gpu", slots=1)])

    async with started(open_worker, wrong) as worker:
        said = await worker.hear()

    assert isinstance(said, Faulty)
    assert "model.name" in said.problem["message"]


@pytest.mark.parametrize("cut", [2, 10])
async def test_a_frame_that_was_cut_off_is_the_end(cut: int) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(framed(Leave(1)) + framed(Leave(2))[:cut])
    reader.feed_eof()

    assert await next_frame(reader) == Leave(1)
    with pytest.raises(EOFError, match="the other side of the pipe is gone"):
        await next_frame(reader)


async def test_a_frame_may_be_larger_than_a_pipe_holds() -> None:
    reader, large = asyncio.StreamReader(), Hold(1, job(0, "ada", "ben"), b"x" * 10**6, ())
    written = framed(large)
    reader.feed_data(written)

    assert await next_frame(reader) == large
    assert LENGTH.unpack(written[: LENGTH.size]) == (len(written) - LENGTH.size,)


async def test_what_a_worker_of_ray_logs_is_under_that_id_too(
    capsys: pytest.CaptureFixture[str], usual_logging: None
) -> None:
    nobody = ModelSpec(name="ollama:none", endpoints=[Endpoint(url="http://127.0.0.1:9", slots=1)])
    logged = SETTINGS.model_copy(update={"log": LogSettings(format="json")})
    worker = RayWorker(logged, nobody, "batch-7")

    held = [one async for one in worker.hold(job(0, "ada", "ben"), await world(), ())]
    await worker.close()

    assert isinstance(held[-1][-1], Finished)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    said = {line["correlation_id"] for line in lines if "left alone" in line["event"]}
    assert said == {"batch-7"}
