"""A call with a request_id is carried out once, whoever sends it how often, and answered alike."""

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.config.settings import ConversationSettings, Settings
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.answers import GIVEN_UP_S, KEPT_S, AnswerStore
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound, StorageUnavailable
from persona_mcp.state.prepared import Prepared
from tests.calls import call, dump, remembered, rows
from tests.doubles import ScriptedModel, WordEmbedder
from tests.http_server import served

pytestmark = pytest.mark.anyio

BOAT = {"persona_id": "aria", "content": "Tom sold the boat.", "importance": 0.6}
WRITING = [operation for operation in operations("all") if not operation.read_only]
Call = tuple[str, str, str, dict[str, Any]]
ONCE: dict[str, dict[str, Any]] = {
    "memory_store": BOAT,
    "memory_decay_force": {"persona_id": "aria", "decay_factor": 0.5},
    "emotional_update_state": {"persona_id": "aria", "mood": 0.5},
    "relationship_update": {"persona1_id": "aria", "persona2_id": "kira"},
}
"""Calls of which each one more would change something more."""


async def change(database: Database, **values: Any) -> None:
    """Change every kept answer."""
    await database.write(Prepared(update(tables.Answer).values(**values)).run)


async def answers(service: Service) -> list[dict[str, Any]]:
    return await rows(service.database, tables.Answer)


async def settled(service: Service) -> dict[str, Any]:
    """Read every table once the outbox is empty: what is indexed late is no effect of a call."""
    while await service.indexer.work_off() or await service.indexer.pending():
        pass
    return await dump(service.database)


def dead(service: Service) -> str:
    """Name a process of this machine that has ended."""
    return service.process[:-4] + "dead"


@pytest.mark.parametrize("operation", WRITING, ids=lambda operation: operation.name)
def test_every_operation_that_writes_takes_a_request_id(operation: Any) -> None:
    field = operation.input_schema["properties"]["request_id"]

    assert "request_id" not in operation.input_schema.get("required", [])
    assert field["description"].startswith("Your name for this call")


async def test_one_that_only_reads_takes_none(service: Service) -> None:
    reading = [operation for operation in operations("all") if operation.read_only]

    assert all("request_id" not in o.input_schema["properties"] for o in reading)
    with pytest.raises(InvalidParams, match="request_id"):
        await call(service, "persona_list", request_id="r1")


@pytest.mark.parametrize("name", ONCE)
async def test_the_same_call_again_gets_the_first_answer_and_changes_nothing(
    service: Service, name: str
) -> None:
    await call(service, "memory_store", **BOAT)
    first = await call(service, name, **ONCE[name], request_id="r1")
    before = await settled(service)

    again = await call(service, name, **ONCE[name], request_id="r1")

    assert again == first
    assert await settled(service) == before


async def test_defaults_and_numbers_may_be_written_differently(service: Service) -> None:
    first = await call(service, "memory_prune", persona_id="aria", force=False, request_id="r1")

    given = {"persona_id": " aria ", "world_id": "main", "dry_run": None}
    assert await call(service, "memory_prune", **given, request_id="r1") == first


@pytest.mark.parametrize("name", ONCE)
async def test_without_a_request_id_each_call_counts(service: Service, name: str) -> None:
    await call(service, "memory_store", **BOAT)
    await call(service, name, **ONCE[name])
    before = await remembered(service.database)

    await call(service, name, **ONCE[name])

    assert await remembered(service.database) != before
    assert not await answers(service)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("memory_store", {**BOAT, "content": "Tom bought a boat."}),
        ("memory_store", {**BOAT, "importance": 0.7}),
        ("memory_store", {**BOAT, "pinned": True}),
        ("emotional_update_state", ONCE["emotional_update_state"]),
    ],
)
async def test_another_call_under_its_name_is_refused(
    service: Service, name: str, given: dict[str, Any]
) -> None:
    await call(service, "memory_store", **BOAT, request_id="r1")
    before = await settled(service)

    with pytest.raises(Conflict, match="request_id 'r1' was used for another call") as refused:
        await call(service, name, **given, request_id="r1")

    assert refused.value.data == {"field": "request_id", "given": "r1"}
    assert await settled(service) == before


async def test_a_call_that_fails_may_be_sent_again(service: Service) -> None:
    given = {**BOAT, "persona_id": "zoe", "request_id": "r1"}
    with pytest.raises(NotFound):
        await call(service, "memory_store", **given)
    assert not await answers(service)
    await call(service, "persona_create", name="Zoe")

    assert (await call(service, "memory_store", **given))["stored"]


async def test_the_same_call_sent_many_times_at_once_has_one_effect(service: Service) -> None:
    await call(service, "memory_store", **BOAT)

    found = await asyncio.gather(
        *(
            call(service, "memory_decay_force", **ONCE["memory_decay_force"], request_id="r1")
            for _ in range(8)
        )
    )

    assert all(answer == found[0] for answer in found)
    [memory] = await rows(service.database, tables.Memory)
    assert memory["importance"] == pytest.approx(0.3)


