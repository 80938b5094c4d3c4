"""The language model behind one set of limits: places, connect, first token, idle, total.

```
LimitedModel     limits, retries, the proven end of a reply, one log line a call
└── Provider     ollama, openai (llm_providers) or embedded (embedded_llm); `auto` chooses one
```
Retries live here and nowhere else, and only while no token has come.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import httpx
import structlog

from persona_mcp.config.embedded_llm import DEFAULT as SMOLLM2
from persona_mcp.config.embedded_llm import EmbeddedProvider
from persona_mcp.config.llm_faults import translate
from persona_mcp.config.llm_providers import (
    OllamaProvider,
    OpenAIProvider,
    Piece,
    Provider,
    Stage,
    ollama_models,
    remembering,
)
from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.errors import PersonaError, RateLimited
from persona_mcp.state.model import ChatModel, Chunk, Message, ModelInfo, Offer, Sampling

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk

PROVIDERS: dict[str, Callable[[LLMSettings, str], Provider]] = {
    "ollama": OllamaProvider,
    "openai": OpenAIProvider,
    "embedded": EmbeddedProvider,
}

LATE = {
    "first_token_s": "did not begin its reply",
    "idle_s": "fell silent in the middle of its reply and said nothing more",
    "total_s": "did not finish its reply",
}
AT_LENGTH = ("length", "max_tokens")
"""OpenAI's and Ollama's word for a reply that is as long as it may be, and others'."""
CUT_OFF = "broke off without saying that its reply was complete, so it was cut off: try again"
FILTERED = "withheld its reply (content filter): say it differently, or take another model"
TOO_LONG = (
    "made a reply of more than {} characters: ask for less, or raise PERSONA_LLM__MAX_REPLY_CHARS"
)

FULL_RETRY_S = 2.0
"""When to come back to a full queue, in seconds; nobody knows how long replies will be."""

log = structlog.get_logger()


def open_model(settings: LLMSettings) -> ChatModel:
    """Make the model that the setting names; nothing is reached, loaded or imported yet."""
    if settings.model == "auto":
        return LimitedModel(settings, lambda: take_what_is_there(settings))
    provider, name = settings.model.split(":", 1)

    async def named() -> Provider:
        return PROVIDERS[provider](settings, name)

    return LimitedModel(settings, named)


async def take_what_is_there(settings: LLMSettings) -> Provider:
    """Take Ollama's newest chat model where Ollama answers, else the embedded one."""
    try:
        names = await ollama_models(settings)
    except (httpx.HTTPError, TimeoutError, ValueError):
        names, why = [], "Ollama does not answer"
    else:
        why = "Ollama answers" if names else "Ollama has no chat model"
    chosen = OllamaProvider(settings, names[0]) if names else EmbeddedProvider(settings, SMOLLM2)
    hint = None if names else "weak; `ollama pull llama3.2` gives a better one"
    log.info("model chosen", model=chosen.info.id, why=why, hint=hint)
    return chosen


@dataclass(frozen=True)
class Opened:
    """A provider that was opened, its client, and its places."""

    provider: Provider
    client: "BaseChatModel"
    places: asyncio.Semaphore


@dataclass
class Call:
    """One reply on its way, over all its tries; times are the event loop's, in seconds.

    Attributes:
        started: When it had its place.
        tried: When the present try began.
        tries: Tries so far.
        heard: The provider said anything, if only an empty piece.
        first_token: When the first text came.
        chars: Length of the text so far.
        output_tokens: Tokens as the provider counts them.
        input_tokens: Tokens of the prompt, likewise.
        finish: The provider's word for the end.
        error: Code of the error that ended it.
        responses: HTTP responses that the present try opened.
    """

    started: float
    tried: float = 0.0
    tries: int = 0
    heard: bool = False
    first_token: float | None = None
    chars: int = 0
    output_tokens: int | None = None
    input_tokens: int | None = None
    finish: str | None = None
    error: str | None = None
    responses: list[httpx.Response] = field(default_factory=list)

    @property
    def stage(self) -> Stage:
        """What is waited for."""
        return "stream" if self.heard else "first_token"

    def deadline(self, settings: LLMSettings, now: float) -> tuple[float, str]:
        """Say until when the next piece must come, and which limit says so.

        Silence counts from `now`, so that a slow reader is not taken for a slow model. Before the
        first text a model may think (empty pieces) for as long as it is heard.
        """
        idle = (now + settings.idle_s, "idle_s")
        first = (self.tried + settings.first_token_s, "first_token_s")
        if self.first_token is not None:
            next_piece = idle
        else:
            next_piece = max(first, idle) if self.heard else first
        return min(next_piece, (self.started + settings.total_s, "total_s"))

    def note(self, piece: Piece, now: float) -> None:
        """Take in what a piece said."""
        self.heard = True
        self.chars += len(piece.text)
        if piece.text and self.first_token is None:
            self.first_token = now
        self.output_tokens = piece.output_tokens or self.output_tokens
        self.input_tokens = piece.input_tokens or self.input_tokens
        self.finish = piece.finish or self.finish


class TryAgainError(Exception):
    """A try failed before anything came; holds the error for when no try is left."""

    def __init__(self, error: PersonaError) -> None:
        """Keep the error."""
        super().__init__(error.message)
        self.error = error


