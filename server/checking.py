"""Checks of parts: carried out at once, each within a limit; what each found, and when."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from persona_mcp.state.errors import PersonaError
from persona_mcp.state.moments import rfc3339

log = structlog.get_logger(__name__)

MILLISECONDS = 1000


@dataclass(frozen=True)
class Seen:
    """What a part that was not used just now was seen to do.

    Attributes:
        detail: What was found, without secrets.
        age_s: How long ago, in seconds.
    """

    detail: str
    age_s: float


Checking = Callable[[], Awaitable[str | Seen]]
Checks = Mapping[str, Checking]
"""By its name, what uses a part once and says what it found."""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        ok: The part answers.
        latency_ms: How long it took, in milliseconds.
        detail: What was found, without secrets.
        checked_at: When, as RFC 3339.
        age_s: How long before that the part was last seen at work, in seconds; 0 where it was used
            for the check.
    """

    ok: bool
    latency_ms: float
    detail: str
    checked_at: str = ""
    age_s: float = 0.0


async def check_parts(checks: Checks, limit_s: float) -> dict[str, Check]:
    """Carry out checks at once, each within a limit, and return what each found."""
    found = await asyncio.gather(*(tried(check, limit_s) for check in checks.values()))
    return dict(zip(checks, found, strict=True))


async def tried(check: Checking, limit_s: float) -> Check:
    """Carry out a check within a limit."""
    started, at, age_s = time.monotonic(), rfc3339(time.time()), 0.0
    try:
        async with asyncio.timeout(limit_s):
            seen = await check()
        ok, detail = True, seen if isinstance(seen, str) else seen.detail
        age_s = 0.0 if isinstance(seen, str) else round(max(0.0, seen.age_s), 3)
    except PersonaError as error:
        ok, detail = False, error.message
    except TimeoutError:
        ok, detail = False, f"no answer within {limit_s:g} s"
    except Exception:  # whatever it is, that part does not answer
        log.exception("health check failed")
        ok, detail = False, "failed on our side; the log has the cause"
    took_ms = round((time.monotonic() - started) * MILLISECONDS, 1)
    return Check(ok, took_ms, detail, at, age_s)
