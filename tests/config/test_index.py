import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert
from structlog.testing import capture_logs

from persona_mcp.config.database import ready_database
from persona_mcp.config.index import FOLDER, LOCK, MISSING, open_index, scope_of
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.state.database import Database
from persona_mcp.state.index.chroma_home import WRITING
from persona_mcp.state.index.vector_index import Kind, VectorEntry
from persona_mcp.state.memory_tables import MemoryVector
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import NOW, remember, spec

pytestmark = pytest.mark.anyio

MODEL = "test-model-2"
ENTRY = VectorEntry("a", "mara", "private", 1, np.asarray([1, 0], dtype=np.float32))

HOLDER = """
import asyncio, sys
from pathlib import Path
from persona_mcp.config.index import open_locked
from persona_mcp.config.settings import Settings

settings = Settings(data_dir=Path(sys.argv[1]), _env_file=None)
index = open_locked(settings, "test-model-2", False, False)
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
async def test_a_damaged_folder_is_made_anew_and_told_about(
    settings: Settings, database: Database, tmp_path: Path, spoil: Spoil
) -> None:
    spoil(tmp_path / FOLDER)

    with capture_logs() as logs:
        index = await open_index(settings, database, MODEL)

    assert (index.kind, await index.versions("main")) == ("chroma", {})
    (entry,) = logs
    assert (entry["log_level"], entry["reason"]) == ("warning", index.fault)
    assert "made anew from the database" in entry["event"]
    await index.aclose()
    again = await open_index(settings, database, MODEL)
    assert (again.kind, again.fault) == ("chroma", "")
    await again.aclose()


async def test_a_folder_that_cannot_be_made_anew_is_left_and_exact_scoring_serves(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    (tmp_path / FOLDER).symlink_to("/dev/null")

    with capture_logs() as logs:
        assert await opened_kind(settings, database) == "exact"

    assert [entry["log_level"] for entry in logs] == ["warning"]


async def test_a_missing_folder_is_told_about_where_there_are_vectors(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    new = await open_index(settings, database, MODEL)
    await new.aclose()
    await put(database)
    shutil.rmtree(tmp_path / FOLDER)

    index = await open_index(settings, database, MODEL)

    assert (new.fault, index.fault) == ("", MISSING)
    await index.aclose()


async def put(database: Database) -> None:
    """Store a memory and its vector."""
    await PersonaStore(database).ensure_world("main", "main", [spec("Mara")], NOW)
    await remember(database, "a", "The harbour froze.")
    with database.writing() as connection:
        vector = {"memory_id": "a", "persona_id": "mara", "model_id": MODEL, "version": 1}
        connection.execute(insert(MemoryVector).values(world_id="main", vector=b"", **vector))


def test_a_data_folder_has_one_name_at_a_server(settings: Settings, tmp_path: Path) -> None:
    other = settings.model_copy(update={"data_dir": tmp_path / "other"})
    other.data_dir.mkdir()

    assert scope_of(settings) == scope_of(settings) != scope_of(other)


@every_damage
async def test_a_damaged_folder_is_made_anew_on_request(
    settings: Settings, database: Database, tmp_path: Path, spoil: Spoil
) -> None:
    spoil(tmp_path / FOLDER)

    index = await open_index(settings, database, MODEL, anew=True)

    assert (index.kind, index.fault) == ("chroma", "")
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
