"""A world that is deleted while somebody talks in it."""

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.errors import Conflict
from persona_mcp.state.ids import thread_id
from persona_mcp.state.worlds import remove_world
from tests.calls import request
from tests.doubles import Hangs, ScriptedModel

pytestmark = pytest.mark.anyio


async def test_a_reply_that_is_being_made_leaves_no_checkpoint(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(after="It froze that winter.")
    model.add(hanging)
    run, accepted = await service.chat(request("What happened?"))
    await hanging.reached.wait()

    await service.database.write(remove_world, "main", 0.0)
    hanging.release.set()
    with pytest.raises(Conflict):
        await run.outcome()

    thread = thread_id("main", accepted.conversation_id)
    kept = service.checkpointer.alist({"configurable": {"thread_id": thread}})
    assert [one async for one in kept] == []
