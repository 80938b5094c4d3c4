"""A database with the world `main` and two personas, Mara and Tobin."""

from collections.abc import AsyncIterator

import pytest

from persona_mcp.config.database import ready_database
from persona_mcp.config.settings import Settings
from persona_mcp.state.database import Database
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import NOW, spec


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = await ready_database(settings)
    yield opened
    await opened.aclose()


@pytest.fixture
async def world(database: Database) -> str:
    await PersonaStore(database).ensure_world("main", "main", [spec("Mara"), spec("Tobin")], NOW)
    return "main"
