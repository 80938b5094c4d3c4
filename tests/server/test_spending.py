"""What callers use of the model: by this process, by others, over midnight, and without SQL."""

import asyncio

import pytest

from persona_mcp.server.service import Service
from persona_mcp.server.spending import Spending
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.spending import SpendingStore, Used, day_of
from tests.doubles import FixedClock

pytestmark = pytest.mark.anyio


class DownStore(SpendingStore):
    """A store whose database is away until it is told otherwise."""

    down = True

    async def add(self, used: Used) -> None:
        if self.down:
            raise StorageUnavailable("the database did not answer")
        await super().add(used)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


async def test_what_is_not_written_yet_counts_at_once(service: Service, clock: FixedClock) -> None:
    spending = Spending(SpendingStore(service.database), 60.0, clock)

    spending.note("ann", 5)
    spending.note("ann", 6)

    assert (await spending.used("ann"), await spending.used("bob")) == (11, 0)
    await spending.turn()
    assert await spending.used("ann") == 11
    assert await SpendingStore(service.database).used("ann", day_of(clock())) == 11


async def test_what_another_process_has_written_counts_from_the_next_writing_on(
    service: Service, clock: FixedClock
) -> None:
    store = SpendingStore(service.database)
    ours, theirs = Spending(store, 60.0, clock), Spending(store, 60.0, clock)
    ours.note("ann", 1)
    assert await ours.used("ann") == 1

    theirs.note("ann", 100)
    await theirs.turn()
    await ours.turn()

    assert await ours.used("ann") == 101
    assert await theirs.today() == {"ann": 101}


async def test_a_new_day_begins_with_nothing(service: Service, clock: FixedClock) -> None:
    spending = Spending(SpendingStore(service.database), 60.0, clock)
    spending.note("ann", 5)
    await spending.turn()

    clock.advance(86400.0)

    assert await spending.used("ann") == 0
    assert await spending.today() == {}


async def test_what_could_not_be_written_is_written_later(
    service: Service, clock: FixedClock
) -> None:
    store = DownStore(service.database)
    spending = Spending(store, 60.0, clock)
    spending.note("ann", 5)
    with pytest.raises(StorageUnavailable):
        await spending.turn()
    assert await spending.used("ann") == 5

    store.down = False

    assert await spending.today() == {"ann": 5}


async def test_what_is_noted_while_it_is_written_is_not_lost_and_not_doubled(
    service: Service, clock: FixedClock
) -> None:
    spending = Spending(SpendingStore(service.database), 60.0, clock)

    async def note() -> None:
        for _ in range(50):
            spending.note("ann", 1)
            await asyncio.sleep(0)

    async def write() -> None:
        for _ in range(10):
            await spending.turn()
            assert await spending.used("ann") <= 100

    await asyncio.gather(note(), note(), write())

    assert await spending.today() == {"ann": 100}
