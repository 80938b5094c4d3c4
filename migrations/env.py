"""Alembic's entry: runs the revisions in one transaction on the database that the caller names."""

from alembic import context
from sqlalchemy import create_engine

from persona_mcp.state.full_text import is_full_text_table
from persona_mcp.state.tables import Base


def include_name(name: str | None, kind: str, parent: object) -> bool:
    """Leave out the tables that FTS5 makes for itself."""
    return not (kind == "table" and name is not None and is_full_text_table(name))


def run() -> None:
    """Upgrade or downgrade `config.attributes["url"]`."""
    engine = create_engine(context.config.attributes["url"])
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_name=include_name,
            render_as_batch=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
