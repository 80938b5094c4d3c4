"""What is recalled for a reply: what the persona may know and tells the one it talks to."""

import time
from dataclasses import replace
from typing import Any

import pytest

from persona_mcp.nodes import retrieval
from persona_mcp.server.service import Service
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.effects import begin_cache
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import add_memories
from persona_mcp.state.model import ModelInfo
from tests.calls import call, request, say
from tests.doubles import LARGE, SMALL, ScriptedModel
from tests.nodes.steps import Writer, state
from tests.scenes import scene

pytestmark = pytest.mark.anyio

TOKEN = "zyzzyva"
SECRET = f"I burnt the {TOKEN} bridge myself."
ASKED = "Who burnt the bridge?"
SAID = "My cat is called Biscuit."
FILLING = " ".join(["The rain goes on and on over the harbour and nobody minds it."] * 12)
CLOSE: dict[str, Any] = {
    "affinity_latent": 2.0,
    "trust_latent": 1.5,
    "disclosure": 2.0,
    "contact": 2.0,
}


async def keep(service: Service, kind: str = "secret", **more: Any) -> None:
    """Let Aria remember something that is personal."""
    memory = NewMemory("s1", "aria", SECRET, 0.9, {}, memory_type=kind, **more)
    with service.database.writing() as connection:
        add_memories(connection, "main", [memory], time.time())
    while await service.indexer.work_off():
        pass


def befriend(service: Service, user: str, **changed: float) -> None:
    """Let Aria be close to somebody."""
    arrow = Arrow(time.time(), interactions=40, **{**CLOSE, **changed})
    with service.database.writing() as connection:
        begin_cache(connection, "main", "aria", user, arrow, 1)


async def prompt_for(service: Service, model: ScriptedModel, user: str) -> str:
    """Ask as a user and return what the model was given."""
    model.add("Nobody knows.")
    await say(service, ASKED, user_id=user)
    return model.history[-1].text


async def test_memories_are_recalled_from_what_the_persona_was_told(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Noted.")
    await say(service, SAID)
    aria = await service.personas.resolve("main", "aria")
    writer = Writer()

    found = await retrieval.retrieve_memories(
        service.parts,
        state(message="What is my cat called?", scene=scene(who=aria)),
        writer.runtime,
    )

    assert SAID in [hit.memory.content for hit in found["recall"].hits]
    assert writer.told == [
        {"event": "recalled", "count": len(found["recall"].hits), "held_back": []}
    ]


@pytest.mark.parametrize(
    ("info", "is_remembered"),
    [(LARGE, False), (replace(LARGE, context_tokens=1500), True), (SMALL, True)],
)
async def test_what_was_said_in_a_talk_is_in_the_prompt_by_its_window_or_as_a_memory(
    service: Service, model: ScriptedModel, info: ModelInfo, is_remembered: bool
) -> None:
    model.known = info
    model.add("Noted.", "Wet.", "Dry.", "Mild.", "Cold.", "Biscuit.")
    talk = {"conversation_id": (await say(service, SAID))["conversation_id"]}
    for number in range(4):
        await say(service, f"How is the weather on day {number}? {FILLING}", **talk)
    while await service.indexer.work_off():
        pass

    await say(service, "What is my cat called?", **talk)

    *before, last = [m.content for m in model.history[-1].messages]
    remembers = last if info.small else before[0]
    assert (SAID in remembers) == is_remembered
    assert sum(SAID in content for content in before) == (not info.small)


@pytest.mark.parametrize("kind", ["secret", "trauma"])
async def test_what_is_personal_is_told_to_a_close_friend_and_to_no_stranger(
    service: Service, model: ScriptedModel, kind: str
) -> None:
    await keep(service, kind)
    befriend(service, "ann")

    assert TOKEN in await prompt_for(service, model, "ann")
    assert TOKEN not in await prompt_for(service, model, "bob")
    assert TOKEN not in await prompt_for(service, model, "bob")  # who is a stranger no more


@pytest.mark.parametrize("changed", [{"trust_latent": 0.1}, {"disclosure": 0.0}])
async def test_neither_intimacy_nor_trust_alone_is_enough(
    service: Service, model: ScriptedModel, changed: dict[str, float]
) -> None:
    await keep(service)
    befriend(service, "ann", **changed)

    assert TOKEN not in await prompt_for(service, model, "ann")


async def test_who_told_a_secret_hears_it_again(service: Service, model: ScriptedModel) -> None:
    await keep(service, witnesses=("bob",))

    assert TOKEN in await prompt_for(service, model, "bob")
    assert TOKEN not in await prompt_for(service, model, "ann")


async def test_what_a_friend_was_told_is_not_passed_on_as_a_memory_of_the_talk(
    service: Service, model: ScriptedModel
) -> None:
    await keep(service)
    befriend(service, "ann")
    model.add(f"It was me. {SECRET}")
    await say(service, ASKED, user_id="ann")

    assert TOKEN not in await prompt_for(service, model, "bob")
    assert TOKEN in await prompt_for(service, model, "ann")


async def test_what_is_held_back_is_told_by_its_id_alone(
    service: Service, model: ScriptedModel
) -> None:
    await keep(service)
    writer = Writer()
    aria = await service.personas.resolve("main", "aria")

    found = await retrieval.retrieve_memories(
        service.parts, state(message=ASKED, scene=scene(who=aria)), writer.runtime
    )

    assert found["recall"].hits == ()
    assert writer.told == [{"event": "recalled", "count": 0, "held_back": ["s1"]}]


@pytest.mark.parametrize(("info", "held_back"), [(LARGE, []), (SMALL, ["s1"])])
async def test_what_is_held_back_is_told_of_the_look_that_the_prompt_is_made_of(
    service: Service, model: ScriptedModel, info: ModelInfo, held_back: list[str]
) -> None:
    model.known = info
    model.add("Well met.", *["Fair and mild."] * 3, "Nobody knows.")
    talk = {"conversation_id": (await say(service, "Hello."))["conversation_id"]}
    for day in range(3):
        await say(service, f"How is the weather on day {day}?", **talk)
    for number in range(6):
        memory = NewMemory(f"m{number}", "aria", f"{number}. {ASKED}", 0.5, {}, witnesses=("user",))
        with service.database.writing() as connection:
            add_memories(connection, "main", [memory], time.time())
    await keep(service)

    run, _ = await service.chat(request(ASKED, **talk))
    await run.outcome()

    assert run.held_back == held_back


async def test_the_persona_itself_finds_its_own_secrets(service: Service) -> None:
    await keep(service)

    found = await call(service, "memory_search", persona_id="aria", query=ASKED)

    assert [memory["id"] for memory in found["memories"]] == ["s1"]
