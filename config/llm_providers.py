"""How each kind of model server is reached; no limits and no retries here, `llm` adds them.

The libraries behind it are imported when a provider opens: together they take a second.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

import httpx
import structlog
from pydantic import SecretStr

from persona_mcp.config.llm_faults import DOCTOR, refused
from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.errors import DeadlineExceeded, ModelError, NotConfigured
from persona_mcp.state.model import ModelInfo, Sampling

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk

Stage = Literal["queue", "load", "connect", "first_token", "stream", "check"]

CORRELATION_HEADER = "X-Correlation-Id"
KEEPALIVE_S = 2.0
"""Shorter than any server's own, so that a request never meets a connection about to close."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COMPLETION_TOKENS_HOSTS = ("openai.com", "azure.com")
"""They want `max_completion_tokens`; compatible servers all know the older `max_tokens`."""
_open_responses: ContextVar[list[httpx.Response] | None] = ContextVar(
    "open_responses", default=None
)


@dataclass(frozen=True)
class Piece:
    """What one message of a provider's stream said.

    Attributes:
        text: Text since the last piece.
        output_tokens: Tokens of the whole reply, where this piece tells.
        finish: The provider's word for why the reply ended, where this piece ends it.
        input_tokens: Of the prompt, likewise.
    """

    text: str
    output_tokens: int | None
    finish: str | None
    input_tokens: int | None = None

    @classmethod
    def of(cls, message: "AIMessageChunk") -> "Piece":
        """Read a LangChain message; OpenAI says `finish_reason`, Ollama `done_reason`."""
        said = message.response_metadata
        finish = said.get("finish_reason") or said.get("done_reason")
        if finish is None and said.get("done") is True:
            finish = "stop"  # older Ollama gives no reason
        text, usage = str(message.text), message.usage_metadata
        counted = (usage["output_tokens"], usage["input_tokens"]) if usage else (None, None)
        return cls(text, counted[0], finish, counted[1])


class Provider(ABC):
    """One model behind one kind of server.

    Attributes:
        info: Which model it is.
        places: Replies that the server makes at once, where that is known.
    """

    unreachable: ClassVar[str]
    """What to do when nobody answers."""

    def __init__(self, settings: LLMSettings, info: ModelInfo, places: int | None = None) -> None:
        """Remember what to reach; nothing is opened yet."""
        self.settings = settings
        self.info = info
        self.places = places

    @abstractmethod
    async def open(self) -> "BaseChatModel":
        """Import the library, start what has to be started, build the client.

        Raises:
            NotConfigured: Something that it needs is not installed.
            ModelError: It did not start.
        """

    @abstractmethod
    def arguments(self, sampling: Sampling) -> dict[str, Any]:
        """Spell the sampling as this client's call takes it."""

    @abstractmethod
    async def check(self) -> str:
        """Say in a few words that the model is there.

        Raises:
            ModelError: It is not.
            NotConfigured: It is not installed.
        """

    @abstractmethod
    async def models(self) -> list[str]:
        """List what the provider has, by name.

        Raises:
            ModelError: It does not answer.
            NotConfigured: Something that it needs is not installed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close connections and stop what was started."""

    def advice(self, status: int) -> str:
        """Say what to do about an HTTP status of the server."""
        return DOCTOR

    def too_long(self) -> str:
        """Say what to do about a prompt over the model's context."""
        return "shorten the persona or the message, or raise PERSONA_LLM__CONTEXT_TOKENS"

    def failed(self, what: str, stage: Stage, **data: Any) -> ModelError:
        """Make the error that names this model and the stage."""
        named = {"provider": self.info.provider, "model": self.info.name}
        return ModelError(f"{self.info.id} {what}", stage=stage, **named, **data)

    def late(self, what: str, stage: Stage, limit: str, seconds: float) -> DeadlineExceeded:
        """Make the error that names this model and the limit that passed."""
        return DeadlineExceeded(
            f"{self.info.id} {what} within {seconds:g} s; "
            f"try again, or raise PERSONA_LLM__{limit.upper()}",
            stage=stage,
            provider=self.info.provider,
            model=self.info.name,
            limit=limit,
            seconds=seconds,
        )


