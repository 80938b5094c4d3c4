"""Several processes on one data folder: two MCP servers, and one of the command line's kind."""

from pathlib import Path

import pytest

from benchmarks.bookkeeping import faults, model_server
from benchmarks.processes import NAMES, Busy, in_this_process, meet, message, through_mcp
from persona_mcp.config.settings import Settings
from tests.processes import environment, variables

pytestmark = pytest.mark.anyio

EXCHANGES = 15


async def test_three_processes_talk_and_search_at_once_and_lose_nothing(tmp_path: Path) -> None:
    processes, wrong = await meet(
        tmp_path / "data", EXCHANGES, environment(), PERSONA_CONVERSATION__BUSY_WAIT_S="0.2"
    )

    assert wrong == []
    assert [one.name for one in processes] == list(NAMES)
    assert sum(len(one.told) for one in processes) == 3 * EXCHANGES + 1
    assert sum(one.searches for one in processes) == 3 * EXCHANGES + 2 * (3 * EXCHANGES + 1)


async def test_who_finds_a_conversation_busy_is_told_so_and_changes_nothing(
    settings: Settings,
) -> None:
    """The other process holds it with a reply that comes slowly."""
    with model_server(word_s=0.3) as url:
        busy = {"PERSONA_CONVERSATION__BUSY_WAIT_S": "0", "PERSONA_INDEX__KIND": "exact"}
        given = variables(settings.data_dir, url, **busy)
        async with in_this_process(given) as here, through_mcp(given, environment()) as there:
            begun = await here("persona_chat", **message("r0", "coin"))
            where = {"conversation_id": begun["conversation_id"]}
            running = await here("persona_chat", **message("r1", "ring"), **where, wait_s=1)
            assert running["status"] == "running"

            with pytest.raises(Busy):
                await there("persona_chat", **message("r2", "pearl"), **where)

            first = await here("persona_chat", **message("r1", "ring"), **where)
            again = await there("persona_chat", **message("r2", "pearl"), **where)
            same = await there("persona_chat", **message("r1", "ring"), **where)
            found = await here("conversation_get", **where)

    assert (first["turn_number"], again["turn_number"]) == (4, 6)
    assert (same["exchange_id"], same["response"]) == (first["exchange_id"], first["response"])
    assert [exchange["status"] for exchange in found["exchanges"]] == ["done"] * 3
    assert await faults(settings, {"r0", "r1", "r2"}) == []
