"""One graph for all dialogues of a process, each with parts of its own."""

import asyncio

import pytest

from persona_mcp.server.batch.dialogue_graph import PartsOfTask, compiled, dialogue_graph
from persona_mcp.state.batch.codec import outcome_json
from persona_mcp.state.dialogue_spec import START
from tests.doubles import HashedModel
from tests.small_worlds import cast, hold, host, job

pytestmark = pytest.mark.anyio


async def test_dialogues_at_once_come_to_what_they_come_to_one_after_the_other() -> None:
    on = host()
    frozen = await on.begin_world(cast(), START)
    jobs = [job(number, *pair) for number, pair in enumerate([("ada", "ben"), ("ben", "cleo")] * 3)]

    together = await asyncio.gather(*(hold(on, one, frozen, HashedModel()) for one in jobs))
    apart = [await hold(on, one, frozen, HashedModel()) for one in jobs]

    assert [outcome_json(one) for one in together] == [outcome_json(one) for one in apart]
    assert len({outcome_json(one) for one in apart}) == len(jobs)


async def test_the_graph_is_compiled_once() -> None:
    with dialogue_graph(None) as one, dialogue_graph(None) as other:  # type: ignore[arg-type]
        assert one is other is compiled()


async def test_a_task_that_holds_no_dialogue_has_no_parts() -> None:
    with pytest.raises(LookupError):
        _ = PartsOfTask().database
