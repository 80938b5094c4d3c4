"""What is PostgreSQL's own about its checkpoints: tables, connections, a server that goes away."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint

from persona_mcp.config.checkpoints import open_checkpointer
from persona_mcp.config.postgres_checkpoints import SETUP_LOCK, PersonaPostgresSaver
from persona_mcp.config.saver import PersonaSaver
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import DeadlineExceeded, NotConfigured, StorageUnavailable
from tests.postgres import Postgres, fresh_database, on_postgres, stored

pytestmark = pytest.mark.anyio

QUICK = {"connect_s": 2.0, "statement_s": 1.0, "pool_s": 3.0, "idle_s": 5.0}
WITHIN_S = 20.0


@pytest.fixture
async def saver(settings: Settings, postgres_url: str) -> AsyncIterator[PersonaSaver]:
    async with open_checkpointer(on_postgres(settings, postgres_url)) as opened:
        yield opened


async def put(saver: PersonaSaver, thread: str, number: int, run: str = "r", **values: Any) -> None:
    """Store a checkpoint; the version of a value is its first letters."""
    config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    versions: Any = {name: str(value)[:12] for name, value in values.items()}
    checkpoint: Any = {
        **empty_checkpoint(),
        "id": f"{number:04}",
        "channel_values": values,
        "channel_versions": versions,
    }
    await saver.aput(config, checkpoint, {"run_id": run}, versions)


async def values_of(saver: PersonaSaver, thread: str) -> list[dict[str, Any]]:
    config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    return [one.checkpoint["channel_values"] async for one in saver.alist(config)]


def blobs(url: str) -> list[str]:
    rows = stored(url, "SELECT thread_id || ':' || version FROM checkpoint_blobs ORDER BY 1")
    return [row[0] for row in rows]


async def test_a_value_that_several_checkpoints_share_goes_with_the_last_of_them(
    saver: PersonaSaver, postgres_url: str
) -> None:
    await put(saver, "t1", 1, kept=["a"], told=["x"])
    await put(saver, "t1", 2, kept=["a"], told=["y"])
    await put(saver, "t1", 3, kept=["b"], told=["y"])
    assert blobs(postgres_url) == ["t1:['a']", "t1:['b']", "t1:['x']", "t1:['y']"]

    await saver.akeep("t1", 2)

    assert blobs(postgres_url) == ["t1:['a']", "t1:['b']", "t1:['y']"]
    assert await values_of(saver, "t1") == [
        {"kept": ["b"], "told": ["y"]},
        {"kept": ["a"], "told": ["y"]},
    ]


async def test_what_only_deleted_runs_used_goes_with_them(
    saver: PersonaSaver, postgres_url: str
) -> None:
    await put(saver, "t1", 1, "r1", told=["x"])
    await put(saver, "t1", 2, "r2", told=["y"])
    await put(saver, "t2", 3, "r2", told=["x"])

    await saver.adelete_for_runs(["r2"])

    assert blobs(postgres_url) == ["t1:['x']"]
    assert await values_of(saver, "t1") == [{"told": ["x"]}]


async def test_a_value_whose_checkpoint_is_still_to_come_is_left_alone(
    saver: PersonaSaver, postgres_url: str
) -> None:
    await put(saver, "t1", 1, told=["x"])
    await put(saver, "t1", 2, told=["y"])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO checkpoint_blobs VALUES ('t1', '', 'told', 'coming', 'bytes', '')"
        )

    await saver.akeep("t1", 1)

    assert blobs(postgres_url) == ["t1:['y']", "t1:coming"]


async def test_a_copy_replaces_what_has_the_same_ids(saver: PersonaSaver) -> None:
    await put(saver, "t1", 1, told=["x"])
    await put(saver, "t2", 1, told=["old"])
    await put(saver, "t2", 2, told=["more"])

    await saver.acopy_thread("t1", "t2")

    assert await values_of(saver, "t2") == [{"told": ["more"]}, {"told": ["x"]}]
    assert await values_of(saver, "t1") == [{"told": ["x"]}]


async def test_what_is_long_is_stored_in_fewer_bytes(
    saver: PersonaSaver, postgres_url: str
) -> None:
    await put(saver, "t1", 1, told=["0" * 32] * 60)

    [(kind, size)] = stored(postgres_url, "SELECT type, length(blob) FROM checkpoint_blobs")

    assert kind == "msgpack+zlib"
    assert size < 200


async def test_several_make_the_tables_of_a_new_database_at_once(
    settings: Settings, postgres_url: str
) -> None:
    async def open_and_put(chosen: Settings, number: int) -> None:
        async with open_checkpointer(chosen) as saver:
            await put(saver, "t1", number, told=[number])

    for _ in range(3):
        with fresh_database(postgres_url) as url:
            chosen = on_postgres(settings, url)

            await asyncio.gather(*(open_and_put(chosen, number) for number in range(6)))

            assert stored(url, "SELECT count(*) FROM checkpoints") == [(6,)]


async def test_who_makes_the_tables_for_too_long_is_told_about(
    settings: Settings, postgres_url: str
) -> None:
    chosen = on_postgres(settings, postgres_url, upgrade_s=0.3)
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (SETUP_LOCK,))

        with pytest.raises(DeadlineExceeded, match=r"tables of the checkpoints for 0\.3 s"):
            async with open_checkpointer(chosen):
                pass


async def test_many_work_at_once_on_few_connections_without_waiting_for_each_other(
    settings: Settings, postgres_url: str
) -> None:
    chosen = on_postgres(settings, postgres_url, checkpoint_connections=3)
    async with open_checkpointer(chosen) as saver:
        assert isinstance(saver, PersonaPostgresSaver)
        await asyncio.gather(*(put(saver, f"t{n}", n, told=[n]) for n in range(60)))

        assert saver.conn.get_stats()["pool_size"] == 3

    assert stored(postgres_url, "SELECT count(*) FROM checkpoints") == [(60,)]


async def test_a_wait_for_a_connection_has_a_limit_and_says_what_it_waited_for(
    settings: Settings, postgres_url: str
) -> None:
    chosen = on_postgres(settings, postgres_url, checkpoint_connections=1, pool_s=0.3)
    async with open_checkpointer(chosen) as saver:
        assert isinstance(saver, PersonaPostgresSaver)
        async with saver.conn.connection():
            waiting = asyncio.create_task(put(saver, "t1", 1, told=[1]))
            while not saver.connections()["waiting"]:
                await asyncio.sleep(0)
            busy = saver.connections()
            with pytest.raises(StorageUnavailable, match=r"no connection .* within 0\.3 s.*all 1"):
                await waiting

        assert busy == {"size": 1, "open": 1, "used": 1, "waiting": 1}
        assert saver.connections() == {"size": 1, "open": 1, "used": 0, "waiting": 0}
        await put(saver, "t1", 1, told=[1])


async def test_an_old_connection_is_replaced(settings: Settings, postgres_url: str) -> None:
    chosen = on_postgres(settings, postgres_url, age_s=1.0, checkpoint_connections=1)
    async with open_checkpointer(chosen) as saver:
        assert isinstance(saver, PersonaPostgresSaver)
        async with saver.conn.connection() as first:
            before = first.info.backend_pid
            expires_at: float = first._expire_at
            assert expires_at - time.monotonic() <= chosen.database.age_s
            await asyncio.sleep(max(0.0, expires_at - time.monotonic()))

        async with saver.conn.connection() as second:
            assert second.info.backend_pid != before


async def test_a_server_that_is_not_there_is_told_without_its_address(settings: Settings) -> None:
    chosen = on_postgres(settings, "postgresql://me:secret@/db?host=/nowhere", **QUICK)

    with pytest.raises(StorageUnavailable) as caught:
        async with open_checkpointer(chosen):
            pass

    assert "no connection to PostgreSQL within 3 s" in caught.value.message
    assert not any(word in caught.value.message for word in ("secret", "nowhere", "me:"))


async def test_without_the_extra_the_command_that_adds_it_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg_pool", None)

    with pytest.raises(NotConfigured, match=r"persona-mcp\[postgres\]"):
        async with open_checkpointer(on_postgres(settings, "postgresql:///db")):
            pass


async def test_after_a_restart_of_the_server_the_next_call_is_served(
    settings: Settings, postgres: Postgres, postgres_url: str
) -> None:
    async with open_checkpointer(on_postgres(settings, postgres_url, **QUICK)) as saver:
        await put(saver, "t1", 1, told=[1])

        await asyncio.to_thread(postgres.restart)

        await put(saver, "t1", 2, told=[2])
        assert await values_of(saver, "t1") == [{"told": [2]}, {"told": [1]}]


async def test_while_the_server_is_away_calls_fail_in_time_and_then_work_again(
    settings: Settings, postgres: Postgres, postgres_url: str
) -> None:
    async with AsyncExitStack() as stack:
        chosen = on_postgres(settings, postgres_url, **QUICK)
        saver = await stack.enter_async_context(open_checkpointer(chosen))
        await put(saver, "t1", 1, told=[1])
        await asyncio.to_thread(postgres.stop)

        began = time.monotonic()
        tries = [put(saver, f"t{number}", 1, told=[1]) for number in range(12)]
        failed = await asyncio.gather(*tries, return_exceptions=True)

        assert time.monotonic() - began < WITHIN_S
        assert {type(error) for error in failed} == {StorageUnavailable}
        await asyncio.to_thread(postgres.start)
        await put(saver, "t1", 2, told=[2])
        assert await values_of(saver, "t1") == [{"told": [2]}, {"told": [1]}]


async def test_a_server_that_stands_still_fails_calls_in_time_and_they_work_again_afterwards(
    settings: Settings, postgres: Postgres, postgres_url: str
) -> None:
    async with open_checkpointer(on_postgres(settings, postgres_url, **QUICK)) as saver:
        await put(saver, "t1", 1, told=[1])

        with postgres.paused():
            began = time.monotonic()
            tries = [put(saver, f"t{number}", 1, told=[1]) for number in range(12)]
            failed = await asyncio.gather(*tries, return_exceptions=True)
            assert time.monotonic() - began < WITHIN_S

        assert {type(error) for error in failed} == {StorageUnavailable}
        await put(saver, "t1", 2, told=[2])
        assert {"told": [2]} in await values_of(saver, "t1")


async def test_a_connection_lost_in_the_middle_is_an_error_and_the_next_call_works(
    saver: PersonaSaver, postgres_url: str
) -> None:
    assert isinstance(saver, PersonaPostgresSaver)
    with pytest.raises(StorageUnavailable, match=r"PostgreSQL is being stopped|was lost"):
        async with saver._cursor() as cursor, cursor.connection.transaction():
            await cursor.execute("INSERT INTO checkpoints VALUES ('t', '', '1', '', '', '{}')")
            pid = cursor.connection.info.backend_pid
            stored(postgres_url, "SELECT pg_terminate_backend(%s)", pid)
            await cursor.execute("SELECT 1")

    await put(saver, "t1", 1, told=[1])
    assert stored(postgres_url, "SELECT thread_id FROM checkpoints") == [("t1",)]
