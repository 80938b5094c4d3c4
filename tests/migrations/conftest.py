"""Databases in which nothing was made yet."""

from pathlib import Path

import pytest

from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.settings import Settings


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, database_kind: str) -> Settings:
    """A folder of its own, on PostgreSQL an empty database too."""
    url = request.getfixturevalue("postgres_url") if database_kind == "postgresql" else ""
    return Settings(_env_file=None, data_dir=tmp_path / "data", database=DatabaseSettings(url=url))
