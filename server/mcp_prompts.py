"""Prompts that the MCP door offers: words for the host's own model, made from what is stored.

A prompt is a model of its arguments and a function; what a host is told of it is made from those.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from mcp_types import GetPromptResult, Prompt, PromptArgument, PromptMessage, TextContent
from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.nodes.portrait import example_section, identity
from persona_mcp.server.operations import call_operation
from persona_mcp.state.errors import NotFound
from persona_mcp.state.fields import Reference, Text
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.validation import validate

if TYPE_CHECKING:
    from persona_mcp.server.store import Store


class PromptArguments(BaseModel):
    """Base of prompts' arguments; MCP sends all of them as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class OfferedPrompt:
    """One prompt.

    Attributes:
        title: For people.
        description: What the host's model will do.
        arguments: Input model; its fields' descriptions are shown.
        write: Makes the words.
    """

    title: str
    description: str
    arguments: type[PromptArguments]
    write: Callable[["Store", Any], Awaitable[str]]


class BePersonaArguments(PromptArguments):
    """Arguments of be_persona."""

    persona_id: Reference = Field(description="Persona's id or name, from persona_list")
    topic: Annotated[Text, Field(max_length=200)] | None = Field(
        None, description="What to begin to talk about"
    )


async def be_persona(store: "Store", arguments: BePersonaArguments) -> str:
    """Write what makes another model play a persona, without its memories and feelings.

    Raises:
        NotFound: No such persona.
    """
    found = await call_operation(store, "persona_get", {"persona_id": arguments.persona_id})
    spec = PersonaSpec.model_validate(found["persona"], extra="ignore")
    begin = f"Begin with a few words about {arguments.topic}." if arguments.topic else "Greet me."
    sections = (
        f"Be {spec.name} from now on, until I ask you to stop.",
        spec.system_prompt,
        identity(spec),
        example_section(spec.examples),
        f"Answer as {spec.name}, in character and briefly. Speak only for yourself, without your "
        f"name in front. {begin}",
    )
    return "\n\n".join(section for section in sections if section)


PROMPTS = {
    "be_persona": OfferedPrompt(
        "Be a persona",
        "Have this chat's own model play a persona; it gets who the persona is, not what it "
        "remembers. To talk with the persona itself, use persona_chat.",
        BePersonaArguments,
        be_persona,
    )
}


def listed_prompts() -> list[Prompt]:
    """Describe all prompts."""
    return [
        Prompt(
            name=name,
            title=offered.title,
            description=offered.description,
            arguments=[
                PromptArgument(
                    name=argument, description=field.description, required=field.is_required()
                )
                for argument, field in offered.arguments.model_fields.items()
            ],
        )
        for name, offered in PROMPTS.items()
    ]


async def written_prompt(store: "Store", name: str, raw: dict[str, str]) -> GetPromptResult:
    """Write a prompt.

    Raises:
        NotFound: No prompt has this name, or what it is about is not there.
        InvalidParams: An argument is wrong.
    """
    offered = PROMPTS.get(name)
    if offered is None:
        raise NotFound.of("prompt", name, list(PROMPTS))
    given = {
        key: value for key, value in raw.items() if value
    }  # hosts send "" for what is left out
    text = await offered.write(store, validate(offered.arguments, given))
    message = PromptMessage(role="user", content=TextContent(text=text))
    return GetPromptResult(description=offered.description, messages=[message])
