"""The registry of operations: each is defined once, and every door is made from it.

An operation is one typed async function with an input and an output model. What it accepts, returns
and refuses is written in its models and its docstring, and nowhere else.
"""

import asyncio
import difflib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, create_model

from persona_mcp.server.admission import check_scope, check_world, home_of
from persona_mcp.server.operations.modules import MODULES, import_module_of
from persona_mcp.state.callers import Identity, Scope, called_by, current_caller, signed
from persona_mcp.state.errors import SUGGESTIONS_SHOWN, InvalidParams, MethodNotFound
from persona_mcp.state.fields import Id, SessionId
from persona_mcp.state.ids import derived_id, new_id
from persona_mcp.state.validation import validate

if TYPE_CHECKING:  # these import LangGraph and Alembic; tools are listed before that is done
    from persona_mcp.server.service import Service
    from persona_mcp.server.store import Store
    from persona_mcp.state.sessions import Session

Toolset = Literal[
    "persona", "conversation", "dialogue", "memory", "relationship", "emotion", "system"
]
Progress = Callable[[str], Awaitable[None]]
A = TypeVar("A", bound="Arguments")
Run = TypeVar("Run", bound="Callable[[Call, Any], Awaitable[Result]]")

SHOWN_DECIMALS = 6
AS_THEY_ARE = frozenset({str, int, bool, type(None)})
"""Types of JSON in which there is nothing to round."""
IGNORED = ("_meta", "websocket_id")
"""Old clients send these with every call."""


class Arguments(BaseModel):
    """What every operation takes beside its own arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    world_id: Id | None = Field(None, description="World; left out: the session's or the default")
    session_id: SessionId | None = Field(None, description="From persona_switch")


class Result(BaseModel):
    """Base of what operations return.

    Attributes:
        exact: Fields whose numbers are shown as they are, since they are not ours to round.
    """

    model_config = ConfigDict(frozen=True)

    exact: ClassVar[frozenset[str]] = frozenset()


async def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Caller:
    """Who waits for a call at a door.

    Attributes:
        progress: Takes pieces of a reply as they come.
        lost: Set when the caller's connection is lost; None where that cannot be told from a wish
            to stop.
        identity: For whom it is; that of the work under way, if it is not said.
    """

    progress: Progress = silent
    lost: asyncio.Event | None = None
    identity: Identity = field(default_factory=current_caller)


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    Attributes:
        store: What is kept.
        world_id: Where; it is there.
        session: The handle that it was sent with; None if it was sent with none.
        caller: Who waits for it.
        request_id: What the caller calls it; None if it is not said.
    """

    store: "Store"
    world_id: str
    session: "Session | None" = None
    caller: Caller = field(default_factory=Caller)
    request_id: str | None = None

    @property
    def service(self) -> "Service":
        """Every live part; for operations that need more than what is kept."""
        return cast("Service", self.store)

    @property
    def sees_private(self) -> bool:
        """Whether its caller may read what a persona keeps to itself: that takes `manage`."""
        return "manage" in self.caller.identity.scopes

    def made_id(self, kind: str) -> str:
        """Return an id for what the call makes: random, or made of the caller and its request_id.

        A call that is carried out again, since its process died before the answer was kept, finds
        under the same id what it has written already.
        """
        if self.request_id is None:
            return new_id()
        return derived_id(self.world_id, kind, self.request_id, *signed())


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: Tool name, `noun_verb`.
        title: For people.
        description: For a model that chooses among tools: what, when, where ids come from.
        toolset: Its group.
        scope: What a caller must be allowed.
        core: In the default toolset.
        read_only: It changes nothing.
        destructive: It can take something away for good.
        idempotent: Calling it twice is like calling it once.
        open_world: It reaches out to a model or another server.
        answers_kept: The same call with the same request_id is given the answer that was kept;
            else it sees to that itself, or changes nothing.
        arguments: Input model.
        result: Output model.
        run: The function.
    """

    name: str
    title: str
    description: str
    toolset: Toolset
    scope: Scope
    core: bool
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    answers_kept: bool
    arguments: type[Arguments]
    result: type[Result]
    run: Callable[[Call, Any], Awaitable[Result]]

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        return self.arguments.model_json_schema()

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the result."""
        return self.result.model_json_schema(mode="serialization")


REGISTRY: dict[str, Operation] = {}
"""Those whose modules are imported."""


def operation(
    title: str,
    toolset: Toolset,
    scope: Scope,
    *,
    core: bool = True,
    destructive: bool = False,
    idempotent: bool | None = None,
    open_world: bool = False,
    reads: bool = False,
) -> Callable[[Run], Run]:
    """Register a function `async def noun_verb(call, arguments) -> Result` as an operation.

    One that writes takes a request_id beside its arguments, with which it is carried out once; an
    operation whose own arguments have one sees to that itself. The rest is as in `Operation`;
    `reads` says that it changes nothing though its scope is another.
    """

    def register(run: Run) -> Run:
        read_only = reads or scope == "read"
        arguments: type[Arguments] = run.__annotations__["arguments"]
        answers_kept = not read_only and "request_id" not in arguments.model_fields
        REGISTRY[run.__name__] = Operation(
            name=run.__name__,
            title=title,
            description=" ".join((run.__doc__ or "").split()),
            toolset=toolset,
            scope=scope,
            core=core,
            read_only=read_only,
            destructive=destructive,
            idempotent=read_only if idempotent is None else idempotent,
            open_world=open_world,
            answers_kept=answers_kept,
            arguments=repeatable(arguments) if answers_kept else arguments,
            result=run.__annotations__["return"],
            run=run,
        )
        return run

    return register


