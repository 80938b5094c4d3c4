"""How often something may be done: in memory, in a Redis of several processes, and without it."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from persona_mcp.config.limit_settings import LimitSettings
from persona_mcp.server.rates import KEPT_LEAST, Logs, Rates, items_of
from persona_mcp.state.errors import StorageUnavailable
from tests.redis_server import free_port, redis_server

pytestmark = pytest.mark.anyio

FRESH_S = 0.05
"""Redis is asked again this soon."""


@asynccontextmanager
async def counting(url: str = "", **limits: Any) -> AsyncIterator[Rates]:
    rates = Rates(LimitSettings(storage_url=SecretStr(url), **limits))
    try:
        yield rates
    finally:
        await rates.aclose()


@pytest.fixture(params=["memory", "redis"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield ""
        return
    with redis_server() as (_, url):
        yield url


async def test_so_many_pass_and_then_it_is_said_when_the_next_one_may() -> None:
    async with counting() as rates:
        passed = [await rates.hit("3/minute", "calls", "ann") for _ in range(3)]
        wait_s = await rates.hit("3/minute", "calls", "ann")
        other = await rates.hit("3/minute", "calls", "bob")

    assert (passed, other) == ([None] * 3, None)
    assert wait_s is not None
    assert 50 < wait_s <= 60


async def test_who_comes_back_when_told_to_may_pass_and_not_before() -> None:
    async with counting() as rates:
        await rates.hit("1/second", "calls")
        wait_s = await rates.hit("1/second", "calls")
        assert wait_s is not None
        began = time.monotonic()
        while await rates.hit("1/second", "calls") is not None:
            await asyncio.sleep(0.01)
        took_s = time.monotonic() - began

    assert wait_s - 0.05 <= took_s < wait_s + 0.5


async def test_of_several_windows_each_one_counts() -> None:
    async with counting() as rates:
        found = [await rates.hit("5/minute; 2/hour", "calls") for _ in range(3)]

    assert found[:2] == [None, None]
    assert found[2] is not None
    assert found[2] > 3000


async def test_what_one_window_refuses_counts_in_none(redis_url: str) -> None:
    async with counting(redis_url) as rates:
        found = [await rates.hit("2/hour; 1/minute", "calls") for _ in range(5)]
        left = [await rates.hit("2/hour", "calls") for _ in range(2)]

    assert found[0] is None
    assert all(wait_s is not None and wait_s <= 60 for wait_s in found[1:])
    assert left[0] is None
    assert left[1] is not None


async def test_who_fills_several_windows_is_told_when_all_of_them_let_it_pass() -> None:
    async with counting() as rates:
        await rates.hit("1/second; 1/hour", "calls")
        wait_s = await rates.hit("1/second; 1/hour", "calls")

    assert wait_s is not None
    assert wait_s > 3500


async def test_no_rate_is_any_number() -> None:
    assert items_of("") == ()
    assert [item.get_expiry() for item in items_of("5/10 minutes; 1/day")] == [600, 86400]
    async with counting() as rates:
        assert await rates.hit("", "calls") is None


async def test_callers_who_are_gone_take_no_memory() -> None:
    logs = Logs()
    for number in range(KEPT_LEAST):
        await logs.acquire_entry(f"old {number}", 1, 1)
    await asyncio.sleep(1.0)

    for number in range(KEPT_LEAST):
        await logs.acquire_entry(f"new {number}", 1, 60)

    assert len(logs) == KEPT_LEAST


async def test_processes_with_one_redis_count_together() -> None:
    with redis_server() as (_, url):
        async with counting(url) as one, counting(url) as another:
            passed = [await rates.hit("3/minute", "calls", "ann") for rates in (one, another, one)]
            refused = [await rates.hit("3/minute", "calls", "ann") for rates in (one, another)]

            assert passed == [None] * 3
            assert all(wait_s is not None and 50 < wait_s <= 60 for wait_s in refused)
            assert (one.where, await another.check()) == ("redis", "redis counts rates")


async def test_without_its_redis_each_process_counts_for_itself_and_says_so() -> None:
    port = free_port()
    away = f"redis://127.0.0.1:{port}"
    async with counting(away, storage_rest_s=FRESH_S) as rates:
        found = [await rates.hit("2/minute", "calls") for _ in range(3)]
        where = rates.where
        with pytest.raises(StorageUnavailable, match="Redis that counts rates does not answer"):
            await rates.check()
        with redis_server(port):
            await asyncio.sleep(FRESH_S)
            again = await rates.hit("2/minute", "calls")

            assert (again, rates.where) == (None, "redis")

    assert found[:2] == [None, None]
    assert found[2] is not None
    assert where == "redis: the Redis that counts rates does not answer"


async def test_without_its_redis_calls_are_refused_where_the_settings_say_so() -> None:
    away = f"redis://127.0.0.1:{free_port()}"
    async with counting(away, storage_away="refuse", storage_rest_s=7.0) as rates:
        with pytest.raises(StorageUnavailable, match="STORAGE_AWAY=alone") as refused:
            await rates.hit("2/minute", "calls")

    assert 6 < refused.value.data["retry_after_seconds"] <= 7


async def test_a_redis_that_stands_still_is_waited_for_once_and_not_for_long() -> None:
    with redis_server() as (process, url):
        async with counting(url, storage_s=0.2, storage_rest_s=60.0) as rates:
            await rates.hit("1000/minute", "calls")
            process.send_signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                found = [await rates.hit("1000/minute", "calls") for _ in range(100)]
                took_s = time.monotonic() - began
            finally:
                process.send_signal(signal.SIGCONT)

            assert found == [None] * 100
            assert 0.2 <= took_s < 2.0
            assert rates.where.endswith("does not answer within 0.2 s")
