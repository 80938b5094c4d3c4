"""Every error that the product raises on purpose.

```
PersonaError                 code, message, data, retryable
├── ParseError               parse_error          not JSON, not UTF-8, too large, too deep
├── InvalidRequest           invalid_request      the envelope is wrong
├── MethodNotFound           method_not_found     no such operation
├── InvalidParams            invalid_params       an argument is wrong; data names each field
├── InternalError            internal_error       a defect of ours
├── NotFound                 not_found            no such thing in this world
├── NoCurrentPersona         no_current_persona   none given and none bound to the handle
├── StorageUnavailable       memory_error         SQL failed, or the index where words cannot help
├── ModelError               llm_error            model unreachable, refused, garbage, cut off
├── PersonaUnavailable       persona_unavailable  tired, busy or cooling down
├── Conflict                 conflict             taken, stale, busy, ended, clash of request ids
├── Forbidden                forbidden            scope missing
├── Unauthenticated          unauthenticated      no or bad key
├── RateLimited              rate_limited         too many calls
├── LimitExceeded            limit_exceeded       quota, size or token budget
├── DeadlineExceeded         timeout              a wait passed its limit
├── Cancelled                cancelled            client or operator stopped it
├── BadSnapshot              bad_snapshot         checksum, format or reference is wrong
└── NotConfigured            not_configured       an optional part is missing
    └── InvalidSettings      not_configured       a setting is wrong; stops the start
```

Messages are for people who use the product: what was wrong, which id or field, what to do. They
never hold a stack trace, SQL, a file path or a prompt. `persona_mcp.server.wire` maps codes to
MCP, HTTP and JSON-RPC, and nothing else does.
"""

import difflib
from collections.abc import Sequence
from typing import Any, ClassVar, NotRequired, TypedDict

SUGGESTIONS_SHOWN = 3
FAULTS_LISTED = 20
ID_READ = 200
"""Characters of what was looked for that names are compared with."""
REQUIRED = "required"
"""What is allowed in place of a field that was left out."""
OURS = "something went wrong on our side; the log has the cause"


class Fault(TypedDict):
    """What is wrong with one field of what was given.

    Attributes:
        field: The argument, option or path.
        allowed: What it may be.
        given: What it was.
        line: Where that stands in a file, from 1; 0 where it is about the whole of it.
    """

    field: str
    allowed: str
    given: str | float | None
    line: NotRequired[int]


class PersonaError(Exception):
    """Base of the tree.

    Attributes:
        code: The word that clients test, one a class.
        message: What was wrong and what to do, for a person.
        data: JSON values beside the message (ids, fields, allowed values).
        retryable: The same call may succeed later without a change; `data` may say so of one error
            of a class of which most cannot.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **data: Any) -> None:
        """Keep the message and the data that go with it."""
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = {k: v for k, v in data.items() if v is not None}


class ParseError(PersonaError):
    """The bytes are not a message."""

    code = "parse_error"


class InvalidRequest(PersonaError):
    """The envelope of a message is wrong."""

    code = "invalid_request"


class MethodNotFound(PersonaError):
    """No operation has this name."""

    code = "method_not_found"


class InvalidParams(PersonaError):
    """One or more arguments are wrong; nothing was changed."""

    code = "invalid_params"

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> "InvalidParams":
        """Make one error of all faults of a call, the first one leading.

        Args:
            faults: At least one; the first 20 are kept.
        """
        first = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return cls(
            f"{first['field']}{complaint(first)}{more}",
            field=first["field"],
            allowed=first["allowed"],
            given=first["given"],
            errors=[dict(f) for f in faults[:FAULTS_LISTED]],
        )

    @property
    def faults(self) -> list[Fault]:
        """The faults it was made of, those that are kept; none where it names no field."""
        return list(self.data.get("errors", ()))

    @classmethod
    def one(cls, field: str, allowed: str, given: str | float | None) -> "InvalidParams":
        """Make the error of one fault, as `of` does.

        Args:
            field: The argument or option.
            allowed: What it may be.
            given: What it was.
        """
        return cls.of([{"field": field, "allowed": allowed, "given": given}])


def complaint(fault: Fault) -> str:
    """Say what is wrong with a field, as what follows its name."""
    if fault["allowed"] == REQUIRED:
        return " is required"
    given = fault["given"]
    shown = str(given).lower() if isinstance(given, bool) else given  # as JSON has it
    return f": allowed is {fault['allowed']}, given was {shown}"


class InternalError(PersonaError):
    """A defect of ours; the log has the cause under the correlation id."""

    code = "internal_error"

    def __init__(self, message: str = OURS, **data: Any) -> None:
        """Say no more than that, unless there is more that whoever reads it can use."""
        super().__init__(message, **data)


class NotFound(PersonaError):
    """No such thing in this world, or not to be seen by this caller."""

    code = "not_found"

    @classmethod
    def of(cls, kind: str, id: str, suggestions: Sequence[str] = ()) -> "NotFound":
        """Name the kind and value that was looked for, and up to three names that there are.

        Only one that looks like the value is what may have been meant: whoever asks is not to
        take somebody else for it.
        """
        shown = list(suggestions)[:SUGGESTIONS_SHOWN]
        names = ", ".join(shown)
        folded = [name.casefold() for name in shown]
        if difflib.get_close_matches(id[:ID_READ].casefold(), folded, 1):
            hint = f"; did you mean {names}?"
        else:
            hint = f"; others are {names}" if shown else ""
        return cls(f"{kind} '{id}' not found{hint}", kind=kind, id=id, suggestions=shown)


class NoCurrentPersona(PersonaError):
    """The call names no persona and none is bound to its handle."""

    code = "no_current_persona"


class StorageUnavailable(PersonaError):
    """The database, or an index that nothing can stand in for, did not answer."""

    code = "memory_error"
    retryable = True


class ModelError(PersonaError):
    """The language model or embedder was unreachable, refused, or sent something unusable."""

    code = "llm_error"
    retryable = True


class PersonaUnavailable(PersonaError):
    """The persona cannot talk now."""

    code = "persona_unavailable"
    retryable = True


class Conflict(PersonaError):
    """The call does not fit the present state: taken, stale, busy, ended."""

    code = "conflict"


class Forbidden(PersonaError):
    """The caller lacks the scope."""

    code = "forbidden"


class Unauthenticated(PersonaError):
    """No key, or a wrong one."""

    code = "unauthenticated"


class RateLimited(PersonaError):
    """Too many calls; `retry_after_seconds` says when to come back."""

    code = "rate_limited"
    retryable = True


class LimitExceeded(PersonaError):
    """A quota, a size or a token budget is used up."""

    code = "limit_exceeded"


class DeadlineExceeded(PersonaError):
    """A wait passed its limit; the message names what was waited for."""

    code = "timeout"
    retryable = True


class Cancelled(PersonaError):
    """The client or an operator stopped the work."""

    code = "cancelled"


class BadSnapshot(PersonaError):
    """A saved state or a card cannot be read."""

    code = "bad_snapshot"


class NotConfigured(PersonaError):
    """An optional part is missing; the message names the command that adds it."""

    code = "not_configured"


class InvalidSettings(NotConfigured):
    """A setting is wrong; the program does not start."""
