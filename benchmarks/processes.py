"""Three processes on one data folder at once: two MCP servers and one of the command line's kind.

    python -m benchmarks.processes --exchanges 100

Each tells Aria things, most in a conversation of its own, every fifth in one that all three share;
right after each reply the next process searches for what was told. At the end each looks for
everything that the others told. Exits with 1 if anything was lost, doubled, mixed or not found.
"""

import argparse
import asyncio
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import StdioServerParameters
from mcp.client import Client
from rich.console import Console
from rich.table import Table

from benchmarks.bookkeeping import faults, model_server
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings, Settings
from persona_mcp.server.operations import catalogue
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.service import open_service
from persona_mcp.state.errors import PersonaError

NAMES = ("mcp one", "mcp two", "command line")
USER = "sam"
SHARED_EVERY = 5
TRIES = 100
WORD_S = 0.002
AGAIN_S = 0.05
CALL_S = 120.0

Ask = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


class Busy(Exception):
    """Another run holds the conversation."""


@dataclass
class Process:
    """One of the three.

    Attributes:
        name: For the table.
        ask: Calls an operation there; raises Busy if the conversation is.
        told: Request ids that were acknowledged, and the word told in each.
        busy: How often it was told that the shared conversation is busy.
        searches: How often it looked for a word of another's.
        missed: Words that it did not find.
    """

    name: str
    ask: Ask
    told: dict[str, str] = field(default_factory=dict)
    busy: int = 0
    searches: int = 0
    missed: list[str] = field(default_factory=list)


async def meet(
    data_dir: Path, exchanges: int, environment: dict[str, str], **variables: str
) -> tuple[list[Process], list[str]]:
    """Let three processes talk at once, and look for what went wrong.

    Args:
        data_dir: Their folder.
        exchanges: Of each.
        environment: What the two MCP servers inherit.
        variables: Further settings of all three, as environment variables.
    """
    with model_server(WORD_S) as url:
        given = {
            "PERSONA_DATA_DIR": str(data_dir),
            "PERSONA_LLM__MODEL": "openai:test",
            "PERSONA_LLM__OPENAI_URL": url,
            **variables,
        }
        async with AsyncExitStack() as stack:
            processes = [
                Process(NAMES[0], await stack.enter_async_context(through_mcp(given, environment))),
                Process(NAMES[1], await stack.enter_async_context(through_mcp(given, environment))),
                Process(NAMES[2], await stack.enter_async_context(in_this_process(given))),
            ]
            first = await processes[0].ask("persona_chat", **message("shared", "begun"))
            processes[0].told["shared"] = "begun"
            shared = str(first["conversation_id"])
            await asyncio.gather(
                *(talk(number, processes, exchanges, shared) for number in range(len(processes)))
            )
            await asyncio.gather(*(look_around(one, processes) for one in processes))
            settings = settings_of(given)
        wrong = await faults(settings, {id for one in processes for id in one.told})
    return processes, wrong + [
        f"{p.name} did not find {word}" for p in processes for word in p.missed
    ]


def settings_of(given: dict[str, str]) -> Settings:
    """Make settings of environment variables, without an environment."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        *path, last = name.removeprefix("PERSONA_").lower().split("__")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return load_settings(**values)


@asynccontextmanager
async def through_mcp(given: dict[str, str], environment: dict[str, str]) -> AsyncIterator[Ask]:
    """Start `persona mcp`, driven by the official client."""
    command = str(Path(sysconfig.get_path("scripts")) / "persona")
    parameters = StdioServerParameters(command=command, args=["mcp"], env={**environment, **given})
    async with Client(parameters, read_timeout_seconds=CALL_S) as client:

        async def ask(name: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(name, arguments)
            found: dict[str, Any] = result.structured_content or {}
            if result.is_error:
                if found["error"]["data"]["code"] == "conflict":
                    raise Busy
                raise AssertionError(found)
            return found

        yield ask


@asynccontextmanager
async def in_this_process(given: dict[str, str]) -> AsyncIterator[Ask]:
    """Open the service here, as the command line does."""
    catalogue.operations()
    async with open_service(settings_of(given)) as service:

        async def ask(name: str, **arguments: Any) -> dict[str, Any]:
            try:
                return await call_operation(service, name, arguments)
            except PersonaError as error:
                if error.code == "conflict":
                    raise Busy from error
                raise

        yield ask


def message(request_id: str, word: str) -> dict[str, Any]:
    """Tell Aria a word."""
    said = f"In my chest lies a {word}, and it is mine."
    return {"persona_id": "aria", "user_id": USER, "message": said, "request_id": request_id}


async def talk(number: int, processes: list[Process], exchanges: int, shared: str) -> None:
    """Tell one thing after the other; the next process looks for each at once."""
    here, there = processes[number], processes[(number + 1) % len(processes)]
    own: dict[str, str] = {}
    for count in range(exchanges):
        request_id, word = f"p{number}-{count}", f"thing{number}n{count}"
        where = {"conversation_id": shared} if count % SHARED_EVERY == 0 else own
        reply = await tell(here, {**message(request_id, word), **where})
        if where is own and not own:
            own = {"conversation_id": reply["conversation_id"]}
        here.told[request_id] = word
        await look_for(there, word)


async def tell(process: Process, said: dict[str, Any]) -> dict[str, Any]:
    """Say something; a conversation that is busy is asked again under the same request id."""
    for _ in range(TRIES):
        try:
            return await process.ask("persona_chat", **said)
        except Busy:
            process.busy += 1
            await asyncio.sleep(AGAIN_S)
    raise AssertionError(f"{process.name} was told {TRIES} times that the conversation is busy")


async def look_for(process: Process, word: str) -> None:
    """Search for a word in one of the processes."""
    process.searches += 1
    found = await process.ask("memory_search", persona_id="aria", query=word)
    if not any(word in memory["content"].split(",")[0].split() for memory in found["memories"]):
        process.missed.append(word)


async def look_around(process: Process, processes: list[Process]) -> None:
    """Search for everything that the others told."""
    for other in processes:
        if other is not process:
            for word in other.told.values():
                await look_for(process, word)


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes")
    parser.add_argument("--exchanges", type=int, default=100)
    given = parser.parse_args()
    configure_logging(LogSettings())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="persona-processes-") as folder:
        processes, wrong = asyncio.run(meet(Path(folder), given.exchanges, dict(os.environ)))
    table = Table("process", "acknowledged", "told busy", "searches", "not found")
    for one in processes:
        counts = (len(one.told), one.busy, one.searches, len(one.missed))
        table.add_row(one.name, *map(str, counts))
    Console(width=100).print(table)
    for fault in wrong:
        print(fault)
    told = sum(len(one.told) for one in processes)
    print(
        f"{told} exchanges in {time.monotonic() - started:.0f} s: "
        f"{'FAILED' if wrong else 'nothing lost, nothing doubled, nothing mixed, all found'}"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
