"""A PostgreSQL server of the tests' own: on a Unix socket in a temporary folder, gone with them.

Its text is sorted as a dictionary sorts it, not by code points, as a server in production does:
what depends on an order by bytes must ask for `COLLATE "C"`.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from persona_mcp.config.settings import Settings
from tests.processes import eventually

USER = "postgres"
OTHER_URL = os.environ.get("PERSONA_TEST_POSTGRES_URL", "")
"""A server that runs already, and whose user may create databases: used in place of our own."""
WANTED = "PERSONA_TEST_POSTGRES"
IS_WANTED = WANTED in os.environ
"""Set in `.ci/run`: there a missing server is a failure. Read here: tests see no such variable."""
DEBIAN = Path("/usr/lib/postgresql")
START_S = 60.0
NUMBERS = count(1)
UNSAFE = {"fsync": "off", "full_page_writes": "off"}
"""What is committed still outlives the server's death; only the machine's would take it."""


def program(name: str) -> str | None:
    """Find one of PostgreSQL's programs; Debian keeps them off the PATH, the newest is taken."""
    if found := shutil.which(name):
        return found
    versions = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda file: float(file.parts[-3]))
    return str(versions[-1]) if versions else None


def missing() -> str | None:
    """Say why no server can be started here, or nothing."""
    if OTHER_URL:
        return None
    if not (program("initdb") and program("postgres")):
        return "PostgreSQL is not installed (initdb, postgres), and no PERSONA_TEST_POSTGRES_URL"
    if os.getuid() == 0 and not account():
        return f"PostgreSQL does not run as root, and there is no user {USER!r}"
    return None


def account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def run_as() -> dict[str, Any]:
    """Return how its programs are started: never as root, it refuses."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}


class Postgres:
    """A server of our own, which may be stopped, started, and made to stand still.

    Attributes:
        folder: Its data, socket and log.
        settings: Of the server, name to value; used at the next start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, str] = dict(UNSAFE)
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database, as our setting takes it."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def create(self) -> None:
        """Make the server's data folder."""
        program_path = program("initdb")
        assert program_path
        subprocess.run(
            [
                *(program_path, "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8"),
                *("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **run_as(),
        )

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self._process is None
        program_path = program("postgres")
        assert program_path
        given = {"listen_addresses": "", "unix_socket_directories": str(self.folder)}
        options = [f"--{name}={value}" for name, value in {**given, **self.settings}.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program_path, "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **run_as(),
            )
        eventually(self._answers, f"PostgreSQL; its log is {self.folder / 'log'}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it. SIGINT ends connections and saves; SIGQUIT is its crash."""
        assert self._process is not None
        self.resume()
        self._process.send_signal(how)
        self._process.wait(START_S)
        self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it and start it again."""
        self.stop(how)
        self.start()

    def pause(self) -> None:
        """Make all of its processes stand still: it takes connections, and answers nothing."""
        assert self._process is not None
        with psycopg.connect(self.url(), autocommit=True) as connection:
            # No more children from here on; so what it says of them is all of them.
            os.kill(self._process.pid, signal.SIGSTOP)
            self._paused = [self._process.pid]
            mine = connection.info.backend_pid
            found = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        children = [pid for (pid,) in found if pid != mine]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
                self._paused.append(child)

    def resume(self) -> None:
        """Let it go on where it stood."""
        for process in reversed(self._paused):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        self._paused = []

    @contextmanager
    def stopped(self, how: signal.Signals = signal.SIGINT) -> Iterator[None]:
        """Keep it stopped for a block; it runs again afterwards, whatever happened."""
        self.stop(how)
        try:
            yield
        finally:
            if not self.runs:
                self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep it standing still for a block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"PostgreSQL ended:\n{(self.folder / 'log').read_text()}")
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run a server until the block is left; skip the test where none can be run."""
    if reason := missing():
        pytest.fail(reason) if IS_WANTED else pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="persona-pg-"))  # short: a socket's path has a limit
    server = Postgres(folder)
    try:
        if user := run_as() and account():
            os.chown(folder, user.pw_uid, user.pw_gid)
        server.create()
        server.start()
        yield server
    finally:
        if server.runs:
            server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """Create a database, give its address, and drop it with whoever is still connected.

    Args:
        server_url: Address of any database of the server; its user may create databases.
        template: What it is a copy of; nobody may be connected to that one.
    """
    name = f"persona_test_{os.getpid()}_{next(NUMBERS)}"
    server_url = (
        with_database(server_url, "postgres") if name_of(server_url) == template else server_url
    )
    execute(server_url, "CREATE DATABASE {} TEMPLATE {}", name, template)
    try:
        yield with_database(server_url, name)
    finally:
        execute(server_url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def execute(url: str, statement: str, *names: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def name_of(url: str) -> str:
    """Return the database that an address names; empty for none."""
    return str(conninfo_to_dict(url).get("dbname") or "")


def with_database(url: str, name: str) -> str:
    """Return the address of another database of the same server."""
    before = name_of(url)
    assert before, "PERSONA_TEST_POSTGRES_URL names no database"
    head, _, tail = url.partition("?")
    assert head.endswith(f"/{before}"), "PERSONA_TEST_POSTGRES_URL is no postgresql://.../database"
    return head.removesuffix(before) + name + (f"?{tail}" if tail else "")


def stored(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read from a database as nobody of the product does: beside it."""
    with psycopg.connect(url) as connection:
        return connection.execute(query, values).fetchall()


def on_postgres(settings: Settings, url: str, **limits: float) -> Settings:
    """Return the settings with their data in a database of PostgreSQL, and limits of waiting."""
    changed = {"url": SecretStr(url), **limits}
    return settings.model_copy(update={"database": settings.database.model_copy(update=changed)})
