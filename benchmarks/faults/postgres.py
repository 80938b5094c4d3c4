"""Faults of PostgreSQL: it is restarted, crashes, stands still, is gone for a while."""

import asyncio
import signal

from benchmarks.faults.running import Broken, Fault, now
from tests.postgres import Postgres, missing

FELT = 4
GONE_S, PAUSED_S = 20.0, 8.0


def server(broken: Broken) -> Postgres:
    """Return the server that the data is in."""
    assert broken.site.postgres is not None
    return broken.site.postgres


async def restarts(broken: Broken) -> float:
    """Stop it as an operator does, and start it at once."""
    await asyncio.to_thread(server(broken).stop)
    await asyncio.to_thread(server(broken).start)
    return now()


async def crashes(broken: Broken) -> float:
    """Let it die without saving anything, and start it at once."""
    await asyncio.to_thread(server(broken).stop, signal.SIGQUIT)
    await asyncio.to_thread(server(broken).start)
    return now()


async def is_gone(broken: Broken) -> float:
    """Keep it stopped for a while."""
    await asyncio.to_thread(server(broken).stop)
    try:
        await broken.load.met(FELT)
        await asyncio.sleep(GONE_S * broken.share)
    finally:
        await asyncio.to_thread(server(broken).start)
    return now()


async def stands_still(broken: Broken) -> float:
    """Stop all of its processes without ending them, then let them go on."""
    await asyncio.to_thread(server(broken).pause)
    try:
        await broken.load.met(FELT)
        await asyncio.sleep(PAUSED_S * broken.share)
    finally:
        server(broken).resume()
    return now()


FAULTS = [
    Fault(
        "postgresql-restarted",
        "PostgreSQL was restarted under load.",
        restarts,
        rounds=5,
        database="postgresql",
        missing=missing,
        felt=False,
    ),
    Fault(
        "postgresql-crashed",
        "PostgreSQL ended without saving (SIGQUIT) under load and was started again.",
        crashes,
        rounds=5,
        database="postgresql",
        missing=missing,
        felt=False,
    ),
    Fault(
        "postgresql-gone",
        f"PostgreSQL was stopped, and started again {GONE_S:g} s after callers were told.",
        is_gone,
        database="postgresql",
        missing=missing,
    ),
    Fault(
        "postgresql-paused",
        f"PostgreSQL stood still (SIGSTOP) until {PAUSED_S:g} s after callers were told.",
        stands_still,
        database="postgresql",
        missing=missing,
    ),
]
