"""Stand-ins for what lies outside of the product: the model, the embedder, the clock."""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from persona_mcp.state.appraiser import Taken
from persona_mcp.state.embedding import Vector
from persona_mcp.state.errors import ModelError
from persona_mcp.state.model import Chunk, Message, ModelInfo, Offer, Sampling
from tests.model_replies import hashed

LARGE = ModelInfo("scripted", "large", 8192, small=False)
SMALL = ModelInfo("scripted", "small", 2048, small=True)


@dataclass(frozen=True)
class Says:
    """A whole reply; `tokens` is what the provider counts, None if it does not."""

    text: str
    tokens: int | None = None
    finish_reason: Literal["stop", "length"] = "stop"


@dataclass(frozen=True)
class Fails:
    """Says something, or nothing, and breaks off with an error."""

    error: Exception
    after: str = ""


@dataclass(frozen=True)
class Hangs:
    """Says something, waits until it is released, and says the rest."""

    before: str = ""
    after: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


Line = str | Says | Fails | Hangs


@dataclass(frozen=True)
class Asked:
    """One call of the model."""

    messages: tuple[Message, ...]
    sampling: Sampling

    @property
    def system(self) -> str:
        return "\n".join(m.content for m in self.messages if m.role == "system")

    @property
    def text(self) -> str:
        return "\n".join(m.content for m in self.messages)


class ScriptedModel:
    """A model that says what its script has, one line a call, and remembers what it was asked."""

    def __init__(self, *lines: Line, info: ModelInfo = LARGE) -> None:
        self.script = deque(lines)
        self.history: list[Asked] = []
        self.known = info
        self.down: str | None = None
        self.closed = False

    def add(self, *lines: Line) -> None:
        self.script.extend(lines)

    async def info(self) -> ModelInfo:
        return self.known

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        self.history.append(Asked(tuple(messages), sampling))
        assert self.script, "the script has no line left"
        line = self.script.popleft()
        match line:
            case str():
                line = Says(line)
            case Fails():
                for word in words_of(line.after):
                    yield Chunk(word)
                raise line.error
            case Hangs():
                for word in words_of(line.before):
                    yield Chunk(word)
                line.reached.set()
                try:
                    await line.release.wait()
                except (GeneratorExit, asyncio.CancelledError):
                    line.cancelled.set()
                    raise
                line = Says(line.after)
        for word in words_of(line.text):
            yield Chunk(word)
        yield Chunk("", line.tokens, line.finish_reason)

    async def offered(self) -> Offer:
        if self.down is not None:
            return Offer(self.known, (), self.down)
        return Offer(self.known, (self.known.name, "another"))

    async def check(self) -> str:
        if self.down is not None:
            raise ModelError(self.down)
        return f"{self.known.id} answers"

    async def aclose(self) -> None:
        self.closed = True


class HashedModel(ScriptedModel):
    """A model whose reply depends on what it is asked, the seed too, and on nothing else.

    Attributes:
        fails: Gives the error that a call ends in, None for a reply.
        most: Calls that were under way at once, at most.
    """

    def __init__(
        self,
        fails: Callable[[Asked], Exception | None] = lambda _: None,
        info: ModelInfo = LARGE,
    ) -> None:
        super().__init__(info=info)
        self.fails = fails
        self.now = self.most = 0

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        asked = Asked(tuple(messages), sampling)
        self.history.append(asked)
        self.now += 1
        self.most = max(self.most, self.now)
        said = [{"role": one.role, "content": one.content} for one in messages]
        text = hashed({"messages": said, "seed": sampling.seed})
        try:
            for _ in range(len(text) % 7):  # some take longer than others
                await asyncio.sleep(0)
            if (error := self.fails(asked)) is not None:
                raise error
            yield Chunk(text)
        finally:
            self.now -= 1
        yield Chunk("", len(text.split()), "stop")


def words_of(text: str) -> list[str]:
    """Split a text into pieces that make it again."""
    return re.findall(r"\s*\S+|\s+$", text)


class WordEmbedder:
    """A bag of words in 64 dimensions: texts that share words are near, always the same."""

    model_id = "double-64"

    async def dimension(self) -> int:
        return 64

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        rows = [await self.embed_query(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, 64), dtype=np.float32)

    async def embed_query(self, text: str) -> Vector:
        vector = np.zeros(64, dtype=np.float32)
        for word in re.findall(r"\w+", text.casefold()):
            digest = hashlib.sha256(word.encode()).digest()
            vector[digest[0] % 64] += 1.0 if digest[1] % 2 else -1.0
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            vector[0] = length = 1.0
        return vector / np.float32(length)

    async def aclose(self) -> None:
        pass


class FixedClock:
    """A clock that is set by hand; seconds since the epoch."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FickleEmbedder(WordEmbedder):
    """Fails as it is told to: always, or at texts that hold a word."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.poison: str | None = None
        self.embedded: list[str] = []

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        if self.fault is not None and (
            self.poison is None or any(self.poison in text for text in texts)
        ):
            raise self.fault
        self.embedded += texts
        return await super().embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        if self.fault is not None and self.poison is None:
            raise self.fault
        return await super().embed_query(text)


class FixedAppraiser:
    """Takes every utterance as it is told to."""

    def __init__(self, taken: Taken) -> None:
        self.taken = taken

    async def appraise(self, text: str) -> Taken:
        return self.taken
