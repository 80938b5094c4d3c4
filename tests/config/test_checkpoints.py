import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from persona_mcp.config.checkpoints import (
    PackedSerializer,
    PersonaSqliteSaver,
    open_checkpointer,
    open_sqlite_saver,
)
from persona_mcp.config.postgres_checkpoints import PersonaPostgresSaver
from persona_mcp.config.saver import PersonaSaver
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import StorageUnavailable
from tests.postgres import fresh_database, on_postgres

pytestmark = pytest.mark.anyio


KINDS = ("sqlite", "postgresql")


@pytest.fixture(params=KINDS)
def chosen(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings of either kind, with nothing stored yet."""
    if request.param == "sqlite":
        return settings
    return on_postgres(settings, request.getfixturevalue("postgres_url"))


@pytest.fixture
async def saver(chosen: Settings) -> AsyncIterator[PersonaSaver]:
    async with open_checkpointer(chosen) as opened:
        yield opened


async def put(saver: PersonaSaver, thread: str, number: int, namespace: str = "") -> None:
    config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
    version = f"{number:032}.5"
    checkpoint = {
        **empty_checkpoint(),
        "id": f"{number:04}",
        "channel_values": {"number": number, "list": [number] * 300},
        "channel_versions": {"number": version, "list": version},
    }
    written = await saver.aput(
        config,
        checkpoint,  # type: ignore[arg-type]
        {"step": number},
        {"number": version, "list": version},
    )
    await saver.aput_writes(written, [("channel", number)], f"task{number}")


async def kept(saver: PersonaSaver, thread: str, namespace: str = "") -> list[str]:
    config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
    found = [one async for one in saver.alist(config)]
    for one in found:
        number = int(one.checkpoint["id"])
        assert one.checkpoint["channel_values"] == {"number": number, "list": [number] * 300}
    return [one.config["configurable"]["checkpoint_id"] for one in found]


async def rows(saver: PersonaSaver, kind: str) -> int:
    """Count the rows of checkpoints, writes or (PostgreSQL) blobs."""
    if isinstance(saver, PersonaSqliteSaver):
        return int(saver.conn.execute(f"SELECT count(*) FROM {kind}").fetchone()[0])
    assert isinstance(saver, PersonaPostgresSaver)
    table = "checkpoints" if kind == "checkpoints" else f"checkpoint_{kind}"
    async with saver.conn.connection() as connection:
        counted = await connection.execute(f"SELECT count(*) AS number FROM {table}")
        row = await counted.fetchone()
    assert row is not None
    return int(row["number"])


@pytest.mark.parametrize("kind", KINDS)
async def test_the_saver_conforms_with_all_that_a_checkpointer_can_do(
    kind: str, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    opened = iter(range(1000))

    @checkpointer_test(name=kind)
    async def ours() -> AsyncIterator[PersonaSaver]:
        with ExitStack() as stack:
            fresh = settings.model_copy(update={"data_dir": tmp_path / str(next(opened))})
            if kind == "postgresql":
                server = stack.enter_context(
                    fresh_database(request.getfixturevalue("postgres_url"))
                )
                fresh = on_postgres(fresh, server)
            async with open_checkpointer(fresh) as saver:
                yield saver

    report = await validate(ours)

    failures = {name: result.failures for name, result in report.results.items()}
    assert report.passed_all(), failures
    assert len(report.results) == 8
    assert all(result.detected for result in report.results.values())


async def test_the_newest_checkpoints_of_a_thread_are_kept_with_their_writes(
    saver: PersonaSaver,
) -> None:
    for number in range(1, 8):
        await put(saver, "t1", number)
        await put(saver, "t2", number)

    await saver.akeep("t1", 3)

    assert await kept(saver, "t1") == ["0007", "0006", "0005"]
    assert len(await kept(saver, "t2")) == 7
    assert await rows(saver, "writes") == 10


async def test_a_thread_with_fewer_checkpoints_is_left_alone(saver: PersonaSaver) -> None:
    await put(saver, "t1", 1)

    await saver.akeep("t1", 3)
    await saver.akeep("t9", 3)

    assert await kept(saver, "t1") == ["0001"]


async def test_inner_checkpoints_go_with_the_outer_ones_of_their_time(
    saver: PersonaSaver,
) -> None:
    for number in range(1, 5):
        await put(saver, "t1", number)
        await put(saver, "t1", number, "inner")

    await saver.akeep("t1", 2)

    assert await kept(saver, "t1", "inner") == ["0004", "0003"]


async def test_an_unknown_way_of_pruning_is_refused(saver: PersonaSaver) -> None:
    await put(saver, "t1", 1)

    with pytest.raises(ValueError, match="keep_latest or delete"):
        await saver.aprune(["t1"], strategy="all")

    assert await kept(saver, "t1") == ["0001"]


@pytest.fixture
async def sqlite_saver(settings: Settings) -> AsyncIterator[PersonaSqliteSaver]:
    async with open_sqlite_saver(settings) as opened:
        yield opened


async def test_a_statement_that_fails_leaves_everything(sqlite_saver: PersonaSqliteSaver) -> None:
    await put(sqlite_saver, "t1", 1)
    sqlite_saver.conn.execute(
        "CREATE TRIGGER no BEFORE DELETE ON checkpoints BEGIN SELECT RAISE(ABORT, 'no'); END"
    )

    with pytest.raises(Exception, match="no"):
        await sqlite_saver.aprune(["t1"], strategy="delete")

    assert await kept(sqlite_saver, "t1") == ["0001"]
    assert await rows(sqlite_saver, "writes") == 1


async def test_several_open_a_new_file_at_once(tmp_path: Path) -> None:
    async def open_and_put(settings: Settings, number: int) -> None:
        async with open_checkpointer(settings) as saver:
            await put(saver, "t1", number)

    for attempt in range(5):
        settings = Settings(data_dir=tmp_path / str(attempt), _env_file=None)

        await asyncio.gather(*(open_and_put(settings, n) for n in range(6)))

        async with open_checkpointer(settings) as saver:
            assert len(await kept(saver, "t1")) == 6


@pytest.mark.parametrize("content", [b"this is not a database" * 1000, None])
async def test_a_file_that_is_no_database_is_told_about(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "checkpoints.db"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)

    with pytest.raises(StorageUnavailable, match=r"without checkpoints\.db") as caught:
        async with open_checkpointer(Settings(data_dir=tmp_path, _env_file=None)):
            pass

    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("value", [{"id": "c1"}, {"versions": ["0" * 32] * 60}, None, b"bytes"])
def test_what_is_packed_is_read_as_it_was(value: object) -> None:
    packed = PackedSerializer()

    assert packed.loads_typed(packed.dumps_typed(value)) == value


def test_a_long_value_is_stored_in_fewer_bytes_and_a_stock_one_can_still_be_read() -> None:
    value = {"versions": ["0" * 32] * 60}
    stock = JsonPlusSerializer().dumps_typed(value)

    assert len(PackedSerializer().dumps_typed(value)[1]) < len(stock[1]) / 2
    assert PackedSerializer().loads_typed(stock) == value


async def test_a_file_that_another_process_keeps_locked_is_our_error_and_is_written_later(
    settings: Settings,
) -> None:
    limits = settings.database.model_copy(update={"busy_s": 0.1})
    ours = settings.model_copy(update={"database": limits})
    async with open_sqlite_saver(ours) as saver:
        await put(saver, "t1", 1)
        with closing(sqlite3.connect(ours.data_dir / "checkpoints.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            for refused in (put(saver, "t1", 2), saver.akeep("t1", 1), saver.aprune(["t1"])):
                with pytest.raises(StorageUnavailable, match="checkpoints: database is locked"):
                    await refused
            found = await kept(saver, "t1")
        await put(saver, "t1", 3)

        assert found == ["0001"]
        assert await kept(saver, "t1") == ["0003", "0001"]
