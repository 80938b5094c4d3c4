"""What is left when a process is killed: all that was acknowledged, and nothing half done."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crash_memory, crash_relationships
from benchmarks.crash import play
from persona_mcp.config.settings import LLMSettings, Settings
from persona_mcp.server.service import open_service
from tests.calls import call, remembered
from tests.doubles import ScriptedModel
from tests.model_server import Behaviour, ModelServer
from tests.processes import end, eventually, model_server, run, start, stored, variables

pytestmark = pytest.mark.anyio

FACT = "My cat is called Biscuit."
ROUNDS = 3


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


def test_a_fact_told_to_a_killed_process_is_recalled_by_the_next(
    server: ModelServer, tmp_path: Path
) -> None:
    given = variables(tmp_path, server.openai_url, PERSONA_INDEX__KIND="auto")
    process = start("ask", "Aria", FACT, **given)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == Behaviour().text + "\n"
        process.kill()
    finally:
        end(process)

    asked = run("ask", "Aria", "What is my cat called?", "--new", "--explain", "--json", **given)

    assert asked.returncode == 0, asked.stderr
    explained = json.loads(asked.stdout)["explanation"]
    assert any(FACT in memory["text"] for memory in explained["memories"])
    system, *window = explained["prompt"]
    assert f"{FACT}</memory>" in system["content"]
    assert [said["content"] for said in window] == ["What is my cat called?"]


async def test_a_reply_cut_off_by_a_kill_is_interrupted_at_once_and_can_be_asked_again(
    server: ModelServer, settings: Settings
) -> None:
    server.script(Behaviour(text="Never " * 1000, delay_s=0.05))
    given = variables(settings.data_dir, server.openai_url)
    asked = ("ask", "Aria", FACT, "--request-id", "r1", "--json")
    process = start(*asked, **given)
    try:
        eventually(lambda: server.requests, "the model to be asked")
        eventually(lambda: statuses(settings) == ["running"], "the exchange to run")
        process.kill()
    finally:
        end(process)

    [(conversation_id,)] = stored(settings.data_dir, "select id from conversations")
    untouched = LLMSettings(model="openai:test", openai_url=server.openai_url)
    later = settings.model_copy(update={"llm": untouched})
    async with open_service(later, ScriptedModel()) as service:
        found = await call(service, "conversation_get", conversation_id=conversation_id)
        left = await remembered(service.database)
    assert [exchange["status"] for exchange in found["exchanges"]] == ["interrupted"]
    assert found["turns"] == []
    assert {table: rows for table, rows in left.items() if rows} == {}

    first, second = run(*asked, **given), run(*asked, **given)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    one, same = json.loads(first.stdout), json.loads(second.stdout)
    assert one["response"] == Behaviour().text
    assert (same["exchange_id"], same["memory_ids"]) == (one["exchange_id"], one["memory_ids"])
    assert statuses(settings) == ["done"]
    assert counts(settings, "turns", "memories", "relationship_events") == [2, 2, 2]
    eventually(server.requests[0].disconnected.is_set, "the model to be left")
    assert len(server.requests) == 2


def statuses(settings: Settings) -> list[Any]:
    return [row[0] for row in stored(settings.data_dir, "select status from exchanges")]


def counts(settings: Settings, *tables: str) -> list[Any]:
    return [stored(settings.data_dir, f"select count(*) from {table}")[0][0] for table in tables]


def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    lives = list(play(tmp_path / "data", ROUNDS, seed=7))

    assert [life.faults for life in lives] == [[]] * ROUNDS
    assert sum(life.answered for life in lives) > 0
    assert sum(life.asked for life in lives) > sum(life.answered for life in lives)


@pytest.mark.parametrize("what", list(crash_memory.LIVES))
def test_kills_while_memories_are_written_indexed_or_pruned_leave_sql_and_index_agreed(
    tmp_path: Path, what: str
) -> None:
    lives = list(crash_memory.play(tmp_path / "data", what, ROUNDS, seed=7))

    assert [life.faults for life in lives] == [[]] * ROUNDS
    assert sum(life.answered for life in lives) > 0


def test_kills_while_two_processes_update_a_relationship_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    lives = list(crash_relationships.play(tmp_path / "data", ROUNDS, seed=7))

    assert [life.faults for life in lives] == [[]] * ROUNDS
    assert sum(life.answered for life in lives) > 0
