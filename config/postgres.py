"""PostgreSQL by setting: whether it is to be used, whether it can be, and with what limits.

Nothing here needs the driver; `persona_mcp.config.postgres_connections` does.
"""

import importlib.util
from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import NotConfigured

MILLISECONDS = 1000
NEEDED = ("psycopg", "psycopg_pool", "langgraph.checkpoint.postgres")


def is_postgres(settings: Settings) -> bool:
    """Say whether the data is in PostgreSQL; in SQLite otherwise."""
    return bool(settings.database.url.get_secret_value())


def check_extra() -> None:
    """Make sure that the extra for PostgreSQL is installed.

    Raises:
        NotConfigured: It is not; the message says what to install.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise NotConfigured(
            "PERSONA_DATABASE__URL names a PostgreSQL server, and the driver for it is not "
            "installed: pip install 'persona-mcp[postgres]'; without the variable the data is kept "
            "in SQLite"
        )


def connect_arguments(settings: Settings) -> dict[str, Any]:
    """Return what every connection is made with, beside the address."""
    limits = settings.database
    options = {
        "statement_timeout": limits.statement_s,
        "lock_timeout": limits.busy_s,
        "idle_in_transaction_session_timeout": limits.idle_s,
    }
    given = [f"-c {name}={int(seconds * MILLISECONDS)}" for name, seconds in options.items()]
    return {
        "connect_timeout": int(limits.connect_s),
        "application_name": "persona-mcp",
        "options": " ".join([*given, "-c timezone=UTC"]),
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
