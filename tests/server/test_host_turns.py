"""Replies that the host's own model writes: prompted, recorded once, remembered as any other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from persona_mcp.config.settings import Settings
from persona_mcp.server.host_turns import at_rest
from persona_mcp.server.operations.host import PersonaPrompt
from persona_mcp.server.operations.registry import operation_named
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.errors import (
    Conflict,
    InternalError,
    InvalidParams,
    ModelError,
    NotConfigured,
    NotFound,
)
from persona_mcp.state.ids import thread_id
from persona_mcp.state.model import ModelInfo
from persona_mcp.state.prepared import Prepared
from tests.calls import call, dump, remembered, rows, say
from tests.doubles import Fails, Hangs, ScriptedModel, WordEmbedder
from tests.http_server import served
from tests.mcp_client import ERAS, Era, connected, data_of, error_of, good
from tests.savers import sqlite_of

pytestmark = pytest.mark.anyio

BOAT = "My brother Tom has a red boat."
REPLY = "A red boat! Tom must love being seen."
ALL = "/x/all/mcp"


class NoModel(ScriptedModel):
    """Nothing is installed that could answer."""

    async def info(self) -> ModelInfo:
        raise NotConfigured("no model is installed")


@pytest.fixture
def model() -> ScriptedModel:
    return NoModel()


@pytest.fixture
async def talking(settings: Settings) -> AsyncIterator[tuple[Service, ScriptedModel]]:
    """A service with a model of its own beside the host's."""
    scripted = ScriptedModel()
    async with open_service(settings, scripted, WordEmbedder()) as opened:
        yield opened, scripted


async def prompt(service: Service, message: str = BOAT, **more: Any) -> dict[str, Any]:
    given = {"persona_id": "aria", "message": message, **more}
    return await call(service, "persona_prompt", **given)


async def record(
    service: Service, prompted: dict[str, Any], response: str = REPLY, **more: Any
) -> dict[str, Any]:
    given = {"prompt_id": prompted["prompt_id"], "response": response, **more}
    return await call(service, "persona_record_turn", **given)


async def statuses(service: Service) -> list[str]:
    found = await rows(service.database, tables.Exchange)
    return [row["status"] for row in sorted(found, key=lambda row: row["number"])]


async def change(service: Service, table: Any, **values: Any) -> None:
    await service.database.write(Prepared(update(table).values(**values)).run)


