"""Worlds saved and loaded from outside: state_save, state_load, state_list, state_export."""

import asyncio
import base64
import json
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.state_files import PIECE_BYTES
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import (
    BadSnapshot,
    Conflict,
    InvalidParams,
    LimitExceeded,
    NoCurrentPersona,
    NotFound,
)
from tests.calls import call, dump, rows, say
from tests.doubles import Hangs, ScriptedModel
from tests.talks import go_on, start
from tests.worlds import make_world

pytestmark = pytest.mark.anyio


async def talked(service: Service, model: ScriptedModel) -> dict[str, Any]:
    """Talk to Aria, change a mood, and have all of it embedded."""
    model.add("A red boat! Tom must love being seen.")
    said = await say(service, "My brother Tom has a red boat.")
    await call(service, "emotional_update_state", persona_id="kira", mood=0.25)
    await call(service, "relationship_update", persona1_id="kira", persona2_id="noor")
    await drained(service)
    return said


async def drained(service: Service) -> None:
    while await service.indexer.work_off() or await service.indexer.pending():
        pass


async def exported(service: Service, **which: Any) -> bytes:
    found = await call(service, "state_export", **which)
    assert found["next_offset"] is None
    return base64.b64decode(found["data"])


async def test_a_talk_is_saved_and_goes_on_in_a_new_world(
    service: Service, model: ScriptedModel
) -> None:
    said = await talked(service, model)
    saved = (await call(service, "state_save", note="after the boat"))["state"]

    loaded = await call(service, "state_load", into="copy")

    assert (loaded["state_loaded"], loaded["world_made"]) == (True, True)
    assert loaded["restored"] == saved["counts"]
    assert loaded["memories_to_embed"] == 0
    assert loaded["previous_snapshot_id"] is None
    model.add("Yes, the red one.")
    again = await say(
        service,
        "Do you remember the boat?",
        world_id="copy",
        conversation_id=said["conversation_id"],
    )
    assert again["turn_number"] == 4
    assert "My brother Tom has a red boat." in model.history[-1].text
    here = await call(service, "conversation_get", conversation_id=said["conversation_id"])
    assert len(here["turns"]) == 2


async def test_whatever_the_product_writes_can_be_loaded(
    service: Service, model: ScriptedModel
) -> None:
    """Talks, looks, versions, documents, hearsay, open prompts, purged and deleted personas."""
    said = await talked(service, model)
    heard = said["memory_ids"][0]
    await call(service, "visual_update", persona_id="aria", description="She wears a red coat.")
    await call(service, "visual_update", scene="the pier", data={"light": 0.5})
    await call(service, "persona_update", persona_id="noor", description="She sells maps.")
    await call(service, "memory_import", persona_id="noor", text="# Tides\n\nHigh at noon.")
    told = {"persona_id": "kira", "told_by": "aria", "source_memory_id": heard}
    await call(service, "memory_store", content="Tom has a boat.", **told)
    await call(service, "memory_update", memory_id=heard, pinned=True)
    await call(service, "memory_decay_force", persona_id="noor")
    await call(service, "persona_prompt", persona_id="noor", message="When is high tide?")
    model.add("What do you play?", "The cello, since I was six.")
    talk = await start(service)
    await go_on(service, talk, turns=2)
    model.add(*["I sail."] * 2)
    for name, purge in (("Gone", False), ("Erased", True)):
        await call(service, "persona_create", name=name)
        await say(service, "Do you sail?", persona_id=name)
        await call(service, "persona_delete", persona_id=name, confirm=True, purge=purge)
    await drained(service)
    saved = (await call(service, "state_save"))["state"]

    loaded = await call(service, "state_load", into="copy")
    again = (await call(service, "state_save", world_id="copy"))["state"]

    assert again["sha256"] == saved["sha256"]
    filled = {table for table, count in saved["counts"].items() if count}
    assert set(saved["counts"]) - filled == {"persona_cards", "prune_runs"}
    assert loaded["memories_to_embed"] == 0
    model.add("Mine has four strings.")
    further = await go_on(service, talk, world_id="copy")
    assert further["turn_count"] == 3


async def test_saving_twice_gives_the_same_check_sum_and_the_next_version(
    service: Service, model: ScriptedModel
) -> None:
    await talked(service, model)
    first = (await call(service, "state_save"))["state"]
    await call(service, "state_load", into="copy")
    second = (await call(service, "state_save", world_id="copy"))["state"]
    third = (await call(service, "state_save"))["state"]

    assert first["sha256"] == second["sha256"] == third["sha256"]
    assert (first["version"], second["version"], third["version"]) == (1, 1, 2)
    assert first["format"] == "persona-mcp-state/1"


