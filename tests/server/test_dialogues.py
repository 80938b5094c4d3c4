"""Talks between personas through their operations: begun, gone on with, ended, read."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.config.settings import Settings
from persona_mcp.server.dialogues import Advance, advance
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.errors import (
    Conflict,
    InvalidParams,
    ModelError,
    NotFound,
    PersonaUnavailable,
)
from persona_mcp.state.feelings import fold_feelings, stored_feelings
from persona_mcp.state.personas import find
from tests.calls import call, dump, remembered, rows, say
from tests.doubles import Fails, Hangs, Says, ScriptedModel, WordEmbedder
from tests.talks import go_on, said, start

pytestmark = pytest.mark.anyio

LONG = " ".join(["music"] * 99) + "."


def where(talk: dict[str, Any]) -> dict[str, Any]:
    return {"conversation_id": talk["conversation_id"]}


async def status(service: Service, talk: dict[str, Any]) -> dict[str, Any]:
    return await call(service, "conversation_status", **where(talk))


async def test_a_talk_is_saved_at_once_with_who_begins(service: Service) -> None:
    talk = await start(service, persona1_id="Kira", persona2_id="ARIA")

    expected = {
        "participants": ["kira", "aria"],
        "topic": "music",
        "started": True,
        "first_speaker": "aria",
        "seed": 5,
        "token_budget": 1000,
        "status": "active",
    }
    assert {key: talk[key] for key in expected} == expected
    found = await status(service, talk)
    assert (found["turn_count"], found["tokens_remaining"], found["next_speaker"]) == (
        0,
        1000,
        "aria",
    )
    assert found["should_continue"]


async def test_a_talk_without_a_seed_is_given_one(service: Service) -> None:
    seeds = {(await start(service, seed=None))["seed"] for _ in range(3)}

    assert len(seeds) == 3
    assert all(0 <= seed < 2**53 for seed in seeds)


async def test_who_begins_is_drawn_by_initiative_from_the_seed(service: Service) -> None:
    for name in ("Ulla", "Vera"):
        await call(service, "persona_create", name=name)
    two = {"persona1_id": "ulla", "persona2_id": "vera"}

    async def first(seed: int) -> str:
        talk = await start(service, **two, seed=seed)
        await call(service, "conversation_end", **where(talk))
        return str(talk["first_speaker"])

    drawn = [await first(seed) for seed in range(8)]

    assert set(drawn) == {"ulla", "vera"}
    assert [await first(seed) for seed in range(8)] == drawn


async def test_nobody_talks_to_itself_or_overhears_itself(service: Service) -> None:
    with pytest.raises(InvalidParams, match="persona2_id: allowed is another persona"):
        await start(service, persona2_id="Aria")
    with pytest.raises(InvalidParams, match=r"witnesses\.1: allowed is a persona that does not"):
        await start(service, witnesses=["noor", "kira"])
    with pytest.raises(NotFound, match="persona 'nobody' not found"):
        await start(service, witnesses=["nobody"])

    assert await rows(service.database, tables.Conversation) == []


async def test_who_rests_is_not_made_to_talk_and_told_when_it_can(
    service: Service, model: ScriptedModel
) -> None:
    talk = await start(service)
    await call(service, "persona_create", name="Ulla")
    await finish_after_a_turn(service, model, talk)
    before = await dump(service.database)

    with pytest.raises(PersonaUnavailable, match="persona 'aria' cannot talk now") as refused:
        await start(service, persona2_id="ulla")

    data = refused.value.data
    assert (data["persona_id"], data["reason"]) == ("aria", "cooldown")
    assert 0 < data["available_in_seconds"] <= 300
    assert await dump(service.database) == before


async def finish_after_a_turn(
    service: Service, model: ScriptedModel, talk: dict[str, Any]
) -> dict[str, Any]:
    """Say something in a talk and end it."""
    model.add("The choir sings at dawn.")
    await go_on(service, talk)
    return await call(service, "conversation_end", **where(talk))


async def test_who_is_in_too_many_talks_is_refused_with_one_of_them(service: Service) -> None:
    talks = [await start(service) for _ in range(3)]

    with pytest.raises(PersonaUnavailable, match="it is in other conversations") as refused:
        await start(service)

    data = refused.value.data
    assert data["reason"] == "in_conversation"
    assert data["conversation_id"] == talks[0]["conversation_id"]
    assert "available_in_seconds" not in data
    await call(service, "conversation_end", **where(talks[0]))
    assert (await start(service))["started"]


async def test_the_same_request_begins_one_talk(service: Service) -> None:
    first = await start(service, request_id="r1", seed=None)

    again, too = await asyncio.gather(
        *(start(service, request_id="r1", seed=None) for _ in range(2))
    )
    with pytest.raises(Conflict, match="request_id 'r1' was used for another call"):
        await start(service, request_id="r1", topic="books")

    assert again == too == first
    assert len(await rows(service.database, tables.Conversation)) == 1


async def test_a_talk_ends_by_itself_when_one_has_had_enough(
    service: Service, model: ScriptedModel
) -> None:
    lines = {"bored": ["No more of this."]}
    await call(
        service,
        "persona_create",
        name="Ulla",
        charisma=1,
        topic_preferences={"taxes": 0},
        exit_lines=lines,
        social_rank="peasant",
        available_time=600,
    )
    model.add(*[f"{n}. {LONG}" for n in range(50)])
    talk = await start(
        service, persona2_id="ulla", topic="taxes", token_budget=32768, max_duration_seconds=86400
    )

    made = await go_on(service, talk, turns=50)

    last = made["turns"][-1]
    assert (made["ended"], made["status"], made["next_speaker"]) == (True, "ended", None)
    assert last["response_type"] == "template" and last["tokens_used"] == 0
    assert (made["exit_reason"], last["content"]) == ("bored", "No more of this.")
    assert last["speaker_id"] == "ulla" and 1 < len(made["turns"]) < 50
    assert len(model.history) == len(made["turns"]) - 1
    cooling = {p["id"]: p["cooldown_remaining"] for p in (await personas(service)).values()}
    assert cooling["aria"] > 0 and cooling["ulla"] > 0 and cooling["noor"] == 0


async def personas(service: Service) -> dict[str, Any]:
    found = await call(service, "persona_list")
    return {persona["id"]: persona for persona in found["personas"]}


async def test_a_talk_ends_with_a_line_when_its_budget_is_used_up(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Says("The choir sings at dawn.", tokens=60), Says("Which key?", tokens=45))
    talk = await start(service, token_budget=150)

    made = await go_on(service, talk, turns=50)

    assert [t["tokens_used"] for t in made["turns"]] == [60, 45, 0]
    assert (made["ended"], made["exit_reason"], made["tokens_remaining"]) == (True, "budget", 45)
    assert model.history[0].sampling.max_tokens == 146
    assert model.history[1].sampling.max_tokens == 90


async def test_a_talk_has_no_more_turns_than_it_may_have(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.", "Which key?", "A minor one.")
    talk = await start(service, max_turns=3)

    made = await go_on(service, talk, turns=50)

    assert (made["turn_count"], made["ended"], made["exit_reason"]) == (3, True, "time_limit")
    assert made["turns"][-1]["content"] == "A minor one."


async def test_a_talk_ends_when_it_has_taken_its_time(
    service: Service, model: ScriptedModel
) -> None:
    model.add(LONG)
    talk = await start(service, max_duration_seconds=30)

    made = await go_on(service, talk, turns=50)

    assert (made["duration"], made["exit_reason"]) == (pytest.approx(39.6 + 5), "time_limit")
    assert [t["response_type"] for t in made["turns"]] == ["full_llm", "template"]


async def test_nothing_is_said_in_a_talk_that_has_ended(
    service: Service, model: ScriptedModel
) -> None:
    talk = await start(service)
    ended = await finish_after_a_turn(service, model, talk)
    before = await dump(service.database)

    for again in (
        go_on(service, talk),
        go_on(service, talk, dry_run=True),
        call(service, "conversation_end", **where(talk)),
    ):
        with pytest.raises(Conflict, match="has ended; begin another one"):
            await again

    assert await dump(service.database) == before
    stats = ended["final_stats"]
    assert (stats["turns"], stats["exit_reason"], stats["duration"]) == (1, "user_request", 5.0)
    found = await status(service, talk)
    assert (found["status"], found["exit_reason"]) == ("ended", "user_request")
    assert found["continue_score"] is not None


async def test_who_has_talked_rests_the_longer_the_worse_it_was_and_after_nothing_not_at_all(
    service: Service, model: ScriptedModel
) -> None:
    silent = await call(service, "conversation_end", **where(await start(service)))
    talk = await start(service)
    ended = await finish_after_a_turn(service, model, talk)

    assert silent["final_stats"]["cooldowns"] == {"aria": 0, "kira": 0}
    pauses = ended["final_stats"]["cooldowns"]
    assert 150 < pauses["aria"] < 151  # half of it after a good talk, and a little for fatigue
    assert pauses["aria"] > pauses["kira"]  # it spoke, and is the more tired for it
    resting = await personas(service)
    assert resting["aria"]["cooldown_remaining"] == pytest.approx(pauses["aria"], abs=5)
    assert not resting["aria"]["available"]


async def test_a_rest_is_found_in_the_log_too(service: Service, model: ScriptedModel) -> None:
    await finish_after_a_turn(service, model, await start(service))

    with service.database.reading() as connection:
        for name in ("aria", "kira", "noor"):
            persona = find(connection, "main", name)
            folded = fold_feelings(connection, "main", persona, service.laws.effects)
            assert folded == stored_feelings(connection, "main", name)


async def test_a_chat_with_a_user_can_be_ended_and_is_not_gone_on_with(
    service: Service, model: ScriptedModel
) -> None:
    model.add("It froze.", "Again?")
    first = await say(service, "What happened?")

    ended = await call(service, "conversation_end", **where(first), reason="the guest went home")
    with pytest.raises(Conflict, match="has ended; begin another one"):
        await say(service, "And then?", **where(first))

    assert ended["reason"] == "the guest went home"
    assert ended["final_stats"]["cooldowns"].keys() == {"aria"}
    assert (await status(service, first))["exit_reason"] == "the guest went home"
    assert (await say(service, "Hello again."))["conversation_id"] != first["conversation_id"]


async def test_a_chat_and_a_talk_are_gone_on_with_each_in_its_way(
    service: Service, model: ScriptedModel
) -> None:
    model.add("It froze.")
    chat = await say(service, "What happened?")
    talk = await start(service)

    with pytest.raises(Conflict, match="persona_chat goes on with it"):
        await go_on(service, chat)
    with pytest.raises(Conflict, match="conversation_advance goes on with it"):
        await say(service, "May I join?", **where(talk))


async def test_a_session_is_in_the_talk_that_it_began_and_chats_apart_from_it(
    service: Service, model: ScriptedModel
) -> None:
    session = (await call(service, "persona_switch", persona_id="aria"))["session_id"]
    model.add("The choir sings at dawn.", "Good evening.", "Still here.", "Another time.")
    talk = await start(service, session_id=session)

    made = await call(service, "conversation_advance", session_id=session)
    chat = await call(service, "persona_chat", message="Hello.", session_id=session)
    second = await call(service, "persona_chat", message="Hello?", session_id=session)
    await call(service, "conversation_end", session_id=session)
    third = await call(service, "persona_chat", message="Hello!", session_id=session)

    assert made["conversation_id"] == talk["conversation_id"]
    assert chat["conversation_id"] == second["conversation_id"] != talk["conversation_id"]
    assert third["conversation_id"] not in (talk["conversation_id"], chat["conversation_id"])
    assert (await status(service, talk))["status"] == "active"
    assert (await status(service, chat))["status"] == "ended"


async def test_a_dry_run_tells_who_would_speak_and_asks_no_model(
    service: Service, model: ScriptedModel
) -> None:
    talk = await start(service)
    before = await dump(service.database)

    tried = await go_on(service, talk, dry_run=True, speaker_id="kira")

    assert (tried["progress"], tried["turns"], tried["next_speaker"]) == ("dry_run", [], "kira")
    assert tried["continue_score"] == round(sum(tried["score_terms"].values()))
    assert model.history == []
    assert await dump(service.database) == before


async def test_who_does_not_talk_there_can_not_be_made_to_speak(service: Service) -> None:
    talk = await start(service, witnesses=["noor"])

    with pytest.raises(InvalidParams, match="speaker_id: allowed is one of aria, kira"):
        await go_on(service, talk, speaker_id="noor")


async def test_a_talk_with_one_who_is_gone_goes_no_further_and_can_be_ended(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.")
    talk = await start(service)
    await go_on(service, talk)
    gone = update(tables.Persona).where(tables.Persona.id == "kira")
    with service.database.writing() as connection:
        connection.execute(gone.values(deleted_at=1.0, name_key=None))

    with pytest.raises(NotFound, match="persona 'kira' not found"):
        await go_on(service, talk)
    ended = await call(service, "conversation_end", **where(talk), reason="she is gone")

    assert set(ended["final_stats"]["cooldowns"]) == {"aria", "kira"}
    assert (await status(service, talk))["exit_reason"] == "she is gone"


async def test_a_failed_turn_changes_nothing_and_those_before_it_stay(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.", Fails(ModelError("down"), after="Which"), "Which key?")
    talk = await start(service)
    await go_on(service, talk)
    before = await remembered(service.database)

    with pytest.raises(ModelError):
        await go_on(service, talk)

    assert await remembered(service.database) == before
    failed = [e for e in await rows(service.database, tables.Exchange) if e["status"] == "failed"]
    assert [(e["partial"], e["persona_id"]) for e in failed] == [("Which", "kira")]
    assert said(await go_on(service, talk)) == [("kira", "Which key?")]


async def test_the_same_request_makes_its_turns_once_and_the_rest_after_a_failure(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.", Fails(ModelError("down")), "Two.", "Three.")
    talk = await start(service)
    asked = {"turns": 3, "request_id": "r1", "input": "It rains."}
    with pytest.raises(ModelError) as failed:
        await go_on(service, talk, **asked)

    made = await go_on(service, talk, **asked)
    again = await go_on(service, talk, **asked)

    assert failed.value.data["turns_done"] == 1
    assert said(made) == [("aria", "One."), ("kira", "Two."), ("aria", "Three.")]
    assert again["turns"] == made["turns"]
    with pytest.raises(Conflict, match="was used for another call"):
        await go_on(service, talk, **{**asked, "input": "It snows."})


OTHERWISE = [{"turns": 3}, {"turns": 1}, {"input": "It snows."}, {"speaker_id": "kira"}]


@pytest.mark.parametrize("other", OTHERWISE)
async def test_other_turns_under_a_request_id_are_refused_while_the_first_are_made_and_after(
    service: Service, model: ScriptedModel, other: dict[str, Any]
) -> None:
    hang = Hangs("The choir", " sings at dawn.")
    model.add(hang, "Which key?")
    talk = await start(service)
    asked = {"turns": 2, "request_id": "r1", "input": "It rains."}
    first = asyncio.create_task(go_on(service, talk, **asked))
    await hang.reached.wait()

    with pytest.raises(Conflict, match="request_id 'r1' was used for another call") as refused:
        await go_on(service, talk, **{**asked, **other})
    joined = asyncio.create_task(go_on(service, talk, **asked))
    hang.release.set()

    assert refused.value.data["given"] == "r1"
    assert said(await first) == [("aria", "The choir sings at dawn."), ("kira", "Which key?")]
    assert (await joined)["turns"] == (await first)["turns"]
    with pytest.raises(Conflict, match="request_id 'r1' was used for another call"):
        await go_on(service, talk, **{**asked, **other})
    assert len(model.history) == 2


async def test_of_two_calls_at_once_that_differ_under_one_request_id_one_is_made(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.", "Which key?")
    talk = await start(service)

    both = await asyncio.gather(
        *(go_on(service, talk, turns=turns, request_id="r1") for turns in (1, 2)),
        return_exceptions=True,
    )

    (refused,) = (one for one in both if isinstance(one, BaseException))
    assert isinstance(refused, Conflict)
    assert "request_id 'r1' was used for another call" in refused.message
    (made,) = (one for one in both if isinstance(one, dict))
    assert said(made)[0] == ("aria", "The choir sings at dawn.")
    assert len(model.history) == len(made["turns"])


async def test_the_second_of_two_callers_is_told_that_the_talk_is_busy(
    service: Service, model: ScriptedModel
) -> None:
    hang = Hangs("The choir", " sings at dawn.")
    model.add(hang, "Which key?")
    talk = await start(service)
    first = asyncio.create_task(go_on(service, talk, turns=2))
    await hang.reached.wait()

    with pytest.raises(Conflict, match="is busy") as busy:
        await go_on(service, talk)
    with pytest.raises(Conflict, match="is busy"):
        await call(service, "conversation_end", **where(talk))

    assert busy.value.data["retry_after_seconds"] > 0
    assert busy.value.data["retryable"] is True
    hang.release.set()
    assert said(await first) == [("aria", "The choir sings at dawn."), ("kira", "Which key?")]
    assert [e["status"] for e in await rows(service.database, tables.Exchange)] == ["done", "done"]


async def test_a_long_wait_is_answered_with_what_is_done_and_can_be_waited_on(
    service: Service, model: ScriptedModel
) -> None:
    hang = Hangs("Which", " key?")
    model.add("The choir sings at dawn.", hang)
    talk = await start(service)
    asked = {"turns": 2, "request_id": "r1"}

    early = await go_on(service, talk, **asked, wait_s=1)

    assert (early["progress"], said(early)) == ("running", [("aria", "The choir sings at dawn.")])
    hang.release.set()
    late = await go_on(service, talk, **asked)
    assert (late["progress"], len(late["turns"])) == ("done", 2)
    assert len(model.history) == 2


async def test_a_new_process_goes_on_where_the_last_one_stopped(settings: Settings) -> None:
    model = ScriptedModel("The choir sings at dawn.", "Which key?")
    async with open_service(settings, model=model, embedder=WordEmbedder()) as service:
        talk = await start(service, token_budget=500)
        await go_on(service, talk, turns=2)
        before = await status(service, talk)

    model = ScriptedModel(Says("A minor one.", tokens=4))
    async with open_service(settings, model=model, embedder=WordEmbedder()) as service:
        after = await status(service, talk)
        made = await go_on(service, talk)

    assert {k: after[k] for k in ("turn_count", "tokens_remaining", "next_speaker")} == {
        k: before[k] for k in ("turn_count", "tokens_remaining", "next_speaker")
    }
    assert said(made) == [("aria", "A minor one.")]
    assert [m.content for m in model.history[0].messages[1:]] == [
        "The choir sings at dawn.",
        "Which key?",
    ]


async def test_a_turn_that_is_cut_off_leaves_nothing_and_is_made_by_the_next_process(
    settings: Settings,
) -> None:
    hang = Hangs("The choir")
    async with open_service(
        settings, model=ScriptedModel(hang), embedder=WordEmbedder()
    ) as service:
        talk = await start(service)
        asked = Advance("main", talk["conversation_id"], "r1", turns=2)
        await advance(service, asked)
        await hang.reached.wait()

    model = ScriptedModel("The choir sings at dawn.", "Which key?")
    async with open_service(settings, model=model, embedder=WordEmbedder()) as service:
        assert (await remembered(service.database))["turns"] == []
        made = await go_on(service, talk, turns=2, request_id="r1")

    assert said(made) == [("aria", "The choir sings at dawn."), ("kira", "Which key?")]


@pytest.mark.sqlite  # a data folder of its own keeps each apart
async def test_the_same_seed_says_the_same(settings: Settings, tmp_path: Any) -> None:
    async def play(name: str, seed: int) -> tuple[Any, ...]:
        model = ScriptedModel(*["music " * 60 + f"{n}." for n in range(50)])
        apart = settings.model_copy(update={"data_dir": tmp_path / name})
        async with open_service(apart, model=model, embedder=WordEmbedder()) as service:
            talk = await start(service, seed=seed, token_budget=400)
            made = await go_on(service, talk, turns=50)
        seeds = [asked.sampling.seed for asked in model.history]
        return talk["first_speaker"], said(made), made["exit_reason"], seeds

    one, again, other = await play("a", 7), await play("b", 7), await play("c", 8)

    assert one == again
    assert one[3] != other[3]


async def test_what_was_said_is_read_like_any_conversation(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.", "Which key?")
    talk = await start(service, witnesses=["noor"])
    await go_on(service, talk, turns=2, input="It rains.")

    found = await call(service, "conversation_get", **where(talk))
    mine = await call(service, "conversation_get", **where(talk), viewer="noor")

    assert (found["kind"], found["participants"]) == ("dialogue", ["aria", "kira"])
    assert (found["persona_id"], found["user_id"], found["summary"]) == (None, None, None)
    assert (
        said(found)
        == said(mine)
        == [
            ("aria", "The choir sings at dawn."),
            ("kira", "Which key?"),
        ]
    )
    assert [len(t["memory_ids"]) for t in found["turns"]] == [3, 3]
    assert [e["message"] for e in found["exchanges"]] == ["It rains.", ""]
    assert [e["message"] for e in mine["exchanges"]] == ["", ""]  # the speaker alone was shown it


async def test_a_summary_of_a_long_talk_is_read_with_it_by_who_was_there(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*[f"The choir sings song {n} at dawn." for n in range(80)])
    talk = await start(service, token_budget=32768, max_duration_seconds=86400)
    with service.database.writing() as connection:
        connection.execute(update(tables.Persona).values(available_time=86400))
    await go_on(service, talk, turns=31)
    await service.summaries.settled()

    views = {
        viewer: (await call(service, "conversation_get", **where(talk), viewer=viewer))["summary"]
        for viewer in ("aria", "kira", "noor")
    }

    assert views["aria"] and views["kira"]
    assert views["noor"] is None


async def test_conversations_are_listed_the_last_begun_first_and_filtered(
    service: Service, model: ScriptedModel
) -> None:
    model.add("It froze.")
    chat = await say(service, "What happened?", persona_id="noor")
    talks = [await start(service) for _ in range(2)]
    await call(service, "conversation_end", **where(talks[0]))

    async def ids(**which: Any) -> list[str]:
        found = await call(service, "conversation_list", **which)
        return [one["id"] for one in found["conversations"]]

    chat_id, first, second = (one["conversation_id"] for one in (chat, *talks))
    assert await ids() == [second, first, chat_id]
    assert await ids(persona_id="Kira") == [second, first]
    assert await ids(persona_id="noor") == [chat_id]
    assert await ids(status="ended") == [first]
    assert await ids(until="2020-01-01T00:00:00Z") == []
    page = await call(service, "conversation_list", limit=2)
    assert (page["total_count"], page["next_cursor"]) == (3, first)
    assert await ids(limit=2, cursor=page["next_cursor"]) == [chat_id]
    with pytest.raises(InvalidParams, match="until: allowed is a time after since"):
        await ids(since="2026-01-02T00:00:00Z", until="2026-01-01T00:00:00Z")
    with pytest.raises(InvalidParams, match="cursor: allowed is next_cursor of the page before"):
        await ids(cursor="invented")


async def test_the_trace_has_each_step_of_a_talk_and_each_exchange_of_a_chat(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.", "It froze.", "It did.")
    talk = await start(service)
    await go_on(service, talk)
    chat = await say(service, "What happened?")
    await say(service, "Did it?", **where(chat))

    steps, next_page, chats = [
        await call(service, "conversation_history", **which)
        for which in ({**where(talk), "limit": 4}, where(talk), where(chat))
    ]
    rest = await call(service, "conversation_history", **where(talk), cursor=steps["next_cursor"])

    assert [c["node"] for c in steps["checkpoints"]] == ["end", "judge", "persist", "relate"]
    assert {c["turn"] for c in steps["checkpoints"]} == {1}
    assert steps["checkpoints"][0]["score"] == 72
    assert steps["checkpoints"] + rest["checkpoints"] == next_page["checkpoints"]
    assert steps["checkpoints"][0]["parent_id"] == steps["checkpoints"][1]["checkpoint_id"]
    assert [(c["turn"], c["node"]) for c in chats["checkpoints"]] == [(4, "end"), (2, "end")]
    for invented in ("0", chats["checkpoints"][0]["checkpoint_id"]):
        with pytest.raises(
            InvalidParams, match="cursor: allowed is next_cursor of the page before"
        ):
            await call(service, "conversation_history", **where(talk), cursor=invented)
