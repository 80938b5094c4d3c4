"""PostgreSQL by setting: its address, its extra, and connections that end every wait."""

import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from persona_mcp.config.loading import list_settings, load_settings
from persona_mcp.config.postgres import check_extra, connect_arguments, is_postgres
from persona_mcp.config.postgres_connections import LATER_S, limited, limited_async
from persona_mcp.config.postgres_engine import open_engine
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import InvalidSettings, NotConfigured
from tests.postgres import Postgres, on_postgres, stored

SECRET = "postgresql://me:pass%20word@db.example/personas"


def test_the_address_is_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSONA_DATABASE__URL", SECRET)

    settings = load_settings()

    assert is_postgres(settings)
    shown = {setting.name: setting.value for setting in list_settings(settings)}
    assert set(shown["PERSONA_DATABASE__URL"]) == {"*"}
    assert "pass" not in repr(settings)


def test_what_is_no_address_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSONA_DATABASE__URL", SECRET.replace("postgresql", "mysql"))

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    assert "PERSONA_DATABASE__URL" in caught.value.message
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or empty" in caught.value.message
    assert "pass%20word" not in caught.value.message


def test_without_an_address_the_data_is_in_sqlite(settings: Settings) -> None:
    assert not is_postgres(settings)


def test_where_the_extra_is_missing_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_extra()
    monkeypatch.setitem(sys.modules, "psycopg_pool", None)

    with pytest.raises(NotConfigured, match=r"pip install 'persona-mcp\[postgres\]'"):
        check_extra()


def test_a_server_is_told_the_limits(settings: Settings, postgres_url: str) -> None:
    settings = on_postgres(settings, postgres_url, statement_s=3, busy_s=2, idle_s=4)

    with limited(settings).connect(postgres_url, **connect_arguments(settings)) as connection:
        found = {
            name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in (
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "timezone",
                "application_name",
            )
        }

    assert list(found.values()) == [("3s",), ("2s",), ("4s",), ("UTC",), ("persona-mcp",)]


def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    settings: Settings, postgres_url: str
) -> None:
    settings = on_postgres(settings, postgres_url, statement_s=1)

    with limited(settings).connect(postgres_url, **connect_arguments(settings)) as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")

        connection.rollback()
        assert connection.execute("SELECT 7").fetchone() == (7,)


def test_a_server_that_stands_still_is_given_up_by_a_thread(
    settings: Settings, postgres: Postgres
) -> None:
    settings = on_postgres(settings, postgres.url(), statement_s=1)
    arguments = connect_arguments(settings)
    with limited(settings).connect(postgres.url(), **arguments) as connection:
        with postgres.paused():
            began = time.monotonic()
            with pytest.raises(psycopg.OperationalError, match=r"did not answer within 3 s"):
                connection.execute("SELECT 7")

        assert time.monotonic() - began < 3 * (1 + LATER_S)
        assert connection.closed


@pytest.mark.anyio
async def test_a_server_that_stands_still_is_given_up_by_a_task(
    settings: Settings, postgres: Postgres
) -> None:
    settings = on_postgres(settings, postgres.url(), statement_s=1)
    arguments = connect_arguments(settings)
    connection = await limited_async(settings).connect(postgres.url(), **arguments)
    async with connection:
        waited = pytest.raises(psycopg.OperationalError, match=r"did not answer within 3 s")
        with postgres.paused(), waited:
            await connection.execute("SELECT 7")

        assert connection.closed


def test_a_connection_that_was_lost_while_it_rested_is_replaced_before_it_is_used(
    settings: Settings, postgres_url: str
) -> None:
    engine = open_engine(on_postgres(settings, postgres_url))
    backend = text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        before = connection.scalar(backend)
    stored(postgres_url, "SELECT pg_terminate_backend(%s)", before)

    with engine.connect() as connection:
        after = connection.scalar(backend)

    assert after != before
    engine.dispose()
