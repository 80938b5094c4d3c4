"""Kill -9 while two processes update the same relationship; then look what is left.

    python -m benchmarks.crash_relationships --rounds 50

Each round two new processes let the same two personas meet, without end: every second meeting is
sent by both under one request id. They also set how one of the two feels. Both are killed at random
moments. Then the tables are looked at: whatever was acknowledged is there, each meeting is there
once and whole, and every cache is the fold of its log to the last bit. Exits with 1 on any fault.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from benchmarks.bookkeeping import arrow_faults, feeling_faults, rows
from benchmarks.crash import Round, killed_after, requests_in
from benchmarks.instant import InstantModel
from persona_mcp.config.database import open_database
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import IndexSettings, LogSettings, Settings
from persona_mcp.server.operations import catalogue
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.service import open_service
from persona_mcp.server.store import laws_of
from persona_mcp.state import tables
from persona_mcp.state.happening import SLOTS, event_id
from persona_mcp.state.ids import derived_id
from tests.doubles import WordEmbedder

WORLD = "main"
PAIR = {"persona1_id": "aria", "persona2_id": "kira"}
PROCESSES = ("one", "two")


def settings_of(data_dir: Path) -> Settings:
    """Say where data is."""
    index, log = IndexSettings(kind="exact"), LogSettings(level="ERROR")
    return Settings(_env_file=None, data_dir=data_dir, index=index, log=log)


def live(settings: Settings, name: str, number: int, count: int | None, told: Connection) -> None:
    """Let the two meet so many times, or without end."""
    configure_logging(settings.log)
    catalogue.operations()
    asyncio.run(update(settings, name, number, count, told))


async def update(
    settings: Settings, name: str, number: int, count: int | None, told: Connection
) -> None:
    """Send a meeting that the other process sends too, one of its own, and a mood, in turn."""
    async with open_service(settings, InstantModel(), WordEmbedder()) as service:
        told.send(("ready", ""))
        for turn in itertools.count() if count is None else range(count):
            for request_id in (f"both-{number}-{turn}", f"{name}-{number}-{turn}"):
                told.send(("asked", request_id))
                quality = (sum(request_id.encode()) % 21 - 10) / 10
                met = {**PAIR, "interaction_quality": quality, "request_id": request_id}
                await call_operation(service, "relationship_update", met)
                told.send(("answered", request_id))
            mood = {"persona_id": PAIR["persona1_id"], "mood": (turn % 3 - 1) / 2}
            await call_operation(service, "emotional_update_state", mood)


def begin(
    settings: Settings, number: int, count: int | None = None
) -> list[tuple[BaseProcess, Connection]]:
    """Start both processes; each is returned with what it tells."""
    context = multiprocessing.get_context("forkserver")  # imports once, forks each life
    context.set_forkserver_preload(["persona_mcp.server.service", "tests.doubles"])
    begun: list[tuple[BaseProcess, Connection]] = []
    for name in PROCESSES:
        heard, told = context.Pipe(duplex=False)
        process = context.Process(target=live, args=(settings, name, number, count, told))
        process.start()
        told.close()
        begun.append((process, heard))
    return begun


def play(data_dir: Path, rounds: int, seed: int) -> Iterator[Round]:
    """Live and die so many times, in pairs."""
    chance, settings = random.Random(seed), settings_of(data_dir)
    asked, answered = set[str](), set[str]()
    for number in range(rounds):
        before, lived = (len(asked), len(answered)), None
        for process, heard in begin(settings, number):
            lived, seen = killed_after(process, heard, chance, patient=number == 0)
            begun, ended = requests_in(heard, seen)
            asked |= set(begun)
            answered |= set(ended)
        wrong = asyncio.run(faults(settings, asked, answered)) if data_dir.exists() else []
        yield Round(lived, len(asked) - before[0], len(answered) - before[1], 0, wrong)


def finish(data_dir: Path, count: int) -> tuple[set[str], list[str]]:
    """Let both processes send so many turns to their end; return the requests and the faults."""
    settings, answered = settings_of(data_dir), set[str]()
    for process, heard in begin(settings, 0, count):
        _, ended = requests_in(heard, [])
        process.join()
        answered |= set(ended)
    return answered, asyncio.run(faults(settings, answered, answered))


async def faults(settings: Settings, asked: set[str], answered: set[str]) -> list[str]:
    """Look for what was lost, doubled or half there.

    Args:
        settings: Whose data folder.
        asked: Requests that were begun, acknowledged or not.
        answered: Those that were acknowledged.
    """
    E, I = tables.RelationshipEvent, tables.MoodImpulse  # noqa: E741 - as in state
    database = open_database(settings)
    try:
        events = {row.id: row for row in await rows(database, select(E.id, E.from_id, E.seq))}
        impulses = {row.id for row in await rows(database, select(I.id))}
        params = laws_of(settings).effects
        found = await arrow_faults(database, WORLD, params)
        found += await feeling_faults(database, WORLD, params)
    finally:
        await database.aclose()
    expected = set[str]()
    for request_id in sorted(asked):
        name = derived_id(WORLD, "relationship_update", request_id)
        parts = [event_id(WORLD, name, slot) for slot in SLOTS]
        pushes = [derived_id(WORLD, name, persona, "impulse") for persona in PAIR.values()]
        there = [*(id in events for id in parts), *(id in impulses for id in pushes)]
        if any(there) != all(there):
            found.append(f"half there: {request_id}")
        if request_id in answered and not all(there):
            found.append(f"lost: {request_id}")
        expected |= set(parts)
    found += [f"nobody asked for it: {id}" for id in sorted(events.keys() - expected)]
    for one, total in Counter(row.from_id for row in events.values()).items():
        numbers = sorted(row.seq for row in events.values() if row.from_id == one)
        if numbers != list(range(1, total + 1)):
            found.append(f"the events of {one} are numbered {numbers}")
    return found


def main() -> None:
    """Run the rounds and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash_relationships")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    table = Table("round", "lived", "asked", "acknowledged", "faults")
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="persona-crash-") as folder:
        for number, one in enumerate(play(Path(folder) / "data", given.rounds, given.seed)):
            lived = "starting" if one.lived_s is None else f"{one.lived_s:.2f} s"
            counts = (one.asked, one.answered, len(one.faults))
            table.add_row(str(number), lived, *map(str, counts))
            wrong += [f"round {number}: {fault}" for fault in one.faults]
    Console(width=100).print(table)
    for fault in wrong:
        print(fault)
    print("FAILED" if wrong else "nothing lost, nothing doubled, every cache is its log")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