class OllamaProvider(Provider):
    """A model of an Ollama server, in its native form."""

    unreachable = f"start it with `ollama serve`; {DOCTOR}"

    def __init__(self, settings: LLMSettings, name: str) -> None:
        """Name the model; Ollama queues by itself, so its places are unknown."""
        small = settings.profile == "small"
        super().__init__(settings, ModelInfo("ollama", name, settings.context_tokens, small))
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def open(self) -> "BaseChatModel":
        """Build the client in a thread, since the import takes a second."""
        return await asyncio.to_thread(self._client)

    def _client(self) -> "BaseChatModel":
        """Build it on a transport of our own: the library's cannot be closed."""
        from langchain_ollama import ChatOllama  # noqa: PLC0415 - heavy

        self._transport = httpx.AsyncHTTPTransport(limits=_limits())
        options = client_options(self.settings) | {"transport": self._transport}
        # Thinking aloud would eat the reply's tokens.
        return ChatOllama(
            model=self.info.name,
            base_url=self.settings.ollama_url,
            reasoning=False,
            async_client_kwargs=options,
        )

    def arguments(self, sampling: Sampling) -> dict[str, Any]:
        """Give the whole `options` object: the class has no field for min_p."""
        options = {
            "num_ctx": self.info.context_tokens,
            "num_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repeat_penalty,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        return _given({"options": _given(options), "format": sampling.schema})

    async def check(self) -> str:
        """Look for the name among the models that were pulled."""
        names = await self.models()
        wanted = self.info.name if ":" in self.info.name else f"{self.info.name}:latest"
        if wanted not in names:
            raise NotConfigured(
                f"{self.info.id} is not there: {self.advice(httpx.codes.NOT_FOUND)}",
                stage="check",
                provider="ollama",
                model=self.info.name,
            )
        return f"{self.info.id} is there"

    async def models(self) -> list[str]:
        """List the models that were pulled, newest first."""
        try:
            return await ollama_models(self.settings)
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            raise self.failed(f"cannot be reached: {self.unreachable}", "check") from error

    def advice(self, status: int) -> str:
        """Name the command that fetches a missing model."""
        if status == httpx.codes.NOT_FOUND:
            return f"pull it with `ollama pull {self.info.name}`"
        return super().advice(status)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            await self._transport.aclose()


class OpenAIProvider(Provider):
    """A model of any server that speaks OpenAI's chat completions."""

    unreachable = f"check PERSONA_LLM__OPENAI_URL, or `endpoints` of the batch; {DOCTOR}"

    def __init__(self, settings: LLMSettings, name: str) -> None:
        """Name the model; address and key come from the settings."""
        small = settings.profile == "small"
        super().__init__(settings, ModelInfo("openai", name, settings.context_tokens, small))
        self._http: httpx.AsyncClient | None = None

    async def open(self) -> "BaseChatModel":
        """Build the client in a thread, since the import takes a second."""
        key = self.settings.openai_api_key.get_secret_value() or "none"
        return await asyncio.to_thread(self.client, self.settings.openai_url, key)

    def client(self, url: str, key: str) -> "BaseChatModel":
        """Build a client that streams, without retries or limits of its own."""
        from langchain_openai import ChatOpenAI  # noqa: PLC0415 - heavy

        # A proxy of the environment is for the world outside, never for this machine.
        proxies = urlsplit(url).hostname not in LOOPBACK
        options = client_options(self.settings)
        self._http = httpx.AsyncClient(trust_env=proxies, limits=_limits(), **options)
        return ChatOpenAI(
            model=self.info.name,
            base_url=url,
            api_key=SecretStr(key),
            streaming=True,
            stream_usage=True,
            stream_chunk_timeout=None,
            use_responses_api=False,
            max_retries=0,
            timeout=options["timeout"],
            openai_proxy="",  # of the environment: the library refuses it beside a client
            http_async_client=self._http,
        )

    def arguments(self, sampling: Sampling) -> dict[str, Any]:
        """Leave out top_k, min_p and repeat_penalty: the protocol does not have them."""
        host = urlsplit(self.settings.openai_url).hostname or ""
        body = shape_of(sampling)
        call = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        if host.endswith(COMPLETION_TOKENS_HOSTS):
            return _given(call | {"max_tokens": sampling.max_tokens, "extra_body": body or None})
        return _given(call | {"extra_body": {"max_tokens": sampling.max_tokens, **body}})

    async def check(self) -> str:
        """Ask for the list of models; a server without one is still reachable."""
        await self._list()
        return f"{self.info.id} is reachable"

    async def models(self) -> list[str]:
        """List what the server lists; it may list nothing."""
        found = await self._list()
        try:
            return (
                [] if found is None else sorted(str(model["id"]) for model in found.json()["data"])
            )
        except (KeyError, TypeError, ValueError):
            return []

    async def _list(self) -> httpx.Response | None:
        key = self.settings.openai_api_key.get_secret_value() or "none"
        try:
            url = self.settings.openai_url.rstrip("/") + "/models"
            response = await look(url, self.settings.probe_s, {"Authorization": f"Bearer {key}"})
        except (httpx.HTTPError, TimeoutError) as error:
            raise self.failed(f"cannot be reached: {self.unreachable}", "check") from error
        missing = (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED)
        if response.is_success:
            return response
        if response.status_code in missing:
            return None
        raise refused(self, response.status_code, "check")

    def advice(self, status: int) -> str:
        """Name the setting that is most likely wrong."""
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return "the key is wrong: set PERSONA_LLM__OPENAI_API_KEY"
        if status == httpx.codes.NOT_FOUND:
            return "check the model's name and PERSONA_LLM__OPENAI_URL"
        return super().advice(status)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()


def shape_of(sampling: Sampling) -> dict[str, Any]:
    """Spell a schema for the request's body: the library's argument would take another way."""
    if sampling.schema is None:
        return {}
    schema = {"name": "answer", "strict": True, "schema": sampling.schema}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _limits() -> httpx.Limits:
    return httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_S)


