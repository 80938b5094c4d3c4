"""Faults of the model: it hangs, is slow, fails, sends too much, dies in the middle, is away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle

from benchmarks.faults.running import Broken, Fault, now
from tests.model_server import BEHAVIOURS, Behaviour

FELT = 4
"""Errors that callers are told before the fault ends."""
SLOW_WORD_S = 1.0
AWAY_S = 1.0


@contextmanager
def behaving(broken: Broken, behaviour: Behaviour) -> Iterator[None]:
    """Let the model behave so for a block."""
    model, before = broken.site.model, broken.site.model.default
    model.default = behaviour
    try:
        yield
    finally:
        model.default = before


async def misbehaves(broken: Broken, behaviour: Behaviour) -> float:
    """Let every reply go wrong in one way until callers were told."""
    with behaving(broken, behaviour):
        await broken.load.met(FELT)
    return now()


async def hangs(broken: Broken) -> float:
    """Take requests and answer none."""
    return await misbehaves(broken, BEHAVIOURS["hang"])


async def is_slow(broken: Broken) -> float:
    """Say a word a second, more of them than the limit of a reply allows."""
    return await misbehaves(broken, replace(BEHAVIOURS["slow"], delay_s=SLOW_WORD_S))


async def fails_half(broken: Broken) -> float:
    """Answer every second request with HTTP 500."""
    model = broken.site.model
    model.endless = cycle([BEHAVIOURS["500"], model.default])
    try:
        await broken.load.met(FELT)
    finally:
        model.endless = iter(())
    return now()


async def floods(broken: Broken) -> float:
    """Send ten million characters as one reply."""
    return await misbehaves(broken, BEHAVIOURS["flood"])


async def dies(broken: Broken) -> float:
    """Close the connection after two words."""
    return await misbehaves(broken, BEHAVIOURS["drop"])


async def is_away(broken: Broken) -> float:
    """Close the port and all connections, and open it again."""
    model = broken.site.model
    await model.__aexit__(None, None, None)
    try:
        await broken.load.met(FELT)
        await asyncio.sleep(AWAY_S * broken.share)
    finally:
        await model.__aenter__()
    return now()


FAULTS = [
    Fault("model-hangs", "The model took every request and answered none.", hangs),
    Fault(
        "model-slow",
        "The model said one word a second, and too many for the limit of a reply.",
        is_slow,
    ),
    Fault("model-fails", "The model answered half of all requests with HTTP 500.", fails_half),
    Fault("model-floods", "The model sent 10 MB as one reply.", floods),
    Fault("model-dies", "The model closed each connection in the middle of its reply.", dies),
    Fault("model-away", "The model server was gone (connections refused) and came back.", is_away),
]
