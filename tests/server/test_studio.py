"""What Studio loads: `langgraph.json` names it, and a run there is an exchange like any other."""

import importlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command
from sqlalchemy import select

from persona_mcp.server import studio
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.service import Service
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.tables import RelationshipEvent
from tests.command_line import Cli
from tests.studio import KNOBS, runtime

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def studio_thread(thread: str) -> AsyncIterator[Any]:
    """A thread in a Studio server: each message is a run of its own on the same checkpoints."""
    async with studio.checkpointer() as saver:
        config = {"configurable": {"thread_id": thread}}

        async def say(message: str) -> dict[str, Any]:
            async with studio.conversation(runtime(live=True)) as graph:
                graph.checkpointer = saver
                said: dict[str, Any] = await graph.ainvoke(
                    {"message": message}, config, context=KNOBS
                )
                return said

        yield say


def test_langgraph_json_names_what_is_there() -> None:
    named = json.loads((ROOT / "langgraph.json").read_text())
    factories = [graph["path"].split(":") for graph in named["graphs"].values()]
    factories.append(named["checkpointer"]["path"].rsplit(".", 1))
    assert named["http"]["app"] == f"{studio.__name__}:app"  # read only when asked for, see below

    for module, attribute in factories:
        assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("factory", [studio.conversation, studio.dialogue, studio.relationship])
async def test_a_picture_or_form_opens_nothing(factory: Any, cli: Cli) -> None:
    async with factory(runtime(live=False)) as graph:
        assert "persist" in graph.get_graph().nodes

    assert not (cli.data_dir / "persona.db").exists()


async def test_the_form_offers_the_knobs_of_a_run() -> None:
    async with studio.conversation(runtime(live=False)) as graph:
        assert "persona_id" in graph.get_context_jsonschema()["properties"]


async def test_the_form_of_a_talk_asks_for_no_stage_direction() -> None:
    async with studio.dialogue(runtime(live=False)) as graph:
        assert "required" not in graph.get_input_jsonschema()


async def test_a_talk_that_is_not_named_is_asked_for_in_studio(cli: Cli) -> None:
    async with studio.checkpointer(), studio.dialogue(runtime(live=True)) as graph:
        with pytest.raises(Exception, match="conversation_id is required"):
            await graph.ainvoke({}, context=KNOBS)


async def test_what_is_said_in_studio_is_one_conversation_and_is_remembered(cli: Cli) -> None:
    async with studio_thread("t1") as say:
        first = await say("My dog is called Rex.")
        second = await say("What is my dog called?")
        service = await studio.OPENED.service()
        found = await service.conversations.latest("main", "noor", "user")
        assert found is not None
        told = await call_operation(service, "conversation_get", {"conversation_id": found.id})

    assert first["reply"] and second["reply"]
    assert [turn["turn_number"] for turn in told["turns"]] == [1, 2, 3, 4]
    assert [e["status"] for e in told["exchanges"]] == ["done", "done"]


async def test_a_conversation_goes_on_between_the_two_whose_it_is(cli: Cli) -> None:
    async with studio.checkpointer():
        service = await studio.OPENED.service()
        hello = {"persona_id": "aria", "user_id": "sam", "message": "My dog is called Rex."}
        where = (await call_operation(service, "persona_chat", hello))["conversation_id"]
        given = {"world_id": "main", "conversation_id": where, "message": "What is he called?"}
        async with studio.conversation(runtime(live=True)) as graph:
            said = await graph.ainvoke(given, context=KNOBS)
        told = await call_operation(service, "conversation_get", {"conversation_id": where})

    assert [turn["speaker_id"] for turn in told["turns"]] == ["sam", "aria"] * 2
    assert told["turns"][-1]["content"] == said["reply"]


