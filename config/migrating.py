"""Upgrades of the schema by Alembic; `database` says when there is one to make."""

from functools import partial
from pathlib import Path

from alembic import command
from alembic.config import Config

from persona_mcp import migrations
from persona_mcp.config.database import migration_engine
from persona_mcp.config.settings import Settings


def alembic_config(settings: Settings) -> Config:
    """Point Alembic at the packaged migrations and this database."""
    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["open"] = partial(migration_engine, settings)
    return config


def upgrade(settings: Settings) -> None:
    """Bring the schema to the newest revision; nobody else may do so meanwhile."""
    command.upgrade(alembic_config(settings), "head")
