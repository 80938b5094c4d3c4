"""The dialogue's graph: its shape, what its checkpoints hold, and what its speakers are shown."""

import pytest
from langchain_core.runnables import RunnableConfig

from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.ids import thread_id
from tests.calls import call, rows, say
from tests.doubles import SMALL, Says, ScriptedModel
from tests.savers import sqlite_of
from tests.talks import go_on, said, start

pytestmark = pytest.mark.anyio

EDGES = [
    ("__start__", "cast", False),
    ("cast", "choose_speaker", False),
    ("choose_speaker", "retrieve", False),
    ("close", "__end__", False),
    ("decide", "excuse", True),
    ("decide", "generate", True),
    ("excuse", "relate", False),
    ("generate", "validate", False),
    ("judge", "__end__", True),
    ("judge", "cast", True),
    ("judge", "close", True),
    ("persist", "judge", False),
    ("refuse", "__end__", False),
    ("relate", "persist", False),
    ("retrieve", "decide", False),
    ("validate", "generate", True),
    ("validate", "refuse", True),
    ("validate", "relate", True),
]
CHECKPOINTED = {
    "world_id",
    "conversation_id",
    "exchange_id",
    "message",
    "reply",
    "head",
    "attempts",
    "speaker",
    "next_speaker",
}


async def test_the_graph_has_the_steps_of_the_design(service: Service) -> None:
    drawn = build_dialogue(service.parts).compile().get_graph()

    assert sorted((e.source, e.target, e.conditional) for e in drawn.edges) == EDGES


