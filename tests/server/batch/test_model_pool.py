"""Several servers share the load, and none is given more than it has places."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from persona_mcp.config.settings import LLMSettings
from persona_mcp.server.batch.model_pool import (
    ModelPool,
    Post,
    address_of,
    is_down,
    open_pool,
)
from persona_mcp.state.dialogue_spec import Endpoint, ModelSpec
from persona_mcp.state.errors import DeadlineExceeded, InvalidParams, ModelError, PersonaError
from persona_mcp.state.model import ChatModel, Chunk, Message, Sampling
from tests.doubles import Fails, Hangs, Line, ScriptedModel
from tests.model_server import Behaviour, ModelServer

pytestmark = pytest.mark.anyio

SAMPLING = Sampling(100, 0.7)
LOST = ModelError("cannot be reached", stage="connect")


async def ask(model: ChatModel, text: str = "Hello!") -> str:
    async with aclosing(model.stream([Message("user", text)], SAMPLING)) as chunks:
        return "".join([chunk.text async for chunk in chunks])


class Counting(ScriptedModel):
    """A model that tells how many replies it makes at once, and makes them when it is told to."""

    def __init__(self, *lines: Line) -> None:
        super().__init__(*lines)
        self.now = self.most = 0
        self.order: list[str] = []
        self.go = asyncio.Semaphore(0)
        self.came = asyncio.Condition()

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        self.now += 1
        self.most = max(self.most, self.now)
        self.order.append(messages[-1].content)
        async with self.came:
            self.came.notify_all()
        try:
            await self.go.acquire()
            yield Chunk("Yes.", 1, "stop")
        finally:
            self.now -= 1

    async def begun(self, number: int) -> None:
        async with self.came:
            await self.came.wait_for(lambda: len(self.order) >= number)

    def let(self, number: int) -> None:
        for _ in range(number):
            self.go.release()


def pool_of(*posts: tuple[ChatModel, int], rest_s: float = 60.0) -> ModelPool:
    named = [Post(f"server {n}", model, slots) for n, (model, slots) in enumerate(posts)]
    return ModelPool(named, rest_s)


async def test_a_server_never_makes_more_replies_at_once_than_it_has_places() -> None:
    small, large = Counting(), Counting()
    pool = pool_of((small, 1), (large, 3))

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(ask(pool))
        await small.begun(1)
        await large.begun(3)
        for model in (small, large):
            model.let(20)

    assert pool.slots == 4
    assert (small.most, large.most) == (1, 3)
    assert len(small.order) + len(large.order) == 20


async def test_the_server_with_the_smallest_share_of_its_places_taken_is_asked() -> None:
    small, large = Counting(), Counting()
    pool = pool_of((small, 2), (large, 4))

    async with asyncio.TaskGroup() as group:
        for text in ("1", "2", "3"):
            group.create_task(ask(pool, text))
        await small.begun(1)
        await large.begun(2)
        small.let(1)
        large.let(2)

    assert (small.order, large.order) == (["1"], ["2", "3"])


async def test_who_has_most_to_say_is_served_first_and_among_equals_who_came_first() -> None:
    model = Counting()
    pool = pool_of((model, 1))

    async with asyncio.TaskGroup() as group:
        group.create_task(ask(pool, "at once"))
        await model.begun(1)
        for text, turns in (("a", 2), ("b", 9), ("c", 2), ("d", 9), ("e", 0)):
            group.create_task(ask(pool.seat(turns), text))
        await asyncio.sleep(0)
        model.let(6)

    assert model.order == ["at once", "b", "d", "a", "c", "e"]


async def test_a_seat_is_ranked_by_what_it_has_still_to_say_when_it_asks() -> None:
    model = Counting()
    pool = pool_of((model, 1))
    ending = pool.seat(50)
    ending.turns_left = 1

    async with asyncio.TaskGroup() as group:
        group.create_task(ask(pool, "at once"))
        await model.begun(1)
        group.create_task(ask(ending, "ending"))
        group.create_task(ask(pool.seat(2), "longer"))
        await asyncio.sleep(0)
        model.let(3)

    assert model.order == ["at once", "longer", "ending"]


async def test_while_dialogues_wait_to_be_begun_who_has_least_to_say_is_served_first() -> None:
    model = Counting()
    pool = pool_of((model, 1))
    pool.crowd(True)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask(pool, "at once"))
        await model.begun(1)
        for text, turns in (("a", 2), ("b", 9), ("c", 2), ("d", 9), ("e", 1)):
            group.create_task(ask(pool.seat(turns), text))
        await asyncio.sleep(0)
        model.let(6)

    assert model.order == ["at once", "e", "a", "c", "b", "d"]


@pytest.mark.parametrize(
    ("told", "order"),
    [([True], "acb"), ([True, False], "bac"), ([False, False], "bac"), ([True, True], "acb")],
)
async def test_those_who_wait_already_are_ranked_anew(told: list[bool], order: str) -> None:
    model = Counting()
    pool = pool_of((model, 1))

    async with asyncio.TaskGroup() as group:
        group.create_task(ask(pool, "at once"))
        await model.begun(1)
        for text, turns in (("a", 2), ("b", 9), ("c", 2)):
            group.create_task(ask(pool.seat(turns), text))
        await asyncio.sleep(0)
        for crowded in told:
            pool.crowd(crowded)
        model.let(4)

    assert model.order == ["at once", *order]


async def test_a_call_that_is_cancelled_while_it_waits_lets_the_next_one_in() -> None:
    model = Counting()
    pool = pool_of((model, 1))
    running = asyncio.create_task(ask(pool, "running"))
    await model.begun(1)
    waiting = asyncio.create_task(ask(pool.seat(9), "waiting"))
    last = asyncio.create_task(ask(pool, "last"))
    await asyncio.sleep(0)

    waiting.cancel()
    model.let(2)

    assert [await running, await last] == ["Yes.", "Yes."]
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert model.order == ["running", "last"]


async def test_a_call_that_is_cancelled_as_its_place_comes_gives_the_place_back() -> None:
    model = Counting()
    pool = pool_of((model, 1))
    running = asyncio.create_task(ask(pool, "running"))
    await model.begun(1)
    waiting = asyncio.create_task(ask(pool, "waiting"))
    await asyncio.sleep(0)

    running.cancel()
    while not running.done():  # the place is given to who waits, which has not yet run
        await asyncio.sleep(0)
        waiting.cancel()
    model.let(1)

    assert await ask(pool, "next") == "Yes."
    assert model.most == 1


async def test_a_reply_that_is_cancelled_or_closed_frees_its_place() -> None:
    line = Hangs("Well")
    model = ScriptedModel(line, "Half a word", "Third.")
    pool = pool_of((model, 1))
    call = asyncio.create_task(ask(pool))
    await line.reached.wait()

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with aclosing(pool.stream([Message("user", "Hello!")], SAMPLING)) as chunks:
        await anext(chunks)

    assert await ask(pool) == "Third."


async def test_a_server_that_is_down_rests_and_the_others_do_its_work() -> None:
    down, up = ScriptedModel(Fails(LOST)), ScriptedModel("One.", "Two.", "Three.")
    pool = pool_of((down, 8), (up, 1))

    assert [await ask(pool) for _ in range(3)] == ["One.", "Two.", "Three."]
    assert len(down.history) == 1


async def test_a_server_is_asked_again_when_it_has_rested() -> None:
    down, up = ScriptedModel(Fails(LOST), "Back."), ScriptedModel("One.")
    pool = pool_of((down, 1), (up, 1), rest_s=0.0)

    assert [await ask(pool), await ask(pool)] == ["One.", "Back."]


async def test_a_call_that_waits_goes_to_a_server_as_soon_as_it_has_rested() -> None:
    down, busy = ScriptedModel(Fails(LOST), "Back."), Counting()
    pool = pool_of((down, 1), (busy, 1), rest_s=0.05)
    held = asyncio.create_task(ask(pool))
    await busy.begun(1)  # it came there from the one that is down

    assert await ask(pool) == "Back."
    busy.let(1)
    assert await held == "Yes."


async def test_when_all_are_down_the_call_fails_with_the_last_ones_error() -> None:
    other = ModelError("failed (503)", stage="first_token", status=503)
    first, second = ScriptedModel(Fails(LOST), "Up."), ScriptedModel(Fails(other))
    pool = pool_of((first, 1), (second, 1))

    with pytest.raises(ModelError, match=r"failed \(503\)"):
        await ask(pool)

    assert await ask(pool) == "Up."  # it has rested longest


async def test_an_error_of_the_reply_itself_is_not_asked_of_another() -> None:
    late = DeadlineExceeded("it did not begin", stage="first_token")
    broken = ModelError("cut off (500)", stage="stream", status=500)
    first = ScriptedModel(Fails(late), Fails(broken, after="Well,"))
    second = ScriptedModel()
    pool = pool_of((first, 2), (second, 1))

    with pytest.raises(DeadlineExceeded):
        await ask(pool)
    with pytest.raises(ModelError, match="cut off"):
        await ask(pool)

    assert second.history == []


@pytest.mark.parametrize(
    ("data", "down"),
    [
        ({"stage": "connect"}, True),
        ({"stage": "first_token", "status": 429}, True),
        ({"stage": "first_token", "status": 502}, True),
        ({"stage": "first_token", "status": 401}, True),
        ({"stage": "first_token", "status": 404}, True),
        ({"stage": "first_token", "status": 400}, False),
        ({"stage": "stream"}, False),
        ({}, False),
    ],
)
def test_a_server_is_down_if_it_is_not_reached_or_serves_none_of_our_calls(
    data: dict[str, object], down: bool
) -> None:
    assert is_down(ModelError("it failed", **data)) is down


async def test_it_is_a_model_like_any_other() -> None:
    first, second = ScriptedModel(), ScriptedModel()
    pool = pool_of((first, 1), (second, 1))
    seat = pool.seat(3)

    assert await seat.info() == await pool.info() == first.known
    assert (await seat.offered()).names == ("large", "another")
    assert await seat.check() == "scripted:large answers; scripted:large answers"
    await seat.aclose()
    assert not first.closed
    await pool.aclose()
    assert first.closed and second.closed


@pytest.mark.parametrize("provider", ["ollama", "openai"])
async def test_endpoints_are_real_servers_of_one_model_with_places_of_their_own(
    provider: str,
) -> None:
    async with ModelServer() as one, ModelServer() as two:
        ends = [Endpoint(url=one.url, slots=1), Endpoint(url=two.url, slots=2)]
        pool = open_pool(LLMSettings(), ModelSpec(name=f"{provider}:llama3.1", endpoints=ends))
        try:
            replies = await asyncio.gather(*(ask(pool) for _ in range(12)))
            assert (await pool.info()).id == f"{provider}:llama3.1"
        finally:
            await pool.aclose()

    assert replies == ["Well met, traveller, sit down by the fire."] * 12
    assert (one.peak, two.peak) == (1, 2)
    assert {request.body["model"] for request in one.requests + two.requests} == {"llama3.1"}


async def test_an_endpoint_where_nobody_listens_is_replaced_by_the_other() -> None:
    async with ModelServer() as gone:
        closed = gone.url
    async with ModelServer() as up:
        ends = [Endpoint(url=closed, slots=4), Endpoint(url=up.url, slots=1)]
        settings = LLMSettings(retries=0)
        pool = open_pool(settings, ModelSpec(name="ollama:llama3.1", endpoints=ends))
        try:
            replies = await asyncio.gather(*(ask(pool) for _ in range(3)))
        finally:
            await pool.aclose()

    assert replies == ["Well met, traveller, sit down by the fire."] * 3
    assert up.peak == 1


async def test_an_endpoint_that_has_not_the_model_is_replaced_by_the_other() -> None:
    async with ModelServer(default=Behaviour(status=404)) as bare, ModelServer() as up:
        ends = [Endpoint(url=bare.url, slots=4), Endpoint(url=up.url, slots=1)]
        pool = open_pool(LLMSettings(), ModelSpec(name="ollama:llama3.1", endpoints=ends))
        try:
            replies = [await ask(pool) for _ in range(3)]
        finally:
            await pool.aclose()

    assert replies == ["Well met, traveller, sit down by the fire."] * 3
    assert len(bare.requests) == 1


async def test_endpoints_that_are_all_gone_give_the_models_own_error() -> None:
    async with ModelServer() as one, ModelServer() as two:
        ends = [Endpoint(url=one.url), Endpoint(url=two.url)]
    pool = open_pool(LLMSettings(retries=0), ModelSpec(name="ollama:llama3.1", endpoints=ends))

    with pytest.raises(PersonaError, match=r"ollama:llama3\.1 cannot be reached"):
        await ask(pool)
    await pool.aclose()


async def test_a_batch_may_wait_longer_for_a_place_than_a_chat() -> None:
    async with ModelServer() as server:
        settings = LLMSettings(model="ollama:llama3.1", ollama_url=server.url, queue_s=0.001)
        pool = open_pool(settings, ModelSpec(slots=2))
        try:
            await asyncio.gather(*(ask(pool) for _ in range(8)))
        finally:
            await pool.aclose()

    assert server.peak == 2


@pytest.mark.parametrize("name", ["auto", "embedded:smollm2"])
def test_endpoints_need_a_model_that_has_servers(name: str) -> None:
    spec = ModelSpec(name=name, endpoints=[Endpoint(url="http://127.0.0.1:1")])

    with pytest.raises(InvalidParams, match=r"model\.name: allowed is ollama:MODEL or openai"):
        open_pool(LLMSettings(), spec)


@pytest.mark.parametrize(
    ("model", "slots", "places"),
    [
        ("ollama:llama3.1", None, 7),
        ("ollama:llama3.1", 3, 3),
        ("embedded:smollm2", None, 5),
        ("embedded:smollm2", 16, 16),
        ("embedded:smollm2", 200, 64),
    ],
)
def test_a_model_without_endpoints_has_the_places_that_are_set(
    model: str, slots: int | None, places: int
) -> None:
    settings = LLMSettings(model=model, concurrency=7, embedded_slots=5)

    assert open_pool(settings, ModelSpec(slots=slots)).slots == places


@pytest.mark.parametrize(
    ("provider", "given", "used"),
    [
        ("openai", "http://gpu1:8000", "http://gpu1:8000/v1"),
        ("openai", "http://gpu1:8000/", "http://gpu1:8000/v1"),
        ("openai", "http://gpu1:8000/llm/v1", "http://gpu1:8000/llm/v1"),
        ("ollama", "http://gpu1:11434", "http://gpu1:11434"),
    ],
)
def test_an_openai_endpoint_without_a_path_means_v1(provider: str, given: str, used: str) -> None:
    assert address_of(provider, given) == used
