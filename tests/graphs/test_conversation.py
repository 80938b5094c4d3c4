"""The conversation's graph: its shape, and what its checkpoints hold."""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from sqlalchemy import update
from structlog.testing import capture_logs

from persona_mcp.graphs.conversation import build_conversation
from persona_mcp.nodes.parts import ChatContext, ChatIds
from persona_mcp.server.runs import ChatRequest
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import InternalError
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import thread_id
from persona_mcp.state.interaction import InteractionParams, InteractionState, available
from tests.calls import say
from tests.doubles import Fails, ScriptedModel
from tests.savers import sqlite_of

pytestmark = pytest.mark.anyio

EDGES = [
    ("__start__", "load", False),
    ("decide", "excuse", True),
    ("decide", "generate", True),
    ("decide", "offer", True),
    ("excuse", "relate", False),
    ("generate", "validate", False),
    ("load", "retrieve", True),
    ("load", "take", True),
    ("offer", "wait", False),
    ("persist", "__end__", False),
    ("refuse", "__end__", False),
    ("relate", "persist", False),
    ("retrieve", "decide", False),
    ("take", "validate", False),
    ("validate", "generate", True),
    ("validate", "refuse", True),
    ("validate", "relate", True),
    ("validate", "wait", True),
    ("wait", "load", False),
]
CHECKPOINTED = {
    "world_id",
    "conversation_id",
    "exchange_id",
    "message",
    "reply",
    "head",
    "attempts",
}


async def checkpoints(service: Service, conversation_id: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Read a conversation's checkpoints as they lie in the file, oldest first, and decoded."""
    found = sqlite_of(service).execute(
        "SELECT type, checkpoint, metadata FROM checkpoints WHERE thread_id = ? "
        "ORDER BY checkpoint_id",
        (thread_id("main", conversation_id),),
    )
    serde = service.checkpointer.serde
    return [(row[1] + row[2], serde.loads_typed((row[0], row[1]))) for row in found]


async def test_the_graph_has_the_steps_of_the_design(service: Service) -> None:
    drawn = build_conversation(service.parts).compile().get_graph()

    assert list(drawn.nodes) == [
        "__start__",
        "load",
        "retrieve",
        "decide",
        "excuse",
        "generate",
        "offer",
        "wait",
        "take",
        "validate",
        "refuse",
        "relate",
        "persist",
        "__end__",
    ]
    assert sorted((e.source, e.target, e.conditional) for e in drawn.edges) == EDGES


async def test_a_checkpoint_holds_ids_and_the_current_turn_and_nothing_else(
    service: Service, model: ScriptedModel
) -> None:
    model.add("A red boat! Tom must love being seen.", "Rain, always rain.", "It was red.")
    await say(service, "My brother Tom has a red boat.")
    first = await say(service, "How is the weather?")
    where = {"conversation_id": first["conversation_id"]}
    last = await say(service, "Which colour has Tom's boat?", **where)

    *_, (stored, decoded) = await checkpoints(service, first["conversation_id"])

    assert decoded["channel_values"] == {
        "world_id": "main",
        "conversation_id": first["conversation_id"],
        "exchange_id": last["exchange_id"],
        "message": "Which colour has Tom's boat?",
        "reply": "It was red.",
        "head": last["exchange_id"],
        "attempts": 1,
    }
    assert set(decoded["channel_values"]) == CHECKPOINTED
    for text in (b"travelling bard", b"My brother Tom", b"always rain", b"You are Aria"):
        assert text not in stored
    assert len(stored) < 2560


async def test_checkpoints_do_not_grow_with_the_conversation(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*["Yes."] * 8)
    first = await say(service, "Really?")
    where = {"conversation_id": first["conversation_id"]}
    for _ in range(7):
        await say(service, "Really?", **where)

    stored = await checkpoints(service, first["conversation_id"])

    assert len(stored) == 8
    assert len(stored[-1][0]) - len(stored[1][0]) <= 64  # lengths of version numbers vary


async def test_an_exchange_that_fails_checkpoints_no_reply(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Yes.", Fails(ZeroDivisionError("ours"), after="The harb"), "No.")
    first = await say(service, "Really?")
    where = {"conversation_id": first["conversation_id"]}
    with capture_logs(), pytest.raises(InternalError):
        await say(service, "What happened?", **where)

    third = await say(service, "And now?", **where)

    assert third["turn_number"] == 4
    assert [m.content for m in model.history[2].messages[1:]] == ["Really?", "Yes.", "And now?"]
    *_, (_, decoded) = await checkpoints(service, first["conversation_id"])
    assert decoded["channel_values"]["reply"] == "No."
    assert not any(b"The harb" in stored for stored, _ in await checkpoints(service, **where))


async def test_a_run_without_an_exchange_is_given_one_by_its_first_step(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The harbour froze.")

    async def accept(state: Mapping[str, Any], context: ChatContext) -> ChatIds:
        exchange = await service.accept(
            ChatRequest("main", context.persona_id, "ann", state["message"])
        )
        lease = Lease("main", exchange.conversation_id, exchange.id, service.process)
        await service.claim(lease)
        return ChatIds(
            world_id="main",
            conversation_id=exchange.conversation_id,
            exchange_id=exchange.id,
        )

    graph = build_conversation(replace(service.parts, accept=accept)).compile()
    ended = await graph.ainvoke(
        {"message": "What happened?"}, context=ChatContext(persona_id="kira")
    )

    kept = await service.exchanges.get("main", ended["head"])
    assert ended["reply"] == "The harbour froze."
    assert (kept.status, kept.persona_id, kept.user_id) == ("done", "kira", "ann")


async def test_a_run_that_follows_nothing_said_goes_on_from_its_checkpoint(
    service: Service, model: ScriptedModel
) -> None:
    """What Studio does: it forks at an older checkpoint, whose head says what the window shows."""
    model.add("One.", "Two.", "Other two.")
    first = await say(service, "Say one.")
    where = {"conversation_id": first["conversation_id"]}
    await say(service, "Say two.", **where)
    graph = build_conversation(service.parts).compile(checkpointer=service.checkpointer)
    thread: RunnableConfig = {
        "configurable": {"thread_id": thread_id("main", first["conversation_id"])}
    }
    history = [state async for state in graph.aget_state_history(thread)]
    after_one = next(s for s in history if s.values.get("head") == first["exchange_id"])

    events = graph.astream(
        {
            "world_id": "main",
            "conversation_id": first["conversation_id"],
            "exchange_id": "studio",
            "message": "Say another two.",
        },
        after_one.config,
        context=ChatContext(),
        durability="exit",
        interrupt_after=["validate"],
    )
    async for _ in events:
        pass

    assert [m.content for m in model.history[2].messages[1:]] == [
        "Say one.",
        "One.",
        "Say another two.",
    ]


async def test_a_human_is_never_refused_by_a_persona_that_is_worn_out_and_rests(
    service: Service, model: ScriptedModel
) -> None:
    """Nothing is left of it, as the clock stands still between the state and the message."""
    model.add("I am so tired.", "Still here.")
    await say(service, "Good evening.")
    now = time.time()
    spent = InteractionState(now, fatigue=100, energy=0, time=0, cooldown_until=now + 86_400)
    assert not available(spent, InteractionParams())
    with service.database.writing() as connection:
        connection.execute(update(tables.PersonaState).values(interaction=asdict(spent)))

    answer = await say(service, "Are you there?")

    assert (answer["response"], answer["response_type"]) == ("Still here.", "constrained")
    assert "tired of talking" in model.history[-1].text
