"""A message on its way: what is answered, what is kept, and what never is."""

from typing import Any

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.server.operations.registry import Caller, call_operation
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.errors import (
    Conflict,
    InvalidParams,
    ModelError,
    NoCurrentPersona,
    NotFound,
)
from tests.calls import call, remembered, request, rows, say
from tests.doubles import SMALL, Fails, Hangs, Says, ScriptedModel, WordEmbedder

pytestmark = pytest.mark.anyio

BAD_REPLIES = [
    ("As an AI language model, I have no winters.", "it falls out of character"),
    ("...", "it is empty"),
    ("Of course.\nuser: Tell me more!", "it speaks for the user"),
    (
        "You are warm and curious about people, you remember small things they tell you.",
        "it repeats its instructions",
    ),
]


async def test_a_chat_stores_two_turns_that_both_parties_witnessed(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The harbour froze that winter.")

    reply = await say(service, "What happened that winter?")

    turns = await rows(service.database, tables.Turn)
    assert sorted(
        (t["number"], t["speaker_id"], t["content"], t["speaker_version"]) for t in turns
    ) == [
        (1, "user", "What happened that winter?", None),
        (2, "aria", "The harbour froze that winter.", 1),
    ]
    assert {t["exchange_id"] for t in turns} == {reply["exchange_id"]}
    witnesses = await rows(service.database, tables.TurnWitness)
    assert sorted((w["turn_id"], w["party_id"]) for w in witnesses) == sorted(
        (t["id"], party) for t in turns for party in ("aria", "user")
    )


async def test_a_chat_reports_what_it_did(service: Service, model: ScriptedModel) -> None:
    model.add(Says("The harbour froze that winter.", tokens=9))

    reply = await say(service, "What happened that winter?", request_id="r1")

    expected = {
        "status": "done",
        "request_id": "r1",
        "response": "The harbour froze that winter.",
        "response_type": "full_llm",
        "tokens_used": 9,
        "tokens_estimated": False,
        "finish_reason": "stop",
        "turn_number": 2,
        "model": "scripted:large",
        "trimmed": [],
        "memories_used": [],
    }
    assert {key: reply[key] for key in expected} == expected
    assert 0 <= reply["continue_score"] <= 100
    assert reply["processing_time"] >= 0
    assert reply["persona_state"]["social_energy"] < 150


async def test_tokens_are_estimated_where_the_provider_does_not_count(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One two three four five six seven eight nine ten.")

    reply = await say(service, "Count to ten.")

    assert (reply["tokens_used"], reply["tokens_estimated"]) == (13, True)


async def test_a_chat_stores_two_memories_and_work_for_the_index(
    service: Service, model: ScriptedModel
) -> None:
    model.add("A red boat! Tom must love being seen.")

    reply = await say(service, "My brother Tom has a red boat.")

    memories = await rows(service.database, tables.Memory)
    assert [m["id"] for m in memories] == reply["memory_ids"]
    assert [(m["persona_id"], m["speaker_id"], m["visibility"]) for m in memories] == [
        ("aria", "user", "private"),
        ("aria", "aria", "private"),
    ]
    assert memories[0]["indexed_text"].endswith("] user: My brother Tom has a red boat.")
    assert memories[1]["indexed_text"].endswith("] Aria: A red boat! Tom must love being seen.")
    heard = memories[0]
    assert heard["importance_terms"]["heard"] == 0.8
    assert 0.1 <= heard["importance"] <= 1
    indexed = await rows(service.database, tables.MemoryVector)
    waiting = await rows(service.database, tables.OutboxEntry)
    assert {r["memory_id"] for r in (*indexed, *waiting)} == set(reply["memory_ids"])


async def test_a_chat_stores_two_relationship_events_each_with_its_reason(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Then I shall sing it for you.")

    reply = await say(service, "Thank you so much, that was kind of you.")

    events = await rows(service.database, tables.RelationshipEvent)
    events.sort(key=lambda e: e["seq"])
    assert [(e["from_id"], e["to_id"], e["seq"], e["exchange_id"]) for e in events] == [
        ("aria", "user", 1, reply["exchange_id"]),
        ("aria", "user", 2, reply["exchange_id"]),
    ]
    assert events[0]["why"] == "warm: “Thank you so much, that was kind of you.”"
    assert events[0]["weight"] > events[1]["weight"] > 0
    assert events[0]["priors"] and not events[1]["priors"]


async def test_a_chat_stores_a_mood_impulse_and_the_energy_that_it_cost(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Then I shall sing it for you.")

    reply = await say(service, "Thank you so much, that was kind of you.")

    (impulse,) = await rows(service.database, tables.MoodImpulse)
    assert (impulse["persona_id"], impulse["exchange_id"]) == ("aria", reply["exchange_id"])
    spent = await rows(service.database, tables.EnergySpent)
    assert sorted((e["seq"], e["share"], e["talk_s"]) for e in spent) == [
        (1, 0.5, 5.0),
        (2, 1.0, 5.0),
    ]
    (state,) = await rows(service.database, tables.PersonaState)
    assert (state["emotion_seq"], state["interaction_seq"]) == (1, 2)


async def test_the_second_message_sees_the_first_in_its_window_and_not_as_a_memory(
    service: Service, model: ScriptedModel
) -> None:
    model.add("A red boat! Tom must love being seen.", "Red, as you said.")
    first = await say(service, "My brother Tom has a red boat.")

    second = await say(
        service, "Which colour is Tom's boat?", conversation_id=first["conversation_id"]
    )

    asked = model.history[1]
    assert [(m.role, m.content) for m in asked.messages[1:]] == [
        ("user", "My brother Tom has a red boat."),
        ("assistant", "A red boat! Tom must love being seen."),
        ("user", "Which colour is Tom's boat?"),
    ]
    assert "<memory>" not in asked.system
    assert second["memories_used"] == []
    assert second["turn_number"] == 4


async def test_a_new_conversation_recalls_what_was_said_in_another_one(
    service: Service, model: ScriptedModel
) -> None:
    model.add("A red boat! Tom must love being seen.", "It was red.")
    first = await say(service, "My brother Tom has a red boat.")

    second = await say(service, "Which colour is Tom's boat?")

    assert second["conversation_id"] != first["conversation_id"]
    assert "user: My brother Tom has a red boat.</memory>" in model.history[1].system
    assert len(model.history[1].messages) == 2
    assert set(second["memories_used"]) == set(first["memory_ids"])
    uses = await rows(service.database, tables.MemoryUse)
    assert {(u["memory_id"], u["exchange_id"]) for u in uses} == {
        (memory_id, second["exchange_id"]) for memory_id in first["memory_ids"]
    }


async def test_a_window_that_has_moved_on_leaves_the_rest_to_memory(
    settings: Settings, model: ScriptedModel
) -> None:
    short = settings.conversation.model_copy(update={"window_turns": 2})
    model.add("A red boat! Tom must love being seen.", "Rain, always rain.", "It was red.")
    async with open_service(
        settings.model_copy(update={"conversation": short}), model, WordEmbedder()
    ) as service:
        first = await say(service, "My brother Tom has a red boat.")
        where = {"conversation_id": first["conversation_id"]}
        await say(service, "How is the weather?", **where)

        third = await say(service, "Which colour is Tom's boat?", **where)

    assert [m.content for m in model.history[2].messages[1:]] == [
        "How is the weather?",
        "Rain, always rain.",
        "Which colour is Tom's boat?",
    ]
    assert set(third["memories_used"]) == set(first["memory_ids"])


async def test_what_was_said_is_there_after_a_restart(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add("A red boat! Tom must love being seen.", "It was red.")
    async with open_service(settings, model, WordEmbedder()) as service:
        first = await say(service, "My brother Tom has a red boat.")

    async with open_service(settings, model, WordEmbedder()) as service:
        where = {"conversation_id": first["conversation_id"]}
        second = await say(service, "Which colour is Tom's boat?", **where)

    assert second["turn_number"] == 4
    assert model.closed


async def test_each_user_has_a_relationship_of_its_own(
    service: Service, model: ScriptedModel
) -> None:
    model.add("How kind.", "Then go.")

    await say(service, "Thank you so much, that was kind of you.", user_id="ann")
    await say(service, "I hate you, go away.", user_id="bob")

    async def affinity(user: str) -> float:
        found = await call(service, "relationship_get", persona1_id="aria", persona2_id=user)
        return float(found["relationship"]["affinity"])

    assert await affinity("ann") > await affinity("bob")
    assert "You meet bob for the first time." in model.history[1].system


async def test_a_conversation_belongs_to_its_two_parties(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Hello Ann.")
    first = await say(service, "Hello, I am Ann.", user_id="ann")
    before = await remembered(service.database)
    where = {"conversation_id": first["conversation_id"]}

    with pytest.raises(InvalidParams) as other_persona:
        await say(service, "Hello.", persona_id="kira", user_id="ann", **where)
    with pytest.raises(InvalidParams) as other_user:
        await say(service, "Hello.", user_id="bob", **where)

    assert other_persona.value.message.startswith("persona_id: allowed is aria")
    assert other_user.value.message.startswith("user_id: allowed is ann")
    assert await remembered(service.database) == before


@pytest.mark.parametrize("user_id", ["aria", "kira"])
async def test_nobody_talks_in_the_name_of_a_persona(service: Service, user_id: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        await say(service, "Hello.", user_id=user_id)

    assert refused.value.data["field"] == "user_id"


@pytest.mark.parametrize(("bad", "fault"), BAD_REPLIES)
async def test_a_rejected_reply_is_asked_for_again_and_never_returned(
    service: Service, model: ScriptedModel, bad: str, fault: str
) -> None:
    model.add(bad, "The harbour froze that winter.")
    run, _ = await service.chat(request("What happened that winter?"))

    done = await run.outcome()

    assert done["exchange"].response == "The harbour froze that winter."
    assert run.partial == "The harbour froze that winter."
    restarts = [e.data["reason"] async for e in run.follow() if e.kind == "restart"]
    assert restarts == [fault]
    assert fault not in model.history[0].text
    assert fault in model.history[1].text
    kept = await remembered(service.database)
    assert bad not in str(kept)
    assert len(kept["turns"]) == 2


async def test_after_the_last_attempt_a_bad_reply_is_an_error_and_nothing_is_remembered(
    service: Service, model: ScriptedModel
) -> None:
    model.add("How kind.")
    first = await say(service, "Thank you so much.")
    where = {"conversation_id": first["conversation_id"]}
    before = await remembered(service.database)
    model.add(*["As an AI language model, I cannot say."] * 3)

    with pytest.raises(ModelError) as failed:
        await say(service, "What happened that winter?", request_id="r2", **where)

    assert failed.value.data["stage"] == "validate"
    assert failed.value.data["reasons"] == ["it falls out of character"]
    assert "scripted:large" in failed.value.message
    assert len(model.history) == 4
    assert await remembered(service.database) == before
    transcript = await call(service, "conversation_get", **where)
    assert [t["turn_number"] for t in transcript["turns"]] == [1, 2]
    last = transcript["exchanges"][-1]
    assert (last["status"], last["request_id"]) == ("failed", "r2")
    assert last["error"]["data"]["code"] == "llm_error"
    assert last["partial"] == "As an AI language model, I cannot say."
    model.add("The harbour froze that winter.")
    again = await say(service, "What happened that winter?", **where)
    assert (again["status"], again["turn_number"]) == ("done", 4)


async def test_a_reply_that_is_too_long_is_trimmed_and_marked(
    service: Service, model: ScriptedModel
) -> None:
    long = " ".join(f"This is sentence number {n} of a long tale." for n in range(40))
    model.add(Says(f"{long} And th", tokens=400, finish_reason="length"))

    reply = await say(service, "Tell me a long tale.")

    assert (reply["trimmed"], reply["finish_reason"]) == (["too_long"], "length")
    assert reply["response"].endswith("of a long tale.")
    assert len(reply["response"].split()) <= 100
    (exchange,) = await rows(service.database, tables.Exchange)
    assert exchange["trimmed"] == ["too_long"]


async def test_a_reply_that_is_cut_for_its_words_says_so_too(
    service: Service, model: ScriptedModel
) -> None:
    model.add(" ".join(f"This is sentence number {n} of a long tale." for n in range(40)))

    reply = await say(service, "Tell me a long tale.")

    assert (reply["trimmed"], reply["finish_reason"]) == (["too_long"], "length")


async def test_a_persona_may_say_what_it_remembers_word_for_word(
    service: Service, model: ScriptedModel
) -> None:
    verse = (
        "The harbour lights were low and the gulls came down to sleep upon the grey and quiet "
        "water of the bay."
    )
    await call(service, "memory_store", persona_id="aria", content=verse)
    model.add(f"Of course: {verse}")

    reply = await say(service, "Say the verse about the harbour lights and the gulls.")

    assert reply["response"] == f"Of course: {verse}"
    assert len(model.history) == 1
    assert verse in str(model.history[0])


async def test_a_reply_that_says_things_twice_is_mended_and_its_stream_starts_again(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Aria: The sea is wide. The sea is wide. Come and see.")
    run, _ = await service.chat(request("How is the sea?"))

    done = await run.outcome()

    assert done["exchange"].response == "The sea is wide. Come and see."
    assert done["exchange"].outcome["trimmed"] == ["repeats"]
    events = [event async for event in run.follow()]
    kinds = [e.kind for e in events if e.kind != "token"]
    assert kinds == ["started", "recalled", "prompt", "restart", "done"]
    assert run.partial == "The sea is wide. Come and see."
    assert [e.seq for e in events] == list(range(len(events)))


async def test_a_name_in_front_of_a_reply_is_taken_off_without_a_mark(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Aria: “The sea is wide.”")

    reply = await say(service, "How is the sea?")

    assert (reply["response"], reply["trimmed"]) == ("The sea is wide.", [])


@pytest.mark.parametrize("said", ["", "The harbour froze"])
async def test_a_model_that_fails_leaves_a_failed_exchange_and_nothing_else(
    service: Service, model: ScriptedModel, said: str
) -> None:
    before = await remembered(service.database)
    model.add(Fails(ModelError("scripted: connection refused", stage="connect"), after=said))

    with pytest.raises(ModelError, match="connection refused"):
        await say(service, "What happened that winter?", request_id="r1")

    assert await remembered(service.database) == before
    (exchange,) = await rows(service.database, tables.Exchange)
    assert (exchange["status"], exchange["partial"]) == ("failed", said or None)
    assert exchange["error"]["data"]["stage"] == "connect"
    (conversation,) = await rows(service.database, tables.Conversation)
    assert (conversation["lease_owner"], conversation["head_exchange_id"]) == (None, None)
    assert len(service.runs) == 0


async def test_the_same_request_id_runs_a_failed_exchange_again_and_stores_it_once(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Fails(ModelError("cut off"), after="The harb"), "The harbour froze.")
    with pytest.raises(ModelError):
        await say(service, "What happened?", request_id="r1")

    reply = await say(service, "What happened?", request_id="r1")

    assert reply["response"] == "The harbour froze."
    (exchange,) = await rows(service.database, tables.Exchange)
    assert (exchange["status"], exchange["attempts"]) == ("done", 2)
    assert (exchange["partial"], exchange["error"]) == (None, None)
    assert len(await rows(service.database, tables.Turn)) == 2


async def test_the_same_request_id_returns_the_stored_reply_without_the_model(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The harbour froze.")
    first = await say(service, "What happened?", request_id="r1")
    before = await remembered(service.database)

    second = await say(service, "What happened?", request_id="r1")

    first.pop("persona_state"), second.pop("persona_state")  # of the time of the call
    assert second == first
    assert len(model.history) == 1
    assert await remembered(service.database) == before


@pytest.mark.parametrize("named", ["aria", "Aria"])
async def test_the_same_request_id_returns_the_stored_reply_whatever_became_of_the_persona(
    service: Service, model: ScriptedModel, named: str
) -> None:
    asked = {"message": "What happened?", "persona_id": named, "request_id": "r1"}
    model.add("The harbour froze.")
    first = await say(service, **asked)
    first.pop("persona_state")

    await call(service, "persona_update", persona_id="aria", name="Mara Vey")
    renamed = await say(service, **asked)
    assert renamed.pop("persona_state") is not None
    assert renamed == first

    await call(service, "persona_delete", persona_id="aria", confirm=True)
    deleted = await say(service, **asked)
    assert deleted.pop("persona_state") is None
    assert deleted == first
    assert len(model.history) == 1


async def test_a_request_id_does_not_answer_for_a_persona_that_it_was_not_sent_to(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The harbour froze.")
    await say(service, "What happened?", request_id="r1")
    await call(service, "persona_delete", persona_id="aria", confirm=True)

    with pytest.raises(NotFound, match="'Marlowe'"):
        await say(service, "What happened?", persona_id="Marlowe", request_id="r1")
    with pytest.raises(NotFound, match="'aria'"):
        await say(service, "What happened?", request_id="r2")


@pytest.mark.parametrize(
    "other",
    [{"message": "What else?"}, {"token_budget": 20}, {"user_id": "ann"}, {"persona_id": "kira"}],
)
async def test_the_same_request_id_with_other_arguments_is_a_conflict(
    service: Service, model: ScriptedModel, other: dict[str, Any]
) -> None:
    model.add("The harbour froze.")
    await say(service, "What happened?", request_id="r1")
    before = await remembered(service.database)

    with pytest.raises(Conflict, match="'r1'"):
        await say(service, **{"message": "What happened?", "request_id": "r1", **other})

    assert await remembered(service.database) == before


async def test_a_second_call_with_the_same_request_id_joins_the_run(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour", " froze.")
    model.add(hanging)
    first, exchange = await service.chat(request("What happened?", request_id="r1"))
    await hanging.reached.wait()

    second, same = await service.chat(request("What happened?", request_id="r1"))
    hanging.release.set()

    assert second is first
    assert same.id == exchange.id
    assert (await second.outcome())["exchange"].response == "The harbour froze."
    assert len(model.history) == 1


async def test_a_reply_that_takes_longer_than_the_wait_is_reported_as_running(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour", " froze.")
    model.add(hanging)

    waiting = await say(service, "What happened?", request_id="r1", wait_s=1)

    assert waiting["status"] == "running"
    assert waiting["response"] is None
    transcript = await call(service, "conversation_get", conversation_id=waiting["conversation_id"])
    assert [e["status"] for e in transcript["exchanges"]] == ["running"]
    hanging.release.set()
    done = await say(service, "What happened?", request_id="r1")
    assert (done["status"], done["response"]) == ("done", "The harbour froze.")
    assert done["exchange_id"] == waiting["exchange_id"]
    assert len(model.history) == 1


async def test_pieces_of_the_reply_are_told_as_they_come(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The harbour froze.")
    pieces: list[str] = []

    async def progress(text: str) -> None:
        pieces.append(text)

    arguments = {"persona_id": "aria", "message": "What happened?"}
    await call_operation(service, "persona_chat", arguments, Caller(progress))

    assert pieces == ["The", " harbour", " froze."]


async def test_the_token_budget_bounds_the_reply(service: Service, model: ScriptedModel) -> None:
    model.add("Yes.", "Yes.")

    await say(service, "Really?", token_budget=7)
    await say(service, "Really?")

    assert model.history[0].sampling.max_tokens == 7
    assert 16 < model.history[1].sampling.max_tokens <= 500


LAST_WORDS = {"urgent": ["The bell rings, I must go."], "tired": ["I must sleep."]}


async def wear_out(service: Service, model: ScriptedModel, priority: str = "none") -> None:
    """Make a hermit whom talk hardly draws, and talk at him until he has had enough."""
    await call(
        service,
        "persona_create",
        name="Hermit",
        charisma=1,
        social_energy=20,
        current_priority=priority,
        topic_preferences={"general": 0},
        exit_lines=LAST_WORDS,
    )
    model.add(*["So you say."] * 5)
    for _ in range(5):
        await say(service, "and then " * 300, persona_id="hermit")


@pytest.mark.parametrize(("priority", "reason"), [("urgent", "urgent"), ("none", "tired")])
async def test_a_worn_out_persona_may_bow_out_with_a_line_of_its_own(
    service: Service, model: ScriptedModel, priority: str, reason: str
) -> None:
    await wear_out(service, model, priority)

    reply = await say(
        service, "Stay a while.", persona_id="hermit", routing="score", token_budget=20
    )

    assert [reply["response"]] == LAST_WORDS[reason]
    assert (reply["response_type"], reply["model"], reply["tokens_used"]) == ("template", None, 0)
    assert reply["continue_score"] < 40
    assert reply["memories_used"] == []
    assert len(model.history) == 5
    assert len(await rows(service.database, tables.Turn)) == 12


async def test_a_worn_out_persona_that_is_asked_directly_closes_the_talk_in_few_words(
    service: Service, model: ScriptedModel
) -> None:
    await wear_out(service, model)
    model.add("Good night.")

    reply = await say(service, "Stay a while.", persona_id="hermit", token_budget=20)

    assert (reply["response"], reply["response_type"]) == ("Good night.", "constrained")
    assert reply["continue_score"] < 40
    assert "in at most 30 words. The talk is coming to its end" in model.history[-1].system


async def test_only_memories_that_were_in_the_prompt_count_as_used(
    service: Service, model: ScriptedModel
) -> None:
    model.known = SMALL
    model.add("A red boat!", "Red.")
    first = await say(service, "My brother Tom has a red boat.")

    second = await say(service, "Which red boat has my brother Tom?")

    heard, _ = first["memory_ids"]
    assert second["memories_used"] == [heard]
    assert "user said: My brother Tom has a red boat." in model.history[1].text


async def test_the_same_persona_answers_briefly_when_it_is_asked_directly(
    service: Service, model: ScriptedModel
) -> None:
    await call(
        service, "persona_create", name="Hermit", charisma=1, topic_preferences={"general": 0}
    )
    model.add("If I must.")

    reply = await say(service, "Stay a while.", persona_id="Hermit")

    assert (reply["response"], reply["response_type"]) == ("If I must.", "constrained")
    assert "prepare to close it" in model.history[0].system


async def test_a_chat_with_nobody_says_where_to_find_somebody(service: Service) -> None:
    with pytest.raises(NoCurrentPersona, match="persona_list"):
        await call(service, "persona_chat", message="Hello?")
    with pytest.raises(NotFound, match="persona 'Arya' not found; did you mean Aria"):
        await say(service, "Hello?", persona_id="Arya")
    with pytest.raises(NotFound, match="conversation 'nowhere' not found"):
        await say(service, "Hello?", conversation_id="nowhere")


async def test_a_persona_is_found_by_its_name_in_any_case(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Here I am.")

    reply = await say(service, "Hello?", persona_id="ARIA")

    assert reply["response"] == "Here I am."


async def test_a_conversation_is_read_in_pages(service: Service, model: ScriptedModel) -> None:
    model.add("One.", "Two.")
    first = await say(service, "First?")
    where = {"conversation_id": first["conversation_id"]}
    await say(service, "Second?", **where)

    begin = await call(service, "conversation_get", limit=3, **where)
    rest = await call(service, "conversation_get", limit=3, cursor=begin["next_cursor"], **where)

    assert [t["content"] for t in begin["turns"]] == ["First?", "One.", "Second?"]
    assert [t["content"] for t in rest["turns"]] == ["Two."]
    assert (begin["next_cursor"], rest["next_cursor"]) == ("3", None)
    assert [e["number"] for e in rest["exchanges"]] == [2]


async def test_a_conversation_shows_what_each_turn_left(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.")
    reply = await say(service, "First?", user_id="ann")

    found = await call(service, "conversation_get", conversation_id=reply["conversation_id"])

    message, answer = found["turns"]
    assert (found["persona_id"], found["user_id"], found["topic"]) == ("aria", "ann", "general")
    assert (message["speaker_id"], message["response_type"], message["tokens_used"]) == (
        "ann",
        None,
        None,
    )
    assert (answer["speaker_id"], answer["response_type"]) == ("aria", reply["response_type"])
    assert message["memory_ids"] + answer["memory_ids"] == reply["memory_ids"]
    assert message["witnesses"] == answer["witnesses"] == ["ann", "aria"]
    assert len(answer["event_ids"]) == 2


async def test_a_viewer_is_shown_only_what_it_heard(service: Service, model: ScriptedModel) -> None:
    model.add("One.", Fails(ModelError("down"), after="Tw"))
    reply = await say(service, "First?")
    where = {"conversation_id": reply["conversation_id"]}
    with pytest.raises(ModelError):
        await say(service, "Second?", **where)

    own = await call(service, "conversation_get", viewer="Aria", **where)
    other = await call(service, "conversation_get", viewer="Kira", **where)

    assert [t["content"] for t in own["turns"]] == ["First?", "One."]
    assert [e["status"] for e in own["exchanges"]] == ["done"]
    assert (other["turns"], other["exchanges"]) == ([], [])