async def test_a_world_with_things_in_it_is_replaced_only_when_that_is_confirmed(
    service: Service,
) -> None:
    await call(service, "state_save")
    await call(service, "persona_create", name="Mira")
    before = await dump(service.database)

    with pytest.raises(InvalidParams, match="confirm: allowed is true"):
        await call(service, "state_load")
    assert await dump(service.database) == before
    loaded = await call(service, "state_load", confirm=True)

    assert await names(service) == ["Aria", "Kira", "Noor"]
    undo = loaded["previous_snapshot_id"]
    await call(service, "state_load", snapshot_id=undo, confirm=True)
    assert await names(service) == ["Aria", "Kira", "Mira", "Noor"]
    listed = (await call(service, "state_list", name="before-load"))["snapshots"]
    assert [one["automatic"] for one in listed] == [True, True]


async def names(service: Service, world_id: str = "main") -> list[str]:
    found = await call(service, "persona_list", world_id=world_id)
    return [persona["name"] for persona in found["personas"]]


async def test_a_dry_run_tells_and_changes_nothing(service: Service) -> None:
    await call(service, "state_save")
    before = await dump(service.database)

    planned = await call(service, "state_load", dry_run=True)
    beside = await call(service, "state_load", dry_run=True, mode="merge", into="copy")

    assert (planned["state_loaded"], planned["replaced"]["personas"]) == (False, 3)
    assert beside["restored"]["personas"] == 3
    assert await dump(service.database) == before


async def test_a_merge_that_cannot_be_is_refused_with_all_that_is_different(
    service: Service, model: ScriptedModel
) -> None:
    said = await talked(service, model)
    await call(service, "state_save")
    await call(service, "memory_update", memory_id=said["memory_ids"][0], content="No boat.")
    await drained(service)
    before = await dump(service.database)

    planned = await call(service, "state_load", mode="merge", dry_run=True)
    with pytest.raises(Conflict) as refused:
        await call(service, "state_load", mode="merge")

    assert await dump(service.database) == before
    assert refused.value.data["conflicts"] == planned["conflicts"]
    assert [one["id"] for one in planned["conflicts"]] == [said["memory_ids"][0]]


async def test_a_file_is_taken_as_base64_and_as_json(service: Service) -> None:
    await call(service, "state_save")
    file = await exported(service)
    for world_id, data in (("one", base64.b64encode(file).decode()), ("two", json.loads(file))):
        await call(service, "state_load", data=data, into=world_id)

    assert await names(service, "one") == await names(service, "two") == await names(service)


async def test_the_inline_file_is_the_exported_one(service: Service) -> None:
    saved = await call(service, "state_save", inline=True)

    assert base64.b64decode(saved["data"]) == await exported(service)
    assert saved["state"]["bytes"] == len(
        json.dumps(
            json.loads(await exported(service))["payload"],
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
    )


async def test_an_edited_file_is_refused_and_changes_nothing(service: Service) -> None:
    await call(service, "state_save")
    file = await exported(service)
    before = await dump(service.database)

    for broken in (file.replace(b"Aria", b"Aris", 1), file[:-20], b"{}"):
        with pytest.raises(BadSnapshot):
            data = base64.b64encode(broken).decode()
            await call(service, "state_load", data=data, confirm=True)

    assert await dump(service.database) == before


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"data": "no base64!"}, "data"),
        ({"data": {}, "name": "default"}, "snapshot_id"),
        ({"snapshot_id": "x", "version": 1}, "snapshot_id"),
        ({"into": "../up"}, "into"),
    ],
)
async def test_what_is_named_wrongly_is_refused(
    service: Service, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidParams) as refused:
        await call(service, "state_load", **arguments)

    assert refused.value.data["field"] == field


async def test_what_was_never_saved_is_not_found(service: Service) -> None:
    for name in ("state_load", "state_export"):
        with pytest.raises(NotFound, match="snapshot 'default' not found"):
            await call(service, name)
    with pytest.raises(NotFound):
        await call(service, "state_save", persona_ids=["nobody"])


