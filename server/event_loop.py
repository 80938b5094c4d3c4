"""The event loop of what does many things at once."""

import asyncio
from collections.abc import Callable


def busy_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the faster event loop that uvicorn brings, None where there is none.

    Windows has none; a command that does one thing would only wait longer for its import.
    """
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop
