"""Whether the database is whole: what `persona doctor` asks it."""

from sqlalchemy import Connection

from persona_mcp.state.dialect import is_postgres
from persona_mcp.state.full_text import TABLE

CHECK = "PRAGMA quick_check(1)"
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
        return "" if state == SOUND else f"damaged ({state}): restore a copy of persona.db"
    if connection.exec_driver_sql(STANDBY).scalar():
        return "PostgreSQL is a standby: nothing can be stored; name the primary in the address"
    if missing := connection.exec_driver_sql(WITHOUT_WORDS).scalar():
        return f"{missing} memories are not in the full-text index: restore them with triggers on"
    return ""
