"""What one run in Studio leaves on its thread for the next one, and where a run may begin."""

from typing import Any

import pytest

from persona_mcp.server import studio
from persona_mcp.server.operations.registry import call_operation
from tests.command_line import Cli
from tests.studio import KNOBS, runtime

pytestmark = pytest.mark.anyio


async def test_what_a_refused_turn_was_asked_for_is_not_asked_of_the_next_one_on_its_thread(
    cli: Cli,
) -> None:
    two = {"persona1_id": "aria", "persona2_id": "noor", "seed": 5}
    config = {"configurable": {"thread_id": "t7"}}
    async with studio.checkpointer() as saver:
        service = await studio.OPENED.service()
        where = (await call_operation(service, "conversation_start", two))["conversation_id"]

        async def run(**given: Any) -> Any:
            async with studio.dialogue(runtime(live=True)) as graph:
                graph.checkpointer = saver
                return await graph.ainvoke({"conversation_id": where, **given}, config, context={})

        for wrong in ({"turns": -5}, {"direction": 5}):
            with pytest.raises(RuntimeError, match="allowed is"):
                await run(**wrong)
        made = await run()
        told = await call_operation(service, "conversation_get", {"conversation_id": where})

    assert [turn["content"] for turn in told["turns"]] == [made["reply"]]


async def test_a_run_cannot_be_taken_up_in_the_middle_in_studio(cli: Cli) -> None:
    config = {"configurable": {"thread_id": "t8"}}
    given: Any = {"message": "My dog is called Rex."}
    async with studio.checkpointer() as saver:

        async def run(given: Any, where: Any = config) -> Any:
            async with studio.conversation(runtime(live=True)) as graph:
                graph.checkpointer = saver
                return await graph.ainvoke(given, where, context=KNOBS)

        async def steps() -> list[Any]:
            async with studio.conversation(runtime(live=True)) as graph:
                graph.checkpointer = saver
                return [state async for state in graph.aget_state_history(config)]

        await run(given)
        between = {state.next: state.config for state in await steps()}
        for node in ("retrieve", "generate", "relate", "persist"):
            told = f"cannot be taken up in the middle, at {node}"
            with pytest.raises(RuntimeError, match=told) as raised:
                await run(None, between[node,])
            assert type(raised.value).__name__ == "Conflict"
        again = await run(None, between["load",])

    assert again["reply"]
