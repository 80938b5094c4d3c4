"""A fault, and its row: the server under load is broken so many times, then all is counted."""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.faults.load import Load, loaded
from benchmarks.faults.looking import asked_again, look
from benchmarks.faults.site import WORD_S, Site, site

CALLERS = 4
AGAIN = 40
"""Acknowledged messages that are sent again at the end."""
BETWEEN = 2
"""Exchanges that must be acknowledged between two rounds."""
LEFT_OVER = 40
"""File handles that a server may hold more than before: connections that callers keep open."""


@dataclass(frozen=True)
class Broken:
    """What a fault has to break.

    Attributes:
        site: The server.
        load: Who talks to it.
        chance: Draws moments.
        share: Size of the fault where it has one: 1 in the long form, less in tests.
        notes: What it measured, for the page.
    """

    site: Site
    load: Load
    chance: random.Random
    share: float
    notes: dict[str, float]


@dataclass(frozen=True)
class Fault:
    """One way to break the server.

    Attributes:
        name: Short, and no other's.
        done: What is done, as a sentence of the page.
        once: Breaks it once, and gives the moment at which the fault was gone, in seconds of the
            monotonic clock.
        rounds: How often in the long form.
        database: Where the data is.
        given: Further settings of the server.
        missing: Says why it cannot be done on this machine, if so.
        place: Makes the data folder something other than a plain folder, given the site's folder.
        felt: Callers are told of errors meanwhile; if they never are, nothing was broken.
        callers: How many chat meanwhile.
        word_s: Wait of the model before each word, in seconds.
    """

    name: str
    done: str
    once: Callable[[Broken], Awaitable[float]]
    rounds: int = 3
    database: str = "sqlite"
    given: Mapping[str, str] = field(default_factory=dict)
    missing: Callable[[], str | None] = lambda: None
    place: Callable[[Path], Any] | None = None
    felt: bool = True
    callers: int = CALLERS
    word_s: float = WORD_S


@dataclass(frozen=True)
class Row:
    """What came of a fault.

    Attributes:
        name: The fault's.
        done: What was done.
        database: sqlite or postgresql.
        rounds: How often.
        acknowledged: Exchanges that callers had an answer of, over all rounds.
        found: Those that are there with their texts.
        lost: Those that are not.
        doubled: Those that are there more than once.
        recover_s: Longest time from the end of the fault to the next acknowledged call, in seconds.
        recover_median_s: Its median.
        refused: Errors that callers were told meanwhile, by code.
        faults: What is wrong; empty.
        notes: What else was measured.
    """

    name: str
    done: str
    database: str
    rounds: int
    acknowledged: int
    found: int
    lost: int
    doubled: int
    recover_s: float
    recover_median_s: float
    refused: dict[str, int]
    faults: list[str]
    notes: dict[str, float]


async def run(fault: Fault, rounds: int, share: float = 1.0, seed: int = 1) -> Row:
    """Break a server under load so many times, let it recover each time, and count.

    Args:
        fault: How.
        rounds: How often, 1 or more.
        share: Size of the fault where it has one, more than 0 and at most 1.
        seed: Of the moments.
    """
    took: list[float] = []
    wrong: list[str] = []
    notes: dict[str, float] = {}
    chance = random.Random(seed)
    async with placed(fault) as one:
        async with loaded(one, fault.callers) as load:
            broken = Broken(one, load, chance, share, notes)
            await load.more(fault.callers)
            for _ in range(rounds):
                refused = load.refused.total()
                gone = await fault.once(broken)
                took.append(await load.recovered(gone))
                if fault.felt and load.refused.total() == refused:
                    wrong.append("nobody was told of an error: nothing was broken")
                await load.more(BETWEEN)
        told = dict(load.refused.most_common())
        if not one.runs:
            wrong.append("the server is gone")
        found = await look(one.settings, load.said)
        wrong += await asked_again(load, AGAIN, chance)
        after = await look(one.settings, load.said)
        wrong += after.faults
    return Row(
        name=fault.name,
        done=fault.done,
        database=fault.database,
        rounds=rounds,
        acknowledged=found.acknowledged,
        found=min(found.found, after.found),
        lost=found.acknowledged - min(found.found, after.found),
        doubled=max(found.doubled, after.doubled),
        recover_s=max(took),
        recover_median_s=median(took),
        refused=told,
        faults=[*found.faults, *(line for line in wrong if line not in found.faults)],
        notes=notes,
    )


@asynccontextmanager
async def placed(fault: Fault) -> AsyncIterator[Site]:
    """Start the site that a fault breaks, on its database, in a folder that goes with it."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="persona-fault-")))
        if fault.place is not None:
            stack.enter_context(fault.place(folder))
        postgres, url = None, ""
        if fault.database == "postgresql":
            from tests.postgres import fresh_database, postgres_server  # noqa: PLC0415

            postgres = stack.enter_context(postgres_server())
            url = stack.enter_context(fresh_database(postgres.url()))
        yield await stack.enter_async_context(
            site(folder, fault.given, postgres, url, fault.word_s)
        )


async def pause(chance: random.Random, most_s: float) -> None:
    """Wait for a moment that nobody knows before."""
    await asyncio.sleep(chance.random() * most_s)


def now() -> float:
    """Return the moment, in seconds of the monotonic clock."""
    return time.monotonic()
