"""Thousands of clients that send a byte now and then, and never a whole request."""

import asyncio
import resource
from contextlib import suppress

import httpx

from benchmarks.faults.running import Broken, Fault, now

CLIENTS = 10_000
SPARE = 600
"""File handles that stay free for everything else."""
AT_ONCE = 200
BYTE_S = 1.0
MEANWHILE = 20
"""Exchanges that others must get while all of them are there."""
LEFT_OVER = 60
"""Handles that the server may hold more than before, once they are gone."""
GIVEN_BACK_S = 90.0
REQUEST = b"POST /api/v1/persona/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
Writer = asyncio.StreamWriter


async def crowd(broken: Broken) -> float:
    """Connect them all, let each send a byte a second, and see that others are served."""
    wanted = min(round(CLIENTS * broken.share), allowed() - SPARE)
    before = broken.site.open_files()
    writers: list[Writer] = []
    dripping = asyncio.create_task(drip(writers))
    try:
        while len(writers) < wanted:
            some = min(AT_ONCE, wanted - len(writers))
            writers += await asyncio.gather(*(connect(broken.site.url) for _ in range(some)))
        broken.notes["clients"] = len(writers)
        broken.notes["open files of the server"] = broken.site.open_files()
        await broken.load.more(MEANWHILE)
    finally:
        dripping.cancel()
        for writer in writers:
            writer.transport.abort()
    gone = now()
    await given_back(broken, before + LEFT_OVER)
    return gone


def allowed() -> int:
    """Raise this process's limit of file handles as far as it may, and return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


async def connect(url: str) -> Writer:
    """Open a connection and begin a request."""
    where = httpx.URL(url)
    _, writer = await asyncio.open_connection(where.host, where.port)
    writer.write(REQUEST)
    return writer


async def drip(writers: list[Writer]) -> None:
    """Send a byte on each connection, again and again."""
    while True:
        for number, writer in enumerate(writers.copy()):
            with suppress(ConnectionError, RuntimeError):
                writer.write(b"x")
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(BYTE_S)


async def given_back(broken: Broken, most: int) -> None:
    """Wait until the server holds no more file handles than this.

    Raises:
        TimeoutError: It keeps them.
    """
    try:
        async with asyncio.timeout(GIVEN_BACK_S):
            while broken.site.open_files() > most:
                await asyncio.sleep(BYTE_S / 10)
    except TimeoutError:
        held = broken.site.open_files()
        raise TimeoutError(f"the server still holds {held} file handles, not {most}") from None


FAULTS = [
    Fault(
        "slow-clients",
        "10,000 clients connected and sent one byte a second, while others were served.",
        crowd,
        rounds=2,
        felt=False,
    )
]
