"""Several processes on one data folder: two MCP servers, and one of the command line's kind."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crash_relationships
from benchmarks.bookkeeping import faults, model_server
from benchmarks.processes import NAMES, Busy, in_this_process, meet, message, through_mcp
from persona_mcp.config.settings import Settings
from tests.processes import environment, stored, variables

pytestmark = pytest.mark.anyio

EXCHANGES = 15
UPDATES = 10
LIMIT_S = 30.0


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
    with model_server(word_s=0.4) as url:
        busy = {"PERSONA_CONVERSATION__BUSY_WAIT_S": "0", "PERSONA_INDEX__KIND": "exact"}
        given = variables(settings.data_dir, url, **busy)
        async with in_this_process(given) as here, through_mcp(given, environment()) as there:
            first = await here("persona_chat", **message("r0", "coin"))
            where = {"conversation_id": first["conversation_id"]}
            running = asyncio.create_task(here("persona_chat", **message("r1", "ring"), **where))
            async with asyncio.timeout(LIMIT_S):
                while statuses(await here("conversation_get", **where)) != ["done", "running"]:
                    await asyncio.sleep(0)

            with pytest.raises(Busy):
                await there("persona_chat", **message("r2", "pearl"), **where)

            second = await running
            third = await there("persona_chat", **message("r2", "pearl"), **where)
            same = await there("persona_chat", **message("r1", "ring"), **where)
            found = await here("conversation_get", **where)

    assert (second["turn_number"], third["turn_number"]) == (4, 6)
    assert (same["exchange_id"], same["response"]) == (second["exchange_id"], second["response"])
    assert statuses(found) == ["done"] * 3
    assert await faults(settings, {"r0", "r1", "r2"}) == []


def test_two_processes_that_update_one_relationship_at_once_both_count_once(tmp_path: Path) -> None:
    requests, wrong = crash_relationships.finish(tmp_path / "data", UPDATES)

    assert wrong == []
    assert len(requests) == 3 * UPDATES
    query = "select from_id, last_seq from relationship_states"
    assert dict(stored(tmp_path / "data", query)) == {"aria": len(requests), "kira": len(requests)}


def statuses(conversation: dict[str, Any]) -> list[str]:
    return [exchange["status"] for exchange in conversation["exchanges"]]
