"""How much callers may ask for, at every door alike: how often, how much at once, of the model.

```
Limits        asked by call_operation, by the doors that stream, and by the model
├── Rates     calls by caller and toolset; calls of the model
├── Places    calls and streams at once, and who waits for one
└── Spending  tokens of the model by caller and day
```
What is over a limit is refused with when to come back; nothing was done then.
"""

import asyncio
import importlib
import math
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from persona_mcp.config.limit_settings import LimitSettings
from persona_mcp.server.places import Places
from persona_mcp.server.spending import Spending
from persona_mcp.server.stopping import going_down
from persona_mcp.state.callers import LOCAL, Identity
from persona_mcp.state.database import Database
from persona_mcp.state.errors import LimitExceeded, RateLimited
from persona_mcp.state.spending import SpendingStore, day_ends_in

if TYPE_CHECKING:  # they import the library `limits`, and the registry imports this
    from persona_mcp.server.operations.registry import Operation
    from persona_mcp.server.rates import Rates

FREE = frozenset({"system_health", "system_status", "system_metrics"})
"""These say what is wrong, so they are answered whatever is."""
STREAMS = "persona"
"""The toolset that a stream counts in."""
COMPLETIONS = "system"
"""The toolset that a completion counts in: it must not use up what there is for talking."""
LEAST_TOKENS = 50
"""With no more than this left, a budget is used up: a reply would only be cut off."""
BUDGET = "tokens_day"
"""The limit that a used-up budget names."""
MILLISECONDS = 1000