async def test_what_is_saved_of_some_personas_is_of_no_other(
    service: Service, model: ScriptedModel
) -> None:
    await talked(service, model)

    saved = await call(
        service, "state_save", persona_ids=["KIRA"], include=["personas", "emotions"]
    )
    await call(service, "state_load", into="copy")

    assert saved["state"]["counts"]["personas"] == 1
    assert saved["state"]["counts"]["memories"] == 0
    assert await names(service, "copy") == ["Kira"]
    mood = await call(service, "emotional_get_state", persona_id="kira", world_id="copy")
    assert 0.2 < mood["emotional_state"]["mood"] <= 0.25


async def test_current_things_are_the_sessions_and_loading_leaves_it_alone(
    service: Service,
) -> None:
    handle = await call(service, "persona_switch", persona_id="kira")
    session = {"session_id": handle["session_id"]}

    saved = await call(service, "state_save", **session)
    loaded = await call(service, "state_load", confirm=True, **session)

    assert saved["state"]["current_persona_id"] == loaded["current_persona_id"] == "kira"
    assert loaded["current_conversation_id"] == handle["conversation_session_id"]
    assert handle["session_id"] not in (await exported(service)).decode()


async def test_a_handle_of_a_persona_that_a_load_took_away_is_of_nobody_again(
    service: Service, model: ScriptedModel
) -> None:
    await call(service, "state_save")
    await call(service, "persona_create", name="Gone")
    handle = (await call(service, "persona_switch", persona_id="gone"))["session_id"]
    other = (await call(service, "persona_switch", persona_id="kira"))["session_id"]
    model.add("I sail.", "I draw.")
    await call(service, "persona_chat", message="What do you do?", session_id=handle)
    talk = await call(service, "persona_chat", message="What do you do?", session_id=other)
    kept = {row["id"]: row for row in await rows(service.database, tables.Session)}

    with pytest.raises(BadSnapshot):
        await call(service, "state_load", data={}, confirm=True)
    assert {row["id"]: row for row in await rows(service.database, tables.Session)} == kept
    loaded = await call(service, "state_load", confirm=True, session_id=handle)
    await call(service, "persona_create", name="Gone")

    assert (loaded["current_persona_id"], loaded["current_conversation_id"]) == (None, None)
    with pytest.raises(NoCurrentPersona):
        await call(service, "persona_chat", message="Still there?", session_id=handle)
    with pytest.raises(NoCurrentPersona):
        await call(service, "conversation_get", session_id=other)
    model.add("I draw maps.")
    again = await call(service, "persona_chat", message="What do you do?", session_id=other)
    assert again["conversation_id"] != talk["conversation_id"]
    assert again["turn_number"] == 2
    there = await call(service, "conversation_get", session_id=other)
    assert there["conversation_id"] == again["conversation_id"]


async def test_a_turn_whose_world_is_replaced_meanwhile_is_told_to_be_sent_again(
    service: Service, model: ScriptedModel
) -> None:
    hangs = Hangs("The boats ", "are all out tonight.")
    model.add(hangs)
    talk = await start(service)
    await call(service, "state_save")
    turn = asyncio.create_task(go_on(service, talk))
    await hangs.reached.wait()

    await call(service, "state_load", confirm=True)
    hangs.release.set()

    with pytest.raises(Conflict, match="send it again") as told:
        await turn
    assert told.value.data["retryable"]
    model.add("The boats are back in.")
    assert (await go_on(service, talk))["turn_count"] == 1


async def test_handles_of_other_worlds_are_left_alone_by_a_load(
    service: Service, model: ScriptedModel
) -> None:
    await call(service, "state_save")
    await call(service, "state_load", into="copy")
    await call(service, "persona_create", name="Gone")
    await call(service, "persona_switch", persona_id="gone")
    before = await rows(service.database, tables.Session)

    await call(service, "state_load", into="copy", confirm=True)

    assert await rows(service.database, tables.Session) == before


async def test_a_large_state_is_carried_out_in_pieces(service: Service) -> None:
    with service.database.writing() as connection:
        make_world(connection, "large", personas=2, memories=60)
        card = tables.PersonaCard
        connection.execute(update(card).values(file=bytes(range(256)) * 28_000))
    with pytest.raises(LimitExceeded, match="call state_export"):
        await call(service, "state_save", world_id="large", inline=True)
    found = await call(service, "state_export", world_id="large")
    pieces = [base64.b64decode(found["data"])]
    while found["next_offset"]:
        found = await call(service, "state_export", world_id="large", offset=found["next_offset"])
        pieces.append(base64.b64decode(found["data"]))

    file = b"".join(pieces)
    assert len(file) == found["bytes"] > 2 * PIECE_BYTES
    loaded = await call(service, "state_load", data=base64.b64encode(file).decode(), into="copy")
    assert loaded["restored"]["memories"] == 60
    with pytest.raises(InvalidParams, match="offset"):
        await call(service, "state_export", world_id="large", offset=len(file))


