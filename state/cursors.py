"""Cursors that name the last row of the page before, by its id."""

from persona_mcp.state.errors import InvalidParams


def bad_cursor(cursor: str, lost: str) -> InvalidParams:
    """Make the error for a cursor whose row is not there.

    Args:
        cursor: As it was given.
        lost: How that may be, such as `memory was purged`.
    """
    allowed = f"next_cursor of the page before; begin anew if its last {lost} since"
    return InvalidParams.one("cursor", allowed, cursor)
