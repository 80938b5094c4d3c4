import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from persona_mcp.config.database import ready_database
from persona_mcp.config.index import FOLDER, LOCK, open_index
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.state.chroma_folder import WRITING
from persona_mcp.state.database import Database
from persona_mcp.state.vector_index import Kind, VectorEntry

pytestmark = pytest.mark.anyio

MODEL = "test-model-2"
ENTRY = VectorEntry("a", "mara", "private", 1, np.asarray([1, 0], dtype=np.float32))

HOLDER = """
import asyncio, sys
from pathlib import Path
from persona_mcp.config.index import open_locked
from persona_mcp.config.settings import Settings

index = open_locked(Settings(data_dir=Path(sys.argv[1]), _env_file=None), "test-model-2", False)
print(index.kind, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, _env_file=None)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = await ready_database(settings)
    yield opened
    await opened.aclose()


def wanting(settings: Settings, kind: str) -> Settings:
    return settings.model_copy(update={"index": IndexSettings.model_validate({"kind": kind})})


async def opened_kind(settings: Settings, database: Database) -> Kind:
    index = await open_index(settings, database, MODEL)
    await index.aclose()
    return index.kind


async def test_the_first_opens_chroma_and_the_second_scores_exactly(
    settings: Settings, database: Database
) -> None:
    first = await open_index(settings, database, MODEL)
    second = await open_index(settings, database, MODEL)

    assert (first.kind, second.kind) == ("chroma", "exact")
    await second.aclose()
    await first.aclose()


async def test_the_folder_is_free_again_when_it_is_closed(
    settings: Settings, database: Database
) -> None:
    first = await open_index(settings, database, MODEL)
    await first.upsert("main", [ENTRY])
    await first.aclose()

    second = await open_index(settings, database, MODEL)

    assert second.kind == "chroma"
    assert await second.versions("main") == {"a": 1}
    await second.aclose()


async def test_a_process_that_is_killed_leaves_the_folder_free(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(tmp_path)), stdin=pipe, stdout=pipe
    )
    assert holder.stdout is not None
    assert (await holder.stdout.readline()).split() == [b"chroma"]

    while_held = await opened_kind(settings, database)
    holder.kill()
    await holder.communicate()
    after = await opened_kind(settings, database)

    assert (while_held, after) == ("exact", "chroma")


async def test_exact_leaves_the_folder_alone(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    assert await opened_kind(wanting(settings, "exact"), database) == "exact"
    assert not (tmp_path / LOCK).exists()
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize(("kind", "level"), [("auto", "info"), ("chroma", "warning")])
async def test_who_asks_for_chroma_is_warned_when_another_holds_it(
    settings: Settings, database: Database, kind: str, level: str
) -> None:
    first = await open_index(settings, database, MODEL)

    with capture_logs() as logs:
        assert await opened_kind(wanting(settings, kind), database) == "exact"

    await first.aclose()
    assert [(entry["log_level"], entry["reason"]) for entry in logs] == [(level, "Timeout")]


def spoil_record(folder: Path) -> None:
    folder.mkdir()
    (folder / "chroma.sqlite3").write_bytes(b"this is not a database" * 1000)


def spoil_access(folder: Path) -> None:
    (folder / "chroma.sqlite3").mkdir(parents=True)


def spoil_folder(folder: Path) -> None:
    folder.write_text("a file")


def spoil_write(folder: Path) -> None:
    folder.mkdir()
    (folder / WRITING).touch()


Spoil = Callable[[Path], None]
every_damage = pytest.mark.parametrize(
    "spoil", [spoil_record, spoil_access, spoil_folder, spoil_write]
)


@every_damage
async def test_a_damaged_folder_is_left_as_it_is_and_told_about(
    settings: Settings, database: Database, tmp_path: Path, spoil: Spoil
) -> None:
    spoil(tmp_path / FOLDER)

    with capture_logs() as logs:
        assert await opened_kind(settings, database) == "exact"

    assert (tmp_path / FOLDER).exists()
    (entry,) = logs
    assert entry["log_level"] == "warning"
    assert "persona memory reindex" in entry["event"]


@every_damage
async def test_a_damaged_folder_is_made_anew_on_request(
    settings: Settings, database: Database, tmp_path: Path, spoil: Spoil
) -> None:
    spoil(tmp_path / FOLDER)
    assert await opened_kind(settings, database) == "exact"

    index = await open_index(settings, database, MODEL, anew=True)

    assert index.kind == "chroma"
    assert await index.versions("main") == {}
    await index.upsert("main", [ENTRY])
    await index.aclose()
    assert await opened_kind(settings, database) == "chroma"


async def test_a_folder_whose_making_was_cut_off_is_finished(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "chroma.sqlite3").touch()

    assert await opened_kind(settings, database) == "chroma"
