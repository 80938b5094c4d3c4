"""What the faulty model server sends: behaviours, and replies in both forms on the wire."""

import asyncio
import base64
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Literal

Fault = Literal[
    "hang_before_headers", "hang_after_headers", "silence", "drop", "no_finish",
    "garbage", "wrong_shape", "not_http", "error_line",
]  # fmt: skip

CHUNK_HEAD = {"object": "chat.completion.chunk", "id": "c1", "created": 1}
STAMP = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Behaviour:
    """How one request is answered.

    Attributes:
        text: The reply, sent word by word.
        delay_s: Wait before each word but the first.
        status: HTTP status; not 200 sends an error instead of a reply.
        fault: What goes wrong with the reply.
        after: Words that come before `silence`, `drop`, `garbage` and `error_line`.
        whole: Send the text in one piece.
        thinking: Pieces of thought, without text, before the first word.
        finish: The word for the end; "" for an Ollama too old to give one.
        hashed: Say something that depends on what was asked, in place of the text.
    """

    text: str = "Well met, traveller, sit down by the fire."
    delay_s: float = 0.0
    status: int = 200
    fault: Fault | None = None
    after: int = 0
    whole: bool = False
    thinking: int = 0
    finish: str = "stop"
    hashed: bool = False


BEHAVIOURS: dict[str, Behaviour] = {
    "ok": Behaviour(),
    "hashed": Behaviour(hashed=True),
    "slow": Behaviour(text="again and " * 500, delay_s=0.05),
    "empty": Behaviour(text=""),
    "hang": Behaviour(fault="hang_before_headers"),
    "hang_after_headers": Behaviour(fault="hang_after_headers"),
    "silence": Behaviour(fault="silence", after=1),
    "drop": Behaviour(fault="drop", after=2),
    "drop_at_once": Behaviour(fault="drop"),
    "no_finish": Behaviour(fault="no_finish"),
    "garbage": Behaviour(fault="garbage"),
    "garbage_later": Behaviour(fault="garbage", after=2),
    "wrong_shape": Behaviour(fault="wrong_shape"),
    "not_http": Behaviour(fault="not_http"),
    "error_line": Behaviour(fault="error_line", after=1),
    "flood": Behaviour(text="x" * 10_000_000, whole=True),
    "filtered": Behaviour(finish="content_filter"),
    "500": Behaviour(status=500),
    "429": Behaviour(status=429),
    "401": Behaviour(status=401),
    "404": Behaviour(status=404),
    "400": Behaviour(status=400),
}


OPENINGS = ("Honestly", "Well", "As it happens", "In truth", "Now then", "Listen")
VIEWS = ("I admire", "I doubt", "I cannot stand", "I treasure", "I half remember", "I fear")
THINGS = ("the harbour", "your garden", "that old letter", "the winter", "our bargain", "music")
ENDINGS = (
    "Thank you for telling me.",
    "You are wrong about it, and you know it.",
    "What would you do?",
    "I trust you with this.",
    "Leave me out of it.",
    "We should go there together.",
)


def hashed(body: Mapping[str, Any]) -> str:
    """Say something that depends on what was asked, the seed too, and on nothing else."""
    asked = {key: body.get(key) for key in ("messages", "seed", "options", "temperature")}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
    chosen = (
        words[byte % len(words)]
        for words, byte in zip((OPENINGS, VIEWS, THINGS, ENDINGS), digest, strict=False)
    )
    opening, view, thing, ending = chosen
    return f"{opening}, {view} {thing}, mark {digest[4:7].hex()}. {ending}"


@dataclass
class Request:
    """A request as it came.

    Attributes:
        path: Path of the address.
        headers: Names in lower case.
        body: The JSON that was sent, {} if none.
        disconnected: Set when the client leaves before the answer is complete.
    """

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


class GoneError(Exception):
    """The client has left."""


