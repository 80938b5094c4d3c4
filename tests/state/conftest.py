"""A database with the world `main` and two personas, Mara and Tobin."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from persona_mcp.config.database import (
    database_path,
    open_database,
    sqlite_in,
    upgrade_database,
)
from persona_mcp.config.index import open_index
from persona_mcp.config.postgres import is_postgres
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.state.database import Database
from persona_mcp.state.index.vector_index import VectorIndex
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import NOW, spec


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that the migrations made, once."""
    settings = sqlite_in(tmp_path_factory.mktemp("migrated"))
    upgrade_database(settings)
    return database_path(settings)


@pytest.fixture
async def database(settings: Settings, migrated: Path) -> AsyncIterator[Database]:
    settings.data_dir.mkdir(parents=True)
    if not is_postgres(settings):
        shutil.copy(migrated, database_path(settings))
    opened = open_database(settings)
    yield opened
    await opened.aclose()


@pytest.fixture
async def world(database: Database) -> str:
    await PersonaStore(database).ensure_world("main", "main", [spec("Mara"), spec("Tobin")], NOW)
    return "main"


@pytest.fixture
async def chroma(settings: Settings, database: Database) -> AsyncIterator[VectorIndex]:
    kind = IndexSettings(kind="chroma")
    opened = await open_index(settings.model_copy(update={"index": kind}), database, "double-64")
    assert opened.kind == "chroma"
    yield opened
    await opened.aclose()
