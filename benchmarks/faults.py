"""Clients that talk to a real server, and what is found in its database afterwards.

`Scene` has the server as a process, the model's server, and clients who ask again under the same
request id until they have an answer, as a careful program does. `benchmarks/reliability.py` breaks
something in the middle of it; the tests do so in short.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from benchmarks.bookkeeping import faults, rows
from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.state import tables
from tests.model_server import ModelServer
from tests.postgres import Postgres
from tests.processes import PERSONA, environment, variables

CHAT = "/api/v1/persona/chat"
PERSONAS = ("aria", "kira", "noor")
CLIENTS = 8
LIMIT_S = 120.0
CALL_S = 30.0
LOOK_S = 0.02
AGAIN_S = 0.05
"""A client waits so long before it asks again."""
CHECKED_AGAIN = 50
"""So many acknowledged requests are sent once more at the end: their answers must be the same."""
LIMITS = {
    "PERSONA_LLM__FIRST_TOKEN_S": "2",
    "PERSONA_LLM__IDLE_S": "2",
    "PERSONA_LLM__TOTAL_S": "10",
    "PERSONA_LLM__CONCURRENCY": "8",
    "PERSONA_SERVER__STOP_S": "3",
}


class Server:
    """`persona serve` as a process, on a port that stays the same.

    Attributes:
        url: Its base address.
    """

    def __init__(self, settings: dict[str, str], folder: Path, program: Sequence[str]) -> None:
        """Say how it is started.

        Args:
            settings: Its variables.
            folder: Where its log goes.
            program: What it is, without arguments.
        """
        self.settings = settings
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = folder / "server.log"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        await self.answers()

    def begin(self) -> None:
        """Start it, and do not wait."""
        assert self._process is None
        port = self.url.rpartition(":")[2]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._program, "serve", "--port", port],
                env=environment(**self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def answers(self) -> None:
        """Wait until it answers.

        Raises:
            AssertionError: It ended, or took too long; with the end of its log.
        """
        deadline = time.monotonic() + LIMIT_S
        async with httpx.AsyncClient(trust_env=False) as client:
            while time.monotonic() < deadline:
                assert self._process is not None
                assert self._process.poll() is None, f"the server ended:\n{self.log()}"
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/health/live")).is_success:
                        return
                await asyncio.sleep(LOOK_S)
        raise AssertionError(f"the server does not answer:\n{self.log()}")

    async def ended(self) -> int:
        """Wait until it has ended by itself; return its code."""
        assert self._process is not None
        code = await asyncio.to_thread(self._process.wait, LIMIT_S)
        self._process = None
        return code

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            await self.ended()

    async def stop(self) -> int:
        """Stop it with SIGTERM; return its code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    def log(self) -> str:
        """Return the end of what it wrote."""
        return self._log.read_text("utf-8", "replace")[-3000:] if self._log.exists() else ""


