"""Resources, prompts and completions through the official client, in both protocol eras."""

import json
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from persona_mcp.server import mcp_completions, mcp_prompts, mcp_resources
from persona_mcp.server.app import create_app
from persona_mcp.server.operations.registry import operation_named
from persona_mcp.server.service import Service
from persona_mcp.state.errors import StorageUnavailable
from tests.calls import call, say
from tests.doubles import ScriptedModel
from tests.mcp_client import REPLY, Era, connected, failing, served

pytestmark = pytest.mark.anyio

PROMPT = PromptReference(name="be_persona")
PAIR = ResourceTemplateReference(uri="relationship://{a}/{b}")
TEMPLATE = ResourceTemplateReference(uri="persona://{id}")


async def read(client: Client, uri: str) -> dict[str, Any]:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert (content.uri, content.mime_type) == (uri, "application/json")
    found: dict[str, Any] = json.loads(content.text)
    return found


async def written(client: Client, **arguments: str) -> str:
    (message,) = (await client.get_prompt("be_persona", arguments)).messages
    assert message.role == "user"
    assert isinstance(message.content, TextContent)
    return message.content.text


async def completed(
    client: Client, value: str, ref: Any = PROMPT, name: str = "persona_id", **given: str
) -> Any:
    argument = {"name": name, "value": value}
    return (await client.complete(ref, argument, context_arguments=given)).completion


async def test_the_personas_of_the_default_world_are_resources(service: Service, era: Era) -> None:
    async with connected(served(service), era) as client:
        listed = (await client.list_resources()).resources

    assert [resource.uri for resource in listed] == [
        "world://main",
        "persona://aria",
        "persona://kira",
        "persona://noor",
    ]
    assert listed[1].title == "Aria"
    assert "bard" in (listed[1].description or "")
    assert {resource.mime_type for resource in listed} == {"application/json"}


async def test_many_personas_are_listed_in_pages(
    service: Service, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_resources, "PAGE", 2)
    async with connected(served(service), era) as client:
        first = await client.list_resources()
        second = await client.list_resources(cursor=first.next_cursor)

    assert [resource.name for resource in first.resources] == ["main", "aria", "kira"]
    assert [resource.name for resource in second.resources] == ["noor"]
    assert second.next_cursor is None


async def test_each_kind_of_resource_has_a_template(service: Service, era: Era) -> None:
    async with connected(served(service), era) as client:
        listed = (await client.list_resource_templates()).resource_templates

    assert [template.uri_template for template in listed] == [
        "persona://{id}",
        "conversation://{id}",
        "memory://{id}",
        "relationship://{a}/{b}",
        "world://{id}",
    ]


async def test_a_persona_is_read_as_the_tool_returns_it(service: Service, era: Era) -> None:
    async with connected(served(service), era) as client:
        found = await read(client, "persona://aria")

    assert found == await call(service, "persona_get", persona_id="aria")


async def test_a_conversation_is_read_as_the_tool_returns_it(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY)
    said = await say(service, "My cat is called Biscuit.")

    async with connected(served(service), era) as client:
        found = await read(client, f"conversation://{said['conversation_id']}")

    jsonschema.validate(found, operation_named("conversation_get").output_schema)
    assert [turn["content"] for turn in found["turns"]] == ["My cat is called Biscuit.", REPLY]


async def test_a_name_in_an_address_is_percent_encoded(service: Service, era: Era) -> None:
    await call(service, "persona_create", name="Åse Lund")

    async with connected(served(service), era) as client:
        found = await read(client, "persona://%C3%85se%20Lund")

    assert found["persona"]["name"] == "Åse Lund"


