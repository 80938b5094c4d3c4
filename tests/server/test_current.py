"""Session handles: who is meant, and where talk goes on, when a call does not say."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import (
    Conflict,
    InvalidParams,
    ModelError,
    NoCurrentPersona,
    NotFound,
    PersonaUnavailable,
)
from persona_mcp.state.ids import new_id
from tests.calls import call, rows
from tests.doubles import Fails, Hangs, ScriptedModel

pytestmark = pytest.mark.anyio


async def switch(service: Service, persona_id: str = "aria", **more: Any) -> dict[str, Any]:
    return await call(service, "persona_switch", persona_id=persona_id, **more)


async def chat(service: Service, session: dict[str, Any], message: str, **more: Any) -> Any:
    where = {"session_id": session["session_id"], **more}
    return await call(service, "persona_chat", message=message, **where)


async def read(service: Service, session: dict[str, Any], **more: Any) -> dict[str, Any]:
    return await call(service, "conversation_get", session_id=session["session_id"], **more)


async def test_a_switch_says_whom_it_chose_and_makes_a_session(service: Service) -> None:
    found = await switch(service, "ARIA")

    assert (found["persona_id"], found["name"], found["status"]) == ("aria", "Aria", "active")
    assert found["description"]
    assert (found["social_energy"], found["current_priority"]) == (150, "social")
    assert found["available_time"] > 0
    (row,) = await rows(service.database, tables.Session)
    assert (row["id"], row["conversation_id"]) == (
        found["session_id"],
        found["conversation_session_id"],
    )
    assert await rows(service.database, tables.Conversation) == []


async def test_a_session_stands_for_its_persona_and_goes_on_in_one_conversation(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Hello.", "You said hello.")
    session = await switch(service)

    first = await chat(service, session, "Hello.")
    second = await chat(service, session, "What did I say?")

    assert first["conversation_id"] == session["conversation_session_id"]
    assert (second["conversation_id"], second["turn_number"]) == (first["conversation_id"], 4)
    transcript = await read(service, session)
    assert (transcript["persona_id"], len(transcript["turns"])) == ("aria", 4)


async def test_two_messages_at_once_after_a_switch_land_in_one_conversation(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.", "Two.")
    session = await switch(service)

    replies = await asyncio.gather(*(chat(service, session, text) for text in ("A?", "B?")))

    assert {r["conversation_id"] for r in replies} == {session["conversation_session_id"]}
    assert sorted(r["turn_number"] for r in replies) == [2, 4]


async def test_a_switch_changes_the_persona_of_its_own_session_alone(
    service: Service, model: ScriptedModel
) -> None:
    model.add("I am Kira.", "I am Aria.")
    one, other = await switch(service, "aria"), await switch(service, "aria")

    again = await switch(service, "kira", session_id=one["session_id"])
    await chat(service, one, "Who are you?")
    await chat(service, other, "Who are you?")

    assert again["session_id"] == one["session_id"]
    assert again["conversation_session_id"] != one["conversation_session_id"]
    exchanges = {e["conversation_id"]: e for e in await rows(service.database, tables.Exchange)}
    assert exchanges[again["conversation_session_id"]]["persona_id"] == "kira"
    assert exchanges[other["conversation_session_id"]]["persona_id"] == "aria"


async def test_a_switch_to_the_same_persona_begins_another_conversation(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.", "Two.")
    session = await switch(service)
    first = await chat(service, session, "A?")

    again = await switch(service, session_id=session["session_id"])
    second = await chat(service, session, "B?")

    assert second["conversation_id"] == again["conversation_session_id"]
    assert second["conversation_id"] != first["conversation_id"]


async def test_a_worn_out_persona_is_refused_and_the_session_stays_where_it_was(
    service: Service, model: ScriptedModel
) -> None:
    model.add("So you say.", "Here I am.")
    await call(service, "persona_create", name="Hermit", available_time=60)
    await call(service, "persona_chat", persona_id="hermit", message="and then " * 300)
    session = await switch(service)

    with pytest.raises(PersonaUnavailable) as refused:
        await switch(service, "Hermit", session_id=session["session_id"])

    assert (refused.value.data["persona_id"], refused.value.data["reason"]) == ("hermit", "no_time")
    assert 0 < refused.value.data["available_in_seconds"] <= 1801
    reply = await chat(service, session, "Are you there?")
    assert reply["conversation_id"] == session["conversation_session_id"]
    with pytest.raises(PersonaUnavailable):
        await switch(service, "Hermit")
    assert len(await rows(service.database, tables.Session)) == 1


async def test_a_switch_to_nobody_makes_no_session(service: Service) -> None:
    with pytest.raises(NotFound, match="persona 'Arya' not found; did you mean Aria"):
        await switch(service, "Arya")

    assert await rows(service.database, tables.Session) == []


@pytest.mark.parametrize(
    ("name", "arguments"), [("persona_chat", {"message": "Hi."}), ("memory_search", {"query": "x"})]
)
async def test_nobody_is_current_before_a_switch(
    service: Service, name: str, arguments: dict[str, Any]
) -> None:
    unbound = await service.sessions.create("main", None, time.time())

    for session_id in (None, unbound.id):
        with pytest.raises(NoCurrentPersona, match="persona_switch") as refused:
            await call(service, name, session_id=session_id, **arguments)

        assert refused.value.data["field"] == "persona_id"


async def test_no_conversation_is_current_before_the_first_message(service: Service) -> None:
    session = await switch(service)

    with pytest.raises(NoCurrentPersona, match="persona_chat begins it") as begun:
        await read(service, session)
    with pytest.raises(NoCurrentPersona, match="persona_switch") as none:
        await call(service, "conversation_get")
    with pytest.raises(NotFound, match="conversation 'c7' not found"):
        await read(service, session, conversation_id="c7")

    assert begun.value.data["field"] == none.value.data["field"] == "conversation_id"


async def test_memories_are_searched_of_the_sessions_persona(
    service: Service, model: ScriptedModel
) -> None:
    model.add("A red boat!")
    session = await switch(service)
    await chat(service, session, "My brother Tom has a red boat.")

    async def found(**more: str) -> int:
        hits = await call(
            service, "memory_search", query="red boat", session_id=session["session_id"], **more
        )
        return int(hits["result_count"])

    assert await found() == 2
    assert await found(persona_id="kira") == 0


async def test_a_guest_is_talked_to_apart_and_the_session_stays_as_it_was(
    service: Service, model: ScriptedModel
) -> None:
    model.add("I am Kira.", "I am Kira, still.", "I am Aria.")
    session = await switch(service)

    guest = await chat(service, session, "Who are you?", persona_id="kira")
    again = await chat(
        service,
        session,
        "Who are you?",
        persona_id="kira",
        conversation_id=guest["conversation_id"],
    )
    own = await chat(service, session, "And you?")

    assert guest["conversation_id"] != session["conversation_session_id"]
    assert again["turn_number"] == 4
    assert own["conversation_id"] == session["conversation_session_id"]


async def test_a_conversation_that_is_named_becomes_the_current_one(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.", "Two.", "Three.")
    earlier = await call(service, "persona_chat", persona_id="aria", message="A?")
    session = await switch(service)

    named = await chat(service, session, "B?", conversation_id=earlier["conversation_id"])
    next_one = await chat(service, session, "C?")

    assert (named["turn_number"], next_one["turn_number"]) == (4, 6)
    assert next_one["conversation_id"] == earlier["conversation_id"]


@pytest.mark.parametrize("other", ["kiras", "nowhere"])
async def test_a_conversation_that_is_refused_does_not_become_the_current_one(
    service: Service, model: ScriptedModel, other: str
) -> None:
    model.add("I am Kira.", "I am Aria.")
    kiras = await call(service, "persona_chat", persona_id="kira", message="A?")
    session = await switch(service)
    wrong = {"kiras": kiras["conversation_id"], "nowhere": new_id()}[other]

    with pytest.raises((InvalidParams, NotFound)):
        await chat(service, session, "B?", conversation_id=wrong)
    reply = await chat(service, session, "C?")

    assert reply["conversation_id"] == session["conversation_session_id"]


async def test_the_reserved_conversation_may_be_named_by_its_session_alone(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.")
    session = await switch(service)
    reserved = session["conversation_session_id"]

    with pytest.raises(NotFound):
        await call(
            service, "persona_chat", persona_id="aria", message="A?", conversation_id=reserved
        )
    reply = await chat(service, session, "A?", conversation_id=reserved)

    assert reply["conversation_id"] == reserved


async def test_another_user_does_not_get_into_the_sessions_conversation(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Hello Ann.")
    session = await switch(service)
    await chat(service, session, "I am Ann.", user_id="ann")

    with pytest.raises(InvalidParams) as refused:
        await chat(service, session, "I am Bob.", user_id="bob")

    assert refused.value.message.startswith("user_id: allowed is ann")


async def test_the_same_request_id_finds_its_reply_again_within_its_session(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.")
    session, other = await switch(service), await switch(service)
    first = await chat(service, session, "A?", request_id="r1")

    again = await chat(service, session, "A?", request_id="r1")
    await switch(service, session_id=session["session_id"])
    after_switch = await chat(service, session, "A?", request_id="r1")

    assert first["exchange_id"] == again["exchange_id"] == after_switch["exchange_id"]
    assert len(model.history) == 1
    with pytest.raises(Conflict):
        await chat(service, other, "A?", request_id="r1")


async def test_a_failed_first_message_is_sent_again_into_the_same_conversation(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Fails(ModelError("down")), "Here I am.")
    session = await switch(service)
    with pytest.raises(ModelError):
        await chat(service, session, "Are you there?", request_id="r1")

    reply = await chat(service, session, "Are you there?", request_id="r1")

    assert reply["conversation_id"] == session["conversation_session_id"]
    assert [e["status"] for e in (await read(service, session))["exchanges"]] == ["done"]


async def test_a_switch_does_not_wait_for_a_reply_nor_move_it(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("I am", " Aria.")
    model.add(hanging)
    session = await switch(service, "aria")
    talk = asyncio.create_task(chat(service, session, "Who are you?"))
    await hanging.reached.wait()

    await switch(service, "kira", session_id=session["session_id"])
    hanging.release.set()

    reply = await talk
    assert reply["conversation_id"] == session["conversation_session_id"]
    (exchange,) = await rows(service.database, tables.Exchange)
    assert exchange["persona_id"] == "aria"


async def test_a_session_works_in_its_world_and_in_no_other(
    service: Service, model: ScriptedModel
) -> None:
    await service.personas.ensure_world("second", "second", [], time.time())
    await call(service, "persona_create", name="Mara", world_id="second")
    model.add("I am Mara.")
    session = await switch(service, "mara", world_id="second")

    listed = await call(service, "persona_list", session_id=session["session_id"])
    reply = await chat(service, session, "Who are you?", world_id="second")

    assert [p["id"] for p in listed["personas"]] == ["mara"]
    assert reply["response"] == "I am Mara."
    with pytest.raises(InvalidParams) as refused:
        await call(service, "persona_list", session_id=session["session_id"], world_id="main")
    assert (refused.value.data["field"], refused.value.data["given"]) == ("world_id", "main")
    assert refused.value.data["allowed"].startswith("second")


async def test_an_ended_session_says_how_to_get_another(service: Service) -> None:
    session = await switch(service)
    long_ago = time.time() - 1.02 * service.settings.sessions.kept_s
    with service.database.writing() as connection:
        connection.execute(update(tables.Session).values(used_at=long_ago))

    for name in ("persona_switch", "persona_list"):
        arguments = {"persona_id": "aria"} if name == "persona_switch" else {}
        with pytest.raises(NotFound, match="persona_switch without session_id") as refused:
            await call(service, name, session_id=session["session_id"], **arguments)
        assert refused.value.data["kind"] == "session"

    fresh = await switch(service)
    assert [r["id"] for r in await rows(service.database, tables.Session)] == [fresh["session_id"]]


async def test_a_session_outlives_its_persona_and_does_not_take_another_for_it(
    service: Service,
) -> None:
    await call(service, "persona_create", name="Mara")
    session = await switch(service, "mara")
    with service.database.writing() as connection:
        gone = {"name": "Mara", "name_key": None, "deleted_at": time.time()}
        connection.execute(update(tables.Persona).where(tables.Persona.id == "mara").values(gone))
    await call(service, "persona_create", name="Mara")

    with pytest.raises(NotFound, match="persona 'mara' not found"):
        await chat(service, session, "Are you there?")