def client_options(settings: LLMSettings) -> dict[str, Any]:
    """Limit connecting only (`llm` limits the rest) and watch requests and responses."""
    return {
        "timeout": httpx.Timeout(None, connect=settings.connect_s),
        "event_hooks": {"request": [_add_correlation_id], "response": [_remember]},
    }


async def _add_correlation_id(request: httpx.Request) -> None:
    if found := structlog.contextvars.get_contextvars().get("correlation_id"):
        request.headers[CORRELATION_HEADER] = str(found)


async def _remember(response: httpx.Response) -> None:
    if (kept := _open_responses.get()) is not None:
        kept.append(response)


@contextlib.contextmanager
def remembering(responses: list[httpx.Response]) -> Iterator[None]:
    """Collect the responses that are opened meanwhile.

    Both libraries leave an abandoned stream to the garbage collector; closing its response stops
    the server at once.
    """
    token = _open_responses.set(responses)
    try:
        yield
    finally:
        _open_responses.reset(token)


async def look(
    url: str, limit_s: float, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Get an address once, within a limit.

    Raises:
        httpx.HTTPError: It cannot be reached.
        TimeoutError: It took longer.
    """
    proxies = urlsplit(url).hostname not in LOOPBACK
    async with asyncio.timeout(limit_s), httpx.AsyncClient(trust_env=proxies) as http:
        return await http.get(url, headers=headers)


async def ollama_models(settings: LLMSettings) -> list[str]:
    """List the models that were pulled, newest first, embedding models left out.

    Raises:
        httpx.HTTPError: Ollama does not answer, or not with success.
        TimeoutError: Not within `probe_s`.
        ValueError: What answers is not Ollama.
    """
    url = settings.ollama_url.rstrip("/") + "/api/tags"
    response = await look(url, settings.probe_s)
    response.raise_for_status()
    try:
        found = [tag for tag in response.json()["models"] if not _embeds(tag)]
        return [str(tag["name"]) for tag in found]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a list of models") from error


def _embeds(tag: Mapping[str, Any]) -> bool:
    families = tag.get("details", {}).get("families") or []
    return "embed" in tag["name"] or any("bert" in family for family in families)
