"""Tools that the official suite asks for by name: contents of every kind, errors, questions.

Each answers as the suite's own description of it says; none of them is in the product.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    Tool,
)

Context = ServerRequestContext[Any, Any]
Answer = CallToolResult | InputRequiredResult
Run = Callable[[Context, CallToolRequestParams], Awaitable[Answer]]
Schema = dict[str, Any]

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
"""One red pixel."""
WAV = "UklGRigAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQQAAAAAAAAA"
"""Two silent samples."""
STEP_S = 0.05
"""So that messages of one call are heard one after another."""


@dataclass(frozen=True)
class Fixture:
    """A tool of the suite."""

    tool: Tool
    run: Run


FIXTURES: dict[str, Fixture] = {}


def fixture(**properties: Schema) -> Callable[[Run], Run]:
    """Register a function as a tool of its name; all of its arguments are required."""

    def register(run: Run) -> Run:
        name, description = run.__name__, run.__doc__
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        FIXTURES[name] = Fixture(Tool(name=name, description=description, input_schema=schema), run)
        return run

    return register


def texts(*said: str) -> CallToolResult:
    """Answer with texts."""
    return CallToolResult(content=[TextContent(text=text) for text in said])


def form(message: str, properties: Schema, required: list[str]) -> ElicitRequest:
    """Ask the user for fields."""
    schema = {"type": "object", "properties": properties, "required": required}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(text: str, max_tokens: int = 100) -> CreateMessageRequest:
    """Ask the client's model."""
    message = SamplingMessage(role="user", content=TextContent(text=text))
    params = CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    return CreateMessageRequest(params=params)


def said_by(result: CreateMessageResult) -> str:
    """Read what the client's model said."""
    content = result.content
    return content.text if isinstance(content, TextContent) else "nothing in words"


async def ask(context: Context, request: ElicitRequest) -> ElicitResult:
    """Ask the user on the stream of this call, as the handshake era does."""
    assert isinstance(request.params, ElicitRequestFormParams)
    return await context.session.elicit_form(
        request.params.message, request.params.requested_schema, context.request_id
    )


def outcome(result: ElicitResult) -> str:
    """Write how the user answered."""
    return f"action={result.action}, content={json.dumps(result.content)}"


def resource(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    """Put a resource into an answer."""
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


@fixture()
async def test_simple_text(context: Context, params: CallToolRequestParams) -> Answer:
    """Answer with one text."""
    return texts("This is a simple text response for testing.")


@fixture()
async def test_image_content(context: Context, params: CallToolRequestParams) -> Answer:
    """Answer with a picture."""
    return CallToolResult(content=[ImageContent(data=PNG, mime_type="image/png")])


@fixture()
async def test_audio_content(context: Context, params: CallToolRequestParams) -> Answer:
    """Answer with a sound."""
    return CallToolResult(content=[AudioContent(data=WAV, mime_type="audio/wav")])


@fixture()
async def test_embedded_resource(context: Context, params: CallToolRequestParams) -> Answer:
    """Answer with a resource."""
    text = "This is an embedded resource content."
    return CallToolResult(content=[resource("test://embedded-resource", "text/plain", text)])


@fixture()
async def test_multiple_content_types(context: Context, params: CallToolRequestParams) -> Answer:
    """Answer with a text, a picture and a resource."""
    data = json.dumps({"test": "data", "value": 123})
    blocks: list[ContentBlock] = [
        TextContent(text="Multiple content types test:"),
        ImageContent(data=PNG, mime_type="image/png"),
        resource("test://mixed-content-resource", "application/json", data),
    ]
    return CallToolResult(content=blocks)


@fixture()
async def test_error_handling(context: Context, params: CallToolRequestParams) -> Answer:
    """Fail."""
    text = TextContent(text="This tool intentionally returns an error for testing")
    return CallToolResult(content=[text], is_error=True)


@fixture()
async def test_tool_with_progress(context: Context, params: CallToolRequestParams) -> Answer:
    """Tell of progress three times."""
    for done in (0.0, 50.0, 100.0):
        await context.session.report_progress(done, 100.0)
        await asyncio.sleep(STEP_S)
    return texts("Three steps are done.")


@fixture()
async def test_tool_with_logging(context: Context, params: CallToolRequestParams) -> Answer:
    """Send three lines of a log."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await log(context, line)
        await asyncio.sleep(STEP_S)
    return texts("Three lines are sent.")


@fixture()
async def test_logging_tool(context: Context, params: CallToolRequestParams) -> Answer:
    """Send a line of a log, which only a caller who asked for it may get."""
    await log(context, "A line of the log")
    return texts("The line is sent to who wants it.")


async def log(context: Context, line: str) -> None:
    """Send a line of a log on the stream of this call."""
    await context.session.send_log_message("info", line, related_request_id=context.request_id)


@fixture(prompt={"type": "string", "description": "What to ask the client's model"})
async def test_sampling(context: Context, params: CallToolRequestParams) -> Answer:
    """Have the client's model answer."""
    request = sampling((params.arguments or {})["prompt"])
    result = await context.session.create_message(
        request.params.messages,
        max_tokens=request.params.max_tokens,
        related_request_id=context.request_id,
    )
    return texts(f"LLM response: {said_by(result)}")


@fixture(message={"type": "string", "description": "What to show the user"})
async def test_elicitation(context: Context, params: CallToolRequestParams) -> Answer:
    """Ask the user for a name and an address."""
    fields = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    asked = form((params.arguments or {})["message"], fields, list(fields))
    return texts(f"User response: {outcome(await ask(context, asked))}")


@fixture()
async def test_elicitation_sep1034_defaults(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Ask with a default for each kind of field."""
    fields: Schema = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "default": True},
    }
    result = await ask(context, form("Please check what is known of you.", fields, []))
    return texts(f"Elicitation completed: {outcome(result)}")


@fixture()
async def test_elicitation_sep1330_enums(context: Context, params: CallToolRequestParams) -> Answer:
    """Ask with each way to write a choice."""
    options = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{number}", "title": f"{word} Option"}
        for number, word in enumerate(("First", "Second", "Third"), 1)
    ]
    fields: Schema = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    result = await ask(context, form("Please choose.", fields, []))
    return texts(f"Elicitation completed: {outcome(result)}")


@fixture()
async def test_missing_capability(context: Context, params: CallToolRequestParams) -> Answer:
    """Work only for a client that lets its model be asked."""
    if "sampling" not in declared(context):
        needed: Schema = {"requiredCapabilities": {"sampling": {}}}
        message = "this tool asks the client's model, and the client declares no sampling"
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, message, needed)
    return texts("The client's model may be asked.")


def declared(context: Context) -> Mapping[str, Any]:
    """Return the capabilities that the client declares, by name."""
    found = context.session.client_capabilities
    return found.model_dump(exclude_none=True) if found else {}
