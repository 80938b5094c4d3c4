"""Tools of the official suite that need more of the client before they can answer (2026-07-28).

Such a tool answers with what it asks; the client calls it again with the answers and with the state
that it was given, which the SDK has sealed.
"""

from collections.abc import Mapping

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CreateMessageResult,
    ElicitResult,
    GetPromptRequestParams,
    InputRequest,
    InputRequiredResult,
    InputResponseRequestParams,
    ListRootsRequest,
    ListRootsResult,
)

from tests.conformance.fixture_tools import (
    Answer,
    Context,
    declared,
    fixture,
    form,
    said_by,
    sampling,
    texts,
)

NAME = {"name": {"type": "string"}}
CAPABILITY = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}


def asked(requests: dict[str, InputRequest], state: str | None = None) -> InputRequiredResult:
    """Answer with what is needed first."""
    return InputRequiredResult(input_requests=requests, request_state=state)


def field(params: InputResponseRequestParams, key: str, name: str) -> str | None:
    """Return what the user wrote in a field of a form; None without such an answer."""
    answer = (params.input_responses or {}).get(key)
    content: Mapping[str, object] = {}
    if isinstance(answer, ElicitResult) and answer.action == "accept":
        content = answer.content or {}
    found = content.get(name)
    return None if found is None else str(found)


@fixture()
async def test_input_required_result_elicitation(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Greet the user by the name that is asked for first."""
    name = field(params, "user_name", "name")
    if name is None:
        return asked({"user_name": form("What is your name?", NAME, ["name"])})
    return texts(f"Hello, {name}!")


@fixture()
async def test_input_required_result_sampling(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Repeat what the client's model says."""
    answer = (params.input_responses or {}).get("capital_question")
    if not isinstance(answer, CreateMessageResult):
        return asked({"capital_question": sampling("What is the capital of France?")})
    return texts(said_by(answer))


@fixture()
async def test_input_required_result_list_roots(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Name the client's roots."""
    answer = (params.input_responses or {}).get("client_roots")
    if not isinstance(answer, ListRootsResult):
        return asked({"client_roots": ListRootsRequest()})
    return texts(*(f"{root.name}: {root.uri}" for root in answer.roots))


@fixture()
async def test_input_required_result_request_state(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Ask for a word of agreement, and know the caller again."""
    agreed = field(params, "confirm", "ok")
    if agreed is None or params.request_state is None:
        question = form("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])
        return asked({"confirm": question}, "waits for confirm")
    if params.request_state != "waits for confirm":
        raise MCPError(INVALID_PARAMS, "this state is of another question")
    return texts(f"state-ok, confirmed: {agreed}")


@fixture()
async def test_input_required_result_multiple_inputs(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Ask three things at once."""
    wanted: dict[str, InputRequest] = {
        "user_name": form("What is your name?", NAME, ["name"]),
        "greeting": sampling("Generate a greeting", 50),
        "client_roots": ListRootsRequest(),
    }
    missing = {key: wanted[key] for key in wanted if key not in (params.input_responses or {})}
    if missing:
        return asked(missing, "waits for three")
    return texts(f"All is known of {field(params, 'user_name', 'name')}.")


@fixture()
async def test_input_required_result_multi_round(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Ask one thing after another; the state carries the first answer."""
    first = field(params, "step1", "name")
    if first is not None:
        colour = form(
            "Step 2: What is your favorite color?", {"color": {"type": "string"}}, ["color"]
        )
        return asked({"step2": colour}, f"name:{first}")
    second = field(params, "step2", "color")
    if second is None or not (params.request_state or "").startswith("name:"):
        return asked({"step1": form("Step 1: What is your name?", NAME, ["name"])}, "begun")
    return texts(f"{(params.request_state or '').removeprefix('name:')} likes {second}.")


@fixture()
async def test_input_required_result_tampered_state(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Ask with a state that nobody else can write."""
    if params.request_state is None:
        question = form("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])
        return asked({"confirm": question}, "sealed")
    return texts("The state is ours.")


@fixture()
async def test_input_required_result_capabilities(
    context: Context, params: CallToolRequestParams
) -> Answer:
    """Ask only what the client says it can answer."""
    wanted: dict[str, InputRequest] = {
        "user_name": form("What is your name?", NAME, ["name"]),
        "greeting": sampling("Generate a greeting", 50),
        "client_roots": ListRootsRequest(),
    }
    able = {k: r for k, r in wanted.items() if CAPABILITY[r.method] in declared(context)}
    if able and not params.input_responses:
        return asked(able)
    return texts("Nothing more is asked.")


@fixture()
async def test_streaming_elicitation(context: Context, params: CallToolRequestParams) -> Answer:
    """Ask the user while the stream of the call is open; the question is its result."""
    await context.session.report_progress(1.0, 2.0)
    return await test_input_required_result_elicitation(context, params)


async def asking_prompt(params: GetPromptRequestParams) -> str | InputRequiredResult:
    """Write a prompt about what is asked for first."""
    about = field(params, "user_context", "context")
    if about is None:
        question = form(
            "What context should the prompt use?", {"context": {"type": "string"}}, ["context"]
        )
        return asked({"user_context": question})
    return f"Write about {about}."
