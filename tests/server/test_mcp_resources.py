"""What is kept, by its address, and what is proposed while an address is written."""

import json
from dataclasses import replace
from itertools import product
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import ResourceTemplateReference, TextResourceContents

from persona_mcp.config.limit_settings import LimitSettings
from persona_mcp.server.limits import Limits
from persona_mcp.server.operations.registry import operation_named
from persona_mcp.server.service import Service
from tests.calls import call, say
from tests.doubles import ScriptedModel
from tests.mcp_client import REPLY, Era, connected, served

pytestmark = pytest.mark.anyio

MEMORY = ResourceTemplateReference(uri="memory://{id}")
CONVERSATION = ResourceTemplateReference(uri="conversation://{id}")
PAIR = ResourceTemplateReference(uri="relationship://{a}/{b}")
WORLD = ResourceTemplateReference(uri="world://{id}")


async def read(client: Client, uri: str) -> dict[str, Any]:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    found: dict[str, Any] = json.loads(content.text)
    return found


async def completed(client: Client, ref: Any, name: str, value: str, **given: str) -> list[str]:
    argument = {"name": name, "value": value}
    found = (await client.complete(ref, argument, context_arguments=given)).completion
    assert found.total == len(found.values)
    return found.values


async def in_another_world(service: Service) -> None:
    await service.personas.ensure_world("elsewhere", "The other side", [], 0.0)
    await call(service, "persona_create", name="Otto", world_id="elsewhere")


async def test_a_memory_is_read_as_the_tool_returns_it(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY)
    said = await say(service, "My cat is called Biscuit.")

    async with connected(served(service), era) as client:
        found = await read(client, f"memory://{said['memory_ids'][0]}")

    jsonschema.validate(found, operation_named("memory_get").output_schema)
    assert found["memory"]["content"] == "My cat is called Biscuit."


async def test_a_relationship_is_read_from_the_first_ones_side(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY)
    await say(service, "My cat is called Biscuit.")

    async with connected(served(service), era) as client:
        found = await read(client, "relationship://Aria/user")

    jsonschema.validate(found, operation_named("relationship_get").output_schema)
    seen = found["relationship"]
    assert (seen["persona1_id"], seen["persona2_id"]) == ("aria", "user")


async def test_a_world_tells_who_is_in_it_and_how_they_stand(service: Service, era: Era) -> None:
    async with connected(served(service), era) as client:
        found = await read(client, "world://main")

    assert found["world_id"] == "main"
    assert [persona["id"] for persona in found["personas"]] == ["aria", "kira", "noor"]
    assert found["relationship_statistics"]["total_relationships"] == 0
    assert found["shared_memory_statistics"]["total_personas"] == 3


async def test_an_address_may_name_another_world(service: Service, era: Era) -> None:
    await in_another_world(service)

    async with connected(served(service), era) as client:
        persona = await read(client, "persona://otto?world=elsewhere")
        world = await read(client, "world://elsewhere")

    assert persona["persona"]["name"] == "Otto"
    assert [one["id"] for one in world["personas"]] == ["otto"]


async def test_a_conversation_is_completed_by_its_id_the_last_used_first(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY, "He sings too.", "Another song, then?")
    first = (await say(service, "Hello.", conversation_id=None))["conversation_id"]
    second = (await say(service, "Hello.", conversation_id=None))["conversation_id"]
    await say(service, "Hello.", conversation_id=first)

    async with connected(served(service), era) as client:
        everything = await completed(client, CONVERSATION, "id", "")
        one = await completed(client, CONVERSATION, "id", second)
        none = await completed(client, CONVERSATION, "id", "_")

    assert everything == [first, second]
    assert one == [second]
    assert none == []


async def test_a_memory_is_completed_by_its_id_the_newest_first(service: Service, era: Era) -> None:
    stored = [
        (await call(service, "memory_store", persona_id="aria", content=f"Boat {number}."))
        for number in range(3)
    ]
    ids = [one["memory_id"] for one in stored]
    await call(service, "memory_delete", memory_id=ids[0])

    async with connected(served(service), era) as client:
        everything = await completed(client, MEMORY, "id", "")
        one = await completed(client, MEMORY, "id", ids[1])

    assert everything == [ids[2], ids[1]]
    assert one == [ids[1]]


async def test_whom_somebody_knows_is_proposed_beside_it(
    service: Service, model: ScriptedModel, era: Era
) -> None:
    model.add(REPLY)
    await say(service, "Hello.", user_id="bob")
    await call(service, "relationship_update", persona1_id="aria", persona2_id="kira")

    async with connected(served(service), era) as client:
        known = await completed(client, PAIR, "b", "", a="aria")
        begun = await completed(client, PAIR, "b", "K", a="aria")
        of_a_user = await completed(client, PAIR, "b", "", a="bob")

    assert sorted(known) == ["bob", "kira"]
    assert begun == ["kira"]
    assert of_a_user == ["aria", "kira", "noor"]


async def test_a_world_is_completed_by_its_id_or_name(service: Service, era: Era) -> None:
    await in_another_world(service)

    async with connected(served(service), era) as client:
        by_name = await completed(client, WORLD, "id", "the o")
        everything = await completed(client, WORLD, "id", "")

    assert by_name == ["elsewhere"]
    assert everything == ["elsewhere", "main"]


async def test_what_begins_no_id_is_not_completed(service: Service, model: ScriptedModel) -> None:
    model.add(REPLY)
    await say(service, "My cat is called Biscuit.")
    async with connected(served(service), "auto") as client:
        for ref, start in product((CONVERSATION, MEMORY), ("x" * 60_000, "\0", "%")):
            found = await client.complete(ref, {"name": "id", "value": start})
            assert found.completion.values == []


async def test_a_caller_completes_no_more_often_than_its_rate(service: Service, era: Era) -> None:
    limits = LimitSettings(local=True, rate="", rates={"system": "2/hour"})
    counting = replace(service, limits=Limits(limits, service.database))

    async with connected(served(counting), era) as client:
        found = [await completed(client, WORLD, "id", "") for _ in range(2)]
        with pytest.raises(MCPError, match="come back in") as refused:
            await completed(client, WORLD, "id", "")

    assert found == [["main"]] * 2
    assert refused.value.error.data["code"] == "rate_limited"
    assert refused.value.error.data["limit"] == "rates"
