"""A small model server that misbehaves on command, in Ollama's form and in OpenAI's.

In a test:

    async with ModelServer() as server:
        server.script("ok", "drop", Behaviour(text="One. Two.", delay_s=0.01))
        ...                                    # three requests, in this order; then the default
        await server.requests[0].disconnected.wait()

As a process of its own, which prints its address: `python -m tests.model_server --port 0`.
It answers /api/tags, /api/chat, /api/embed, /v1/models, /v1/chat/completions and /v1/embeddings.
"""

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from tests.model_replies import (
    BEHAVIOURS,
    Answer,
    Behaviour,
    GoneError,
    OllamaReply,
    OpenAIReply,
    Request,
    embeddings,
)

__all__ = ["BEHAVIOURS", "Behaviour", "ModelServer", "Request"]


class ModelServer:
    """The server, as an async context manager; chat and embedding requests take the script.

    Attributes:
        models: Names that the lists of models show.
        default: What a request gets when the script is used up.
        endless: What it gets before that, as long as there is any.
        listing: What requests for the lists of models get.
        requests: Chat and embedding requests so far.
        peak: Most chat and embedding requests that were under way at once.
    """

    def __init__(
        self,
        default: Behaviour | str = "ok",
        models: Sequence[str] = ("nomic-embed-text:latest", "llama3.1:latest"),
        port: int = 0,
        dimension: int = 16,
    ) -> None:
        self.default = _named(default)
        self.listing = Behaviour()
        self.models = models
        self.requests: list[Request] = []
        self.peak = 0
        self.endless: Iterator[Behaviour] = iter(())
        self._port = port
        self._dimension = dimension
        self._script: deque[Behaviour] = deque()
        self._under_way = 0
        self._came = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Address of the Ollama form."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """Base address of the OpenAI form."""
        return f"{self.url}/v1"

    def script(self, *behaviours: Behaviour | str) -> None:
        """Add what the next requests get, in order."""
        self._script.extend(_named(behaviour) for behaviour in behaviours)

    @staticmethod
    def named(name: str) -> Behaviour:
        """Give a behaviour by its name, for `listing` and `default`."""
        return BEHAVIOURS[name]

    async def arrived(self, count: int) -> None:
        """Wait until so many chat and embedding requests have come."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.requests) >= count)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(GoneError, ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        answer = Answer(reader, writer, request)
        try:
            if request.path in ("/api/tags", "/v1/models"):
                await answer.json(self._list(request.path), self.listing)
                return
            async with self._came:
                self.requests.append(request)
                self._came.notify_all()
            self._under_way += 1
            self.peak = max(self.peak, self._under_way)
            try:
                behaviour = self._next()
                await self._answer(answer, behaviour)
            finally:
                self._under_way -= 1
        finally:
            answer.forget_client()

    def _next(self) -> Behaviour:
        if self._script:
            return self._script.popleft()
        return next(self.endless, self.default)

    async def _answer(self, answer: "Answer", behaviour: Behaviour) -> None:
        path, body = answer.request.path, answer.request.body
        if path == "/api/chat":
            await OllamaReply(answer, behaviour).send()
        elif path == "/v1/chat/completions":
            await OpenAIReply(answer, behaviour).send()
        elif path in ("/api/embed", "/v1/embeddings"):
            await answer.json(embeddings(path, body, self._dimension), behaviour)
        else:
            await answer.json({}, Behaviour(status=404))

    def _list(self, path: str) -> dict[str, Any]:
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": n, "object": "model"} for n in self.models]}
        families = {n: ["bert"] if "bge" in n else ["llama"] for n in self.models}
        return {"models": [{"name": n, "details": {"families": families[n]}} for n in self.models]}


def _named(behaviour: Behaviour | str) -> Behaviour:
    return BEHAVIOURS[behaviour] if isinstance(behaviour, str) else behaviour


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    raw = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(head[0].split()[1], headers, json.loads(raw or b"{}"))


async def main() -> None:
    """Serve until stopped; the first line on stdout is the address."""
    parser = argparse.ArgumentParser(prog="python -m tests.model_server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", choices=sorted(BEHAVIOURS), default="ok")
    parser.add_argument("--text", help="the reply, instead of the behaviour's")
    parser.add_argument(
        "--delay-s", type=float, help="before each word, instead of the behaviour's"
    )
    given = parser.parse_args()
    behaviour = BEHAVIOURS[given.behaviour]
    if given.text is not None:
        behaviour = replace(behaviour, text=given.text)
    if given.delay_s is not None:
        behaviour = replace(behaviour, delay_s=given.delay_s)
    async with ModelServer(behaviour, port=given.port) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
