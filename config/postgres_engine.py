"""The SQL engine on PostgreSQL: a pool of connections, each of whose waits has a limit."""

from collections.abc import Callable
from typing import Any

from psycopg import Connection
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from persona_mcp.config.postgres import connect_arguments
from persona_mcp.config.postgres_connections import LATER_S, LimitedConnection, limited
from persona_mcp.config.settings import Settings

DRIVER = "postgresql+psycopg://"
MIGRATION_S = 3600.0
"""Limit of one statement of a migration: it may have to copy a large table."""


class NumberLoader(Loader):
    """Reads sums and means: no column of ours is of their type, `numeric`."""

    def load(self, data: Any) -> int | float:
        """Return a number as SQLite has it."""
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


def open_engine(settings: Settings) -> Engine:
    """Return an engine with a pool; nothing is connected yet."""
    limits = settings.database
    engine = create_engine(
        DRIVER,
        creator=connector(settings),
        hide_parameters=True,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.pool_s,
        pool_recycle=int(limits.age_s),
        pool_pre_ping=True,
        pool_use_lifo=True,
    )
    limit_s = limits.statement_s + LATER_S

    # What a connection is asked first is whether it is still there; that answer comes at once.
    @event.listens_for(engine, "checkin")
    def rests(connection: LimitedConnection | None, _: ConnectionPoolEntry) -> None:
        if connection is not None:
            connection.limit_s = limits.connect_s

    @event.listens_for(engine, "checkout")
    def works(connection: LimitedConnection, *_: object) -> None:
        connection.limit_s = limit_s

    return engine


def open_alone(settings: Settings, lock_s: float, statement_s: float = MIGRATION_S) -> Engine:
    """Return an engine that keeps no connection: for migrations.

    Args:
        settings: Where to.
        lock_s: Limit of the wait for a lock, in seconds.
        statement_s: Limit of one statement, in seconds.
    """
    limits = settings.database.model_copy(update={"busy_s": lock_s, "statement_s": statement_s})
    creator = connector(settings.model_copy(update={"database": limits}))
    return create_engine(DRIVER, creator=creator, hide_parameters=True, poolclass=NullPool)


def connector(settings: Settings) -> Callable[[], Connection[Any]]:
    """Return what opens a connection within the limits of the settings."""
    kind, arguments = limited(settings), connect_arguments(settings)
    address = settings.database.url.get_secret_value()
    if given := conninfo_to_dict(address).get("options"):
        arguments["options"] = f"{given} {arguments['options']}"

    def connect() -> Connection[Any]:
        connection = kind.connect(address, **arguments)
        connection.adapters.register_loader("numeric", NumberLoader)
        return connection

    return connect
