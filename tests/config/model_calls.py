"""Calls of a model as the tests make them, against the faulty server."""

import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.model import ChatModel, Chunk, Message, Sampling
from tests.model_server import ModelServer

PROMPT = [Message("system", "You are Aria."), Message("user", "Hello.")]
SAMPLING = Sampling(max_tokens=50, temperature=0.5)
HELLO = "Well met, traveller, sit down by the fire."


class Open(Protocol):
    """Opens a model on the server, and closes it when the test ends."""

    def __call__(self, server: ModelServer, model: str, **more: Any) -> ChatModel: ...


def settings(server: ModelServer, model: str, **more: Any) -> LLMSettings:
    given = {"retries": 0, "retry_wait_s": 0, "first_token_s": 5, "idle_s": 5, "probe_s": 5}
    urls = {"ollama_url": server.url, "openai_url": server.openai_url}
    return LLMSettings(model=model, **urls, **(given | more))


def stream(model: ChatModel, sampling: Sampling = SAMPLING) -> AsyncGenerator[Chunk]:
    return model.stream(PROMPT, sampling)


async def read(model: ChatModel, sampling: Sampling = SAMPLING) -> list[Chunk]:
    async with aclosing(stream(model, sampling)) as chunks:
        return [chunk async for chunk in chunks]


async def reply(model: ChatModel) -> str:
    return "".join(chunk.text for chunk in await read(model))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
