"""JSON-RPC 2.0 as text: what comes in as requests, what goes out as answers; no socket here."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from persona_mcp.server.wire import problem_of, unreadable
from persona_mcp.state.errors import InvalidParams, InvalidRequest, ParseError, PersonaError
from persona_mcp.state.fields import deeper_than
from persona_mcp.state.validation import shorten

VERSION = "2.0"
MOST_IN_A_BATCH = 50
MOST_LEVELS = 64

Id = str | int | float | None


@dataclass(frozen=True)
class Request:
    """A call that is to be carried out.

    Attributes:
        id: As it came, with its type; None also where there was none.
        method: `noun.verb`.
        params: Arguments by name.
        notification: It came without an id: nobody waits for an answer.
    """

    id: Id
    method: str
    params: dict[str, Any]
    notification: bool = False


@dataclass(frozen=True)
class Refused:
    """A message, or a member of a batch, that is not carried out.

    Attributes:
        id: Of the request; None where it has no legal one.
        error: Why.
        notification: It is not answered, only logged.
    """

    id: Id
    error: PersonaError
    notification: bool = False


Entry = Request | Refused


@dataclass(frozen=True)
class Message:
    """What came in one frame.

    Attributes:
        entries: One, or those of a batch in their order.
        is_batch: The answers go back in one array.
    """

    entries: tuple[Entry, ...]
    is_batch: bool = False


def parse(text: str, most_bytes: int) -> Message:
    """Read a frame; what is wrong with it becomes an entry that is refused."""
    try:
        found = decoded(text, most_bytes)
    except ParseError as error:
        return Message((Refused(None, error),))
    if not isinstance(found, list):
        return Message((request_of(found),))
    if not 1 <= len(found) <= MOST_IN_A_BATCH:
        allowed = f"1..{MOST_IN_A_BATCH} requests"
        return Message((refusal(None, "a batch", allowed, f"{len(found)}"),))
    return Message(tuple(map(request_of, found)), is_batch=True)


def decoded(text: str, most_bytes: int) -> Any:
    """Decode the JSON of a frame.

    Raises:
        ParseError: It is longer than `most_bytes`, no JSON, or nested too deep.
    """
    if len(text.encode()) > most_bytes:
        raise ParseError(
            f"the frame: allowed are {most_bytes} bytes; send less, or raise "
            "PERSONA_WEBSOCKET__FRAME_BYTES"
        )
    try:
        found = json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise unreadable("the frame is not JSON", error) from error
    if deeper_than(found, MOST_LEVELS):
        raise ParseError(f"the frame: allowed are {MOST_LEVELS} levels of objects and arrays")
    return found


def no_number(word: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise json.JSONDecodeError("no number of JSON", word, 0)


def request_of(value: Any) -> Entry:
    """Read one request."""
    if not isinstance(value, dict):
        return refusal(None, "a request", "an object", shorten(value))
    id, notification = value.get("id"), "id" not in value
    if not is_id(id):
        return refusal(None, "id", "text, a finite number or null", shorten(id))
    if value.get("jsonrpc") != VERSION:
        return refusal(id, "jsonrpc", f'"{VERSION}"', given_as(value, "jsonrpc"))
    method, params = value.get("method"), value.get("params")
    if not isinstance(method, str):
        allowed = "text, as rpc.discover lists it"
        return refusal(id, "method", allowed, given_as(value, "method"))
    if isinstance(params, list):
        allowed = "an object with the arguments by name"
        error = InvalidParams.one("params", allowed, shorten(params))
        return Refused(id, error, notification)
    if params is not None and not isinstance(params, dict):
        return refusal(id, "params", "an object, or left out", shorten(params))
    return Request(id, method, params or {}, notification)


def given_as(frame: Mapping[str, Any], member: str) -> str:
    """Write the value of a member, in short; what is not there is nothing, which null is not."""
    return shorten(frame[member]) if member in frame else "nothing"


def is_id(value: Any) -> bool:
    """Tell whether a value may be the id of a request."""
    if isinstance(value, bool):
        return False
    return value is None or isinstance(value, str | int) or is_finite(value)


def is_finite(value: Any) -> bool:
    """Tell whether a value is a number that JSON can write; 1e999 is none."""
    return isinstance(value, float) and math.isfinite(value)


def refusal(id: Id, field: str, allowed: str, given: str) -> Refused:
    """Refuse an envelope; without an id it is answered too, since nobody knows what it was."""
    words = f"{field}: allowed is {allowed}, given was {given}"
    return Refused(id, InvalidRequest(words, field=field, allowed=allowed, given=given))


def key_of(id: Id) -> str:
    """Return what tells ids apart: 1 and "1" are two."""
    return json.dumps(id)


def answer(id: Id, *, both: bool, **members: Any) -> str:
    """Write an answer.

    Args:
        id: Of the request.
        both: Write result and error always, the unused one as null, as the original server did.
        members: `result`, `error`, or both at the end of a stream.

    Returns:
        ASCII, so that any text can be sent, also one with half a character in it.
    """
    unused = {"result": None, "error": None} if both else {}
    return json.dumps({"jsonrpc": VERSION, "id": id, **unused, **members}, separators=(",", ":"))


def failure(id: Id, error: PersonaError, *, both: bool) -> str:
    """Write the answer to a request that failed."""
    return answer(id, both=both, error=problem_of(error))


def batch(answers: list[str]) -> str:
    """Put the answers to a batch together."""
    return f"[{','.join(answers)}]"