class LimitedModel:
    """A `ChatModel` over one provider.

    Attributes:
        waiting: Replies that wait for a free place.
    """

    def __init__(self, settings: LLMSettings, choose: Callable[[], Awaitable[Provider]]) -> None:
        """Remember how to find the provider."""
        self._settings = settings
        self._choose = choose
        self._provider: Provider | None = None
        self._opened: Opened | None = None
        self._lock = asyncio.Lock()
        self.waiting = 0

    async def info(self) -> ModelInfo:
        """Say which model answers; see `ChatModel`."""
        return (await self._open()).provider.info

    async def check(self) -> str:
        """Ask the provider, without opening it; see `ChatModel`."""
        async with self._lock:
            provider = await self._chosen()
        return await provider.check()

    async def offered(self) -> Offer:
        """Ask the provider for its list, without opening it; see `ChatModel`."""
        async with self._lock:
            provider = await self._chosen()
        try:
            return Offer(provider.info, tuple(await provider.models()))
        except PersonaError as error:
            return Offer(provider.info, (), error.message)

    async def aclose(self) -> None:
        """Close the provider; a later call opens it again."""
        async with self._lock:
            opened, self._opened, self._provider = self._opened, None, None
            if opened is not None:
                await opened.provider.aclose()

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply as it is made; see `ChatModel`."""
        opened = await self._open()
        async with self._place(opened):
            call = Call(_now())
            try:
                async with aclosing(self._tries(opened, call, messages, sampling)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except PersonaError as error:
                call.error = error.code
                raise
            finally:
                _report(call, opened.provider.info)

    async def _chosen(self) -> Provider:
        if self._provider is None:
            self._provider = await self._choose()
        return self._provider

    async def _open(self) -> Opened:
        async with self._lock:
            if self._opened is None:
                provider = await self._chosen()
                client = await provider.open()
                places = min(self._settings.concurrency, provider.places or sys.maxsize)
                self._opened = Opened(provider, client, asyncio.Semaphore(places))
            return self._opened

    @asynccontextmanager
    async def _place(self, opened: Opened) -> AsyncIterator[None]:
        """Hold one of the provider's places."""
        limit, most = self._settings.queue_s, self._settings.queued
        if opened.places.locked() and self.waiting >= most:
            raise RateLimited(
                f"{most} replies wait for a place at the model, which is the most; come back in "
                f"{FULL_RETRY_S:g} s, or raise PERSONA_LLM__QUEUED",
                stage="queue",
                limit="queued",
                allowed=most,
                retry_after_seconds=FULL_RETRY_S,
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(limit):
                await opened.places.acquire()
        except TimeoutError as error:
            raise opened.provider.late("had no free place", "queue", "queue_s", limit) from error
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            opened.places.release()

    async def _tries(
        self, opened: Opened, call: Call, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Try until something has come or no try is left; the wait doubles."""
        wait_s = self._settings.retry_wait_s
        for left in range(self._settings.retries, -1, -1):
            call.tried, call.tries = _now(), call.tries + 1
            try:
                async with aclosing(self._reply(opened, call, messages, sampling)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except TryAgainError as failed:
                if not left or _now() + wait_s >= call.started + self._settings.total_s:
                    raise failed.error from failed.__cause__
            await asyncio.sleep(wait_s)
            wait_s *= 2

    async def _reply(
        self, opened: Opened, call: Call, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Make one try; its last chunk comes only when the provider has said that it ended."""
        provider = opened.provider
        stream = opened.client.astream(
            [(message.role, message.content) for message in messages],
            **provider.arguments(sampling),
        )
        async with _closing(stream, call):
            while (piece := await self._next(provider, call, stream)) is not None:
                call.note(piece, _now())
                if call.chars > self._settings.max_reply_chars:
                    raise provider.failed(TOO_LONG.format(self._settings.max_reply_chars), "stream")
                if piece.text:
                    yield Chunk(piece.text)
        if call.finish is None:
            raise provider.failed(CUT_OFF, "stream")
        if call.finish == "content_filter":
            raise provider.failed(FILTERED, "stream")
        finish: Literal["stop", "length"] = "length" if call.finish in AT_LENGTH else "stop"
        yield Chunk("", call.output_tokens, finish, call.input_tokens)

    async def _next(
        self, provider: Provider, call: Call, stream: AsyncIterator["AIMessageChunk"]
    ) -> Piece | None:
        """Wait for the next piece, None at the end; every failure comes out in our words."""
        until, limit = call.deadline(self._settings, _now())
        try:
            async with asyncio.timeout_at(until) as clock:
                with remembering(call.responses):
                    message = await anext(stream, None)
            return None if message is None else Piece.of(message)
        except Exception as error:  # the client libraries raise anything on a bad answer
            if clock.expired():
                seconds = getattr(self._settings, limit)
                raise provider.late(LATE[limit], call.stage, limit, seconds) from error
            fault = translate(error, provider, call.stage)
            if fault.again and not call.heard:
                raise TryAgainError(fault.error) from error
            raise fault.error from error


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def _closing(stream: AsyncIterator["AIMessageChunk"], call: Call) -> AsyncIterator[None]:
    """Stop the model's work on leaving, whatever the reason."""
    try:
        async with aclosing(cast("AsyncGenerator[AIMessageChunk]", stream)):
            yield
    finally:
        for response in call.responses:
            await response.aclose()
        call.responses.clear()


def _report(call: Call, info: ModelInfo) -> None:
    """Write the one line of a call."""
    first_token_s = None if call.first_token is None else call.first_token - call.started
    log.debug(
        "model call",
        provider=info.provider,
        model=info.name,
        seconds=round(_now() - call.started, 3),
        first_token_s=None if first_token_s is None else round(first_token_s, 3),
        tokens=call.output_tokens,
        tries=call.tries,
        finish=call.finish,
        error=call.error,
    )