@pytest.mark.parametrize(
    "uri",
    [
        "persona://nobody",
        "conversation://0123456789abcdef",
        "conversation://not%20an%20id",
        "persona://aria/secrets",
        "persona://aria?world=elsewhere",
        "memory://0123456789abcdef",
        "relationship://aria",
        "relationship://aria/nobody at all",
        "world://elsewhere",
        "persona://",
        "file:///etc/passwd",
        "nonsense",
    ],
)
async def test_what_is_not_there_is_refused_as_mcp_wants_it(
    service: Service, era: Era, uri: str
) -> None:
    async with connected(served(service), era) as client:
        with pytest.raises(MCPError) as refused:
            await client.read_resource(uri)

    assert refused.value.code == INVALID_PARAMS
    assert refused.value.data["uri"] == uri
    assert refused.value.data["code"] in ("not_found", "invalid_params")
    assert refused.value.data["correlation_id"]


async def test_what_cannot_be_read_now_is_not_called_missing(era: Era) -> None:
    async with connected(failing(StorageUnavailable("the data folder is gone")), era) as client:
        with pytest.raises(MCPError, match="the data folder is gone") as refused:
            await client.read_resource("persona://aria")

    assert refused.value.code == INTERNAL_ERROR
    assert (refused.value.data["code"], refused.value.data["retryable"]) == ("memory_error", True)


async def test_a_defect_of_ours_shows_nothing_of_its_cause(
    era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(failing(RuntimeError("secret place")), era) as client:
        with pytest.raises(MCPError) as refused:
            await client.list_resources()

    assert refused.value.code == INTERNAL_ERROR
    assert "secret" not in str(refused.value)


async def test_over_http_a_refusal_has_the_id_that_the_door_was_given(service: Service) -> None:
    uri = "persona://nobody"
    told = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"uri": uri, "_meta": told}
    headers = {
        "Accept": "application/json, text/event-stream",
        "Mcp-Protocol-Version": "2026-07-28",
        "Mcp-Method": "resources/read",
        "Mcp-Name": uri,
        "X-Correlation-Id": "from-outside",
    }

    app = create_app(service.settings, opening=lambda: nullcontext(service))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client,
    ):
        response = await client.post(
            "http://127.0.0.1:8000/mcp",
            headers=headers,
            json={"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params},
        )

    assert response.headers["x-correlation-id"] == "from-outside"
    assert '"correlation_id":"from-outside"' in response.text


async def test_each_persona_has_a_prompt_and_one_takes_any_of_them(
    service: Service, era: Era
) -> None:
    await call(service, "persona_create", name="Persona")
    async with connected(served(service), era) as client:
        listed = (await client.list_prompts()).prompts

    taken = {p.name: {a.name: a.required for a in p.arguments or []} for p in listed}
    assert taken == {
        "be_persona": {"persona_id": True, "topic": False},
        "be_aria": {"topic": False},
        "be_kira": {"topic": False},
        "be_noor": {"topic": False},
    }
    assert listed[1].title == "Be Aria"
    assert all(argument.description for prompt in listed for argument in prompt.arguments or [])


async def test_prompts_of_many_personas_are_listed_in_pages(
    service: Service, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_prompts, "PAGE", 2)
    async with connected(served(service), era) as client:
        first = await client.list_prompts()
        second = await client.list_prompts(cursor=first.next_cursor)

    assert [prompt.name for prompt in first.prompts] == ["be_persona", "be_aria", "be_kira"]
    assert [prompt.name for prompt in second.prompts] == ["be_noor"]
    assert second.next_cursor is None


async def test_a_personas_own_prompt_says_what_the_general_one_says(
    service: Service, era: Era
) -> None:
    async with connected(served(service), era) as client:
        own = await client.get_prompt("be_aria", {"topic": "rain"})
        general = await client.get_prompt("be_persona", {"persona_id": "Aria", "topic": "rain"})

    assert own == general


async def test_the_prompt_tells_the_hosts_model_who_to_be(service: Service, era: Era) -> None:
    await call(
        service,
        "persona_create",
        name="Mara",
        description="You are Mara, a harbour pilot.",
        personality_traits={"patient": 80},
        topic_preferences={"weather": 75, "gossip": 10},
        system_prompt="Speak plainly.",
        examples=[{"user": "I sail.", "reply": "Still?"}],
    )

    async with connected(served(service), era) as client:
        text = await written(client, persona_id="Mara", topic="the winter")

    assert (
        text
        == """\
Be Mara from now on, until I ask you to stop.

Speak plainly.

You are Mara, a harbour pilot. You are known as: patient. You like to talk about weather. \
You would rather avoid gossip.

How you talk:
- To “I sail.” you might say: “Still?”

Answer as Mara, in character and briefly. Speak only for yourself, without your name in front. \
Begin with a few words about the winter."""
    )


async def test_an_argument_that_a_host_sends_empty_counts_as_left_out(
    service: Service, era: Era
) -> None:
    async with connected(served(service), era) as client:
        text = await written(client, persona_id="aria", topic="")

    assert text.endswith("Greet me.")


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("be_persona", {"persona_id": "Ari"}, "did you mean Aria"),
        ("be_persona", {}, "persona_id"),
        ("be_persona", {"persona_id": "aria", "colour": "red"}, "colour"),
        ("be_someone", {}, "persona 'someone' not found"),
        ("be_aria", {"persona_id": "kira"}, "persona_id"),
        ("become", {}, "be_persona"),
    ],
)
async def test_a_wrong_prompt_or_argument_is_named(
    service: Service, era: Era, name: str, arguments: dict[str, str], named: str
) -> None:
    async with connected(served(service), era) as client:
        with pytest.raises(MCPError, match=named) as refused:
            await client.get_prompt(name, arguments)

    assert refused.value.code == INVALID_PARAMS


