"""The doctor's checks, one by one."""

import sqlite3

import pytest
from sqlalchemy import Connection

from persona_mcp.config.checkpoints import PersonaSqliteSaver
from persona_mcp.config.database import database_path
from persona_mcp.config.llm_faults import DOCTOR
from persona_mcp.server.cli import doctor
from persona_mcp.server.cli.personas import call
from persona_mcp.server.service import Service
from persona_mcp.state.errors import ModelError, StorageUnavailable
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio

SNAPSHOT = "'n', 1, '', 0, 1.0, 'f', 'h', 1, '{}', x'00', 'nowhere', 's'"


async def test_a_part_that_fails_says_why_and_is_not_ok() -> None:
    async def broken() -> str:
        raise ModelError("ollama does not answer; start it with `ollama serve`")

    found = await doctor.tried("model", broken)

    assert (found.ok, found.detail) == (
        False,
        "ollama does not answer; start it with `ollama serve`",
    )


@pytest.mark.parametrize("joint", [": ", "; "])
async def test_the_doctor_sends_nobody_to_the_doctor(joint: str) -> None:
    async def broken() -> str:
        raise ModelError(f"openai:x refused the request (400){joint}{DOCTOR}")

    assert (await doctor.tried("model", broken)).detail == "openai:x refused the request (400)"


async def test_each_part_is_really_used(service: Service, model: ScriptedModel) -> None:
    model.add("Hello there")

    assert "sound; exchanges: 0" in await doctor.database(service)
    assert "exact" in await doctor.index(service)
    assert "64 dimensions" in await doctor.embedder(service.embedder)
    assert "'Hello there'" in await doctor.model(service.model)


@pytest.mark.sqlite
async def test_words_that_do_not_agree_with_the_memories_are_damage(service: Service) -> None:
    def add_words(connection: Connection) -> None:
        connection.exec_driver_sql(
            "INSERT INTO memory_words (rowid, indexed_text, scope) VALUES (1, 'tea', 'o')"
        )

    await service.database.write(add_words)

    with pytest.raises(StorageUnavailable, match="the full-text index"):
        await doctor.database(service)


@pytest.mark.sqlite
async def test_a_row_that_refers_to_nothing_is_damage(service: Service) -> None:
    with sqlite3.connect(database_path(service.settings)) as connection:
        connection.execute("INSERT INTO snapshots VALUES (" + SNAPSHOT + ")")
    connection.close()

    with pytest.raises(StorageUnavailable, match="a row of snapshots refers to one of worlds"):
        await doctor.database(service)


@pytest.mark.sqlite
async def test_damaged_checkpoints_are_named(service: Service) -> None:
    assert isinstance(service.checkpointer, PersonaSqliteSaver)
    connection = service.checkpointer.conn
    connection.execute("CREATE TABLE sums (a INTEGER CHECK (a > 0))")
    connection.execute("PRAGMA ignore_check_constraints=ON")
    connection.execute("INSERT INTO sums VALUES (-1)")
    connection.commit()
    connection.execute("PRAGMA ignore_check_constraints=OFF")

    with pytest.raises(StorageUnavailable, match="damaged: checkpoints"):
        await doctor.database(service)


async def test_the_command_line_needs_no_model_to_list_personas(service: Service) -> None:
    found = await call(service.settings, None, "persona_list")

    assert [p["name"] for p in found["personas"]] == ["Aria", "Kira", "Noor"]
