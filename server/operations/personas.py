"""Operations on personas: list, get, create, switch."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state import interaction
from persona_mcp.state.availability import check_available
from persona_mcp.state.cards.card import CardUse
from persona_mcp.state.cards.store import card_use
from persona_mcp.state.feelings import Feelings, read_feelings
from persona_mcp.state.fields import WHOLE, Reference, Text
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import Persona, PersonaSpec
from persona_mcp.state.personas import find


class PersonaListArguments(Arguments):
    """Arguments of persona_list."""

    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(50, description="Personas a page")
    cursor: Annotated[Text, Field(max_length=256)] | None = Field(
        None, description="next_cursor of the page before"
    )
    tag: Annotated[Text, Field(min_length=1, max_length=40)] | None = Field(
        None, description="Only personas with this tag"
    )
    available: bool | None = Field(None, description="Only those that can (or can not) talk now")


class ListedPersona(Result):
    """A persona, briefly."""

    id: str
    name: str
    description: str
    available: bool = Field(description="Whether it may talk to another persona now")
    social_energy: float
    current_priority: str
    cooldown_remaining: float = Field(description="Seconds")
    available_in: float = Field(description="Seconds until it is available; 0 if it is")


class PersonaList(Result):
    """Result of persona_list."""

    personas: list[ListedPersona]
    total_count: int
    available_count: int
    next_cursor: str | None


@operation("List personas", "persona", "read")
async def persona_list(call: Call, arguments: PersonaListArguments) -> PersonaList:
    """List the personas of the world with their ids, and whether each can talk now.

    Start here: other tools take a persona's id or name from this list. A human is never refused,
    whatever `available` says; it matters for talks between personas.
    """
    now = time.time()
    found = await call.store.personas.with_feelings(call.world_id, now, call.store.laws.effects)
    listed = [listed_persona(call, persona, felt, now) for persona, felt in found]
    wanted = [
        entry
        for entry, (persona, _) in zip(listed, found, strict=True)
        if (arguments.tag is None or arguments.tag in persona.spec.tags)
        and arguments.available in (None, entry.available)
    ]
    page = [entry for entry in wanted if entry.id > (arguments.cursor or "")]
    shown = page[: arguments.limit]
    return PersonaList(
        personas=shown,
        total_count=len(wanted),
        available_count=sum(entry.available for entry in wanted),
        next_cursor=shown[-1].id if len(page) > len(shown) else None,
    )


def listed_persona(call: Call, persona: Persona, felt: Feelings, now: float) -> ListedPersona:
    """Describe a persona briefly."""
    laws = call.store.laws.effects.interaction
    state = felt.interaction
    return ListedPersona(
        id=persona.id,
        name=persona.name,
        description=persona.spec.description,
        available=interaction.available(state, laws),
        social_energy=state.energy,
        current_priority=state.priority,
        cooldown_remaining=max(0.0, (state.cooldown_until or now) - now),
        available_in=interaction.seconds_until_available(state, persona.spec.available_time, laws),
    )


class PersonaGetArguments(Arguments):
    """Arguments of persona_get."""

    persona_id: Reference = Field(description="Persona's id or name, from persona_list")


class FullPersona(PersonaSpec):
    """A persona with all its fields."""

    id: str
    version: int
    created_at: str
    updated_at: str
    greetings: list[str] = Field(
        description="Ways in which its character card has it open a talk; the first one is used"
    )


class PersonaGet(Result):
    """Result of persona_get."""

    persona: FullPersona


@operation("Get a persona", "persona", "read")
async def persona_get(call: Call, arguments: PersonaGetArguments) -> PersonaGet:
    """Return everything that is set of one persona: description, traits, topics, examples.

    Take the id or name from persona_list.
    """

    def read(connection: Connection) -> tuple[Persona, CardUse | None]:
        found = find(connection, call.world_id, arguments.persona_id)
        return found, card_use(connection, call.world_id, found.id)

    found, card = await call.store.database.read(read)
    values: dict[str, Any] = found.spec.model_dump()
    return PersonaGet(
        persona=FullPersona(
            **values,
            id=found.id,
            version=found.version,
            created_at=rfc3339(found.created_at),
            updated_at=rfc3339(found.updated_at),
            greetings=list(card.greetings) if card else [],
        )
    )


class PersonaCreateArguments(Arguments, PersonaSpec):
    """Arguments of persona_create: the fields of a persona."""


class PersonaCreate(Result):
    """Result of persona_create."""

    persona_id: str
    name: str
    created: bool
    version: int


@operation("Create a persona", "persona", "manage")
async def persona_create(call: Call, arguments: PersonaCreateArguments) -> PersonaCreate:
    """Create a persona that can be talked to at once with persona_chat.

    Only a name is needed; a description of who it is and two or three examples of how it talks
    make it come alive. A name that is taken is refused.
    """
    spec = PersonaSpec(**arguments.model_dump(exclude=set(Arguments.model_fields)))
    made = await call.store.personas.create(
        call.world_id, spec, time.time(), {call.store.settings.user}
    )
    return PersonaCreate(persona_id=made.id, name=made.name, created=True, version=made.version)


class PersonaSwitchArguments(Arguments):
    """Arguments of persona_switch."""

    persona_id: Reference = Field(description="Whom to talk to: id or name, from persona_list")


class PersonaSwitch(Result):
    """Result of persona_switch."""

    persona_id: str
    name: str
    description: str
    status: Literal["active"]
    social_energy: float
    available_time: float = Field(description="Time for talk that it has left, in seconds")
    current_priority: str
    session_id: str = Field(description="Send it with each call; it is yours alone")
    conversation_session_id: str = Field(
        description="Id of the conversation that the session's next message begins"
    )


@operation("Switch to a persona", "persona", "chat")
async def persona_switch(call: Call, arguments: PersonaSwitchArguments) -> PersonaSwitch:
    """Choose whom to talk to, and get a session_id that stands for it in later calls.

    With that session_id persona_chat needs no persona_id and goes on in one conversation, and
    memory_search looks into the persona's memories. Send it here too, to switch to somebody else;
    without one a new session is made. A persona that rests is refused, with the time to wait.
    """
    store, now = call.store, time.time()
    persona = await store.personas.resolve(call.world_id, arguments.persona_id)
    felt = await store.database.read(read_feelings, call.world_id, persona, now, store.laws.effects)
    check_available(persona, felt.interaction, store.laws.effects.interaction)
    session = (
        await store.sessions.switch(call.session.id, persona.id, now)
        if call.session
        else await store.sessions.create(call.world_id, persona.id, now)
    )
    return PersonaSwitch(
        persona_id=persona.id,
        name=persona.name,
        description=persona.spec.description,
        status="active",
        social_energy=felt.interaction.energy,
        available_time=felt.interaction.time,
        current_priority=felt.interaction.priority,
        session_id=session.id,
        conversation_session_id=session.conversation_id or "",
    )