class Answer:
    """One HTTP answer, chunked where it streams; notices when the client leaves."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request
    ) -> None:
        self.request = request
        self._writer = writer
        self._left = asyncio.ensure_future(reader.read(1))

    def forget_client(self) -> None:
        self._left.cancel()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait, for ever without a number; raise if the client leaves meanwhile."""
        await asyncio.wait({self._left}, timeout=seconds)
        if self._left.done():
            self.request.disconnected.set()
            raise GoneError

    async def head(self, status: int, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Status", "Connection: close", *headers, "", ""]
        await self.raw("\r\n".join(lines).encode())

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.request.disconnected.set()
            raise

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def json(self, value: object, behaviour: Behaviour) -> None:
        """Send a whole JSON value, or what the behaviour makes of it."""
        if behaviour.fault == "hang_before_headers":
            await self.wait()
        if behaviour.fault == "not_http":
            await self.raw(b"\x00\xff\x01 this is not HTTP\r\n\r\n")
            return
        if behaviour.status != 200:
            value = {"error": _error(self.request.path, behaviour)}
        data = json.dumps(value).encode()
        if behaviour.fault == "garbage":
            data = b"\xff\xfe{{{ not JSON"
        elif behaviour.fault == "wrong_shape":
            data = b'{"models": 7, "data": [3], "embeddings": "no"}'
        type_and_length = ("Content-Type: application/json", f"Content-Length: {len(data)}")
        await self.head(behaviour.status, *type_and_length)
        if behaviour.fault == "hang_after_headers":
            await self.wait()
        await self.raw(data[:3] if behaviour.fault == "drop" else data)


def _error(path: str, behaviour: Behaviour) -> Any:
    text = f"error at /srv/secret/path.py: {behaviour.text}"
    return text if path.startswith("/api") else {"message": text, "type": "error"}


class _Reply:
    """A streamed reply; the two forms differ in how a piece, the end and an error look."""

    content_type = ""
    garbage = b""
    wrong_shape = b""
    error_line = b""

    def __init__(self, answer: Answer, behaviour: Behaviour) -> None:
        self.answer = answer
        self.behaviour = behaviour
        self.model = answer.request.body.get("model", "")
        text = hashed(answer.request.body) if behaviour.hashed else behaviour.text
        words = [text] if behaviour.whole else re.findall(r"\s*\S+|\s+$", text)
        most = self.most_tokens()
        self.words = words[:most]
        self.finish = "length" if most is not None and len(words) > most else behaviour.finish

    async def send(self) -> None:
        behaviour, answer = self.behaviour, self.answer
        if behaviour.status != 200 or behaviour.fault in ("hang_before_headers", "not_http"):
            await answer.json(None, behaviour)
            return
        if answer.request.body.get("stream") is False:
            await answer.json(self.whole(), behaviour)
            return
        await answer.head(200, f"Content-Type: {self.content_type}", "Transfer-Encoding: chunked")
        if behaviour.fault == "hang_after_headers":
            await answer.wait()
        for _ in range(behaviour.thinking):
            await answer.chunk(self.piece(""))
            await answer.wait(behaviour.delay_s)
        await self._send_words()
        if behaviour.fault != "no_finish":
            await answer.chunk(self.end())
        await answer.raw(b"0\r\n\r\n")

    async def _send_words(self) -> None:
        answer, fault = self.answer, self.behaviour.fault
        for number, word in enumerate(self.words):
            if fault is not None and number == self.behaviour.after:
                await self._go_wrong(fault)
            if number:
                await answer.wait(self.behaviour.delay_s)
            await answer.chunk(self.piece(word))

    async def _go_wrong(self, fault: Fault) -> None:
        answer = self.answer
        if fault == "silence":
            await answer.wait()
        elif fault == "drop":
            raise GoneError
        elif fault == "garbage":
            await answer.chunk(self.garbage)
        elif fault == "wrong_shape":
            await answer.chunk(self.wrong_shape)
        elif fault == "error_line":
            await answer.chunk(self.error_line)

    def most_tokens(self) -> int | None:
        raise NotImplementedError

    def piece(self, word: str) -> bytes:
        raise NotImplementedError

    def end(self) -> bytes:
        raise NotImplementedError

    def whole(self) -> dict[str, Any]:
        raise NotImplementedError


class OllamaReply(_Reply):
    """Lines of JSON."""

    content_type = "application/x-ndjson"
    garbage = b"\xff\xfe{{{ not JSON\n"
    wrong_shape = b'{"message": 7}\n'
    error_line = b'{"error": "runner died in /srv/secret/path"}\n'

    def most_tokens(self) -> int | None:
        most: int | None = self.answer.request.body.get("options", {}).get("num_predict")
        return most

    def piece(self, word: str) -> bytes:
        return self._line(word, done=False)

    def end(self) -> bytes:
        return self._line("", **self._ending())

    def whole(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self._line("".join(self.words), **self._ending()))
        return line

    def _ending(self) -> dict[str, Any]:
        counts = {"prompt_eval_count": 10, "eval_count": len(self.words)}
        reason = {"done_reason": self.finish} if self.finish else {}
        return {"done": True, **reason, **counts}

    def _line(self, text: str, **more: object) -> bytes:
        message = {"role": "assistant", "content": text}
        line = {"model": self.model, "created_at": STAMP, "message": message, **more}
        return json.dumps(line).encode() + b"\n"


class OpenAIReply(_Reply):
    """Server-sent events."""

    content_type = "text/event-stream"
    garbage = b"data: \xff\xfe{{{ not JSON\n\n"
    wrong_shape = b'data: {"choices": 7}\n\n'
    error_line = b'data: {"error": {"message": "died in /srv/secret/path", "code": 1}}\n\n'

    def most_tokens(self) -> int | None:
        body = self.answer.request.body
        most: int | None = body.get("max_tokens") or body.get("max_completion_tokens")
        return most

    def piece(self, word: str) -> bytes:
        return self._event({"delta": {"role": "assistant", "content": word}, "finish_reason": None})

    def end(self) -> bytes:
        ending = self._event({"delta": {}, "finish_reason": self.finish})
        usage = _data({**CHUNK_HEAD, "model": self.model, "choices": [], "usage": self._usage()})
        return ending + usage + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self.words)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        head = {**CHUNK_HEAD, "object": "chat.completion", "model": self.model}
        return {**head, "choices": [choice], "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        made = len(self.words)
        return {"prompt_tokens": 10, "completion_tokens": made, "total_tokens": 10 + made}

    def _event(self, choice: dict[str, Any]) -> bytes:
        return _data({**CHUNK_HEAD, "model": self.model, "choices": [{"index": 0, **choice}]})


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def embeddings(path: str, body: Mapping[str, Any], dimension: int) -> dict[str, Any]:
    texts = body.get("input", [])
    vectors = [_vector(str(t), dimension) for t in ([texts] if isinstance(texts, str) else texts)]
    if path == "/api/embed":
        return {"model": body.get("model"), "embeddings": vectors}
    shown: list[object] = list(vectors)
    if body.get("encoding_format") == "base64":
        shown = [base64.b64encode(struct.pack(f"<{dimension}f", *v)).decode() for v in vectors]
    rows = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(shown)]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "model": body.get("model"), "data": rows, "usage": usage}


def _vector(text: str, dimension: int) -> list[float]:
    """Count words into places by a hash, length 1: texts that share words are near."""
    counts = [0.001] * dimension
    for word in re.findall(r"\w+", text.lower()):
        counts[zlib.crc32(word.encode()) % dimension] += 1.0
    length = sqrt(sum(count * count for count in counts))
    return [count / length for count in counts]
