"""The savers of checkpoints behind a service, looked into as nobody of the product does."""

import sqlite3

from persona_mcp.config.checkpoints import PersonaSqliteSaver
from persona_mcp.server.service import Service


def sqlite_of(service: Service) -> sqlite3.Connection:
    """Return the connection to the file of the checkpoints."""
    assert isinstance(service.checkpointer, PersonaSqliteSaver)
    return service.checkpointer.conn
