"""How many dialogues are held at once, and whose turn it is."""

import asyncio
import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count


class Places:
    """Places for dialogues that are held at once; of those who wait, the lowest rank is next."""

    def __init__(self, places: int, crowd: Callable[[bool], None]) -> None:
        """Have so many places, >= 1.

        Args:
            places: How many.
            crowd: Told once somebody waits; and, once nobody does or is expected to, that half of
                the places are free.
        """
        self._places = self._free = places
        self._crowd = crowd
        self._crowded = False
        self._expected = 0
        self._waiting: list[tuple[tuple[int, int, int], int, asyncio.Future[None]]] = []
        self._tickets = count()

    async def take(self, rank: tuple[int, int, int]) -> None:
        """Wait for a place, and take it."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._tickets), place))
        self._look()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()
            raise

    def give(self) -> None:
        """Give a place back, to who is next."""
        while self._waiting:
            _, _, place = heapq.heappop(self._waiting)
            self._look()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
        self._look()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Expect more who take a place, within the block."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self._look()

    def _look(self) -> None:
        stays = self._expected > 0 or 2 * self._free < self._places
        crowded = bool(self._waiting) or (self._crowded and stays)
        if crowded != self._crowded:
            self._crowded = crowded
            self._crowd(crowded)
