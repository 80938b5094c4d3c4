"""Several model servers as one: the least loaded is asked first.

```
ModelPool     who waits, who rests, whose turn it is
├── Seat      the model as one dialogue sees it: it knows how much that has still to say
└── Post      one server, with its places
```
"""

import asyncio
import heapq
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

import structlog

from persona_mcp.config.llm import open_model
from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.dialogue_spec import Endpoint, ModelSpec
from persona_mcp.state.errors import InvalidParams, PersonaError
from persona_mcp.state.model import ChatModel, Chunk, Message, ModelInfo, Offer, Sampling

log = structlog.get_logger(__name__)

REST_S = 15.0
"""A server that does not answer is left alone for so long, while others do its work, in seconds."""
QUEUE_S = 86_400.0
"""Limit of the wait at a server itself: the pool never gives it more than it has places."""
EMBEDDED_SLOTS_MAX = 64
LONGEST_FIRST, SHORTEST_FIRST = -1, 1
"""Sign of the turns that a dialogue has still to go, in its rank."""
ELSEWHERE, BROKEN = (401, 403, 404, 429), 500
"""HTTP statuses of a server that another one may stand in for: it lets us not in, has not the
model, or has too much to do; and from this one on."""


@dataclass(eq=False)
class Post:
    """A server and its places.

    Attributes:
        name: Its address, or whatever tells it from the others.
        model: Asks it.
        slots: Replies that it makes at once, >= 1.
        busy: Replies that it makes now.
        rests_until: It did not answer, and is left alone until then, by the loop's clock.
    """

    name: str
    model: ChatModel
    slots: int
    busy: int = 0
    rests_until: float = 0.0

    @property
    def load(self) -> float:
        """Return which share of its places is taken, 0..1."""
        return self.busy / self.slots


@dataclass(order=True)
class Waiter:
    """A call that waits for a place.

    Attributes:
        rank: Who is first: by how much is still to be said, then longer there.
        place: What it waits for.
        tried: Servers that have failed it.
    """

    rank: tuple[int, int]
    place: "asyncio.Future[Post]" = field(compare=False)
    tried: frozenset[Post] = field(compare=False)


