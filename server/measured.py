"""The model and the embedder, whose calls are counted, timed and traced.

Spans follow the conventions for generative AI of OpenTelemetry; no prompt and no reply is in them.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from persona_mcp.server.metrics import Metrics, Timed, code_of
from persona_mcp.server.model_layer import ModelLayer
from persona_mcp.state.embedding import Embedder, Vector
from persona_mcp.state.model import ChatModel, Chunk, Message, ModelInfo, Sampling
from persona_mcp.state.watching import Fact, Facts, Span, Tracer

T = TypeVar("T")
TEXTS = "persona.texts"
MODEL, PROVIDER, WORK = "gen_ai.request.model", "gen_ai.provider.name", "gen_ai.operation.name"
OTHER_EMBEDDERS = ("ollama", "openai")
"""Vectors' names begin with them, where the packaged embedder does not make them."""


class MeasuredModel(ModelLayer):
    """A `ChatModel` whose replies are counted."""

    def __init__(self, model: ChatModel, metrics: Metrics) -> None:
        """Count the replies of this model here."""
        super().__init__(model)
        self._metrics = metrics

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply as it is made; see `ChatModel`. One that is closed early is no error."""
        started, first, code, span = time.perf_counter(), None, None, None
        last: Chunk | None = None
        try:
            if self._metrics.tracer is not None:
                info = await self._model.info()
                span = begin_reply(self._metrics.tracer, info, sampling)
            async with aclosing(self._model.stream(messages, sampling)) as chunks:
                async for chunk in chunks:
                    if first is None and chunk.text:
                        first = time.perf_counter() - started
                    last = chunk
                    yield chunk
        except Exception as error:
            code = code_of(error)
            raise
        finally:
            tokens = tokens_of(last)
            self._metrics.replied(time.perf_counter() - started, first, tokens, code)
            if span is not None:
                end_reply(span, last, tokens, first, code)


def tokens_of(last: Chunk | None) -> tuple[int, int]:
    """Return the tokens of a prompt and of its reply, as far as its last chunk tells them."""
    if last is None:
        return 0, 0
    return last.input_tokens or 0, last.output_tokens or 0


def begin_reply(tracer: Tracer, info: ModelInfo, sampling: Sampling) -> Span:
    """Begin the span of a reply."""
    facts: dict[str, Fact] = {
        WORK: "chat",
        MODEL: info.name,
        PROVIDER: info.provider,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        **tracer.servers.get(info.provider, {}),
    }
    return tracer.begin(f"chat {info.name}", "client", facts)


def end_reply(
    span: Span,
    last: Chunk | None,
    tokens: tuple[int, int],
    first: float | None,
    code: str | None,
) -> None:
    """End the span of a reply with what became of it."""
    facts: dict[str, Fact] = {}
    if tokens[0]:
        facts["gen_ai.usage.input_tokens"] = tokens[0]
    if tokens[1]:
        facts["gen_ai.usage.output_tokens"] = tokens[1]
    if first is not None:
        facts["gen_ai.response.time_to_first_chunk"] = first
    if last is not None and last.finish_reason:
        facts["gen_ai.response.finish_reasons"] = (last.finish_reason,)
    span.note(facts)
    span.end(code)


class MeasuredEmbedder:
    """An `Embedder` whose calls are counted."""

    def __init__(self, embedder: Embedder, metrics: Metrics) -> None:
        """Count the calls of this embedder here."""
        self._embedder = embedder
        self._metrics = metrics

    @property
    def model_id(self) -> str:
        """Name of the embedder behind it."""
        return self._embedder.model_id

    async def dimension(self) -> int:
        """Length of a vector."""
        return await self._embedder.dimension()

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts to be found; see `Embedder`."""
        work = partial(self._embedder.embed_documents, texts)
        return await self._watched("document", len(texts), work)

    async def embed_query(self, text: str) -> Vector:
        """Embed a text to find with; see `Embedder`."""
        return await self._watched("query", 1, partial(self._embedder.embed_query, text))

    async def aclose(self) -> None:
        """Let go of the model."""
        await self._embedder.aclose()

    async def _watched(self, kind: str, texts: int, work: Callable[[], Awaitable[T]]) -> T:
        tracer, span = self._metrics.tracer, None
        if tracer is not None:
            span = tracer.span(f"embeddings {self.model_id}", "client", self._facts(tracer, texts))
        with Timed(partial(self._metrics.embedded, kind, texts), span):
            return await work()

    def _facts(self, tracer: Tracer, texts: int) -> Facts:
        name = self.model_id
        provider = next((p for p in OTHER_EMBEDDERS if name.startswith(f"{p}-")), "embedded")
        server = tracer.servers.get(f"embedder {provider}", {})
        facts: Facts = {WORK: "embeddings", MODEL: name, PROVIDER: provider, TEXTS: texts}
        return {**facts, **server}
