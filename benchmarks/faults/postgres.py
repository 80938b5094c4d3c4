"""Faults of PostgreSQL: it is restarted, crashes, stands still, is gone for a while."""

import asyncio
import signal

import httpx

from benchmarks.faults.running import Broken, Fault, now
from benchmarks.faults.site import LOOK_S
from tests.postgres import Postgres, missing

FELT = 4
GONE_S, PAUSED_S = 600.0, 8.0
READY_S = 60.0
"""Longest that the server may say that it is not ready once PostgreSQL is there again."""


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
    """Keep it stopped for a while; the server says meanwhile that it is not ready."""
    await asyncio.to_thread(server(broken).stop)
    try:
        await broken.load.met(FELT)
        await asyncio.sleep(GONE_S * broken.share)
        assert await readiness(broken) == httpx.codes.SERVICE_UNAVAILABLE
    finally:
        await asyncio.to_thread(server(broken).start)
    gone = now()
    async with asyncio.timeout(READY_S):
        while await readiness(broken) != httpx.codes.OK:
            await asyncio.sleep(LOOK_S)
    assert broken.site.starts == 1
    return gone


async def readiness(broken: Broken) -> int:
    """Ask the server whether it is ready."""
    async with broken.site.client() as client:
        return (await client.get(f"{broken.site.url}/health/ready")).status_code


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
        f"PostgreSQL was stopped, and started again {GONE_S:g} s after callers were told; the "
        "server, which was not started anew, said that it was not ready, then that it was.",
        is_gone,
        rounds=1,
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
