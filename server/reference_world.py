"""A small world that is the same whenever it is made: where the examples of the reference are run.

Time stands still but for a minute between two calls, random ids come from a fixed seed, the model
says lines in turn, and nearness goes by shared words. All else is the product as it is.
"""

import asyncio
import hashlib
import itertools
import random
import re
import secrets
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import call_operation, operation_named
from persona_mcp.server.reference_examples import (
    EXAMPLES,
    WORLD,
    Arguments,
    filled,
    wrong_calls,
)
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.wire import problem_of
from persona_mcp.state.embedding import Vector
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.model import Chunk, Message, ModelInfo, Offer, Sampling

BEGINS = 1_767_268_800.0
"""2026-01-01T12:00:00Z."""
STEP_S = 60.0
LOOK_S, LONGEST_S = 0.02, 60.0
"""How often work behind a call is looked at, and for how long at most, in seconds."""
DIMENSION = 64
LINES = (
    "A red boat! I hope that whoever has it now takes it out to sea.",
    "Of course I do. You said that it was red, and that Tom let it go.",
    "The tide is turning; let us walk down to the pier and look.",
    "I would rather hear about you than talk about the weather again.",
)
Answer = dict[str, Any]
Ask = Callable[[str, Arguments], Awaitable[Answer]]
"""Calls an operation: `{"result": ...}`, or `{"error": {code, message, data}}`."""


@dataclass(frozen=True)
class Played:
    """What became of an example.

    Attributes:
        arguments: What was given.
        answer: What came back.
        refused: Arguments that are wrong, each with its answer.
    """

    arguments: Arguments
    answer: Answer
    refused: list[tuple[Arguments, Answer]]


async def play(ask: Ask) -> dict[str, Played]:
    """Make every example's calls in the order of the registry, each once.

    Raises:
        RuntimeError: A call that prepares something was refused.
    """
    answers: dict[str, Any] = {}

    async def make(operation: str, arguments: Arguments) -> Answer:
        answer = await ask(operation, arguments)
        if "result" in answer:
            answers[operation] = answer["result"]
        return answer

    async def prepare(operation: str, arguments: Arguments) -> None:
        answer = await make(operation, filled(arguments, answers))
        if "error" in answer:
            raise RuntimeError(f"{operation}: {answer['error']['message']}")

    for step in WORLD:
        await prepare(step.operation, step.arguments)
    played = {}
    for operation in operations("all"):
        name, example = operation.name, EXAMPLES[operation.name]
        for step in example.before:
            await prepare(step.operation, step.arguments)
        wrong = [
            filled(arguments, answers)
            for arguments in wrong_calls(name, operation.input_schema["properties"])
        ]
        given = filled(example.arguments, answers)
        refused = [(arguments, await ask(name, arguments)) for arguments in wrong]
        played[name] = Played(given, await make(name, given), refused)
    return played


async def played_here() -> dict[str, Played]:
    """Play every example in a small world of its own."""
    with same_every_time() as tick:
        async with small_world() as service:

            async def ask(name: str, arguments: Arguments) -> Answer:
                return await asked(service, name, arguments)

            at_rest = settled(ask)

            async def after_a_minute(name: str, arguments: Arguments) -> Answer:
                tick()
                return await at_rest(name, arguments)

            return await play(after_a_minute)


def settled(ask: Ask) -> Ask:
    """Let each call that writes be followed by the work that goes on behind it, to its end."""

    async def made(name: str, arguments: Arguments) -> Answer:
        answer = await ask(name, arguments)
        if "result" in answer and not operation_named(name).read_only:
            async with asyncio.timeout(LONGEST_S):
                while not await rests(ask, name, answer["result"]):
                    await asyncio.sleep(LOOK_S)
        return answer

    return made


async def rests(ask: Ask, after: str, result: Answer) -> bool:
    """Tell whether all is indexed, upkeep that was started ran once, and dialogues have stopped."""
    status = await ask("system_status", {})
    if status["result"]["queue_depth"]:
        return False
    if after == "state_load":  # into another world, whose memories the depth above does not count
        health = await ask("system_health", {})
        waiting: str = health["result"]["checks"]["queue"]["detail"]
        return waiting.startswith("0 ")
    if after == "dialogue_cancel" and result["status"] == "running":
        listed = await ask("dialogue_list", {"status": "running"})
        return not listed["result"]["total_count"]
    if after != "memory_decay_start":
        return True
    stats = await ask("memory_decay_stats", {})
    cycles: int = stats["result"]["decay_statistics"]["total_decay_cycles"]
    return cycles > 0


async def asked(service: Service, name: str, arguments: Arguments) -> Answer:
    """Call an operation, and give the answer or the error as JSON."""
    try:
        return {"result": await call_operation(service, name, arguments)}
    except PersonaError as error:
        return {"error": problem_of(error)}


@contextmanager
def same_every_time() -> Iterator[Callable[[], None]]:
    """Stop the clock and seed the random ids of this process; gives what moves the clock on."""
    now = BEGINS
    seeded = random.Random(0)

    def tick() -> None:
        nonlocal now
        now += STEP_S

    with (
        patch.object(time, "time", lambda: now),
        patch.object(uuid, "uuid4", lambda: uuid.UUID(int=seeded.getrandbits(128), version=4)),
        patch.object(secrets, "token_urlsafe", lambda _=0: "example-" * 5 + "key"),
    ):
        yield tick


@asynccontextmanager
async def small_world() -> AsyncIterator[Service]:
    """Open a service on a folder of its own, which goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None, data_dir=Path(folder), index=IndexSettings(kind="exact")
        )
        async with open_service(settings, Rehearsed(), Words()) as service:
            yield service


class Rehearsed:
    """A model that says its lines in turn."""

    def __init__(self) -> None:
        """Begin with the first."""
        self._lines = itertools.cycle(LINES)

    async def info(self) -> ModelInfo:
        """Return what is known of it."""
        return ModelInfo("rehearsed", "lines", 8192, small=False)

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Say the next line, word by word."""
        for word in re.findall(r"\s*\S+", next(self._lines)):
            yield Chunk(word)
        yield Chunk("", None, "stop")

    async def offered(self) -> Offer:
        """Name the one there is."""
        return Offer(await self.info(), ("lines",))

    async def check(self) -> str:
        """Say that it answers."""
        return "it answers"

    async def aclose(self) -> None:
        """Nothing is open."""


class Words:
    """An embedder by which texts are near that share words."""

    model_id = "words"

    async def dimension(self) -> int:
        """Return the length of a vector."""
        return DIMENSION

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts, a row each."""
        rows = [await self.embed_query(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, DIMENSION), dtype=np.float32)

    async def embed_query(self, text: str) -> Vector:
        """Embed a text."""
        vector = np.zeros(DIMENSION, dtype=np.float32)
        for word in re.findall(r"\w+", text.casefold()):
            digest = hashlib.sha256(word.encode()).digest()
            vector[digest[0] % DIMENSION] += 1.0 if digest[1] % 2 else -1.0
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            vector[0] = length = 1.0
        return vector / np.float32(length)

    async def aclose(self) -> None:
        """Nothing is open."""