def repeatable(arguments: type[A]) -> type[A]:
    """Add the request_id to arguments; it is none of the values that they stand for."""
    its = Field(
        None,
        description="Your name for this call: sent again within a day, it is answered as before",
        exclude=True,
    )
    return create_model(
        arguments.__name__,
        __base__=arguments,
        __doc__=arguments.__doc__,
        request_id=(Id | None, its),
    )


def operation_named(name: str) -> Operation:
    """Return an operation; its module is imported, if it was not yet.

    Raises:
        MethodNotFound: No operation has this name; the nearest names are told.
    """
    if name not in REGISTRY:
        import_module_of(name)
    found = REGISTRY.get(name)
    if found is None:
        raise unknown("operation", name, MODULES)
    return found


def unknown(what: str, name: str, known: Iterable[str]) -> MethodNotFound:
    """Say that nothing has this name, and which names are near."""
    near = difflib.get_close_matches(name, known, SUGGESTIONS_SHOWN)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return MethodNotFound(f"{what} '{name}' not found{hint}", suggestions=near)


async def accepted(
    store: "Store", model: type[A], raw: Mapping[str, Any], name: str, scope: Scope | None
) -> tuple[Call, A]:
    """Let a call in: who makes it may, its arguments are right, and where it works is open to it.

    Every door and every way to an operation comes through here.

    Args:
        store: What is kept.
        model: Of the arguments; they are validated once, strictly.
        raw: The arguments.
        name: What is called, for the message of a refusal.
        scope: What its caller must be allowed; None where anybody may.

    Raises:
        Forbidden: The caller may not do that.
        InvalidParams: An argument is wrong.
        NotFound: The world or the session is not there, or not for this caller.
    """
    check_scope(name, scope)
    given = {key: value for key, value in raw.items() if key not in IGNORED}
    arguments = validate(model, given)
    session = await session_of(store, arguments)
    world_id = session.world_id if session else arguments.world_id or home_of(store)
    await check_world(store, world_id)
    return Call(store, world_id, session), arguments


async def session_of(store: "Store", arguments: Arguments) -> "Session | None":
    """Find the handle that a call was sent with, and keep it alive.

    Raises:
        NotFound: It was never made, or it has ended.
        InvalidParams: The call names another world than the handle's.
    """
    if arguments.session_id is None:
        return None
    session = await store.sessions.use(arguments.session_id, time.time())
    if arguments.world_id not in (None, session.world_id):
        allowed = f"{session.world_id}, the world of this session, or left out"
        raise InvalidParams.one("world_id", allowed, arguments.world_id)
    return session


async def call_operation(
    store: "Store", name: str, raw: Mapping[str, Any], caller: Caller | None = None
) -> dict[str, Any]:
    """Validate the arguments once, strictly, and carry the operation out.

    Returns:
        The result as JSON, numbers rounded to six decimals.

    Raises:
        MethodNotFound: No operation has this name.
        Forbidden: The caller may not do that.
        InvalidParams: An argument is wrong; nothing was changed.
        Conflict: The request id was used for another call, or the same one takes too long.
        RateLimited: The caller is over a limit; nothing was done.
        PersonaError: What the operation raises.
    """
    found, caller = operation_named(name), caller or Caller()
    with (
        store.metrics.call(name),
        called_by(caller.identity),
        await store.limits.admit(found, caller.identity),
    ):
        accepted_call, arguments = await accepted(store, found.arguments, raw, name, found.scope)
        request_id: str | None = getattr(arguments, "request_id", None)
        call = replace(accepted_call, caller=caller, request_id=request_id)

        async def carried_out() -> dict[str, Any]:
            done = await found.run(call, arguments)
            full = done.model_dump(mode="json")
            shown: dict[str, Any] = rounded(full)
            return {**shown, **{name: full[name] for name in done.exact}} if done.exact else shown

        if request_id is None or not found.answers_kept:
            return await carried_out()
        given = arguments.model_dump(mode="json", exclude={"world_id"})
        return await call.service.answers.once(call.world_id, request_id, name, given, carried_out)


def rounded(value: Any) -> Any:
    """Round every number of a JSON value for show; storage keeps full precision."""
    kind = type(value)
    if kind is float:
        return round(value, SHOWN_DECIMALS) + 0.0  # never -0.0
    if kind is dict:
        return {
            k: item
            if (of := type(item)) in AS_THEY_ARE
            else round(item, SHOWN_DECIMALS) + 0.0
            if of is float
            else rounded(item)
            for k, item in value.items()
        }
    if kind is list:
        return [rounded(item) for item in value]
    return value
