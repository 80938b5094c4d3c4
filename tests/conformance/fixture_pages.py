"""Resources and prompts that the official suite asks for by name."""

import json
import re
from collections.abc import Awaitable, Callable

from mcp_types import (
    BlobResourceContents,
    ContentBlock,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
)

from tests.conformance.fixture_rounds import asking_prompt
from tests.conformance.fixture_tools import PNG, resource

TEXT, JSON, PICTURE = "text/plain", "application/json", "image/png"
TEMPLATE = re.compile(r"test://template/(?P<id>[^/]+)/data")
RESOURCES = [
    Resource(
        name=name,
        uri=f"test://{name}",
        description=f"The suite's {name}",
        mime_type=mime_type,
    )
    for name, mime_type in (
        ("static-text", TEXT),
        ("static-binary", PICTURE),
        ("watched-resource", TEXT),
    )
]
TEMPLATES = [
    ResourceTemplate(
        name="template",
        uri_template="test://template/{id}/data",
        description="The suite's template",
        mime_type=JSON,
    )
]


def contents(uri: str) -> ReadResourceResult | None:
    """Return what a resource of the suite holds; None if it is none of them."""
    words = {
        "test://static-text": "This is the content of the static text resource.",
        "test://watched-resource": "This is watched.",
    }
    if uri in words:
        text = TextResourceContents(uri=uri, mime_type=TEXT, text=words[uri])
        return ReadResourceResult(contents=[text])
    if uri == "test://static-binary":
        blob = BlobResourceContents(uri=uri, mime_type=PICTURE, blob=PNG)
        return ReadResourceResult(contents=[blob])
    if match := TEMPLATE.fullmatch(uri):
        id = match["id"]
        data = json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})
        return ReadResourceResult(
            contents=[TextResourceContents(uri=uri, mime_type=JSON, text=data)]
        )
    return None


PromptAnswer = GetPromptResult | InputRequiredResult
Write = Callable[[GetPromptRequestParams], Awaitable[PromptAnswer]]
PROMPTS: dict[str, tuple[Prompt, Write]] = {}


def prompt(**arguments: str) -> Callable[[Write], Write]:
    """Register a function as a prompt of its name; all of its arguments are required."""

    def register(write: Write) -> Write:
        described = [
            PromptArgument(name=name, description=text, required=True)
            for name, text in arguments.items()
        ]
        name, description = write.__name__, write.__doc__
        PROMPTS[name] = (Prompt(name=name, description=description, arguments=described), write)
        return write

    return register


def messages(*blocks: ContentBlock) -> GetPromptResult:
    """Make a prompt of what a user says."""
    return GetPromptResult(messages=[PromptMessage(role="user", content=b) for b in blocks])


@prompt()
async def test_simple_prompt(params: GetPromptRequestParams) -> PromptAnswer:
    """Say one thing."""
    return messages(TextContent(text="This is a simple prompt for testing."))


@prompt(arg1="First", arg2="Second")
async def test_prompt_with_arguments(params: GetPromptRequestParams) -> PromptAnswer:
    """Repeat the arguments."""
    given = params.arguments or {}
    text = f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"
    return messages(TextContent(text=text))


@prompt(resourceUri="Address of the resource")
async def test_prompt_with_embedded_resource(params: GetPromptRequestParams) -> PromptAnswer:
    """Show a resource."""
    uri = (params.arguments or {})["resourceUri"]
    return messages(
        resource(uri, TEXT, "Embedded resource content for testing."),
        TextContent(text="Please process the embedded resource above."),
    )


@prompt()
async def test_prompt_with_image(params: GetPromptRequestParams) -> PromptAnswer:
    """Show a picture."""
    return messages(
        ImageContent(data=PNG, mime_type=PICTURE),
        TextContent(text="Please analyze the image above."),
    )


@prompt()
async def test_input_required_result_prompt(params: GetPromptRequestParams) -> PromptAnswer:
    """Write about what is asked for first."""
    written = await asking_prompt(params)
    return (
        written if isinstance(written, InputRequiredResult) else messages(TextContent(text=written))
    )
