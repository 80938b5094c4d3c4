"""What is told of a database that did not do what it was asked to."""

from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from persona_mcp.state.errors import StorageUnavailable

SQLITE = (
    "the database did not answer (locked, full, read-only or damaged); `persona doctor` tells more"
)
POSTGRES = "PostgreSQL did not answer, or its connection was lost; `persona doctor` tells more"
STATES = {
    "55P03": "the database was busy: another process's write took longer than "
    "PERSONA_DATABASE__BUSY_S allows to wait for it",
    "57014": "PostgreSQL took longer over a statement than PERSONA_DATABASE__STATEMENT_S allows",
    "25P03": "PostgreSQL ended a transaction in which nothing was asked for longer than "
    "PERSONA_DATABASE__IDLE_S allows",
    "53100": "PostgreSQL's disk is full; nothing can be stored until there is room",
    "53300": "PostgreSQL has no connection left for this process: raise its max_connections, or "
    "lower PERSONA_DATABASE__CONNECTIONS",
    "25006": "PostgreSQL only reads: it is a standby, or was set so; nothing can be stored",
    "42P01": "the schema is not there: run `persona db upgrade`",
    "42703": "the schema is of another version of the program: run `persona db upgrade`",
    "42501": "PostgreSQL does not let this user at the tables: see its privileges",
}
"""By what PostgreSQL calls them (SQLSTATE)."""
NO_CONNECTION = (
    "no connection to the database became free within PERSONA_DATABASE__POOL_S: too much was asked "
    "at once, or PostgreSQL is slow"
)
NOT_KEPT = "PostgreSQL cannot keep one of the characters or numbers that it was given"
UNKNOWN = (
    "the connection to PostgreSQL was lost while a change was being stored: it may be stored or "
    "not; ask again with the same request_id, or read what is there first"
)


def fault_of(error: DBAPIError | PoolTimeout) -> StorageUnavailable:
    """Return what callers are told of an error of the driver or the pool."""
    if isinstance(error, PoolTimeout):
        return StorageUnavailable(NO_CONNECTION)
    if not hasattr(error.orig, "sqlstate"):
        return StorageUnavailable(SQLITE)
    if isinstance(error, DataError):
        return StorageUnavailable(NOT_KEPT)
    return StorageUnavailable(STATES.get(state_of(error), POSTGRES))


def is_explained(error: DBAPIError) -> bool:
    """Tell whether PostgreSQL said why it did not do what it was asked to."""
    return state_of(error) in STATES


def state_of(error: DBAPIError) -> str:
    """Return what PostgreSQL calls an error; empty where it said nothing, and on SQLite."""
    return getattr(error.orig, "sqlstate", None) or ""