async def test_with_the_host_knob_the_reply_is_written_in_studio(cli: Cli) -> None:
    config = {"configurable": {"thread_id": "t3"}}
    given = [
        {"message": "My dog is called Rex."},
        Command(resume={"response": "As an AI model, I have no dog."}),
        Command(resume={"response": "Rex! A king's name for a dog."}),
    ]
    ended = []
    async with studio.checkpointer() as saver:
        for one in given:
            async with studio.conversation(runtime(live=True)) as graph:
                graph.checkpointer = saver
                ended.append(await graph.ainvoke(one, config, context={**KNOBS, "host": True}))
        service = await studio.OPENED.service()
        found = await service.conversations.latest("main", "noor", "user")
        assert found is not None
        told = await call_operation(service, "conversation_get", {"conversation_id": found.id})

    faults = [[i.value["faults"] for i in one.get("__interrupt__", ())] for one in ended]
    assert faults == [[[]], [["it falls out of character"]], []]
    assert [turn["content"] for turn in told["turns"]] == [
        "My dog is called Rex.",
        "Rex! A king's name for a dog.",
    ]
    assert [e["status"] for e in told["exchanges"]] == ["done"]
    assert not [r for r in cli.server.requests if "chat" in r.path], "no model was asked"


async def test_the_app_is_made_when_asked_for_and_shares_the_service_of_the_runs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_SERVER__MAX_BODY_BYTES", "2048")
    studio.product_app.cache_clear()

    app = studio.app
    async with studio.checkpointer():
        async with app.router.lifespan_context(app):
            service: Service = app.state.service
            assert service is await studio.OPENED.service()
        assert service is await studio.OPENED.service()

    assert service.settings.server.max_body_bytes == 2048
    with pytest.raises(AttributeError, match="nothing"):
        _ = studio.nothing


async def test_a_run_that_fails_in_studio_leaves_no_lease_and_no_memory(cli: Cli) -> None:
    cli.server.script("500")

    async with studio_thread("t2") as say:
        with pytest.raises(Exception, match="openai:test"):
            await say("My dog is called Rex.")
        service = await studio.OPENED.service()
        found = await service.conversations.latest("main", "noor", "user")
        assert found is not None
        told = await call_operation(service, "conversation_get", {"conversation_id": found.id})
        again = await say("Hello.")

    assert told["turns"] == []
    assert [e["status"] for e in told["exchanges"]] == ["interrupted"]
    assert again["reply"]


async def test_a_turn_of_a_talk_between_personas_is_made_in_studio(cli: Cli) -> None:
    two = {"persona1_id": "aria", "persona2_id": "noor", "seed": 5}
    async with studio.checkpointer():
        service = await studio.OPENED.service()
        where = (await call_operation(service, "conversation_start", two))["conversation_id"]
        asked = {"conversation_id": where, "direction": "It rains.", "asked_speaker": "noor"}
        async with studio.dialogue(runtime(live=True)) as graph:
            made = await graph.ainvoke(asked, context=KNOBS)
        told = await call_operation(service, "conversation_get", {"conversation_id": where})

    assert (made["speaker"], made["next_speaker"]) == ("noor", "aria")
    assert [(t["speaker_id"], t["content"]) for t in told["turns"]] == [("noor", made["reply"])]
    assert [(e["status"], e["message"]) for e in told["exchanges"]] == [("done", "It rains.")]


async def test_a_turn_that_cannot_be_made_as_it_is_asked_for_in_studio_is_refused(
    cli: Cli,
) -> None:
    two = {"persona1_id": "aria", "persona2_id": "noor", "seed": 5}
    async with studio.checkpointer():
        service = await studio.OPENED.service()
        where = (await call_operation(service, "conversation_start", two))["conversation_id"]
        for given, told in (
            ({"asked_speaker": "kira"}, "asked_speaker: allowed is one of aria, noor, who talk"),
            ({"asked_speaker": 5}, "asked_speaker: allowed is text"),
            ({"direction": 5}, "direction: allowed is text"),
            ({"turns": "many"}, "turns: allowed is whole number"),
            ({"turns": -5}, "turns: allowed is whole number 1 or more, given was -5"),
            ({"turns": 0}, "turns: allowed is whole number 1 or more, given was 0"),
            ({"conversation_id": 5}, "conversation_id: allowed is text"),
        ):
            async with studio.dialogue(runtime(live=True)) as graph:
                with pytest.raises(RuntimeError, match=told) as raised:
                    await graph.ainvoke({"conversation_id": where, **given}, context=KNOBS)
            assert type(raised.value).__name__ == "InvalidParams"
        found = await call_operation(service, "conversation_get", {"conversation_id": where})

    assert (found["turns"], found["exchanges"]) == ([], [])
    assert not [r for r in cli.server.requests if "chat" in r.path], "no model was asked"


