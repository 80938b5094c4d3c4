"""One id that follows a call from the door through graph, nodes, SQL and model into every log line.

It is kept in structlog's context variables, so tasks and `asyncio.to_thread` inherit it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bound_contextvars, get_contextvars

from persona_mcp.state.ids import new_id

KEY = "correlation_id"
FROM_OUTSIDE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def new_correlation_id() -> str:
    """Return a random id: 32 hexadecimal digits."""
    return new_id()


def current_correlation_id() -> str | None:
    """Return the id that is bound here; None outside `correlation`."""
    found = get_contextvars().get(KEY)
    return None if found is None else str(found)


@contextmanager
def correlation(id: str | None = None) -> Iterator[str]:
    """Bind a correlation id for the time of a block, and what it starts.

    Args:
        id: From outside: 1..64 letters, digits, `_`, `-` and `.`, else it is replaced by a new
            one. None keeps the id that is bound already, or makes one; a door that serves many
            calls passes `new_correlation_id()` for each.

    Yields:
        The id in use.
    """
    if id is None:
        chosen = current_correlation_id() or new_correlation_id()
    else:
        chosen = id if FROM_OUTSIDE.fullmatch(id) else new_correlation_id()
    with bound_contextvars(**{KEY: chosen}):
        yield chosen
