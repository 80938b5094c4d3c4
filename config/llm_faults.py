"""What goes wrong between us and a model server, in words for people."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from persona_mcp.state.errors import ModelError, PersonaError

if TYPE_CHECKING:
    from persona_mcp.config.llm_providers import Provider, Stage

DOCTOR = "`persona doctor` looks at each part"


@dataclass(frozen=True)
class Fault:
    """A failure in our words.

    Attributes:
        error: What the caller gets.
        again: Another try may help, as long as no token has come.
    """

    error: PersonaError
    again: bool


def translate(error: Exception, provider: "Provider", stage: "Stage") -> Fault:
    """Put what a client library raised into our words.

    The libraries wrap each other's errors, so the whole chain of causes is looked at.
    """
    chain = list(_causes(error))
    if any(isinstance(cause, httpx.ConnectTimeout) for cause in chain):
        limit = provider.settings.connect_s
        return Fault(
            provider.late("could not be connected to", "connect", "connect_s", limit), False
        )
    if any(isinstance(cause, (httpx.ConnectError, ConnectionRefusedError)) for cause in chain):
        what = f"cannot be reached: {provider.unreachable}"
        return Fault(provider.failed(what, "connect"), True)
    for cause in chain:
        status = getattr(cause, "status_code", None)  # of both libraries' errors
        if isinstance(status, int) and status >= httpx.codes.BAD_REQUEST:
            too_long = "context" in str(cause).lower()
            return Fault(refused(provider, status, stage, too_long=too_long), _passes(status))
    if any(isinstance(cause, httpx.TransportError) for cause in chain):
        what = f"broke off its answer, the reply was cut off: try again; {DOCTOR}"
        return Fault(provider.failed(what, stage), False)
    what = f"sent something that is not a reply: check that it is a model server; {DOCTOR}"
    return Fault(provider.failed(what, stage), False)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _passes(status: int) -> bool:
    return status == httpx.codes.TOO_MANY_REQUESTS or httpx.codes.is_server_error(status)


def refused(
    provider: "Provider", status: int, stage: "Stage", *, too_long: bool = False
) -> ModelError:
    """Make the error of an HTTP status, with what to do about it."""
    limit = provider.info.context_tokens
    if status == httpx.codes.TOO_MANY_REQUESTS:
        what = "has too much to do (429): try again later"
    elif httpx.codes.is_server_error(status):
        what = f"failed ({status}): try again; its own log says why"
    elif too_long and status not in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND):
        what = f"cannot take a prompt over its context of {limit} tokens: {provider.too_long()}"
    else:
        what = f"refused the request ({status}): {provider.advice(status)}"
    return provider.failed(what, stage, status=status)