async def test_a_talk_of_a_world_that_is_not_there_names_the_world_in_studio(cli: Cli) -> None:
    async with studio.checkpointer(), studio.dialogue(runtime(live=True)) as graph:
        with pytest.raises(RuntimeError, match="world 'moon' not found"):
            await graph.ainvoke({"conversation_id": "c", "world_id": "moon"}, context=KNOBS)


async def test_several_turns_of_a_talk_are_made_in_one_run_in_studio(cli: Cli) -> None:
    two = {"persona1_id": "aria", "persona2_id": "noor", "seed": 5}
    async with studio.checkpointer():
        service = await studio.OPENED.service()
        where = (await call_operation(service, "conversation_start", two))["conversation_id"]
        asked = {"conversation_id": where, "direction": "It rains.", "turns": 3}
        async with studio.dialogue(runtime(live=True)) as graph:
            await graph.ainvoke(asked, context=KNOBS)
        told = await call_operation(service, "conversation_get", {"conversation_id": where})

    assert [t["speaker_id"] for t in told["turns"]] == ["noor", "aria", "noor"]
    assert [(e["status"], e["message"]) for e in told["exchanges"]] == [
        ("done", "It rains."),
        ("done", ""),
        ("done", ""),
    ]


async def test_the_relationship_graph_runs_in_studio(cli: Cli) -> None:
    event = {
        "world_id": "main",
        "event_id": "e1",
        "actor_id": "sam",
        "receiver_id": "noor",
        "text": "Thank you, you are so kind!",
    }

    async with studio.checkpointer(), studio.relationship(runtime(live=True)) as graph:
        felt = await graph.ainvoke(event)

    assert felt["backward"]["affinity"] > 0


async def test_what_is_wrong_can_be_read_in_studio(cli: Cli) -> None:
    async with studio.checkpointer(), studio.conversation(runtime(live=True)) as graph:
        for given, context, error, told in (
            ({"message": "Hello."}, {"persona_id": "Nor"}, "NotFound", "did you mean Noor"),
            ({"message": ""}, KNOBS, "InvalidParams", "message: allowed is "),
            ({"world_id": "main"}, KNOBS, "InvalidParams", "message: allowed is text"),
            ({"message": "Hello.", "world_id": "moon"}, KNOBS, "NotFound", "world 'moon' not"),
            ({"message": "Hello.", "world_id": 5}, KNOBS, "InvalidParams", "world_id: allowed is"),
        ):
            with pytest.raises(RuntimeError, match=told) as raised:
                await graph.ainvoke(given, context=context)
            assert type(raised.value).__name__ == error


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"token_budget": 0}, "token_budget: allowed is whole number 1..32768, given was 0"),
        ({"token_budget": "many"}, 'token_budget: allowed is whole number 1..32768, given was "m'),
        ({"temperature": 5}, "temperature: allowed is number 0..2, given was 5"),
        ({"seed": -1}, "seed: allowed is whole number 0 or more, given was -1"),
        ({"seed": -1, "temperature": 5}, "temperature: allowed is number 0..2"),
        ({"sed": 1}, "sed: allowed is another name (did you mean seed?"),
    ],
)
async def test_a_wrong_knob_is_told_in_studio_as_anything_that_is_wrong(
    cli: Cli, knobs: dict[str, Any], told: str
) -> None:
    async with studio.checkpointer(), studio.conversation(runtime(live=True)) as graph:
        with pytest.raises(RuntimeError, match=re.escape(told)) as raised:
            await graph.ainvoke({"message": "Hello."}, context={**KNOBS, **knobs})

    assert type(raised.value).__name__ == "InvalidParams"
    assert not [r for r in cli.server.requests if "chat" in r.path], "no model was asked"


