"""Fixtures that every test may use; what no test may do."""

import ipaddress
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from persona_mcp.config.database import upgrade_database
from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.settings import ConversationSettings, IndexSettings, Settings
from persona_mcp.server.service import Service, open_service
from tests.doubles import ScriptedModel, WordEmbedder
from tests.postgres import OTHER_URL, Postgres, fresh_database, name_of, postgres_server
from tests.processes import environment

DATABASES = ("sqlite", "postgresql")
DATABASE = os.environ.get("PERSONA_TEST_DATABASE", "sqlite")
"""Where the data of tests is that are not marked `databases`; postgresql finds what differs."""

# A shell that runs the tests in the background switches Ctrl-C off for them and all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and nothing about what is tested.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes that the product starts keep compiled files, or they start slowly."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse sockets to anywhere but this machine."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))


def guarded(connect: Any) -> Any:
    def refuse_others(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address[0]):
            self.close()
            pytest.fail(f"a test reached out to {address!r}: only loopback is allowed")
        return connect(self, address)

    return refuse_others


def is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take our variables away, and put the user's data folder where nobody's is."""
    for name in list(os.environ):
        if name.startswith("PERSONA_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user-data"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `databases` on SQLite and on PostgreSQL."""
    marked = metafunc.definition.get_closest_marker("databases")
    if marked and "database_kind" in metafunc.fixturenames and DATABASE == "sqlite":
        metafunc.parametrize("database_kind", DATABASES, indirect=True)


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """Where the data of the test is."""
    kind: str = getattr(request, "param", DATABASE)
    if kind != "sqlite" and request.node.get_closest_marker("sqlite"):
        pytest.skip("it looks into SQLite itself")
    return kind


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, database_kind: str) -> Settings:
    """Settings in a folder of its own; the index that opens fastest."""
    url = request.getfixturevalue("migrated_url") if database_kind == "postgresql" else ""
    return Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        database=DatabaseSettings(url=url),
        index=IndexSettings(kind="exact"),
        conversation=ConversationSettings(busy_wait_s=5.0),
    )


@pytest.fixture
def model() -> ScriptedModel:
    """A model without a line; tests write its script."""
    return ScriptedModel()


@pytest.fixture
async def service(settings: Settings, model: ScriptedModel) -> AsyncIterator[Service]:
    """Everything opened, over the really compiled graph and SQLite."""
    async with open_service(settings, model=model, embedder=WordEmbedder()) as opened:
        yield opened


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that the test may stop: one for all tests of a worker, started late."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres(own_postgres: Postgres) -> Iterator[Postgres]:
    """The server, running before and after the test."""
    if not own_postgres.runs:
        own_postgres.start()
    yield own_postgres
    if own_postgres.runs:
        own_postgres.resume()
    else:
        own_postgres.start()


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of an empty database of the test's own."""
    url = OTHER_URL or request.getfixturevalue("postgres").url()
    with fresh_database(url) as database:
        yield database


@pytest.fixture(scope="session")
def template_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a database that the migrations made and that nobody is connected to."""
    server = OTHER_URL or request.getfixturevalue("own_postgres").url()
    with fresh_database(server) as url:
        folder = tmp_path_factory.mktemp("migrated-postgres")
        upgrade_database(
            Settings(_env_file=None, data_dir=folder, database=DatabaseSettings(url=url))
        )
        yield url


@pytest.fixture
def migrated_url(template_database: str) -> Iterator[str]:
    """Address of a database of the test's own, with the schema and nothing in it."""
    with fresh_database(template_database, name_of(template_database)) as url:
        yield url
