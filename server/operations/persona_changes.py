"""Operations that change a persona: update, delete."""

import time
from typing import Annotated, Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import WHOLE, Reference
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.persona_changes import (
    Removal,
    plan_removal,
    remove_persona,
    update_persona,
)


def optional(field: FieldInfo) -> Any:
    """Return a field that takes what another one does, and may be left out."""
    kind: Any = field.annotation
    if field.metadata:
        kind = Annotated[(kind, *field.metadata)]
    return kind | None, Field(None, description=field.description)


FIELDS: dict[str, Any] = {name: optional(f) for name, f in PersonaSpec.model_fields.items()}
SpecChange: Any = create_model("SpecChange", __base__=Arguments, **FIELDS)
"""The fields of a persona, each of which may be left out."""


class PersonaUpdateArguments(SpecChange):
    """Arguments of persona_update: the fields that are to change."""

    persona_id: Reference = Field(description="Whom to change: id or name, from persona_list")
    expected_version: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="Only change it if it still has this version, from persona_get"
    )


class PersonaUpdate(Result):
    """Result of persona_update."""

    persona_id: str
    version: int = Field(
        description="Grows by 1 with each change; past talks keep the one they saw"
    )
    changed: list[str] = Field(description="Fields that are different now; empty if none is")


@operation("Change a persona", "persona", "manage", core=False, idempotent=True)
async def persona_update(call: Call, arguments: PersonaUpdateArguments) -> PersonaUpdate:
    """Change who a persona is: its name, description, traits, topics, examples or limits.

    Fields that are left out stay; lists and maps are replaced whole, so send them as persona_get
    shows them, with your change. Its id, memories and relationships stay.
    """
    given = arguments.model_dump(include=set(PersonaSpec.model_fields), exclude_none=True)
    persona, changed = await call.store.database.write(
        update_persona,
        call.world_id,
        arguments.persona_id,
        given,
        arguments.expected_version,
        time.time(),
        call.store.laws.effects,
    )
    return PersonaUpdate(persona_id=persona.id, version=persona.version, changed=list(changed))


class PersonaDeleteArguments(Arguments):
    """Arguments of persona_delete."""

    persona_id: Reference = Field(
        description="Whom to delete: id or name, from persona_list; to purge one that is deleted "
        "already: its id"
    )
    confirm: bool = Field(False, description="true is needed, but for a dry run")
    purge: bool = Field(
        False, description="Delete its memories, relationships and feelings for good, too"
    )
    dry_run: bool = Field(False, description="Only tell what would go")


class PersonaDelete(Result):
    """Result of persona_delete."""

    persona_id: str
    name: str
    deleted: bool = Field(description="false in a dry run")
    purged: bool
    dry_run: bool
    message: str
    counts: dict[str, int] = Field(
        description="Conversations that end, replies that are stopped; of a purge, what goes"
    )


@operation("Delete a persona", "persona", "manage", core=False, destructive=True)
async def persona_delete(call: Call, arguments: PersonaDeleteArguments) -> PersonaDelete:
    """Delete a persona: it is listed and answers no more, its open talks end, its name is free.

    With purge its memories, relationships, feelings, card and vectors go for good, which nothing
    brings back. What was said in its talks, and what others remember of it, stays.
    """
    store, now = call.store, time.time()
    asked = call.world_id, arguments.persona_id, arguments.purge
    if arguments.dry_run or not arguments.confirm:
        planned = await store.database.read(plan_removal, *asked)
        if not arguments.dry_run:
            raise unconfirmed(planned, arguments.purge)
        return deleted(planned, arguments, f"{planned.name} would be {done(arguments.purge)}")
    removal = await store.database.write(remove_persona, *asked, now)
    store.wake()
    await store.stop_runs(call.world_id, removal.stopped)
    return deleted(removal, arguments, f"{removal.name} was {done(arguments.purge)}")


def done(purge: bool) -> str:
    """Say what is done to a persona."""
    return "deleted, with everything that was its own" if purge else "deleted"


def deleted(removal: Removal, arguments: PersonaDeleteArguments, message: str) -> PersonaDelete:
    """Tell what was done, or would be."""
    return PersonaDelete(
        persona_id=removal.persona_id,
        name=removal.name,
        deleted=not arguments.dry_run,
        purged=arguments.purge and not arguments.dry_run,
        dry_run=arguments.dry_run,
        message=message,
        counts=dict(removal.counts),
    )


def unconfirmed(removal: Removal, purge: bool) -> InvalidParams:
    """Make the error for a call that does not say that it means it; it tells what would go."""
    why = f"true, since {removal.name} would be {done(purge)}"
    error = InvalidParams.one("confirm", why, False)
    error.data |= {"persona_id": removal.persona_id, "counts": dict(removal.counts)}
    return error