class ModelPool:
    """A `ChatModel` over several servers of the same model; it queues, they do not."""

    def __init__(self, posts: Sequence[Post], rest_s: float = REST_S) -> None:
        """Take the servers, at least one; `rest_s` is how long one that failed is left alone."""
        self._posts = tuple(posts)
        self._rest_s = rest_s
        self._waiting: list[Waiter] = []
        self._tickets = count()
        self._order = LONGEST_FIRST

    @property
    def slots(self) -> int:
        """Return how many replies are made at once, >= 1."""
        return sum(post.slots for post in self._posts)

    @property
    def waiting(self) -> int:
        """Return how many calls wait for a place."""
        return sum(not waiter.place.done() for waiter in self._waiting)

    def seat(self, turns_left: int = 0) -> "Seat":
        """Return the model for one dialogue that has so many turns still to go."""
        return Seat(self, turns_left)

    async def info(self) -> ModelInfo:
        """Say which model answers: the same on every server; see `ChatModel`."""
        return await self._posts[0].model.info()

    async def offered(self) -> Offer:
        """Say which models the first server has; see `ChatModel`."""
        return await self._posts[0].model.offered()

    async def check(self) -> str:
        """Say what each server says; see `ChatModel`."""
        return "; ".join([await post.model.check() for post in self._posts])

    async def aclose(self) -> None:
        """Close the servers' connections; see `ChatModel`."""
        for post in self._posts:
            await post.model.aclose()

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """Yield a reply of whichever server is free, as the last turn of its dialogue."""
        return self.reply(self.seat(), messages, sampling)

    async def reply(
        self, seat: "Seat", messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply; a server that is down is replaced by another before anything was said.

        Raises:
            PersonaError: No server is left; the error of the last one.
        """
        tried: frozenset[Post] = frozenset()
        while True:
            post = await self._taken(seat.turns_left, tried)
            said = False
            try:
                async with aclosing(post.model.stream(messages, sampling)) as chunks:
                    async for chunk in chunks:
                        said = True
                        yield chunk
                return
            except PersonaError as error:
                if said or not is_down(error):
                    raise
                self._send_to_rest(post, error)
                tried |= {post}
                if len(tried) == len(self._posts):
                    raise
            finally:
                post.busy -= 1
                self._serve()

    def crowd(self, crowded: bool) -> None:
        """Serve who has the least to say first, or who has the most; see `Engine.crowd`."""
        order = SHORTEST_FIRST if crowded else LONGEST_FIRST
        if order == self._order:
            return
        self._order = order
        for waiter in self._waiting:
            turns, ticket = waiter.rank
            waiter.rank = (-turns, ticket)
        heapq.heapify(self._waiting)

    async def _taken(self, turns_left: int, tried: frozenset[Post]) -> Post:
        """Wait for a place; who is cancelled meanwhile leaves it to the next."""
        place: asyncio.Future[Post] = asyncio.get_running_loop().create_future()
        rank = (self._order * turns_left, next(self._tickets))
        heapq.heappush(self._waiting, Waiter(rank, place, tried))
        self._serve()
        try:
            return await place
        except asyncio.CancelledError:
            if not place.cancelled():
                place.result().busy -= 1
            self._serve()
            raise

    def _serve(self) -> None:
        """Give free places to those who wait, the first ones first."""
        passed: list[Waiter] = []
        while self._waiting and any(post.busy < post.slots for post in self._posts):
            waiter = heapq.heappop(self._waiting)
            if waiter.place.done():  # nobody waits there any more
                continue
            post = self._free(waiter.tried)
            if post is None:
                passed.append(waiter)
                continue
            post.busy += 1
            waiter.place.set_result(post)
        for waiter in passed:
            heapq.heappush(self._waiting, waiter)

    def _free(self, tried: frozenset[Post]) -> Post | None:
        """Return the least loaded server with a place; one at rest only where no other is left."""
        now = asyncio.get_running_loop().time()
        left = [post for post in self._posts if post not in tried]
        awake = [post for post in left if post.rests_until <= now]
        candidates = awake or sorted(left, key=lambda post: post.rests_until)[:1]
        free = [post for post in candidates if post.busy < post.slots]
        return min(free, key=lambda post: post.load, default=None)

    def _send_to_rest(self, post: Post, error: PersonaError) -> None:
        """Leave a server alone for a while, and look again after it."""
        loop = asyncio.get_running_loop()
        post.rests_until = loop.time() + self._rest_s
        loop.call_later(self._rest_s, self._serve)
        log.warning(
            "model server is left alone",
            server=post.name,
            seconds=self._rest_s,
            reason=error.message,
        )


class Seat:
    """A `ChatModel`: the pool as one dialogue uses it.

    Attributes:
        turns_left: Turns that the dialogue has still to go, >= 0; its calls are ranked by it.
    """

    def __init__(self, pool: ModelPool, turns_left: int) -> None:
        """Take a seat at the pool."""
        self._pool = pool
        self.turns_left = turns_left

    async def info(self) -> ModelInfo:
        """Say which model answers; see `ChatModel`."""
        return await self._pool.info()

    async def offered(self) -> Offer:
        """Say which models there are; see `ChatModel`."""
        return await self._pool.offered()

    async def check(self) -> str:
        """Say whether it is there; see `ChatModel`."""
        return await self._pool.check()

    async def aclose(self) -> None:
        """Leave; the pool is closed by who opened it."""

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """Yield the reply; see `ChatModel`."""
        return self._pool.reply(self, messages, sampling)


def is_down(error: PersonaError) -> bool:
    """Tell whether a server could not be reached, answers none of our calls now, or is broken."""
    status = error.data.get("status", 0)
    return error.data.get("stage") == "connect" or status in ELSEWHERE or status >= BROKEN


def open_pool(settings: LLMSettings, spec: ModelSpec) -> ModelPool:
    """Make the pool that a batch asks for; nothing is reached or loaded yet.

    Args:
        settings: Of the model, for all that the batch leaves open: name, key, limits.
        spec: What the batch says of it.

    Raises:
        InvalidParams: Servers are named for a model that has none.
    """
    name = spec.name or settings.model
    own = settings.model_copy(update={"model": name, "queue_s": QUEUE_S})
    if not spec.endpoints:
        return ModelPool([_alone(own, spec.slots)])
    provider = name.split(":", 1)[0]
    if provider not in ADDRESSES:
        raise InvalidParams.one(
            "model.name", "ollama:MODEL or openai:MODEL where endpoints are named", name
        )
    return ModelPool([_post(own, provider, end) for end in spec.endpoints])


ADDRESSES = {"ollama": "ollama_url", "openai": "openai_url"}
"""Which setting holds a server's address, by provider."""


def _post(settings: LLMSettings, provider: str, end: Endpoint) -> Post:
    """Make one of the servers that a batch names."""
    address = {ADDRESSES[provider]: address_of(provider, end.url), "concurrency": end.slots}
    return Post(end.url, open_model(settings.model_copy(update=address)), end.slots)


def address_of(provider: str, url: str) -> str:
    """Return where a server's API begins: OpenAI's is below /v1, unless the address has a path."""
    bare = not urlsplit(url).path.strip("/")
    return url.rstrip("/") + "/v1" if provider == "openai" and bare else url


def _alone(settings: LLMSettings, slots: int | None) -> Post:
    """Make the one server of a batch that names none."""
    if slots is not None:
        embedded = min(slots, EMBEDDED_SLOTS_MAX)
        settings = settings.model_copy(update={"concurrency": slots, "embedded_slots": embedded})
    places = settings.concurrency
    if settings.model.startswith("embedded:"):
        places = min(places, settings.embedded_slots)
    return Post(settings.model, open_model(settings), places)