async def test_saved_states_are_listed_in_pages(service: Service) -> None:
    for note in ("one", "two", "three"):
        await call(service, "state_save", note=note)

    first = await call(service, "state_list", limit=2)
    rest = await call(service, "state_list", limit=2, cursor=first["next_cursor"])

    assert [one["note"] for one in first["snapshots"] + rest["snapshots"]] == [
        "three",
        "two",
        "one",
    ]
    assert (first["total_count"], rest["next_cursor"]) == (3, None)
    with pytest.raises(InvalidParams, match="cursor: allowed is next_cursor of the page before"):
        await call(service, "state_list", cursor="invented")


READ_WITH: dict[str, list[dict[str, Any]]] = {
    "conversation_get": [{"conversation_id": f"c{number}"} for number in (0, 7, 199)],
    "conversation_history": [{"conversation_id": "c7"}],
    "conversation_list": [{"limit": 200}, {"persona_id": "persona-3"}],
    "conversation_status": [{"conversation_id": "c8"}],
    "memory_search": [{"persona_id": "persona-3", "query": "harbour letter", "n_results": 20}],
    "memory_search_cross_persona": [{"persona_id": "persona-4", "query": "quiet storm"}],
    "persona_memory": [{"persona_id": "persona-5", "query": ""}],
    "persona_get": [{"persona_id": "persona-6"}],
    "relationship_get": [{"persona1_id": "persona-0", "persona2_id": "user"}],
    "relationship_history": [{"persona1_id": "persona-1", "persona2_id": "user"}],
    "relationship_compatibility": [{"persona1_id": "persona-1", "persona2_id": "persona-2"}],
    "persona_list": [{"limit": 200}],
    "persona_relationship": [{"persona_id": "persona-2"}],
    "relationship_graph": [{"at": "2023-11-15T12:00:00Z"}],
}
"""What reading operations are called with; the rest with a persona, where they take one."""
OF_THE_MOMENT = (
    *("timestamp", "as_of", "last_updated", "stats_calculation_time_ms", "processing_time"),
    *("world_id", "branch"),
)
"""Fields that tell when, how fast, or in which world something was asked."""
MOVING = 1e-4
"""What fades or recovers between two calls."""


OUTSIDE = ("state_", "system_", "dialogue_")
"""Saved states, the program and batches are about a world, and no part of it."""


def reading_calls() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for one in operations("all"):
        if one.read_only and not one.name.startswith(OUTSIDE):
            default = (
                {"persona_id": "persona-2"} if "persona_id" in one.arguments.model_fields else {}
            )
            given = READ_WITH.get(one.name)
            if given is None:
                missing = set(one.input_schema.get("required", [])) - set(default)
                if one.name == "memory_get":
                    continue  # its ids are read below
                assert not missing, f"say in READ_WITH what {one.name} is to be called with"
            found += [(one.name, arguments) for arguments in given or [default]]
    return found


def alike(left: Any, right: Any) -> bool:
    """Tell whether two answers say the same, but for the moment at which they were asked."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            key in OF_THE_MOMENT or alike(left[key], right[key]) for key in left
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return left == pytest.approx(right, rel=MOVING, abs=MOVING)
    return bool(left == right)


async def test_a_large_world_answers_the_same_where_it_was_loaded(service: Service) -> None:
    """The size of a busy world: 50 personas, 5,000 memories, 2,000 exchanges."""
    with service.database.writing() as connection:
        rows = make_world(
            connection, "old", personas=50, memories=5_000, exchanges=2_000, dimension=64
        )
    first = (await call(service, "state_save", world_id="old"))["state"]
    assert (first["counts"]["personas"], first["counts"]["memories"]) == (50, 5_000)
    assert first["counts"]["exchanges"] == 2_000

    await call(service, "state_load", world_id="old", into="new")
    second = (await call(service, "state_save", world_id="new"))["state"]
    assert second["sha256"] == first["sha256"]
    memories = [
        row["id"] for table, its in rows.items() for row in its if table.__tablename__ == "memories"
    ]
    calls = reading_calls() + [("memory_get", {"memory_id": id}) for id in memories[::1000]]
    assert len(calls) > 15
    for name, arguments in calls:
        old = await call(service, name, **arguments, world_id="old")
        new = await call(service, name, **arguments, world_id="new")
        assert alike(old, new), (name, arguments)