@dataclass
class Book:
    """What clients were told.

    Attributes:
        acknowledged: The reply, by request id.
        messages: What was said, by request id.
        refused: How often which error came.
        last: When the last acknowledgement came, by the monotonic clock.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    last: float = 0.0


@dataclass(frozen=True)
class Found:
    """What is in the database in the end.

    Attributes:
        acknowledged: Exchanges whose reply a client saw.
        found: Those that are there, with this reply.
        doubled: Messages that were answered more than once.
        wrong: A line for everything that is not as it must be.
    """

    acknowledged: int
    found: int
    doubled: int
    wrong: list[str]


class Scene:
    """A server, a model's server and clients.

    Attributes:
        server: The product.
        model: The model's server, whose behaviour may be changed at any time.
        settings: As the server reads them.
        folder: For whatever a fault needs.
        book: What the clients were told.
        postgres: The database's server, where there is one.
    """

    postgres: Postgres

    def __init__(
        self, server: Server, model: ModelServer, settings: Settings, folder: Path, clients: int
    ) -> None:
        """Begin without clients; `talking` sends them."""
        self.server = server
        self.model = model
        self.settings = settings
        self.folder = folder
        self.book = Book()
        self._clients = clients
        self._stopping = False

    @property
    def data_dir(self) -> Path:
        """The server's data folder."""
        return self.settings.data_dir

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[None]:
        """Have the clients talk while the block lasts, and then end what they have begun."""
        self._stopping = False
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._talk(number), name=f"client {number}")
            try:
                yield
            finally:
                self._stopping = True

    async def more(self, count: int) -> float:
        """Wait until so many more replies have come; return how long that took, in seconds."""
        began, wanted = time.monotonic(), len(self.book.acknowledged) + count
        while len(self.book.acknowledged) < wanted:
            if time.monotonic() - began > LIMIT_S:
                raise AssertionError(
                    f"no replies for {LIMIT_S:g} s; refused: {dict(self.book.refused)}\n"
                    f"{self.server.log()}"
                )
            await asyncio.sleep(LOOK_S)
        return self.book.last - began

    async def _talk(self, number: int) -> None:
        """Say one thing after the other; each again until it is answered."""
        async with httpx.AsyncClient(
            base_url=self.server.url, timeout=CALL_S, trust_env=False
        ) as c:
            count = 0
            while not self._stopping:
                request_id = f"{number}-{count}-{time.monotonic_ns():x}"
                message = f"This is what I tell you as {request_id}, and I thank you for it."
                self.book.messages[request_id] = message
                reply = await self._answered(c, body_of(number, request_id, message))
                self.book.acknowledged[request_id] = reply
                self.book.last = time.monotonic()
                count += 1

    async def _answered(self, client: httpx.AsyncClient, body: dict[str, Any]) -> str:
        deadline = time.monotonic() + LIMIT_S
        while True:
            told = await asked(client, body)
            if isinstance(told, str):
                return told
            self.book.refused[told[0]] += 1
            assert time.monotonic() < deadline, f"{body['request_id']} was never answered: {told}"
            await asyncio.sleep(AGAIN_S)

    async def examine(self) -> Found:
        """Look into the database, and ask for some answers once more; the server must run."""
        again = await self._again()
        return await examined(self.settings, self.book, again)

    async def _again(self) -> list[str]:
        """Send acknowledged requests again, and say whose answer is another one now."""
        ids = list(self.book.acknowledged)
        chosen = ids[:: max(1, len(ids) // CHECKED_AGAIN)]
        wrong = []
        async with httpx.AsyncClient(
            base_url=self.server.url, timeout=CALL_S, trust_env=False
        ) as c:
            for id in chosen:
                body = body_of(int(id.split("-")[0]), id, self.book.messages[id])
                if await self._answered(c, body) != self.book.acknowledged[id]:
                    wrong.append(f"{id} got another answer when it was sent again")
        return wrong


def body_of(number: int, request_id: str, message: str) -> dict[str, Any]:
    """Return what a client sends: each is a user of its own, and talks with one persona."""
    return {
        "persona_id": PERSONAS[number % len(PERSONAS)],
        "user_id": f"user-{number}",
        "message": message,
        "request_id": request_id,
    }


async def asked(client: httpx.AsyncClient, body: dict[str, Any]) -> str | tuple[str]:
    """Send a message; return the reply, or the kind of refusal alone."""
    try:
        answer = await client.post(CHAT, json=body)
        told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return (type(error).__name__,)
    if answer.is_success and told.get("response"):
        return str(told["response"])
    if answer.is_success:
        return (str(told.get("status")),)
    return (str(told["error"]["data"]["code"]),)


async def examined(settings: Settings, book: Book, wrong: list[str]) -> Found:
    """Compare the database with what clients were told."""
    wrong = [*wrong, *await faults(settings, set(book.acknowledged))]
    X = tables.Exchange
    database = open_database(settings)
    try:
        done = await rows(
            database, select(X.request_id, X.message, X.response).where(X.status == "done")
        )
    finally:
        await database.aclose()
    replies = {row.request_id: row.response for row in done}
    found = sum(replies.get(id) == said for id, said in book.acknowledged.items())
    doubled = sum(count - 1 for count in Counter(row.message for row in done).values())
    return Found(len(book.acknowledged), found, doubled, wrong)


@asynccontextmanager
async def scene(
    folder: Path,
    *,
    database_url: str = "",
    clients: int = CLIENTS,
    data_dir: Path | None = None,
    program: Sequence[str] = (PERSONA,),
    **more: str,
) -> AsyncIterator[Scene]:
    """Start a server and a model, and end both with the block.

    Args:
        folder: For the data, unless `data_dir` is another one, and for the log.
        database_url: A PostgreSQL database; empty for SQLite.
        clients: How many talk.
        data_dir: The data folder.
        program: The server's, in place of the installed one.
        more: Further variables.
    """
    data = data_dir or folder / "data"
    async with ModelServer() as model:
        chosen = {**variables(data, model.openai_url), **LIMITS, **more}
        if database_url:
            chosen["PERSONA_DATABASE__URL"] = database_url
        server = Server(chosen, folder, program)
        settings = settings_of(data, database_url)
        try:
            yield Scene(server, model, settings, folder, clients)
        finally:
            await server.kill()


def settings_of(data_dir: Path, database_url: str) -> Settings:
    """Return the settings with which the database is looked into."""
    url: Any = {"database": {"url": database_url}} if database_url else {}
    return Settings(_env_file=None, data_dir=data_dir, **url)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_of(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def files_of(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