async def test_a_knob_that_is_null_in_studio_is_one_that_is_left_out(cli: Cli) -> None:
    async with studio.checkpointer(), studio.conversation(runtime(live=True)) as graph:
        ended = await graph.ainvoke({"message": "Hello."}, context={**KNOBS, "token_budget": None})

    assert ended["reply"]


async def test_a_written_reply_that_is_none_is_refused_in_studio_and_may_be_written_anew(
    cli: Cli,
) -> None:
    config = {"configurable": {"thread_id": "t6"}}
    async with studio.checkpointer() as saver:

        async def run(given: Any) -> Any:
            async with studio.conversation(runtime(live=True)) as graph:
                graph.checkpointer = saver
                return await graph.ainvoke(given, config, context={**KNOBS, "host": True})

        await run({"message": "My dog is called Rex."})
        for given, told in (
            ({"response": ""}, "response: allowed is text of 1..20000 characters"),
            ({"reply": "Rex!"}, "response is required"),
            ("Rex!", "arguments: allowed is object"),
        ):
            with pytest.raises(RuntimeError, match=told):
                await run(Command(resume=given))
        ended = await run(Command(resume={"response": "Rex! A king's name for a dog."}))

    assert ended["reply"] == "Rex! A king's name for a dog."


async def test_what_happened_needs_no_ids_and_is_not_what_happens_next_on_its_thread(
    cli: Cli,
) -> None:
    config = {"configurable": {"thread_id": "t4"}}
    both = {"actor_id": "Kira", "receiver_id": "noor", "world_id": "", "event_id": None}
    ended = []
    async with studio.checkpointer() as saver:
        for more in ({"text": "You saved my life."}, {"quality": -0.5}, {"quality": -0.5}):
            async with studio.relationship(runtime(live=True)) as graph:
                graph.checkpointer = saver
                ended.append(await graph.ainvoke({**both, **more}, config))
        service = await studio.OPENED.service()
        kinds = Prepared(select(RelationshipEvent.kind).order_by(RelationshipEvent.seq))
        events = await service.database.read(kinds.all)

    ids = [id for one in ended for id in one["event_ids"]]
    assert len(set(ids)) == len(ids) == 6
    assert sorted(kind for (kind,) in events) == ["turn"] * 2 + ["update"] * 4
    warmth = [one["forward"]["affinity"] for one in ended]
    assert warmth[0] > warmth[1] > warmth[2]


async def test_what_a_failed_run_was_given_is_not_found_by_the_next_one_on_its_thread(
    cli: Cli,
) -> None:
    config = {"configurable": {"thread_id": "t5"}}
    both = {"actor_id": "Kira", "receiver_id": "noor"}
    at_first = {**both, "quality": 5.0, "minutes": 10, "context": "betrayal"}
    later = {**both, "quality": -1.0, "why": "they quarrelled", "witnesses": ["nobody"]}
    async with studio.checkpointer() as saver:

        async def run(given: dict[str, Any]) -> Any:
            async with studio.relationship(runtime(live=True)) as graph:
                graph.checkpointer = saver
                return await graph.ainvoke(given, config)

        with pytest.raises(RuntimeError, match="quality: allowed is"):
            await run(at_first)
        with pytest.raises(RuntimeError, match="persona 'nobody' not found"):
            await run(later)
        with pytest.raises(RuntimeError, match=r"quality: .*, given was nothing"):
            await run(both)
        done = await run({**both, "text": "You saved my life."})
        with pytest.raises(RuntimeError, match="actor_id"):
            await run({"receiver_id": "noor", "quality": 0.5})
        service = await studio.OPENED.service()
        stored = Prepared(select(RelationshipEvent.kind, RelationshipEvent.why))
        events = await service.database.read(stored.all)

    assert done["backward"]["affinity"] > 0
    assert [event.kind for event in events] == ["turn", "turn"]
    assert "they quarrelled" not in {event.why for event in events}
