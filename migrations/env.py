"""Alembic's entry: runs the revisions in one transaction on the database that the caller names."""

from alembic import context
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from persona_mcp.state import tables
from persona_mcp.state.memory.full_text import is_full_text_table


def include_name(name: str | None, kind: str, parent: object) -> bool:
    """Leave out the tables that FTS5 makes for itself."""
    return not (kind == "table" and name is not None and is_full_text_table(name))


def begin_for_real(engine: Engine) -> None:
    """Let SQLAlchemy begin transactions: SQLite's driver would leave changes of the schema out."""

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _: object) -> None:
        connection.isolation_level = None
        # Here, where one process is alone: SQLite does not wait for others to change the mode.
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def run() -> None:
    """Upgrade or downgrade what `config.attributes["open"]` opens; all of it or nothing."""
    engine: Engine = context.config.attributes["open"]()
    if engine.dialect.name == "sqlite":
        begin_for_real(engine)
    try:
        with engine.connect() as connection:
            context.configure(
                connection=connection,
                target_metadata=tables.World.metadata,
                include_name=include_name,
                render_as_batch=True,
                transactional_ddl=True,
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run()
