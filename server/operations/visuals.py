"""The operation that tells how a persona or a scene looks."""

import json
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from sqlalchemy import Connection

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import Number, Reference, Text, deeper_than
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.visual import Look, Target, TargetKind, VisualContext, keep_look

DATA_BYTES, DATA_DEPTH = 16_384, 6
SceneName = Annotated[Text, Field(min_length=1, max_length=80)]


def small_enough(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse an object of more than 16 KiB as JSON, deeper than 6 levels, or that is no JSON."""
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:  # half a character, or a number that is none
        size = None
    if size is None or size > DATA_BYTES or deeper_than(value, DATA_DEPTH):
        raise ValueError(
            f"a JSON object of at most {DATA_BYTES} bytes of UTF-8 and {DATA_DEPTH} levels"
        )
    return value


class VisualUpdateArguments(Arguments):
    """Arguments of visual_update."""

    type: Annotated[Text, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = Field(
        "general", description="What it is about: general, clothes, room, ..."
    )
    data: Annotated[dict[str, Any], AfterValidator(small_enough)] = Field(
        default_factory=dict, description="Values by their names; pictures are not looked at"
    )
    description: Annotated[Text, Field(max_length=2000)] = Field("", description="In words")
    persona_id: Reference | None = Field(
        None, description="Who looks so: id or name, from persona_list; left out: the session's"
    )
    scene: SceneName | None = Field(
        None, description="In place of a persona: the scene that persona_chat began a talk in"
    )
    expires_in: Annotated[Number, Field(ge=0, le=604_800)] = Field(
        0.0, description="Seconds until it is forgotten; 0 for never"
    )


class ShownTarget(Result):
    """Of whom or what it is."""

    kind: TargetKind
    id: str = Field(description="The persona's id, or the scene's name")


class VisualUpdate(Result):
    """Result of visual_update."""

    visual_updated: Literal[True]
    update_type: str
    timestamp: str
    target: ShownTarget
    version: int = Field(description="1, 2, ... of this target and type; 0 when it was removed")
    bytes: int = Field(description="Of data and description as JSON; 0 when it was removed")
    expires_at: str | None


class ShownContext(Result):
    """How a persona looks."""

    type: str
    data: dict[str, Any]
    description: str
    version: int
    updated_at: str
    expires_at: str | None


@operation("Tell how somebody looks", "system", "manage", core=False)
async def visual_update(call: Call, arguments: VisualUpdateArguments) -> VisualUpdate:
    """Tell how a persona, or the scene of a talk, looks; the next replies there know it.

    The latest of each type counts; one without data and description removes it. persona_status
    shows what is kept of a persona.
    """
    now = time.time()
    target = await target_of(call, arguments)
    look = Look(arguments.type, arguments.data, arguments.description)
    expires_in = arguments.expires_in

    def write(connection: Connection) -> int:
        return keep_look(connection, call.world_id, target, look, expires_in, now)

    version = await call.store.database.write(write)
    return VisualUpdate(
        visual_updated=True,
        update_type=look.type,
        timestamp=rfc3339(now),
        target=ShownTarget(kind=target.kind, id=target.name),
        version=version,
        bytes=look.size,
        expires_at=rfc3339(now + expires_in) if expires_in and look.size else None,
    )


async def target_of(call: Call, arguments: VisualUpdateArguments) -> Target:
    """Find out of whom or what it is.

    Raises:
        InvalidParams: Both a persona and a scene are named.
        NoCurrentPersona: Neither is, and no session stands for a persona.
        NotFound: The persona is not there.
    """
    if arguments.scene is None:
        return Target("persona", (await current_persona(call, arguments.persona_id)).id)
    if arguments.persona_id is not None:
        raise InvalidParams.one("scene", "left out where persona_id is given", arguments.scene)
    return Target("scene", arguments.scene)


def shown_context(context: VisualContext) -> ShownContext:
    """Show how a persona looks."""
    until = context.expires_at
    return ShownContext(
        type=context.look.type,
        data=dict(context.look.data),
        description=context.look.description,
        version=context.version,
        updated_at=rfc3339(context.updated_at),
        expires_at=None if until is None else rfc3339(until),
    )
