"""Dialogues in the background: asked for, waited for, stopped, listed, and what came of them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, delete

from persona_mcp.config.settings import Settings
from persona_mcp.server.operations.registry import Caller, call_operation
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import (
    Conflict,
    InvalidParams,
    LimitExceeded,
    ModelError,
    NotFound,
    PersonaUnavailable,
)
from tests.calls import call, dump, remembered
from tests.dialogues import LINES, QUICK, WAIT_MS, ended, result, said, start, status, talk
from tests.doubles import Fails, Hangs, ScriptedModel
from tests.mcp_client import Heard, Way, good, talking

pytestmark = pytest.mark.anyio

INLINE = {"persona": {"name": "Mara", "description": "A ferrywoman."}}
STRANGERS = {
    "personas": {"mara": INLINE, "tobin": {"persona": {"name": "Tobin"}}},
    "dialogue": {"max_turns": 4},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"dialogues": QUICK})


async def faults_of(service: Service, **arguments: Any) -> list[tuple[str, str]]:
    """Start a dialogue that is refused; return each field with what is allowed."""
    before = await dump(service.database)
    with pytest.raises(InvalidParams) as refused:
        await call(service, "dialogue_start", **arguments)
    assert await dump(service.database) == before
    return [(fault["field"], fault["allowed"]) for fault in refused.value.data["errors"]]


async def test_a_dialogue_is_held_to_its_end_and_becomes_part_of_the_world(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*LINES[:4])
    started = await call(service, "dialogue_start", **talk(witnesses=["noor"], seed=7))

    over = await ended(service, started["dialogue_id"])
    found = await result(service, started["dialogue_id"], "scores", "relationships", "memories")
    there = await call(service, "conversation_get", conversation_id=started["conversation_ids"][0])
    sees = await call(service, "relationship_get", persona1_id="aria", persona2_id="kira")
    recalled = await call(service, "memory_search", persona_id="noor", query="lanterns on the ice")

    assert (started["status"], started["seed"], started["keep"]) == ("queued", 7, True)
    assert (over["status"], over["turns_done"], over["dialogues_done"]) == ("completed", 4, 1)
    assert over["kept_at"] is not None and over["error"] is None
    [one] = found["results"]
    assert one["conversation_id"] == started["conversation_ids"][0] == there["conversation_id"]
    assert (one["turns"], len(one["score_history"]), one["transcript"]) == (4, 4, None)
    assert one["tokens_used"] == over["tokens_used"] > 0
    moved = {(m["persona_id"], m["other_persona_id"]): m for m in one["relationship_changes"]}
    assert sees["relationship"]["affinity"] == pytest.approx(
        moved["aria", "kira"]["after"]["affinity"], abs=1e-4
    )
    assert {memory["persona_id"] for memory in one["memories"]} == {"aria", "kira", "noor"}
    assert [turn["content"] for turn in there["turns"]] == list(LINES[:4])
    assert (there["status"], there["kind"]) == ("ended", "dialogue")
    assert any("lanterns" in memory["content"] for memory in recalled["memories"])


async def test_the_manifest_says_what_a_result_depended_on(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*LINES[:4])
    id = await start(service, seed=7)
    await ended(service, id)

    manifest = (await result(service, id))["manifest"]

    assert (manifest["seed"], manifest["model"]) == (7, "scripted:large")
    assert set(manifest["persona_versions"]) == {"aria", "kira"}
    assert len(manifest["sha256"]) == len(manifest["prompt_version"]) == 64


async def test_a_dialogue_is_started_waited_for_and_read_through_mcp(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(after=LINES[1])
    model.add(LINES[0], hanging, *LINES[2:4])
    async with talking(service, Way("http", "auto")) as client:
        started = await good(client, "dialogue_start", **talk())
        id, heard = started["dialogue_id"], Heard()
        await hanging.reached.wait()
        running = await good(client, "dialogue_status", dialogue_id=id)
        hanging.release.set()
        over = await client.call_tool(
            "dialogue_status", {"dialogue_id": id, "wait_ms": WAIT_MS}, progress_callback=heard
        )
        found = await good(client, "dialogue_result", dialogue_id=id, include=["transcript"])

    assert running["status"] == "running"
    assert over.structured_content is not None
    assert over.structured_content["status"] == "completed"
    assert "of at most 4 turns" in "".join(heard.texts)
    [one] = found["results"]
    assert [turn["content"] for turn in one["transcript"]] == list(LINES[:4])


async def test_what_is_not_kept_leaves_the_world_as_it_was(
    service: Service, model: ScriptedModel
) -> None:
    before = await remembered(service.database)
    model.add(*LINES[:4])

    id = await start(service, keep=False)
    over = await ended(service, id)

    assert (over["status"], over["kept_at"]) == ("completed", None)
    assert await said(service, id) == list(LINES[:4])
    assert await remembered(service.database) == before


async def test_two_dialogues_of_one_seed_are_both_part_of_the_world(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*LINES)
    for _ in range(2):
        await ended(service, await start(service, seed=7, ignore_availability=True))

    listed = await call(service, "conversation_list")

    assert listed["total_count"] == 2
    assert [one["turn_count"] for one in listed["conversations"]] == [4, 4]


async def test_each_repeat_begins_from_the_world_as_it_stood(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*LINES)

    id = await start(service, repeat=2)
    over, found = await ended(service, id), await result(service, id, "relationships")

    assert (over["dialogues"], over["dialogues_done"], over["turns_max"]) == (2, 2, 8)
    assert [one["repeat"] for one in found["results"]] == [0, 1]
    assert all(
        move["before"] is None for one in found["results"] for move in one["relationship_changes"]
    )
    assert (await call(service, "conversation_list"))["total_count"] == 2


async def test_results_come_in_pages(service: Service, model: ScriptedModel) -> None:
    model.add(*LINES)
    id = await start(service, repeat=2)
    await ended(service, id)

    first = await call(service, "dialogue_result", dialogue_id=id, limit=1)
    rest = await call(service, "dialogue_result", dialogue_id=id, cursor=first["next_cursor"])

    assert (first["total_count"], first["next_cursor"]) == (2, "1")
    assert [one["repeat"] for one in first["results"] + rest["results"]] == [0, 1]
    assert rest["next_cursor"] is None


async def test_a_whole_specification_is_held_in_its_waves_by_strangers_of_this_world(
    service: Service, model: ScriptedModel
) -> None:
    before = await remembered(service.database)
    model.add(*LINES)
    spec = {**STRANGERS, "waves": [{}, {"gap_hours": 1}], "seed": 3, "name": "ferry"}

    started = await call(service, "dialogue_start", spec=spec)
    await ended(service, started["dialogue_id"])
    found = await result(service, started["dialogue_id"], "relationships")

    assert (started["keep"], started["seed"], started["dialogues"]) == (False, 3, 2)
    assert [one["wave"] for one in found["results"]] == [0, 1]
    first, second = (one["relationship_changes"][0] for one in found["results"])
    assert first["before"] is None
    assert second["before"]["familiarity"] > 0
    assert await remembered(service.database) == before


async def test_a_specification_of_personas_of_this_world_can_be_kept(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*LINES[:4])
    spec = {"personas": {"aria": None, "kira": {"source": "Kira"}}, "dialogue": {"max_turns": 4}}

    started = await call(service, "dialogue_start", spec=spec, keep=True)
    over = await ended(service, started["dialogue_id"])

    assert over["kept_at"] is not None
    listed = await call(service, "conversation_list")
    assert [one["id"] for one in listed["conversations"]] == started["conversation_ids"]


async def test_a_dialogue_that_waits_is_cancelled_at_once(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(after=LINES[0])
    model.add(hanging, *LINES[1:4])
    first = await start(service)
    await hanging.reached.wait()
    second = await start(service)

    cancelled = await call(service, "dialogue_cancel", dialogue_id=second, reason="Enough.")
    hanging.release.set()
    await ended(service, first)

    assert (cancelled["status"], cancelled["turns_done"]) == ("cancelled", 0)
    over = await status(service, second)
    assert (over["status"], over["reason"]) == ("cancelled", "Enough.")
    assert (await result(service, second))["results"] == []
    with pytest.raises(Conflict, match="cancelled already") as twice:
        await call(service, "dialogue_cancel", dialogue_id=second)
    assert twice.value.data["status"] == "cancelled"


async def test_a_running_dialogue_is_stopped_after_its_turn_and_nothing_of_it_is_kept(
    service: Service, model: ScriptedModel
) -> None:
    before = await remembered(service.database)
    hanging = Hangs(after=LINES[1])
    model.add(LINES[0], hanging, *LINES[2:4])
    id = await start(service)
    await hanging.reached.wait()

    told = await call(service, "dialogue_cancel", dialogue_id=id)
    while not service.batches.asked_to_stop:
        await asyncio.sleep(0)
    hanging.release.set()
    over = await ended(service, id)

    assert told["status"] == "running"
    assert (over["status"], over["turns_done"]) == ("cancelled", 2)
    assert list(model.script) == list(LINES[2:4])
    assert await remembered(service.database) == before


async def test_what_is_not_over_has_no_result(service: Service, model: ScriptedModel) -> None:
    hanging = Hangs(after=LINES[0])
    model.add(hanging, *LINES[1:4])
    id = await start(service)
    await hanging.reached.wait()

    with pytest.raises(Conflict, match="dialogue_status") as refused:
        await result(service, id)
    hanging.release.set()
    await ended(service, id)

    assert refused.value.data["status"] == "running"


async def test_a_wait_that_is_over_first_tells_how_far_it_is(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(after=LINES[2])
    model.add(*LINES[:2], hanging, LINES[3])
    id = await start(service)
    await hanging.reached.wait()
    while (running := await status(service, id, wait_ms=50))["turns_done"] < 2:
        pass
    hanging.release.set()
    await ended(service, id)

    assert (running["status"], running["turns_done"], running["turns_max"]) == ("running", 2, 4)
    assert running["current_speaker"] in ("aria", "kira")
    assert running["eta_seconds"] >= 0


async def test_a_model_that_fails_is_told_with_its_reason_and_what_was_said_before(
    service: Service, model: ScriptedModel
) -> None:
    before = await remembered(service.database)
    model.add(LINES[0], Fails(ModelError("the model is asleep")))

    id = await start(service)
    over, found = await ended(service, id), await result(service, id, "transcript")

    assert (over["status"], over["dialogues_failed"]) == ("failed", 1)
    assert over["error"]["message"] == "the model is asleep"
    [one] = found["results"]
    assert (one["status"], one["exit_reason"]) == ("failed", None)
    assert one["error"]["data"]["code"] == "llm_error"
    assert [turn["content"] for turn in one["transcript"]] == [LINES[0]]
    assert await remembered(service.database) == before


async def test_a_dialogue_that_fails_does_not_stop_the_others(
    service: Service, model: ScriptedModel, settings: Settings
) -> None:
    first = Hangs(after=LINES[0])
    model.add(first, Fails(ModelError("the model is asleep")), *LINES[1:4])
    id = await start(service, repeat=2)
    await first.reached.wait()
    while not (await status(service, id, wait_ms=50))["dialogues_failed"]:
        pass
    first.release.set()

    over, found = await ended(service, id), await result(service, id)

    assert (over["status"], over["dialogues_done"], over["dialogues_failed"]) == ("completed", 2, 1)
    assert sorted(one["status"] for one in found["results"]) == ["done", "failed"]
    assert (await call(service, "conversation_list"))["total_count"] == 1


async def test_who_cannot_talk_now_is_refused_unless_that_is_ignored(
    service: Service, model: ScriptedModel
) -> None:
    for _ in range(3):
        await call(service, "conversation_start", persona1_id="aria", persona2_id="noor")
    before = await dump(service.database)

    with pytest.raises(PersonaUnavailable) as refused:
        await start(service)
    assert await dump(service.database) == before
    model.add(*LINES[:4])
    over = await ended(service, await start(service, ignore_availability=True))

    assert refused.value.data["persona_id"] == "aria"
    assert refused.value.data["reason"] == "in_conversation"
    assert over["status"] == "completed"


async def test_unknown_personas_and_dialogues_are_not_found(service: Service) -> None:
    with pytest.raises(NotFound, match="persona 'ariel' not found; did you mean"):
        await start(service, participants=["ariel", "kira"])
    with pytest.raises(NotFound, match="persona 'nobody' not found"):
        await call(service, "dialogue_start", spec={"personas": {"aria": None, "nobody": None}})
    for name in ("dialogue_status", "dialogue_result", "dialogue_cancel"):
        with pytest.raises(NotFound, match="dialogue 'd1' not found"):
            await call(service, name, dialogue_id="d1")


async def test_a_wrong_specification_names_each_fault_by_its_path_and_changes_nothing(
    service: Service,
) -> None:
    wrong = {
        "personas": {"aria": None, "kira": None},
        "dialogue": {"max_turns": 0, "colour": "red"},
        "seed": "seven",
    }
    unheld = {
        "personas": {"aria": None, "kira": None},
        "dialogue": {"participants": ["aria", "tom"]},
    }

    fields = [field for field, _ in await faults_of(service, spec=wrong)]
    unknown = await faults_of(service, spec=unheld)

    assert sorted(fields) == ["spec.dialogue.colour", "spec.dialogue.max_turns", "spec.seed"]
    assert [field for field, _ in unknown] == ["spec.dialogue.participants.1"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"personas": {"aria": None, "kira": {"card": "kira.png"}}}, "personas.kira.card"),
        ({"model": {"endpoints": [{"url": "http://10.0.0.1"}]}}, "model.endpoints"),
        ({"model": {"name": "openai:dear"}}, "model.name"),
        ({"variations": {"personas.kira": [{"card": "kira.png"}]}}, "personas.kira.card"),
    ],
)
async def test_no_file_of_the_server_and_no_other_model_is_asked_for(
    service: Service, more: dict[str, Any], field: str
) -> None:
    spec = {"personas": {"aria": None, "kira": None}, **more}

    [(named, allowed)] = await faults_of(service, spec=spec)

    assert named == f"spec.{field}"
    assert allowed.startswith("left out")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"personas": {"aria": None, "tom": INLINE}}, "personas.tom.persona"),
        ({"personas": {"aria": {"changes": {"charisma": 3}}, "kira": None}}, "personas.aria.cha"),
        ({"personas": {"aria": None, "kira": {"memories": ["A debt."]}}}, "personas.kira.memories"),
        ({"personas": {"aria": None, "tom": {"source": "kira"}}}, "personas.tom"),
        ({"relationships": [{"of": "aria", "to": "kira", "quality": 1}]}, "relationships"),
        ({"variations": {"dialogue.scene": ["day", "night"]}}, "variations"),
        ({"waves": [{"times": 2}]}, "waves.0.gap_hours"),
        ({"starts_at": "2030-01-01T00:00:00Z"}, "starts_at"),
    ],
)
async def test_what_could_not_be_part_of_this_world_is_not_kept(
    service: Service, more: dict[str, Any], field: str
) -> None:
    spec = {"personas": {"aria": None, "kira": None}, **more}

    [(named, allowed)] = await faults_of(service, spec=spec, keep=True)

    assert named.startswith(f"spec.{field}")
    assert "world" in allowed or "keep: false" in allowed


async def test_a_dialogue_is_asked_for_in_one_way(service: Service) -> None:
    neither = await faults_of(service)
    both = await faults_of(service, spec=STRANGERS, topic="the sea")
    twice = await faults_of(service, participants=["aria", "Aria"])
    overhears = await faults_of(service, participants=["aria", "kira"], witnesses=["Kira"])

    assert neither == [("participants", "required, or spec")]
    assert both == [("topic", "left out beside spec, which says it")]
    assert [field for field, _ in twice + overhears] == ["participants.1", "witnesses.0"]


async def test_a_batch_that_is_too_large_or_one_too_many_is_refused(
    service: Service, model: ScriptedModel, settings: Settings
) -> None:
    small = settings.dialogues.model_copy(update={"largest": 3, "open": 1})
    vars(service)["settings"] = settings.model_copy(update={"dialogues": small})
    hanging = Hangs(after=LINES[0])
    model.add(hanging, *LINES[1:4])
    id = await start(service, repeat=1)
    await hanging.reached.wait()

    with pytest.raises(LimitExceeded, match=r"4 dialogues, and 3 are allowed in one call"):
        await start(service, repeat=4)
    with pytest.raises(LimitExceeded, match="1 dialogues wait or are held already"):
        await start(service)
    hanging.release.set()
    await ended(service, id)


async def test_the_same_request_id_starts_one_dialogue_even_when_its_answer_was_lost(
    service: Service, model: ScriptedModel
) -> None:
    def forget(connection: Connection) -> None:
        connection.execute(delete(tables.Answer))

    model.add(*LINES)
    first = await call(service, "dialogue_start", **talk(request_id="r1"))
    same = await call(service, "dialogue_start", **talk(request_id="r1"))
    await ended(service, first["dialogue_id"])
    await service.database.write(forget)
    again = await call(service, "dialogue_start", **talk(request_id="r1"))
    with pytest.raises(Conflict, match="request_id"):
        await call(service, "dialogue_start", **talk(request_id="r1", topic="the moon"))
    await service.database.write(forget)
    with pytest.raises(Conflict, match="request_id"):
        await call(service, "dialogue_start", **talk(request_id="r1", topic="the moon"))

    assert same == first
    assert again == {**first, "status": "completed"}
    assert (await call(service, "dialogue_list"))["total_count"] == 1


async def test_dialogues_are_listed_by_status_the_last_one_first(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(after=LINES[4])
    model.add(*LINES[:4], hanging, *LINES[5:8])
    done = await start(service)
    await ended(service, done)
    running = await start(service, ignore_availability=True)
    await hanging.reached.wait()
    waiting = await start(service, ignore_availability=True)

    page = await call(service, "dialogue_list", limit=2)
    rest = await call(service, "dialogue_list", cursor=page["next_cursor"])
    queued = await call(service, "dialogue_list", status="queued")
    for id in (waiting, running):
        await call(service, "dialogue_cancel", dialogue_id=id)
    hanging.release.set()
    await ended(service, running)

    assert [one["dialogue_id"] for one in page["dialogues"]] == [waiting, running]
    assert [one["status"] for one in page["dialogues"]] == ["queued", "running"]
    assert [one["dialogue_id"] for one in rest["dialogues"]] == [done]
    assert rest["dialogues"][0]["finished_at"] is not None
    assert (page["total_count"], rest["next_cursor"]) == (3, None)
    assert [one["dialogue_id"] for one in queued["dialogues"]] == [waiting]


async def test_a_page_behind_no_dialogue_is_refused(service: Service) -> None:
    with pytest.raises(InvalidParams, match="cursor: allowed is next_cursor of the page before"):
        await call(service, "dialogue_list", cursor="invented")


async def test_a_chat_is_answered_while_a_dialogue_is_held(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(after=LINES[0])
    model.add(hanging, "Good morning!", *LINES[1:4])
    id = await start(service)
    await hanging.reached.wait()

    reply = await call(service, "persona_chat", persona_id="noor", message="Good morning.")
    hanging.release.set()
    over = await ended(service, id)

    assert reply["response"] == "Good morning!"
    assert over["status"] == "completed"


async def test_who_waits_is_told_how_far_it_is(service: Service, model: ScriptedModel) -> None:
    hanging, heard = Hangs(after=LINES[0]), list[str]()
    model.add(hanging, *LINES[1:4])

    async def told(text: str) -> None:
        heard.append(text)
        hanging.release.set()

    id = await start(service)
    wanted = {"dialogue_id": id, "wait_ms": WAIT_MS}
    over = await call_operation(service, "dialogue_status", wanted, Caller(told))

    assert heard[0] == "0 of at most 4 turns\n"
    assert over["status"] == "completed"
