"""What callers use of the language model: counted at once, written down every now and then."""

import asyncio
from collections import Counter
from collections.abc import Callable

from persona_mcp.state.spending import SpendingStore, day_of
from persona_mcp.state.worker import Worker


class Spending(Worker):
    """Counts tokens by caller and day, over all processes on one database.

    What others have used is read again at each writing, so it is known after that long at most; a
    process that is killed loses what it has not written.
    """

    def __init__(self, store: SpendingStore, every_s: float, now: Callable[[], float]) -> None:
        """Write this often, in seconds.

        Args:
            store: Where it is written.
            every_s: How often, in seconds.
            now: The clock, in seconds since the epoch, UTC.
        """
        super().__init__("spending", every_s)
        self._store = store
        self._now = now
        self._new: Counter[tuple[str, str]] = Counter()
        self._known: dict[tuple[str, str], int] = {}
        self._writing = asyncio.Lock()

    def note(self, caller_id: str, tokens: int) -> None:
        """Count tokens that a caller has used just now."""
        if tokens > 0:
            self._new[caller_id, day_of(self._now())] += tokens

    async def used(self, caller_id: str) -> int:
        """Return how many tokens a caller has used today.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        key = caller_id, day_of(self._now())
        if key not in self._known:
            async with self._writing:  # or what is just being written would be missed, or twice
                if key not in self._known:
                    self._known[key] = await self._store.used(*key)
        return self._known[key] + self._new[key]

    async def today(self) -> dict[str, int]:
        """Return the tokens of today by caller, what is not written yet too.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        await self.turn()
        return await self._store.of_day(day_of(self._now()))

    async def turn(self) -> None:
        """Write what is new; if that fails it is tried again.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        async with self._writing:
            new = {key: tokens for key, tokens in self._new.items() if tokens}
            if new:
                await self._store.add(new)
                self._new.subtract(new)
            self._new = +self._new
            self._known.clear()
