"""Places: who gets one, who waits, who is told to come back."""

import asyncio

import pytest

from persona_mcp.server.places import Places
from persona_mcp.state.errors import RateLimited
from tests.http_server import soon

pytestmark = pytest.mark.anyio


async def waiting(places: Places, number: int) -> None:
    async def wait() -> bool:
        return places.waiting == number

    await soon(wait, "callers to wait")


async def test_who_waits_longest_gets_the_place_that_is_given_back() -> None:
    places, order = Places("calls", 1, 9, waiting=2, wait_s=30.0), []

    async def call(name: str) -> None:
        with await places.take(name):
            order.append(name)

    with await places.take("ann"):
        first = asyncio.create_task(call("bob"))
        await waiting(places, 1)
        second = asyncio.create_task(call("cleo"))
        await waiting(places, 2)
    await asyncio.gather(first, second)

    assert order == ["bob", "cleo"]
    assert (places.taken, places.waiting) == (0, 0)


async def test_who_gives_up_leaves_no_gap() -> None:
    places = Places("calls", 1, 9, waiting=9, wait_s=30.0)

    async def call() -> None:
        with await places.take("bob"):
            pass

    with await places.take("ann"):
        gone, patient = asyncio.create_task(call()), asyncio.create_task(call())
        await waiting(places, 2)
        gone.cancel()
        await asyncio.wait([gone])
        assert places.waiting == 1
    await patient

    assert places.taken == 0


async def test_who_is_cut_off_as_the_place_comes_hands_it_on() -> None:
    places = Places("calls", 1, 1, waiting=9, wait_s=30.0)
    held = await places.take("ann")
    cut_off = asyncio.create_task(places.take("bob"))
    await waiting(places, 1)

    with held:
        pass
    cut_off.cancel()
    await asyncio.wait([cut_off])

    assert places.taken == 0
    with await places.take("bob"):
        assert places.taken == 1


async def test_all_places_of_one_caller_are_no_others() -> None:
    places = Places("streams", 9, 1)

    told = "1 streams are under way of one caller"
    with (
        await places.take("ann"),
        await places.take("bob"),
        await places.take(None),
        pytest.raises(RateLimited, match=told) as refused,
    ):
        await places.take("ann")

    assert refused.value.data == {
        "limit": "streams_caller",
        "allowed": 1,
        "retry_after_seconds": 1.0,
    }
    assert places.refused == {"streams_caller": 1}
    with await places.take("ann"):
        assert places.taken == 1
