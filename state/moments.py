"""Times: seconds since the epoch, UTC, inside; RFC 3339 outside."""

from datetime import UTC, datetime

from persona_mcp.state.errors import InvalidParams

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
FIRST_MOMENT = -62135596800
"""The first second of the year 1, since the epoch, UTC: what is earlier has no date."""
LAST_MOMENT = 253402300799
"""The last second of the year 9999, since the epoch, UTC: what is later has no date."""


def moment(value: object) -> float:
    """Read a time in RFC 3339 as seconds since the epoch, UTC.

    Raises:
        ValueError: It is no such time, has no offset, or has in UTC no year of 1 to 9999.
    """
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("a time in RFC 3339 with its offset, as 2026-11-25T12:00:00Z")
    at = found.timestamp()
    if not FIRST_MOMENT <= at <= LAST_MOMENT:
        raise ValueError("a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z")
    return at


def rfc3339(at: float) -> str:
    """Write a time as RFC 3339 in UTC with `Z`, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def check_span(since: float | None, until: float | None) -> None:
    """Make sure that a span of time has a length.

    Raises:
        InvalidParams: It ends before it begins.
    """
    if since is not None and until is not None and since >= until:
        raise InvalidParams.one("until", "a time after since", rfc3339(until))
