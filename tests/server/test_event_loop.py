"""The event loop of what does many things at once."""

import asyncio
import importlib.util
import sys

from persona_mcp.server.event_loop import busy_loop


async def said() -> str:
    await asyncio.sleep(0)
    return "done"


def test_many_things_run_on_the_faster_loop_where_there_is_one() -> None:
    made = busy_loop()

    with asyncio.Runner(loop_factory=made) as runner:
        assert runner.run(said()) == "done"

    there = importlib.util.find_spec("uvloop") is not None
    assert (made is not None) == there or sys.platform == "win32"
