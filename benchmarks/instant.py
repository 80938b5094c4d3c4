"""Stand-ins that cost next to nothing, so that what is left is the product's own work."""

import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from persona_mcp.config.saver import PersonaSaver
from persona_mcp.state.embedding import Embedder, Vector
from persona_mcp.state.model import Chunk, Message, ModelInfo, Offer, Sampling

WORDS = tuple(
    word
    for line in (
        "harbour winter lantern bread river music garden letter train mountain market sister",
        "window story rain coffee painting summer bridge forest brother kitchen village candle",
        "ocean teacher clock violin island chapter meadow engine pocket library silver orchard",
    )
    for word in line.split()
)
VERBS = ("remembers", "hides", "follows", "carries", "repairs", "paints", "sells", "finds")
SIZE = 384
NODES = ("load", "retrieve", "decide", "generate", "validate", "relate", "persist")


def sentence(draw: random.Random) -> str:
    """Make a sentence of about ten words; most of them are rare, as in a real talk."""
    a, b, c, d = (f"{draw.choice(WORDS)}{draw.choice(WORDS)}" for _ in range(4))
    return f"The {a} of the {b} {draw.choice(VERBS)} a {c} and my {d}."


def message(number: int) -> str:
    """Return what the user says in an exchange, the same each time."""
    return sentence(random.Random(f"message {number}"))


class InstantModel:
    """Says about twenty tokens at once, other ones each time."""

    def __init__(self) -> None:
        """Begin the row of replies."""
        self._draw = random.Random("replies")

    async def info(self) -> ModelInfo:
        """Say that it is a large one."""
        return ModelInfo("instant", "twenty", 8192, small=False)

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Yield two sentences word by word."""
        for word in f"{sentence(self._draw)} {sentence(self._draw)}".split():
            yield Chunk(f"{word} ")
        yield Chunk("", 24, "stop")

    async def offered(self) -> Offer:
        """Say that it is the only one."""
        return Offer(await self.info(), ("twenty",))

    async def check(self) -> str:
        """Say that it is there."""
        return "answers"

    async def aclose(self) -> None:
        """Do nothing."""


class HashEmbedder:
    """A direction drawn for each text out of a few that are kept ready."""

    model_id = "stub-384"

    def __init__(self) -> None:
        """Draw the directions once."""
        drawn = np.random.default_rng(7).standard_normal((1009, SIZE)).astype(np.float32)
        self._rows: Vector = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    async def dimension(self) -> int:
        """Say how long a vector is."""
        return SIZE

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Pick a row for each text."""
        return self._rows[[hash(text) % len(self._rows) for text in texts]]

    async def embed_query(self, text: str) -> Vector:
        """Pick a row."""
        row: Vector = self._rows[hash(text) % len(self._rows)]
        return row

    async def aclose(self) -> None:
        """Do nothing."""


class RecordingEmbedder:
    """Notes what another one is asked for, so that it can be asked for the same once more.

    Attributes:
        calls: The texts of each call; one text alone is a query.
    """

    def __init__(self, embedder: Embedder) -> None:
        """Stand before this one."""
        self._embedder = embedder
        self.calls: list[str | list[str]] = []

    @property
    def model_id(self) -> str:
        """Name of the one behind."""
        return self._embedder.model_id

    async def dimension(self) -> int:
        """Ask the one behind."""
        return await self._embedder.dimension()

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Note and pass on."""
        self.calls.append(list(texts))
        return await self._embedder.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        """Note and pass on."""
        self.calls.append(text)
        return await self._embedder.embed_query(text)

    async def again(self, calls: Sequence[str | list[str]]) -> None:
        """Ask for the same, one call after the other."""
        for asked in calls:
            if isinstance(asked, str):
                await self._embedder.embed_query(asked)
            else:
                await self._embedder.embed_documents(asked)

    async def aclose(self) -> None:
        """Close the one behind."""
        await self._embedder.aclose()


class BareState(TypedDict, total=False):
    """As much as an exchange checkpoints."""

    message: str
    reply: str


class BareGraph:
    """LangGraph alone: as many nodes as an exchange passes, and nothing in them."""

    def __init__(self, saver: PersonaSaver | None) -> None:
        """Compile it with this saver, if with one."""
        builder = StateGraph(BareState)
        before = START
        for name in NODES:
            builder.add_node(name, nothing)
            builder.add_edge(before, name)
            before = name
        builder.add_edge(before, END)
        self._graph: Any = builder.compile(checkpointer=saver)

    async def run(self, number: int) -> None:
        """Run it once."""
        config = {"configurable": {"thread_id": "bare"}}
        given = {"message": message(number)}
        kept = {"durability": "exit"} if self._graph.checkpointer else {}
        async for _ in self._graph.astream(given, config, stream_mode="custom", **kept):
            pass


async def nothing(state: BareState) -> BareState:
    """Do nothing, as a node."""
    return {"reply": "said"}
