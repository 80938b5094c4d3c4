"""An index that is damaged, gone, or on a server that fails: said, done without, and made again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from persona_mcp.config.index import FOLDER, MISSING
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.server.health import Health
from persona_mcp.server.operations.system import index_state
from persona_mcp.server.service import Service, open_service
from tests.calls import call
from tests.chroma_server import HOST, chroma_server, free_port
from tests.doubles import ScriptedModel, WordEmbedder

pytestmark = pytest.mark.anyio

FACTS = ("The harbour froze.", "Tom has a red boat.", "Ann sells bread.")
KINDS = {"kind": "chroma", "held_each": 0}
"""What is held in memory needs no index."""


def kept_in(settings: Settings, **more: Any) -> Settings:
    return settings.model_copy(update={"index": IndexSettings(**{**KINDS, **more})})


def opened(settings: Settings) -> Any:
    return open_service(settings, ScriptedModel(), WordEmbedder())


async def tell(service: Service) -> None:
    for fact in FACTS:
        await call(service, "memory_store", persona_id="aria", content=fact)
    while await service.indexer.work_off():
        pass


async def found(service: Service) -> tuple[str, float, str | None]:
    """Search for the boat: what comes first, how near it is in meaning, and what was wrong."""
    answer = await call(service, "memory_search", persona_id="aria", query="Tom's red boat")
    best = answer["memories"][0]
    return best["content"], best["similarity"], answer["degraded"]


async def nobody(*_: Any) -> None:
    raise AssertionError("not asked")


def garbage(folder: Path) -> None:
    (folder / "chroma.sqlite3").write_bytes(b"this is not a database" * 1000)


def file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (garbage, "the record cannot be read"),
        (shutil.rmtree, MISSING),
        (file_in_its_place, "there is a file in its place"),
    ],
)
async def test_a_spoilt_folder_is_said_done_without_and_made_again(
    settings: Settings, spoil: Callable[[Path], None], fault: str
) -> None:
    settings = kept_in(settings)
    async with opened(settings) as service:
        await tell(service)
        before = await found(service)
        assert (before[0], before[2]) == (FACTS[1], None)
        assert await index_state(service.index) == "chroma"
    spoil(settings.data_dir / FOLDER)

    with capture_logs() as logs:
        async with opened(settings) as service:
            trouble = service.index.trouble
            status = await index_state(service.index)
            meanwhile = await found(service)
            await service.index.reconcile("main")
            after = await found(service)
            there = await call(service, "system_status")

    [warned] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert fault in warned["reason"]
    assert fault in trouble
    assert status == f"chroma: {trouble}"
    assert meanwhile == after == before
    assert there["vector_index"] == "chroma"


async def test_health_tells_what_is_made_again(settings: Settings) -> None:
    settings = kept_in(settings)
    async with opened(settings) as service:
        await tell(service)
    shutil.rmtree(settings.data_dir / FOLDER)

    async with opened(settings) as service:
        report = await Health(service, nobody).report()

    check = report.checks["vector_index"]
    assert check.ok
    assert check.detail.startswith(f"chroma; 0 memories wait; {MISSING}; it is rebuilt")


async def test_what_is_held_is_found_by_its_meaning_while_the_server_of_the_index_is_gone(
    settings: Settings,
) -> None:
    settings = kept_in(settings, url=f"http://{HOST}:{free_port()}", held_each=10)
    async with opened(settings) as service:
        await tell(service)
        content, meaning, degraded = await found(service)

    assert (content, degraded) == (FACTS[1], None)
    assert meaning > 0.5


@pytest.mark.chroma
async def test_a_server_keeps_the_index_and_words_are_searched_while_it_is_gone(
    settings: Settings, tmp_path: Path
) -> None:
    port = free_port()
    settings = kept_in(settings, url=f"http://{HOST}:{port}", token="of-nobody")
    async with opened(settings) as service:  # it starts without the server
        await tell(service)
        content, meaning, degraded = await found(service)
        assert (content, meaning) == (FACTS[1], 0.0)
        assert f"the Chroma server at http://{HOST}:{port} did not answer" in str(degraded)
        with chroma_server(tmp_path / "one", port):
            first = await found(service)
            report = await Health(service, nobody).report()
        gone = await found(service)
        status = await call(service, "system_status")
        failed = await Health(service, nobody).report()
        with chroma_server(tmp_path / "two", port):  # one that has lost everything
            second = await found(service)
            missing = await service.index.reconcile("main")

    assert (first[0], first[2]) == (FACTS[1], None)
    assert first[1] > 0.5
    assert report.checks["vector_index"].ok
    assert gone[1:] == (0.0, degraded)
    assert status["vector_index"] == f"chroma: {degraded}"
    assert not failed.checks["vector_index"].ok
    assert failed.status == "down"  # the door of MCP is not there in this test
    assert (second, missing) == (first, (0, 0))
    assert not (settings.data_dir / FOLDER).exists()


@pytest.mark.chroma
async def test_two_data_folders_share_a_server_and_keep_apart(
    settings: Settings, tmp_path: Path
) -> None:
    port = free_port()
    one = kept_in(settings, url=f"http://{HOST}:{port}")
    other = one.model_copy(update={"data_dir": tmp_path / "other"})
    with chroma_server(tmp_path / "chroma", port):
        async with opened(one) as first, opened(other) as second:
            await tell(first)
            await found(first)
            await second.index.reconcile("main")

            assert await first.index.reconcile("main") == (0, 0)
            assert (await found(first))[0] == FACTS[1]
