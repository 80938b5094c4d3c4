"""The tests' own PostgreSQL server does what the tests of faults believe of it."""

import signal

import psycopg
import pytest

from tests.postgres import Postgres, stored


def test_each_test_has_an_empty_database_of_its_own(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE mine (id int)")

    assert stored(postgres_url, "SELECT count(*) FROM mine") == [(0,)]
    assert stored(postgres_url, "SELECT 'b' > 'A', 'a' < 'B'") == [(True, True)]


def test_what_was_committed_outlives_the_servers_crash(postgres: Postgres) -> None:
    url = postgres.url()
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")

    with postgres.stopped(signal.SIGQUIT), pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)

    assert stored(url, "SELECT number FROM kept") == [(7,)]


def test_a_paused_server_neither_answers_nor_refuses_and_goes_on_afterwards(
    postgres: Postgres,
) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as before:
        with postgres.paused():
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                psycopg.connect(postgres.url(), connect_timeout=2)
            before.pgconn.send_query(b"SELECT 7")
            before.pgconn.consume_input()
            assert before.pgconn.is_busy()

        answer = before.pgconn.get_result()
        assert answer is not None
        assert answer.get_value(0, 0) == b"7"
        assert before.pgconn.get_result() is None