async def test_each_step_is_checkpointed_with_ids_and_the_current_turn_alone(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The harbour choir sings at dawn.", "Which key?", "In a minor one.")
    talk = await start(service)
    await go_on(service, talk, turns=3)

    thread: RunnableConfig = {
        "configurable": {"thread_id": thread_id("main", talk["conversation_id"])}
    }
    kept = [found async for found in service.checkpointer.alist(thread)]

    assert len(kept) == 3 * 11
    assert set(kept[0].checkpoint["channel_values"]) == CHECKPOINTED
    values = kept[0].checkpoint["channel_values"]
    assert (values["reply"], values["speaker"], values["next_speaker"]) == (
        "In a minor one.",
        "aria",
        "kira",
    )
    stored = sqlite_of(service).execute(
        "SELECT checkpoint FROM checkpoints UNION ALL SELECT value FROM writes"
    )
    assert not any(b"travelling bard" in row[0] or b"scholar" in row[0] for row in stored)


async def test_each_speaker_answers_what_the_other_said_last(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.", "Which key?", "In a minor one.")
    talk = await start(service)

    made = await go_on(service, talk, turns=3, input="It begins to rain.")

    assert said(made) == [
        ("aria", "The choir sings at dawn."),
        ("kira", "Which key?"),
        ("aria", "In a minor one."),
    ]
    opening, second, third = (
        [(m.role, m.content) for m in asked.messages[1:]] for asked in model.history
    )
    assert opening == [
        ("user", "(Kira is with you. You begin to talk about music.)\n(It begins to rain.)")
    ]
    assert second == [("user", "The choir sings at dawn.")]
    assert third == [("assistant", "The choir sings at dawn."), ("user", "Which key?")]
    assert ["You are Aria" in a.system for a in model.history] == [True, False, True]
    assert all("You talk about music. Answer" in asked.system for asked in model.history)
    assert "Answer Kira as Aria" in model.history[0].system
    assert "Answer Aria as Kira" in model.history[1].system


async def test_what_is_answered_is_not_shown_as_a_memory_too(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The choir sings at dawn.", "Which key has the choir?", "A minor one.")
    talk = await start(service)

    await go_on(service, talk, turns=3)

    assert all("What you remember" not in asked.system for asked in model.history)


async def test_a_small_model_is_told_whom_it_talks_to_and_about_what(
    service: Service, model: ScriptedModel
) -> None:
    model.known = SMALL
    model.add("The choir sings at dawn.")
    talk = await start(service)

    await go_on(service, talk)

    assert "You talk with Kira about music." in model.history[0].system


async def test_a_speaker_draws_on_what_it_remembers_of_other_talks(
    service: Service, model: ScriptedModel
) -> None:
    model.add("I will.", "The choir sings at dawn.")
    await say(service, "Kira collects songs about music of the harbour choir.")
    talk = await start(service)

    await go_on(service, talk, speaker_id="aria")

    assert "Kira collects songs" in model.history[1].system


async def test_one_may_go_on_after_itself(service: Service, model: ScriptedModel) -> None:
    model.add("The choir sings at dawn.", "And at dusk.")
    talk = await start(service)
    await go_on(service, talk, speaker_id="Kira")

    made = await go_on(service, talk, speaker_id="kira")

    assert said(made) == [("kira", "And at dusk.")]
    assert [m.content for m in model.history[1].messages[1:]] == [
        "The choir sings at dawn.",
        "(Aria says nothing. You go on.)",
    ]


async def test_a_turn_moves_the_listener_in_full_and_the_speaker_less(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Thank you so much, dear Kira, that was wonderful of you!")
    talk = await start(service)

    await go_on(service, talk)

    events = await rows(service.database, tables.RelationshipEvent)
    by_pair = {(e["from_id"], e["to_id"]): e for e in events}
    assert set(by_pair) == {("aria", "kira"), ("kira", "aria")}
    heard, spoke = by_pair["kira", "aria"], by_pair["aria", "kira"]
    assert (heard["weight"], spoke["weight"]) == (1.0, 0.35)
    assert heard["deltas"]["affinity"] > spoke["deltas"]["affinity"] > 0
    assert heard["direct"] and spoke["direct"]
    turns = await rows(service.database, tables.Turn)
    assert {e["turn_id"] for e in events} == {turns[0]["id"]}


async def test_a_turn_costs_the_speaker_all_and_the_listener_half(
    service: Service, model: ScriptedModel
) -> None:
    model.add(" ".join(["word"] * 50) + ".")
    talk = await start(service)

    await go_on(service, talk)

    spent = await rows(service.database, tables.EnergySpent)
    assert sorted((s["persona_id"], s["talk_s"], s["share"]) for s in spent) == [
        ("aria", 20.0, 1.0),
        ("kira", 20.0, 0.5),
    ]
    assert (await call(service, "conversation_status", **where(talk)))["duration"] == 20.0


def where(talk: dict[str, str]) -> dict[str, str]:
    return {"conversation_id": talk["conversation_id"]}


async def test_all_who_are_there_remember_a_turn_and_who_overhears_it_sees_it_from_aside(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Says("Thank you so much, dear Kira, that was wonderful of you!", tokens=12))
    talk = await start(service, witnesses=["Noor"])

    made = await go_on(service, talk)

    assert made["turns"][0]["witnesses"] == ["aria", "kira", "noor"]
    memories = await rows(service.database, tables.Memory)
    assert {m["persona_id"] for m in memories} == {"aria", "kira", "noor"}
    assert {m["speaker_id"] for m in memories} == {"aria"}
    assert all("] Aria: Thank you" in m["indexed_text"] for m in memories)
    importance = {m["persona_id"]: m["importance"] for m in memories}
    assert importance["aria"] > importance["noor"]
    events = await rows(service.database, tables.RelationshipEvent)
    aside = next(e for e in events if e["from_id"] == "noor")
    assert (aside["to_id"], aside["kind"], aside["weight"], aside["direct"]) == (
        "aria",
        "aside",
        0.3,
        False,
    )
    assert {s["persona_id"] for s in await rows(service.database, tables.EnergySpent)} == {
        "aria",
        "kira",
    }


async def test_who_does_not_overhear_a_talk_is_shown_nothing_of_it(
    service: Service, model: ScriptedModel
) -> None:
    secret = "The vault under the harbour opens with zyzzyva."
    model.add(secret, "I will remember.", "Nobody told me.", "It is zyzzyva.")
    talk = await start(service, witnesses=[])
    await go_on(service, talk, turns=2)
    while await service.indexer.pending():
        await service.indexer.work_off()

    asked = "What opens the vault under the harbour?"
    await say(service, asked, persona_id="noor")
    await say(service, asked, persona_id="kira")

    assert ["zyzzyva" in a.text for a in model.history[2:]] == [False, True]