class Limits:
    """Lets callers in, or says when to come back.

    Attributes:
        calls: The places of calls.
        streams: The places of streams.
        spending: What callers use of the model.
        stopping: The server is going down: nothing new is begun.
    """

    def __init__(self, settings: LimitSettings, database: Database) -> None:
        """Limit by these settings."""
        self._settings = settings
        self._rates: Rates | None = None
        self._loading = asyncio.Lock()
        self._refused: Counter[str] = Counter()
        self.calls = Places(
            "calls",
            settings.calls,
            settings.calls_caller,
            waiting=settings.waiting,
            wait_s=settings.wait_s,
        )
        self.streams = Places("streams", settings.streams, settings.streams_caller)
        self.spending = Spending(SpendingStore(database), settings.note_s, time.time)
        self.stopping = False

    @property
    def refused(self) -> Counter[str]:
        """How much was refused since the start, by the setting that says so."""
        return self._refused + self.calls.refused + self.streams.refused

    @property
    def under_way(self) -> dict[str, int]:
        """How many calls and streams there are now, and how many calls wait."""
        calls, streams = self.calls, self.streams
        return {"calls": calls.taken, "calls_waiting": calls.waiting, "streams": streams.taken}

    @property
    def tokens_day(self) -> int | None:
        """Tokens that the model may write for one caller in a day; None for any number."""
        return self._settings.tokens_day or None

    @property
    def counted_by(self) -> str:
        """Say who counts rates: memory or redis, and what is wrong with that."""
        if self._rates is not None:
            return self._rates.where
        return "redis" if self._settings.storage_url.get_secret_value() else "memory"

    async def open(self) -> None:
        """Make ready what counts for several processes; nothing is reached yet.

        Raises:
            NotConfigured: Its client is not installed.
        """
        if self._settings.storage_url.get_secret_value():
            await self._ready()

    async def aclose(self) -> None:
        """Let go of connections."""
        if self._rates is not None:
            await self._rates.aclose()

    async def check(self) -> str:
        """Say whether rates are counted as they are to be.

        Raises:
            StorageUnavailable: They are not.
        """
        return await self._rates.check() if self._rates else f"{self.counted_by} counts rates"

    async def admit(self, operation: "Operation", caller: Identity) -> AbstractContextManager[None]:
        """Let a call in; the block that it is done in has its place.

        Raises:
            RateLimited: It is over a limit.
            StorageUnavailable: The server is going down; or rates cannot be counted, and the
                settings say to refuse then.
        """
        if operation.name in FREE:
            return nullcontext()
        if self.stopping and operation.answers_kept:
            raise going_down()  # others read, or look themselves whether it is theirs that runs
        limited = self._limited(caller)
        if limited:
            await self._count(operation.toolset, caller)
        return await self.calls.take(caller.id if limited else None)

    async def admit_stream(self, caller: Identity) -> AbstractContextManager[None]:
        """Let a stream in; the block that it is read in has its place.

        Raises:
            RateLimited: It is over a limit.
            StorageUnavailable: As `admit`.
        """
        limited = self._limited(caller)
        if limited:
            await self._count(STREAMS, caller)
        return await self.streams.take(caller.id if limited else None)

    async def admit_completion(self, caller: Identity) -> None:
        """Let a completion pass; it is a short read, or one and a call, and needs no place.

        Raises:
            RateLimited: It is over a rate.
            StorageUnavailable: As `admit`.
        """
        if self._limited(caller):
            await self._count(COMPLETIONS, caller)

    async def admit_model_call(self, caller: Identity) -> None:
        """Let a call of the language model pass.

        Raises:
            LimitExceeded: The caller's tokens of today are used up.
            RateLimited: It is over a rate.
            StorageUnavailable: As `admit`.
        """
        chosen = self._settings
        if self._limited(caller):
            await self._check_budget(caller)
            rate = chosen.model_rate_caller
            await self._hit("model_rate_caller", rate, "calls of the model for you", caller.id)
        rate = chosen.model_rate
        await self._hit("model_rate", rate, "calls of the model for everybody together")

    async def _check_budget(self, caller: Identity) -> None:
        allowed = self._settings.tokens_day
        if not allowed:
            return
        used = await self.spending.used(caller.id)
        if used + LEAST_TOKENS < allowed:
            return
        self._refused[BUDGET] += 1
        left_s = day_ends_in(time.time())
        raise LimitExceeded(
            f"{used} of the {allowed} tokens that the model may write for you today are used; come "
            f"back when the day ends (00:00 UTC, in {in_words(left_s)}), or have "
            "PERSONA_LIMITS__TOKENS_DAY raised",
            limit=BUDGET,
            allowed=allowed,
            used=used,
            retry_after_seconds=math.ceil(left_s),
        )

    async def _count(self, toolset: str, caller: Identity) -> None:
        own = dict(self._settings.rates).get(toolset)  # type: ignore[call-overload]
        limit, rate = ("rate", self._settings.rate) if own is None else ("rates", own)
        await self._hit(limit, rate, f"calls of yours in the toolset {toolset}", caller.id, toolset)

    async def _hit(self, limit: str, rate: str, what: str, *names: str) -> None:
        if not rate:
            return
        rates = self._rates or await self._ready()
        wait_s = await rates.hit(rate, limit, *names)
        if wait_s is None:
            return
        self._refused[limit] += 1
        wait_s = math.ceil(wait_s * MILLISECONDS) / MILLISECONDS
        raise RateLimited(
            f"allowed are {rate} {what}; come back in {in_words(wait_s)}, or have "
            f"PERSONA_LIMITS__{limit.upper()} raised",
            limit=limit,
            allowed=rate,
            retry_after_seconds=wait_s,
        )

    async def _ready(self) -> "Rates":
        """Make what counts rates; the library is loaded at the first call that is counted."""
        async with self._loading:
            if self._rates is None:
                name = "persona_mcp.server.rates"
                module = await asyncio.to_thread(importlib.import_module, name)
                made: Rates = module.Rates(self._settings)
                self._rates = made
            return self._rates

    def _limited(self, caller: Identity) -> bool:
        return self._settings.local or caller.id != LOCAL.id


def in_words(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 120:  # noqa: PLR2004 - in minutes it would say too little
        return f"{seconds:.3g} s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
