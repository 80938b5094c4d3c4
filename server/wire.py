"""The one map from our errors to the wires: JSON-RPC codes, HTTP statuses, MCP's error results."""

import sys
from dataclasses import dataclass
from typing import Any

from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.errors import LimitExceeded, ParseError, PersonaError


@dataclass(frozen=True)
class Wire:
    """How an error's code is spelled outside.

    Attributes:
        rpc: JSON-RPC error code.
        http: Status of a REST answer.
    """

    rpc: int
    http: int


WIRES = {
    "parse_error": Wire(-32700, 400),
    "invalid_request": Wire(-32600, 400),
    "method_not_found": Wire(-32601, 404),
    "invalid_params": Wire(-32602, 422),
    "internal_error": Wire(-32603, 500),
    "not_found": Wire(-32000, 404),
    "no_current_persona": Wire(-32001, 409),
    "memory_error": Wire(-32002, 503),
    "llm_error": Wire(-32003, 502),
    "persona_unavailable": Wire(-32004, 409),
    "conflict": Wire(-32005, 409),
    "forbidden": Wire(-32006, 403),
    "unauthenticated": Wire(-32007, 401),
    "rate_limited": Wire(-32008, 429),
    "limit_exceeded": Wire(-32009, 413),
    "timeout": Wire(-32010, 504),
    "cancelled": Wire(-32011, 499),
    "bad_snapshot": Wire(-32012, 422),
    "not_configured": Wire(-32013, 501),
}


USED_UP = 409
"""Status where a quota is used up: nothing that was sent is too large."""


def status_of(error: PersonaError) -> int:
    """Return the HTTP status that an error is answered with."""
    if isinstance(error, LimitExceeded) and "retry_after_seconds" in error.data:
        return USED_UP
    return WIRES[error.code].http


def problem_of(error: PersonaError) -> dict[str, Any]:
    """Write an error as every door shows it: `{code, message, data}`.

    `code` is the JSON-RPC number; `data` has the word for it, whether to try again, the correlation
    id that the log repeats, and what the error itself says (ids, fields).
    """
    data = {
        "code": error.code,
        "retryable": error.retryable,
        "correlation_id": current_correlation_id(),
        **error.data,
    }
    return {
        "code": WIRES[error.code].rpc,
        "message": error.message,
        "data": {key: value for key, value in data.items() if value is not None},
    }


def unreadable(what: str, error: Exception) -> ParseError:
    """Say why `json.loads` failed; `what` says that it is not JSON.

    Of what is JSON all the same it refuses nesting, and numbers of too many digits: these by a
    plain ValueError, where whatever is wrong with the text is a kind of its own.
    """
    if type(error) is ValueError:
        most = sys.get_int_max_str_digits()
        return ParseError(f"a number: allowed are {most} digits; send it shorter, or as text")
    return ParseError(f"{what}, or is nested too deep")