@pytest.mark.parametrize(
    ("ref", "name"),
    [(PROMPT, "persona_id"), (TEMPLATE, "id"), (PAIR, "a"), (PAIR, "b")],
    ids=["prompt", "persona", "a", "b"],
)
async def test_a_persona_is_completed_by_its_id_or_name_in_any_case(
    service: Service, era: Era, ref: Any, name: str
) -> None:
    await call(service, "persona_create", name="Ärmel")

    async with connected(served(service), era) as client:
        by_id = await completed(client, "AR", ref, name)
        by_name = await completed(client, "är", ref, name)
        everyone = await completed(client, "", ref, name)
        nobody = await completed(client, "zz", ref, name)

    assert "aria" in by_id.values
    assert len(by_name.values) == 1
    assert (everyone.total, everyone.has_more) == (4, False)
    assert (nobody.values, nobody.total) == ([], 0)


async def test_no_more_completions_are_sent_than_mcp_allows(
    service: Service, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_completions, "MOST", 2)
    async with connected(served(service), era) as client:
        found = await completed(client, "")

    assert (found.values, found.total, found.has_more) == (["aria", "kira"], 3, True)


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (PROMPT, "colour"),
        (PROMPT, "topic"),
        (ResourceTemplateReference(uri="song://{id}"), "id"),
        (PromptReference(name="be_nobody"), "topic"),
    ],
)
async def test_what_nothing_is_known_of_is_completed_with_nothing(
    service: Service, era: Era, ref: Any, name: str
) -> None:
    async with connected(served(service), era) as client:
        found = await completed(client, "", ref, name)

    assert (found.values, found.total) == ([], 0)


async def test_a_topic_is_completed_with_what_the_persona_likes_best(
    service: Service, era: Era
) -> None:
    liked = {"weather": 40, "winter": 90, "gossip": 60}
    await call(service, "persona_create", name="Mara", topic_preferences=liked)

    async with connected(served(service), era) as client:
        chosen = await completed(client, "W", PROMPT, "topic", persona_id="mara")
        own = await completed(client, "", PromptReference(name="be_mara"), "topic")

    assert chosen.values == ["winter", "weather"]
    assert own.values == ["winter", "gossip", "weather"]


def test_the_door_opens_before_langgraph_is_imported() -> None:
    heavy = ("langgraph", "langchain_core", "chromadb", "onnxruntime", "xllamacpp")
    code = f"import sys, persona_mcp.server.mcp; print([m for m in {heavy} if m in sys.modules])"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
