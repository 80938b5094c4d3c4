"""How commands are run, and what does many things at once."""

import asyncio
import gc
import importlib.util

from persona_mcp.server.event_loop import busy_runner


async def loop_module() -> str:
    await asyncio.sleep(0)
    return type(asyncio.get_running_loop()).__module__


def test_many_things_run_on_the_faster_loop_where_there_is_one() -> None:
    with busy_runner() as runner:
        found = runner.run(loop_module())

    assert (found == "uvloop") == (importlib.util.find_spec("uvloop") is not None)


def test_what_was_loaded_before_is_not_looked_through_meanwhile_and_is_again_after() -> None:
    with busy_runner():
        assert gc.get_freeze_count() > 0

    assert gc.get_freeze_count() == 0
