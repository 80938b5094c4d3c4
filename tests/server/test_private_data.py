"""What a persona keeps to itself is read by who manages it, and by no other caller."""

from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.callers import Identity, Scope, called_by
from persona_mcp.state.errors import Forbidden, NotFound
from tests.calls import call

pytestmark = pytest.mark.anyio

SECRET, OPEN = "The key lies under the stone.", "The key of the gate is made of iron."


def somebody(*scopes: Scope) -> Identity:
    return Identity("t_somebody", "somebody", frozenset(scopes))


async def planted(service: Service) -> dict[str, str]:
    """Let Aria know one thing that is private and one that is public."""
    made = {}
    for content, visibility in ((SECRET, "private"), (OPEN, "public")):
        found = await call(
            service, "memory_store", persona_id="aria", content=content, visibility=visibility
        )
        made[visibility] = found["memory_id"]
    while await service.indexer.work_off() or await service.indexer.pending():
        pass
    return made


WAYS: dict[str, dict[str, Any]] = {
    "memory_search": {"query": "key"},
    "memory_search_cross_persona": {"query": "key", "min_importance": 0},
    "memory_list": {},
    "persona_memory": {"query": "key"},
}


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("name", WAYS)
async def test_who_only_reads_finds_what_is_open(service: Service, name: str, blank: bool) -> None:
    await planted(service)
    asked = {"persona_id": "aria", **WAYS[name]}
    if blank and name == "persona_memory":
        asked["query"] = ""

    with called_by(somebody("read")):
        reader = await call(service, name, **asked)
    with called_by(somebody("read", "manage")):
        manager = await call(service, name, **asked)

    assert [one["content"] for one in reader["memories"]] == [OPEN]
    assert {one["content"] for one in manager["memories"]} == {OPEN, SECRET}
    assert reader.get("total_count", 1) == 1


async def test_a_private_memory_is_not_there_for_who_only_reads(service: Service) -> None:
    ids = await planted(service)

    with called_by(somebody("read")), pytest.raises(NotFound) as private:
        await call(service, "memory_get", memory_id=ids["private"])
    with called_by(somebody("read")), pytest.raises(NotFound) as missing:
        await call(service, "memory_get", memory_id="missing")
    with called_by(somebody("read")):
        found = await call(service, "memory_get", memory_id=ids["public"])
    with called_by(somebody("read", "manage")):
        managed = await call(service, "memory_get", memory_id=ids["private"])

    assert private.value.message.replace(ids["private"], "missing") == missing.value.message
    assert found["memory"]["content"] == OPEN
    assert managed["memory"]["content"] == SECRET


async def test_what_is_written_out_whole_is_for_who_manages(service: Service) -> None:
    await planted(service)

    with called_by(somebody("read", "chat")), pytest.raises(Forbidden, match="'manage'"):
        await call(service, "memory_export", persona_id="aria")
    with called_by(somebody("manage")):
        assert SECRET in (await call(service, "memory_export", persona_id="aria"))["data"]


async def test_memories_of_dialogues_are_for_who_manages(service: Service) -> None:
    asked = {"dialogue_id": "d1", "include": ["memories"]}

    with called_by(somebody("read")), pytest.raises(Forbidden, match="'manage'"):
        await call(service, "dialogue_result", **asked)
    with called_by(somebody("read", "manage")), pytest.raises(NotFound):
        await call(service, "dialogue_result", **asked)
