"""What the product asks of a language model, and what it gets back."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Message:
    """One message of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn; None leaves the choice to the provider.

    Attributes:
        max_tokens: Longest reply, in tokens, >= 1.
        temperature: Randomness, 0..2.
        top_p: Share of the probability mass that is kept, (0, 1].
        top_k: Number of tokens that are kept, >= 1; not every provider has it.
        min_p: Least probability relative to the best token, [0, 1]; not every provider has it.
        repeat_penalty: Above 1 discourages repetition; not every provider has it.
        stop: Texts that end the reply.
        seed: Makes the draw repeatable where the provider can.
        schema: JSON Schema that the whole reply is to follow. Servers keep to its names, types and
            enums, not all of them to its bounds; whoever asks validates.
    """

    max_tokens: int
    temperature: float
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed reply.

    Attributes:
        text: What was said since the last chunk; may be empty on the last one.
        output_tokens: Tokens of the whole reply as the provider counts them, on the last chunk.
        finish_reason: "stop" or "length", on the last chunk only.
        input_tokens: Tokens of the prompt as the provider counts them, on the last chunk.
    """

    text: str
    output_tokens: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    input_tokens: int | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Which model it is.

    Attributes:
        provider: "ollama", "openai" or "embedded".
        name: The provider's name for it.
        context_tokens: Prompt and reply together, in tokens.
        small: It needs the short prompt with examples (about 1B parameters and less).
    """

    provider: str
    name: str
    context_tokens: int
    small: bool

    @property
    def id(self) -> str:
        """`provider:name`, as the setting spells it."""
        return f"{self.provider}:{self.name}"


@dataclass(frozen=True)
class Offer:
    """Which models there are.

    Attributes:
        chosen: The one that answers.
        names: What its provider has; empty where that does not answer.
        fault: Why the provider does not answer, and what to do; empty where it does.
    """

    chosen: ModelInfo
    names: tuple[str, ...]
    fault: str = ""


class ChatModel(Protocol):
    """A language model behind one set of limits (connect, first token, idle, total)."""

    async def info(self) -> ModelInfo:
        """Say which model answers; finds it (and loads it) at the first call.

        Raises:
            ModelError: No model answers.
            NotConfigured: The setting names a model that is not installed.
        """
        ...

    def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the reply as it is made; exactly the last chunk has a `finish_reason`.

        Closing the iterator stops the model's work.

        Raises:
            ModelError: Unreachable, refused, garbage, cut off.
            DeadlineExceeded: A limit passed; names the provider and the limit.
        """
        ...

    async def offered(self) -> Offer:
        """Say which model is chosen and which its provider has; nothing is opened or loaded."""
        ...

    async def check(self) -> str:
        """Say in a few words that it is there, without generating anything.

        Raises:
            ModelError: It is not.
            NotConfigured: It is not installed.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and weights."""
        ...


Purpose = Literal["reply", "summary", "appraisal"]
_purpose: ContextVar[Purpose] = ContextVar("purpose", default="reply")


@contextmanager
def asking_for(purpose: Purpose) -> Iterator[None]:
    """Say what the model is asked for meanwhile, for who records its calls."""
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)


def current_purpose() -> Purpose:
    """Return what the model is asked for now; a reply, unless somebody said otherwise."""
    return _purpose.get()
