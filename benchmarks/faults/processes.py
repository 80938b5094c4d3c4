"""Faults of the server's process: it is killed."""

import asyncio

from benchmarks.faults.running import Broken, Fault, now, pause
from tests.postgres import missing as no_postgres

LONGEST_LIFE_S = 2.0
EARLY, EARLY_S = 0.1, 1.5
"""Share of the kills that come while the server starts, and how soon."""
WORD_S = 0.02


async def kill(broken: Broken) -> float:
    """Kill it at a random moment under load, now and then a second time while it starts."""
    await pause(broken.chance, LONGEST_LIFE_S)
    await broken.site.kill()
    if broken.chance.random() < EARLY:
        await killed_while_starting(broken)
    gone = now()
    await broken.site.start()
    return gone


async def killed_while_starting(broken: Broken) -> None:
    """Start it and kill it before it serves, most times."""
    starting = asyncio.create_task(broken.site.start())
    await pause(broken.chance, EARLY_S)
    await broken.site.kill()
    await asyncio.gather(starting, return_exceptions=True)


FAULTS = [
    Fault(
        "kill",
        "The server was killed (SIGKILL) at random moments under load and started again.",
        kill,
        rounds=100,
        word_s=WORD_S,
    ),
    Fault(
        "kill-postgresql",
        "The same, with the data in PostgreSQL.",
        kill,
        rounds=50,
        database="postgresql",
        missing=no_postgres,
        word_s=WORD_S,
    ),
]
