"""Places: so many at once in all, and of one caller; some more may wait for a little while."""

import asyncio
from collections import Counter, deque
from types import TracebackType

from persona_mcp.state.errors import RateLimited

RETRY_S = 1.0
"""When to come back to where all places are taken, in seconds; nobody knows when one is free."""


class Places:
    """Hands out places, and takes them back.

    Attributes:
        what: What a place is for, in the plural.
        taken: How many are taken now.
        refused: How many were not given one, by the setting that says so.
    """

    def __init__(
        self, what: str, most: int, most_caller: int, *, waiting: int = 0, wait_s: float = 0.0
    ) -> None:
        """Have so many places.

        Args:
            what: What they are for, in the plural; the settings are called the same.
            most: In all.
            most_caller: Of one caller.
            waiting: How many may wait for one.
            wait_s: How long each of them may, in seconds.
        """
        self.what = what
        self.taken = 0
        self.refused: Counter[str] = Counter()
        self._most = most
        self._most_caller = most_caller
        self._waiting = waiting
        self._wait_s = wait_s
        self._queue: deque[asyncio.Future[None]] = deque()
        self._of: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """Count those who wait for a place."""
        return len(self._queue)

    async def take(self, caller_id: str | None) -> "Place":
        """Take a place, to be given back at the end of a `with` block.

        Args:
            caller_id: Whose places are counted; None for one who may have any number.

        Raises:
            RateLimited: There is none, or this caller has all of his.
        """
        if caller_id is not None:
            its = self._of.get(caller_id, 0)
            if its >= self._most_caller:
                raise self._refusal(f"{self.what}_caller", self._most_caller, "of one caller")
            self._of[caller_id] = its + 1
        try:
            if self.taken < self._most:
                self.taken += 1
            else:
                await self._turn()
        except BaseException:
            self._forget(caller_id)
            raise
        return Place(self, caller_id)

    def give_back(self, caller_id: str | None) -> None:
        """Take a place back; who waits longest gets it."""
        self._forget(caller_id)
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1

    async def _turn(self) -> None:
        """Wait until a place is handed on."""
        if len(self._queue) >= self._waiting:
            limit = "waiting" if self._waiting else self.what
            told = f"in all, and {self._waiting} wait" if self._waiting else "in all"
            raise self._refusal(limit, self._waiting or self._most, told)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except TimeoutError:
            self._leave(turn)
            told = f"in all; none of them was free within {self._wait_s:g} s"
            raise self._refusal(self.what, self._most, told) from None
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    def _leave(self, turn: "asyncio.Future[None]") -> None:
        """Give a wait up; a place that came at the same moment goes to the next."""
        if turn.done() and not turn.cancelled():
            self.give_back(None)
        elif turn in self._queue:
            self._queue.remove(turn)

    def _forget(self, caller_id: str | None) -> None:
        if caller_id is None:
            return
        left = self._of[caller_id] - 1
        if left:
            self._of[caller_id] = left
        else:
            del self._of[caller_id]

    def _refusal(self, limit: str, most: int, told: str) -> RateLimited:
        self.refused[limit] += 1
        number = self._most if limit == "waiting" else most
        return RateLimited(
            f"{number} {self.what} are under way {told}, which is the most; come back in "
            f"{RETRY_S:g} s, or raise PERSONA_LIMITS__{limit.upper()}",
            limit=limit,
            allowed=most,
            retry_after_seconds=RETRY_S,
        )


class Place:
    """A place that is taken."""

    __slots__ = ("_caller_id", "_places")

    def __init__(self, places: Places, caller_id: str | None) -> None:
        """Be given by these."""
        self._places = places
        self._caller_id = caller_id

    def __enter__(self) -> None:
        """Have it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        self._places.give_back(self._caller_id)