@pytest.mark.parametrize("seed", range(3))
async def test_calls_mixed_over_two_processes_each_have_one_effect(
    service: Service, settings: Settings, seed: int
) -> None:
    mixed = random.Random(seed)
    names = [f"r{number}" for number in range(6)] * 5
    mixed.shuffle(names)
    async with open_service(settings, ScriptedModel(), WordEmbedder()) as other:
        asked = [
            (name, call(mixed.choice([service, other]), "memory_store", **BOAT, request_id=name))
            for name in names
        ]
        found = await asyncio.gather(*(work for _, work in asked))

    made = {name: answer["memory_id"] for (name, _), answer in zip(asked, found, strict=True)}
    assert [answer["memory_id"] for answer in found] == [made[name] for name, _ in asked]
    memories = await rows(service.database, tables.Memory)
    assert {memory["id"] for memory in memories} == set(made.values())
    assert len(made) == len(memories) == 6


async def test_a_call_waits_for_the_same_one_in_another_process(
    service: Service, settings: Settings
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return {"by": "other"}

    async def never() -> dict[str, Any]:
        raise AssertionError("carried out twice")

    call_of: Call = ("main", "r1", "memory_store", {"a": 1})
    async with open_service(settings, ScriptedModel(), WordEmbedder()) as other:
        first = asyncio.create_task(other.answers.once(*call_of, slow))
        await begun.wait()
        second = asyncio.create_task(service.answers.once(*call_of, never))
        with pytest.raises(Conflict, match="was used for another call"):
            await service.answers.once("main", "r1", "memory_store", {"a": 2}, never)
        go_on.set()

        assert await first == await second == {"by": "other"}


async def test_one_who_waits_too_long_is_told_to_come_back(
    service: Service, settings: Settings
) -> None:
    impatient = settings.model_copy(update={"conversation": ConversationSettings(busy_wait_s=0.05)})
    never = asyncio.Event()

    async def hangs() -> dict[str, Any]:
        await never.wait()
        return {}

    call_of: Call = ("main", "r1", "memory_store", {})
    async with open_service(impatient, ScriptedModel(), WordEmbedder()) as other:
        holding = asyncio.create_task(other.answers.once(*call_of, hangs))
        while not await answers(service):
            await asyncio.sleep(0)
        for door in (other, service):  # in the same process, and in another
            short = AnswerStore(door.database, door.process, lambda _: False, 0.05)
            store = other.answers if door is other else short
            with pytest.raises(Conflict, match="send it again to wait on"):
                await store.once(*call_of, hangs)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

        assert not await answers(service), "one that is stopped may be sent again"


@pytest.mark.parametrize("name", ONCE)
async def test_a_process_that_died_before_it_kept_the_answer_has_done_it_once(
    service: Service, name: str
) -> None:
    await call(service, "memory_store", **BOAT)
    first = await call(service, name, **ONCE[name], request_id="r1")
    before = await remembered(service.database)
    await change(service.database, owner=dead(service), answer=None)

    again = await call(service, name, **ONCE[name], request_id="r1")

    timed = {"processing_time": 0, "message": ""}
    assert again | timed == first | timed
    assert await remembered(service.database) == before
    assert [row["answer"] for row in await answers(service)] == [again]


async def test_a_dead_process_of_another_machine_is_given_up_after_a_while(
    service: Service,
) -> None:
    await call(service, "memory_store", **BOAT, request_id="r1")
    [row] = await answers(service)
    long_ago = row["created_at"] - GIVEN_UP_S - 1
    await change(service.database, owner="elsewhere-1", answer=None, created_at=long_ago)

    assert (await call(service, "memory_store", **BOAT, request_id="r1"))["stored"]


async def test_an_answer_is_kept_for_a_day_and_then_removed(service: Service) -> None:
    await call(service, "memory_decay_start", request_id="r1")
    [row] = await answers(service)
    await change(service.database, created_at=row["created_at"] - KEPT_S - 1)

    await call(service, "memory_decay_stop", request_id="r2")
    assert [row["request_id"] for row in await answers(service)] == ["r2"]

    again = await call(service, "memory_decay_start", request_id="r1")
    assert again["status"] == "started", "it is a new call by now"


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(service: Service) -> None:
    async def work() -> dict[str, Any]:
        with service.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE answers RENAME TO lost")
        return {"done": True}

    assert await service.answers.once("main", "r1", "memory_store", {}, work) == {"done": True}
    with pytest.raises(StorageUnavailable):
        await call(service, "memory_store", **BOAT, request_id="r1")


async def test_a_session_that_was_made_is_not_made_twice(service: Service) -> None:
    first = await call(service, "persona_switch", persona_id="aria", request_id="r1")
    again = await call(service, "persona_switch", persona_id="aria", request_id="r1")

    assert again["session_id"] == first["session_id"]
    assert len(await rows(service.database, tables.Session)) == 1


async def test_it_works_through_a_door(service: Service) -> None:
    path = PREFIX + path_of("memory_store")
    async with served(service) as found, found.client() as client:
        first, again = [await client.post(path, json={**BOAT, "request_id": "r1"}) for _ in "ab"]
        other = await client.post(path, json={**BOAT, "pinned": True, "request_id": "r1"})

    assert first.json() == again.json()
    assert (other.status_code, other.json()["error"]["code"]) == (409, -32005)
