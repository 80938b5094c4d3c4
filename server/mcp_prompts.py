"""Prompts that the MCP door offers: "be this persona now", for each persona.

Hosts show prompts as a menu or as commands, and most cannot complete arguments; so each persona of
the default world has a prompt of its own, in which nothing has to be written. One more takes any
persona by id or name.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from mcp_types import (
    GetPromptResult,
    ListPromptsResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)
from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.nodes.portrait import example_section, identity
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.state.errors import NotFound
from persona_mcp.state.fields import Reference, Text
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.validation import validate

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

BE = "be_"
ANY = f"{BE}persona"
DESCRIPTION = (
    "Have this chat's own model play {who}; it gets who the persona is, not what it remembers. "
    "To talk with the persona itself, use persona_chat."
)
PAGE = 100


class Topic(BaseModel):
    """Arguments of a persona's own prompt; MCP sends all of them as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: Annotated[Text, Field(max_length=200)] | None = Field(
        None, description="What to begin to talk about"
    )


class AnyPersona(Topic):
    """Arguments of be_persona."""

    persona_id: Reference = Field(description="Persona's id or name, from persona_list")


def persona_of(name: str) -> str | None:
    """Return the id of the persona whose own prompt this is; None if it is none of these."""
    id = name.removeprefix(BE)
    return None if name in (id, ANY) else id


async def listed_prompts(store: "Store", cursor: str | None) -> ListPromptsResult:
    """Describe be_persona, and the prompt of each persona of the default world, in pages."""
    page = await call_operation(store, "persona_list", {"limit": PAGE, "cursor": cursor})
    own = [
        described(f"{BE}{one['id']}", one["name"], Topic)
        for one in page["personas"]
        if persona_of(f"{BE}{one['id']}")
    ]
    first = [] if cursor else [described(ANY, "a persona", AnyPersona)]
    return ListPromptsResult(prompts=[*first, *own], next_cursor=page["next_cursor"])


def described(name: str, who: str, arguments: type[Topic]) -> Prompt:
    """Describe a prompt."""
    return Prompt(
        name=name,
        title=f"Be {who}",
        description=DESCRIPTION.format(who=who),
        arguments=[
            PromptArgument(name=key, description=field.description, required=field.is_required())
            for key, field in sorted(
                arguments.model_fields.items(), key=lambda item: not item[1].is_required()
            )
        ],
    )


async def written_prompt(store: "Store", name: str, raw: Mapping[str, str]) -> GetPromptResult:
    """Write a prompt.

    Raises:
        NotFound: No prompt has this name, or the persona is not there.
        InvalidParams: An argument is wrong.
    """
    given: dict[str, Any] = {
        key: value for key, value in raw.items() if value
    }  # hosts send "" for what is left out
    reference = persona_of(name)
    if reference is not None:
        topic = validate(Topic, given).topic
    elif name == ANY:
        arguments = validate(AnyPersona, given)
        reference, topic = arguments.persona_id, arguments.topic
    else:
        raise NotFound.of("prompt", name, [ANY])
    found = await call_operation(store, "persona_get", {"persona_id": reference})
    spec = PersonaSpec.model_validate(found["persona"], extra="ignore")
    message = PromptMessage(role="user", content=TextContent(text=words(spec, topic)))
    return GetPromptResult(description=DESCRIPTION.format(who=spec.name), messages=[message])


def words(spec: PersonaSpec, topic: str | None) -> str:
    """Write what makes another model play a persona, without its memories and feelings."""
    begin = f"Begin with a few words about {topic}." if topic else "Greet me."
    sections = (
        f"Be {spec.name} from now on, until I ask you to stop.",
        spec.system_prompt,
        identity(spec),
        example_section(spec.examples),
        f"Answer as {spec.name}, in character and briefly. Speak only for yourself, without your "
        f"name in front. {begin}",
    )
    return "\n\n".join(section for section in sections if section)
