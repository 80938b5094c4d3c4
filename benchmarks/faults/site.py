"""A site: the real server in a process of its own, its data, and the model server beside it."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from pydantic import SecretStr

from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.settings import IndexSettings, LLMSettings, LogSettings, Settings
from tests.model_server import Behaviour, ModelServer
from tests.postgres import Postgres
from tests.processes import PERSONA, environment, variables

START_S = 300.0
STOP_S = 30.0
LOOK_S = 0.02
QUICK = {
    "PERSONA_LLM__FIRST_TOKEN_S": "2",
    "PERSONA_LLM__IDLE_S": "2",
    "PERSONA_LLM__TOTAL_S": "10",
    "PERSONA_LLM__QUEUE_S": "5",
    "PERSONA_DATABASE__CONNECT_S": "2",
    "PERSONA_DATABASE__STATEMENT_S": "2",
    "PERSONA_DATABASE__POOL_S": "3",
    "PERSONA_DATABASE__BUSY_S": "3",
    "PERSONA_DATABASE__IDLE_S": "5",
    "PERSONA_CONVERSATION__BUSY_WAIT_S": "5",
}
"""Limits of waiting that are short, so that a fault is seen soon; nothing else is unlike a server
that is started as the documentation says."""
WORD_S = 0.002


class NotServing(Exception):
    """The server ended before it served; the message has what it said."""


class Site:
    """One server process, which may be killed, stopped and started again on the same data.

    Attributes:
        folder: Everything lies in it; the data folder is `data` below it.
        model: The model server, in this process.
        postgres: The PostgreSQL server, if the data lies there.
        database_url: Its address, empty for SQLite.
        url: Where the server answers.
        variables: Settings of the process, more than those of every site; `{folder}` in them is
            the folder.
        starts: How often it was started.
    """

    def __init__(
        self,
        folder: Path,
        model: ModelServer,
        given: Mapping[str, str],
        postgres: Postgres | None = None,
        database_url: str = "",
    ) -> None:
        """Say where it is; `start` starts it."""
        self.folder, self.model = folder, model
        self.postgres, self.database_url = postgres, database_url
        self.variables = {k: v.replace("{folder}", str(folder)) for k, v in given.items()}
        self.url = ""
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Where the server's words go."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def settings(self) -> Settings:
        """The same data as settings, to look at it from outside."""
        return Settings(
            _env_file=None,
            data_dir=self.data,
            database=DatabaseSettings(url=SecretStr(self.database_url)),
            llm=LLMSettings(model="openai:test", openai_url=self.model.openai_url),
            index=IndexSettings(kind="exact"),
            log=LogSettings(level="ERROR"),
        )

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            NotServing: It ended by itself.
        """
        assert not self.runs
        given = variables(self.data, self.model.openai_url, **{**QUICK, **self.variables})
        if self.database_url:
            given["PERSONA_DATABASE__URL"] = self.database_url
        said_before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [PERSONA, "serve", "--port", "0"],
                env=environment(**given),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1
        deadline = time.monotonic() + START_S
        while True:
            ended = not self.runs  # looked at first: what it says last is then read too
            said = self.log.read_bytes()[said_before:].decode("utf-8", "replace")
            if found := re.search(r"serves on (http://\S+)", said):
                self.url = found[1]
                return
            if ended:
                raise NotServing(said)
            assert time.monotonic() < deadline, f"waited {START_S:g} s for the server: {said}"
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> int:
        """Stop it with SIGTERM, and give its exit code; -9 if it did not end in time."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self._process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            await self.kill()
            return -signal.SIGKILL

    async def kill(self) -> None:
        """Kill it, as a machine does that has no memory left."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def open_files(self) -> int:
        """Count the file handles that the server holds, sockets too."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        """Count its threads."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def memory(self) -> int:
        """Return its memory in use (resident), in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def processor_s(self) -> float:
        """Return the processor time that it has used, of all threads, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def client(self, limit_s: float = 60.0) -> httpx.AsyncClient:
        """Open a client that knows no address: the server's changes when it is started again."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        return httpx.AsyncClient(timeout=limit_s, trust_env=False, limits=limits)


@asynccontextmanager
async def site(
    folder: Path,
    given: Mapping[str, str],
    postgres: Postgres | None = None,
    database_url: str = "",
    word_s: float = WORD_S,
) -> AsyncIterator[Site]:
    """Start a site; nothing of it runs when the block is left.

    Args:
        folder: An empty one.
        given: Further settings of the server, as variables.
        postgres: Where its data is, if not in SQLite.
        database_url: The database in it.
        word_s: Wait of the model before each word, in seconds.
    """
    async with ModelServer(Behaviour(delay_s=word_s)) as model:
        one = Site(folder, model, given, postgres, database_url)
        try:
            await one.start()
            yield one
        finally:
            await one.kill()
