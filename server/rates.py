"""How often something was done: the library `limits`, in memory or in a Redis of many processes."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

import structlog
from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError, StorageError

from persona_mcp.config.limit_settings import LimitSettings
from persona_mcp.state.errors import NotConfigured, StorageUnavailable

log = structlog.get_logger(__name__)

Ask = Callable[[MovingWindowRateLimiter, RateLimitItem, Sequence[str]], Awaitable[float | None]]
"""Asks a limiter about one window: in how many seconds one more may pass."""
KEPT_LEAST = 1024
"""So many logs are kept before those that are over are looked for."""


class Logs(MemoryStorage):
    """Logs of moments in memory.

    The library's own starts a task, and a thread for each key, at every call; and it goes by the
    clock of the day, so that a clock which is set back would keep callers out for as long.
    """

    STORAGE_SCHEME = None  # type: ignore[assignment]  # nothing is to be found by an address

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self._logs: dict[str, tuple[int, deque[float]]] = {}
        self._most = KEPT_LEAST

    def __len__(self) -> int:
        """Count the logs."""
        return len(self._logs)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Write `amount` moments down, unless there are more than `limit` then."""
        now = time.monotonic()
        moments = self._log(key, expiry, now)
        if len(moments) + amount > limit:
            return False
        moments.extend([now] * amount)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the first moment that counts, in seconds since the epoch, and how many do."""
        now = time.monotonic()
        moments = self._log(key, expiry, now)
        age = now - moments[0] if moments else 0.0
        return time.time() - age, len(moments)

    def _log(self, key: str, expiry: int, now: float) -> deque[float]:
        """Return a log without what does not count any more."""
        found = self._logs.get(key)
        if found is None:
            if len(self._logs) >= self._most:
                self._forget(now)
            found = self._logs[key] = (expiry, deque())
        moments = found[1]
        while moments and moments[0] <= now - expiry:
            moments.popleft()
        return moments

    def _forget(self, now: float) -> None:
        """Drop logs in which nothing counts any more."""
        self._logs = {
            key: (expiry, moments)
            for key, (expiry, moments) in self._logs.items()
            if moments and moments[-1] > now - expiry
        }
        self._most = max(KEPT_LEAST, 2 * len(self._logs))


class Rates:
    """Counts by name, over any of several windows; each lets so many pass in any stretch of it.

    Attributes:
        trouble: Why Redis does not count now; empty where it does, or is not asked for.
    """

    def __init__(self, settings: LimitSettings) -> None:
        """Count where the settings say; nothing is reached yet.

        Raises:
            NotConfigured: Redis is asked for, and its client is not installed.
        """
        self._settings = settings
        self._alone = MovingWindowRateLimiter(Logs())
        self._shared: MovingWindowRateLimiter | None = None
        self._redis: Any = None
        self.trouble = ""
        self._rests_until = 0.0
        url = settings.storage_url.get_secret_value()
        if url:
            storage = redis_at(url, settings.storage_s)
            bridge: Any = storage.bridge  # the library says nothing of its client
            self._shared, self._redis = MovingWindowRateLimiter(storage), bridge.storage

    @property
    def where(self) -> str:
        """Say who counts."""
        if self._shared is None:
            return "memory"
        return f"redis: {self.trouble}" if self.trouble else "redis"

    async def hit(self, rate: str, *names: str) -> float | None:
        """Count one, unless that would be too many.

        Args:
            rate: As the settings write it; empty for any number.
            names: Of what is counted.

        Returns:
            None if it may pass, else in how many seconds it may.

        Raises:
            StorageUnavailable: Redis does not answer, and the settings say to refuse then.
        """
        items = items_of(rate)
        if len(items) > 1:  # or what one window refuses would count in those before it
            waits_s = [await self._ask(full_for, item, names) for item in items]
            if full := [wait_s for wait_s in waits_s if wait_s is not None]:
                return max(full)
        for item in items:
            wait_s = await self._ask(counted, item, names)
            if wait_s is not None:
                return wait_s
        return None

    async def check(self) -> str:
        """Ask Redis whether it is there.

        Raises:
            StorageUnavailable: It is not.
        """
        if self._shared is None:
            return "rates are counted in memory"
        try:
            async with asyncio.timeout(self._settings.storage_s):
                await self._redis.ping()
        except Exception as error:  # the client raises anything on a bad answer
            raise StorageUnavailable(self._away(error)) from error
        self.trouble = ""
        return "redis counts rates"

    async def aclose(self) -> None:
        """Let go of connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def _ask(self, ask: Ask, item: RateLimitItem, names: Sequence[str]) -> float | None:
        if self._shared is not None and time.monotonic() >= self._rests_until:
            try:
                async with asyncio.timeout(self._settings.storage_s):
                    found = await ask(self._shared, item, names)
            except (StorageError, TimeoutError, OSError) as error:
                self._rests_until = time.monotonic() + self._settings.storage_rest_s
                log.warning("rates are not counted together", reason=self._away(error))
            else:
                self.trouble = ""
                return found
        if self._shared is not None and self._settings.storage_away == "refuse":
            raise StorageUnavailable(
                f"{self.trouble}; calls are refused until it does "
                "(PERSONA_LIMITS__STORAGE_AWAY=alone has each process count for itself meanwhile)",
                retry_after_seconds=max(1.0, self._rests_until - time.monotonic()),
            )
        return await ask(self._alone, item, names)

    def _away(self, error: BaseException) -> str:
        late = isinstance(error, TimeoutError)
        within = f" within {self._settings.storage_s:g} s" if late else ""
        self.trouble = f"the Redis that counts rates does not answer{within}"
        return self.trouble


def redis_at(url: str, limit_s: float) -> RedisStorage:
    """Make the client of a Redis; nothing is reached yet.

    Raises:
        NotConfigured: It is not installed.
    """
    try:
        return RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="persona",
            socket_timeout=limit_s,
            socket_connect_timeout=limit_s,
        )
    except ConfigurationError as error:
        raise NotConfigured(
            "PERSONA_LIMITS__STORAGE_URL names a Redis, whose client is not installed; install "
            "persona-mcp[redis], or leave the setting out"
        ) from error


@cache
def items_of(rate: str) -> tuple[RateLimitItem, ...]:
    """Read a rate of the settings: `10/second; 600/hour` is two windows."""
    return tuple(parse_many(rate)) if rate else ()


async def counted(
    limiter: MovingWindowRateLimiter, item: RateLimitItem, names: Sequence[str]
) -> float | None:
    """Count one; return the seconds until it may pass, None if it may now."""
    if await limiter.hit(item, *names):
        return None
    return await left_s(limiter, item, names)


async def full_for(
    limiter: MovingWindowRateLimiter, item: RateLimitItem, names: Sequence[str]
) -> float | None:
    """Return the seconds until one more may pass, None if it may now; count nothing."""
    if await limiter.test(item, *names):
        return None
    return await left_s(limiter, item, names)


async def left_s(
    limiter: MovingWindowRateLimiter, item: RateLimitItem, names: Sequence[str]
) -> float:
    """Return the seconds until the first that counts does not any more."""
    reset = (await limiter.get_window_stats(item, *names)).reset_time
    return max(0.0, reset - time.time())
