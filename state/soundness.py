"""Whether the database is whole: what `persona doctor` asks it."""

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from persona_mcp.state.dialect import is_postgres
from persona_mcp.state.memory.full_text import COMPARE_WORDS, TABLE

CHECK, CHECK_KEYS = "PRAGMA integrity_check(1)", "PRAGMA foreign_key_check"
SOUND = "ok"
STANDBY = "SELECT pg_is_in_recovery()"
WITHOUT_WORDS = (
    f"SELECT count(*) FROM memories AS m LEFT JOIN {TABLE} AS w ON w.seq = m.seq "
    "WHERE w.seq IS NULL"
)


def fault_in(connection: Connection) -> str:
    """Return what is wrong with the database and what to do; empty if nothing is.

    PostgreSQL guards its own pages; asked is whether it takes writes, and whether each memory can
    be found by its words, which rows that were copied past the triggers cannot.
    """
    if not is_postgres(connection):
        state = connection.exec_driver_sql(CHECK).scalar()
        if state != SOUND:
            return damaged(f"persona.db ({' '.join(str(state).strip('* ').split())})")
        astray = connection.exec_driver_sql(CHECK_KEYS).first()
        if astray is not None:
            row = f"a row of {astray[0]} refers to one of {astray[2]} that is gone"
            return damaged(f"persona.db ({row})")
        return ""
    if connection.exec_driver_sql(STANDBY).scalar():
        return "PostgreSQL is a standby: nothing can be stored; name the primary in the address"
    if missing := connection.exec_driver_sql(WITHOUT_WORDS).scalar():
        return f"{missing} memories are not in the full-text index: restore them with triggers on"
    return ""


def fault_in_words(connection: Connection) -> str:
    """Return what is wrong with SQLite's full-text index; empty if nothing is.

    In a transaction that writes, as SQLite asks for this in the form of one; nothing is changed.
    """
    if is_postgres(connection):
        return ""
    try:
        connection.exec_driver_sql(COMPARE_WORDS)
    except DatabaseError:
        return damaged("the full-text index of persona.db")
    return ""


def damaged(what: str) -> str:
    """Say what is damaged, and what to do."""
    return f"damaged: {what}; put a backup back (`persona db restore`), and look at the disk"