def lasting(answer: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is of now."""
    return {key: value for key, value in answer.items() if key != "persona_state"}


async def test_a_prompt_needs_no_model_and_leaves_only_what_waits(service: Service) -> None:
    before = await remembered(service.database)

    prompted = await prompt(service)

    assert prompted["status"] == "waiting"
    assert [m["role"] for m in prompted["messages"]] == ["system", "user"]
    assert "travelling bard" in prompted["messages"][0]["content"]
    assert prompted["messages"][-1]["content"] == BOAT
    assert prompted["max_tokens"] > 0 and prompted["stop"] == ["\nuser:", "\nUser:"]
    assert prompted["response_type"] == "full_llm" and 0 <= prompted["continue_score"] <= 100
    assert await statuses(service) == ["waiting"]
    assert await remembered(service.database) == before


async def test_it_is_the_prompt_that_our_model_would_be_given(
    talking: tuple[Service, ScriptedModel],
) -> None:
    service, model = talking
    model.add("Good evening!", REPLY)
    where = {
        "conversation_id": (await say(service, "My cat is called Biscuit."))["conversation_id"]
    }
    prompted = await prompt(service, "What is my cat called?", **where)

    await say(service, "What is my cat called?", **where)

    asked = model.history[-1]
    assert prompted["messages"] == [vars(message) for message in asked.messages]
    assert prompted["max_tokens"] == asked.sampling.max_tokens
    assert prompted["temperature"] == pytest.approx(asked.sampling.temperature)


async def test_a_recorded_reply_is_an_exchange_like_any_other(service: Service) -> None:
    prompted = await prompt(service)

    told = await record(service, prompted, tokens_used=9, model="claude-sonnet")

    assert (told["status"], told["response"], told["turn_number"]) == ("done", REPLY, 2)
    assert (told["tokens_used"], told["tokens_estimated"]) == (9, False)
    assert told["model"] == "host:claude-sonnet"
    assert told["continue_score"] == prompted["continue_score"]
    assert told["exchange_id"] == prompted["exchange_id"]
    assert len(told["memory_ids"]) == 2
    read = await call(service, "conversation_get", conversation_id=told["conversation_id"])
    assert [turn["content"] for turn in read["turns"]] == [BOAT, REPLY]
    assert len(read["turns"][0]["event_ids"]) == 2
    assert told["persona_state"]["social_energy"] < 150
    found = await call(service, "memory_search", persona_id="aria", query="red boat")
    assert found["memories"][0]["content"] == BOAT


async def test_the_next_prompt_carries_what_was_said_and_what_is_remembered(
    service: Service,
) -> None:
    first = await record(service, await prompt(service))
    where = {"conversation_id": first["conversation_id"]}
    second = await prompt(service, "Which colour is it?", **where)

    assert [m["content"] for m in second["messages"][1:]] == [BOAT, REPLY, "Which colour is it?"]
    elsewhere = await prompt(service, "What has my brother Tom?")
    assert set(elsewhere["memories_used"]) & set(first["memory_ids"])
    third = await record(service, second, "Red as a poppy.")
    assert third["turn_number"] == 4


async def test_the_appraisal_that_is_given_moves_the_relationship(service: Service) -> None:
    kind = {"warmth": 1.0, "reliability": 0.5}
    await record(service, await prompt(service, "You."), appraisal=kind)

    found = await rows(service.database, tables.RelationshipEvent)
    by = {row["appraiser"]: row for row in found}
    assert set(by) == {"given", "local"}
    assert by["given"]["appraisal"]["warmth"] == 1.0


async def test_it_survives_a_restart_and_the_loss_of_the_checkpoints(
    service: Service, settings: Settings
) -> None:
    first, second = await prompt(service), await prompt(service, "Hello.", user_id="ann")

    async with open_service(settings, NoModel(), WordEmbedder()) as again:
        assert (await record(again, first))["response"] == REPLY
        await again.checkpointer.adelete_thread(thread_id("main", second["conversation_id"]))
        assert (await record(again, second, "Good evening, Ann."))["turn_number"] == 2


@pytest.mark.sqlite
async def test_the_run_waits_at_an_interrupt_that_holds_no_words(service: Service) -> None:
    prompted = await prompt(service)
    thread = {"configurable": {"thread_id": thread_id("main", prompted["conversation_id"])}}

    [waiting] = (await service.graphs.conversation.aget_state(thread)).interrupts

    assert waiting.value == {"exchange_id": prompted["exchange_id"], "faults": []}
    stored = sqlite_of(service).execute(
        "SELECT checkpoint FROM checkpoints UNION ALL SELECT value FROM writes"
    )
    assert not any(b"travelling bard" in row[0] for row in stored)


async def test_sent_again_it_is_answered_alike_and_recorded_once(service: Service) -> None:
    prompted = await prompt(service)
    first = await record(service, prompted)
    before = await remembered(service.database)

    again = await record(service, prompted, tokens_used=77, appraisal={"warmth": -1.0})

    assert lasting(again) == lasting(first)
    with pytest.raises(Conflict, match="was answered by another text"):
        await record(service, prompted, "A blue boat?")
    assert await remembered(service.database) == before


async def test_recorded_many_times_at_once_by_two_processes_it_counts_once(
    service: Service, settings: Settings
) -> None:
    prompted = await prompt(service)
    texts = [REPLY, "A blue boat?", REPLY, "A boat!", REPLY, "A blue boat?"]
    async with open_service(settings, NoModel(), WordEmbedder()) as other:
        told = await asyncio.gather(
            *(record([service, other][n % 2], prompted, text) for n, text in enumerate(texts)),
            return_exceptions=True,
        )

    answers = [one for one in told if isinstance(one, dict)]
    [said] = {answer["response"] for answer in answers}
    assert len(answers) == texts.count(said)
    assert all(isinstance(one, dict | Conflict) for one in told)
    turns = await rows(service.database, tables.Turn)
    assert {turn["content"] for turn in turns} == {BOAT, said}
    assert len(await rows(service.database, tables.RelationshipEvent)) == 2


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("As an AI language model, I have no boat.", "falls out of character"),
        ("A boat!\nuser: Yes.", "speaks for the user"),
        ("...", "is empty"),
        (
            "You have sung in taverns from the northern harbours to the southern courts, and you "
            "collect stories the way others collect coins.",
            "repeats its instructions",
        ),
    ],
)
async def test_a_reply_that_cannot_be_used_is_refused_and_another_one_taken(
    service: Service, reply: str, why: str
) -> None:
    prompted = await prompt(service)
    before = await remembered(service.database)

    for _ in "ab":
        with pytest.raises(InvalidParams, match=why) as refused:
            await record(service, prompted, reply)
        assert refused.value.data["field"] == "response"
        assert await remembered(service.database) == before
        assert await statuses(service) == ["waiting"]

    assert (await record(service, prompted))["response"] == REPLY


async def test_a_reply_that_is_too_long_is_mended(service: Service) -> None:
    prompted = await prompt(service)
    long = " ".join(f"Boat number {n} is red." for n in range(200))

    told = await record(service, prompted, long)

    assert told["trimmed"] == ["too_long"]
    assert len(told["response"]) < len(long) / 2
    assert lasting(await record(service, prompted, long)) == lasting(told)


async def test_a_newer_prompt_supersedes_the_older(service: Service) -> None:
    first = await prompt(service)
    where = {"conversation_id": first["conversation_id"]}
    second = await prompt(service, "Hello?", **where)

    with pytest.raises(NotFound, match="it was superseded") as refused:
        await record(service, first)

    assert refused.value.data["kind"] == "prompt"
    assert await statuses(service) == ["cancelled", "waiting"]
    assert (await record(service, second, "Hello."))["turn_number"] == 2


async def test_a_reply_of_our_model_supersedes_it_and_a_failed_one_does_not(
    talking: tuple[Service, ScriptedModel],
) -> None:
    service, model = talking
    model.add(Fails(ModelError("away")), "Good evening.")
    first = await prompt(service)
    where = {"conversation_id": first["conversation_id"]}
    with pytest.raises(ModelError):
        await say(service, "Hello?", **where)
    second = await prompt(service, **where, request_id="r1")
    await record(service, second)

    third = await prompt(service, "Where is it?", **where)
    await say(service, "Hello?", **where)

    with pytest.raises(NotFound, match="went on without it"):
        await record(service, third)
    read = await call(service, "conversation_get", **where)
    shown = [exchange["status"] for exchange in read["exchanges"]]
    assert shown == ["cancelled", "failed", "done", "cancelled", "done"]


async def test_both_models_take_turns_in_one_conversation(
    talking: tuple[Service, ScriptedModel],
) -> None:
    service, model = talking
    where: dict[str, Any] = {}
    for turn in range(2):
        model.add(f"Good evening, for the {turn}th time.")
        prompted = await prompt(service, f"{turn}, by the host", **where)
        where = {"conversation_id": prompted["conversation_id"]}
        await record(service, prompted)
        await say(service, f"{turn}, by our own", **where)
    left_open = await prompt(service, "Nobody answers this.", **where)
    model.add("And a good night.")
    await say(service, "Good night.", **where)
    last = await prompt(service, "Good morning.", **where)
    recorded = await record(service, last)

    assert left_open["prompt_id"] != last["prompt_id"]
    assert await statuses(service) == [*4 * ["done"], "cancelled", "done", "done"]
    assert recorded["turn_number"] == 2 * 6


async def test_a_reply_waits_for_the_run_that_is_under_way_and_is_then_refused(
    talking: tuple[Service, ScriptedModel],
) -> None:
    service, model = talking
    slow = Hangs("Good ", "evening.")
    model.add(slow)
    prompted = await prompt(service)
    said = asyncio.create_task(say(service, "Hello?", conversation_id=prompted["conversation_id"]))
    await slow.reached.wait()
    recorded = asyncio.create_task(record(service, prompted))
    slow.release.set()

    assert (await said)["response"] == "Good evening."
    with pytest.raises(NotFound, match="superseded"):
        await recorded


async def test_an_expired_prompt_is_refused_and_the_same_call_makes_a_new_one(
    service: Service,
) -> None:
    first = await prompt(service, request_id="r1")
    assert await prompt(service, request_id="r1") == first
    await change(service, tables.Exchange, prompt_until=1.0)

    with pytest.raises(NotFound, match="it has expired"):
        await record(service, first)
    second = await prompt(service, request_id="r1")

    assert second["prompt_id"] != first["prompt_id"]
    assert second["exchange_id"] == first["exchange_id"]
    with pytest.raises(NotFound, match=r"prompt '.*' not found"):
        await record(service, first)
    assert (await record(service, second))["response"] == REPLY
    after = await prompt(service, request_id="r1")
    assert (after["status"], after["prompt_id"]) == ("done", second["prompt_id"])
    assert after["response"] == REPLY


async def test_one_that_lapsed_is_shown_as_cancelled_and_an_open_one_still_waits(
    service: Service, settings: Settings
) -> None:
    lapsed = await prompt(service)
    await change(service, tables.Exchange, prompt_until=1.0)
    await prompt(service, "Hello.", user_id="ann")

    async with open_service(settings, NoModel(), WordEmbedder()) as again:
        assert sorted(await statuses(again)) == ["cancelled", "waiting"]
        with pytest.raises(NotFound, match="it has expired"):
            await record(again, lapsed)


@pytest.mark.sqlite
async def test_a_reply_that_could_not_be_stored_may_be_replaced_by_another(
    service: Service,
) -> None:
    prompted = await prompt(service)
    with service.database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON turns BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    before = await remembered(service.database)
    with capture_logs(), pytest.raises(InternalError):
        await record(service, prompted)
    assert await remembered(service.database) == before
    assert await statuses(service) == ["waiting"]
    with service.database.writing() as connection:
        connection.exec_driver_sql("DROP TRIGGER full")

    assert (await record(service, prompted, "A blue boat?"))["response"] == "A blue boat?"


@pytest.mark.parametrize("steps", range(0, 200, 12))
async def test_a_reply_whose_caller_gives_up_anywhere_may_be_sent_again(
    service: Service, steps: int
) -> None:
    prompted = await prompt(service)
    stopped = asyncio.create_task(record(service, prompted))
    for _ in range(steps):
        await asyncio.sleep(0)
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)

    [status] = await statuses(service)
    assert status in ("waiting", "done")
    text = REPLY if status == "done" else "A blue boat?"
    assert (await record(service, prompted, text))["response"] == text
    assert len(await rows(service.database, tables.Turn)) == 2


@pytest.mark.parametrize("seen", [False, True])
async def test_a_process_that_died_while_it_recorded_leaves_the_prompt_open(
    service: Service, seen: bool
) -> None:
    prompted = await prompt(service)
    dead = service.process[:-4] + "dead"
    await change(service, tables.Exchange, status="running", owner=dead)
    owner = f"{dead}:{prompted['exchange_id']}"
    await change(service, tables.Conversation, lease_owner=owner, lease_until=9e9)
    if seen:
        await call(service, "conversation_get", conversation_id=prompted["conversation_id"])
        assert await statuses(service) == ["interrupted"]

    assert (await record(service, prompted))["response"] == REPLY


async def test_a_persona_that_bows_out_says_so_without_a_prompt(service: Service) -> None:
    hermit = {"name": "Hermit", "charisma": 1, "intelligence": 1, "available_time": 60}
    tired = {"social_energy": 20, "topic_preferences": {"general": 0}}
    await call(service, "persona_create", **hermit, **tired)
    for _ in range(5):
        worn = await prompt(service, "and then " * 300, persona_id="hermit")
        await record(service, worn, "So you say.")
    given = {"persona_id": "hermit", "routing": "score", "token_budget": 20}

    left = await prompt(service, "Stay a while.", **given)

    assert (left["status"], left["prompt_id"], left["messages"]) == ("done", None, [])
    assert left["response"] and left["response_type"] == "template"


async def test_schema_only_begins_nothing(service: Service) -> None:
    before = await dump(service.database)

    told = await prompt(service, schema_only=True)

    assert told["status"] == "schema_only"
    assert told["result_schema"] == operation_named("persona_prompt").output_schema
    jsonschema.validate(told, told["result_schema"])
    assert set(told["result_schema"]["properties"]) == set(PersonaPrompt.model_fields)
    assert await dump(service.database) == before


async def test_the_words_of_a_prompt_are_kept_no_longer_than_it_is_open(
    service: Service,
) -> None:
    where = {"conversation_id": (await prompt(service))["conversation_id"]}
    lapsed = await prompt(service, "Hello?", **where)
    await record(service, await prompt(service, "And now?", **where), "Good evening.")
    await call(service, "conversation_get", **where)
    left = await prompt(service, "Are you there?", **where)
    await change(service, tables.Exchange, prompt_until=1.0)
    await call(service, "conversation_get", **where)

    assert lapsed["messages"] and left["messages"]
    kept = [row["prompt"] for row in await rows(service.database, tables.Exchange)]
    assert sorted(map(str, kept))[:3] == ["None"] * 3
    assert not any("travelling bard" in str(one) for one in kept)


async def test_an_unknown_prompt_and_one_of_another_world_are_not_found(service: Service) -> None:
    prompted = await prompt(service)
    await service.personas.ensure_world("other", "other", [], 0.0)

    with pytest.raises(NotFound, match="prompt 'nothing' not found; persona_prompt makes"):
        await record(service, {"prompt_id": "nothing"})
    with pytest.raises(NotFound, match=r"prompt '.*' not found; persona_prompt makes"):
        await record(service, prompted, world_id="other")
    assert (await at_rest(service, "main", prompted["prompt_id"])).status == "waiting"


async def test_it_goes_on_in_the_session_of_the_caller(service: Service) -> None:
    bound = await call(service, "persona_switch", persona_id="kira")
    given = {"session_id": bound["session_id"], "message": BOAT}

    prompted = await call(service, "persona_prompt", **given)

    assert prompted["conversation_id"] == bound["conversation_session_id"]
    assert "Kira" in prompted["messages"][0]["content"]


@pytest.mark.parametrize("era", ERAS)
async def test_an_mcp_client_speaks_for_a_persona_across_a_restart(
    settings: Settings, era: Era
) -> None:
    async with (
        open_service(settings, NoModel(), WordEmbedder()) as service,
        served(service) as found,
        connected(found.url + ALL, era) as client,
    ):
        prompted = await good(client, "persona_prompt", persona_id="aria", message=BOAT)
        wrong = {"prompt_id": prompted["prompt_id"], "response": "I am a language model."}
        refused = await client.call_tool("persona_record_turn", wrong)
        assert "falls out of character" in error_of(refused)["message"]

    async with (
        open_service(settings, NoModel(), WordEmbedder()) as service,
        served(service) as found,
        connected(found.url + ALL, era) as client,
    ):
        reply = {"prompt_id": prompted["prompt_id"], "response": REPLY}
        told = await client.call_tool("persona_record_turn", reply)

        assert data_of(told)["response"] == REPLY
        where = {"conversation_id": prompted["conversation_id"]}
        read = await good(client, "conversation_get", **where)
    assert [turn["content"] for turn in read["turns"]] == [BOAT, REPLY]
