"""How commands are run, and what does many things at once."""

import asyncio
import gc
import importlib.util
import sys

import pytest

from persona_mcp.server.event_loop import TURN_S, busy_runner, short_turns


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


def test_threads_take_short_turns_and_afterwards_those_that_they_had() -> None:
    before = sys.getswitchinterval()
    with short_turns():
        assert sys.getswitchinterval() == pytest.approx(TURN_S)

    assert sys.getswitchinterval() == before
