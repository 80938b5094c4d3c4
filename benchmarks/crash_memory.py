"""Kill -9 while memories are written, pruned, or indexed anew; then look what is left.

    python -m benchmarks.crash_memory --what write --rounds 50

Each round a new process works on memories, with a Chroma index that takes four at a time, until
it is killed at a random moment. Then the data folder is opened as a start does: everything that
was acknowledged is there, each memory has its vector, words and witness, SQL and index agree, and a
search finds it. A run of pruning is there whole, with its audit, or not at all; what it archived no
search finds. Exits with 1 on any fault.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import text

from benchmarks.crash import Round, killed_after, requests_in
from benchmarks.instant import InstantModel
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import IndexSettings, LogSettings, Settings
from persona_mcp.server.operations import catalogue
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.workers import drain
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.memory.full_text import TABLE
from persona_mcp.state.memory.params import PruningParams
from tests.doubles import WordEmbedder

WORLD = "main"
PERSONAS = ("aria", "kira")
BATCH = 4
FIRST = 200
"""Memories that are there before the first reindex."""
LIMIT_S = 60.0
PROBES = 5
FAULTS = {
    "damaged database": "SELECT quick_check FROM pragma_quick_check(1) WHERE quick_check <> 'ok'",
    "memory without a vector": "SELECT m.id FROM memories m LEFT JOIN memory_vectors v "
    "ON v.world_id = m.world_id AND v.memory_id = m.id AND v.version = m.version "
    "WHERE v.seq IS NULL",
    "vector without a memory": "SELECT v.memory_id FROM memory_vectors v LEFT JOIN memories m "
    "ON m.world_id = v.world_id AND m.id = v.memory_id WHERE m.id IS NULL",
    "memory without its owner as a witness": "SELECT m.id FROM memories m LEFT JOIN "
    "memory_witnesses w ON w.world_id = m.world_id AND w.memory_id = m.id "
    "AND w.party_id = m.persona_id WHERE w.memory_id IS NULL",
    "work left over": "SELECT memory_id FROM outbox",
    "archived by no run": "SELECT id FROM memories m WHERE archived_at IS NOT NULL AND NOT EXISTS "
    "(SELECT 1 FROM prune_runs r, json_each(r.memory_ids) named WHERE r.world_id = m.world_id "
    "AND r.id = m.prune_id AND r.at = m.archived_at AND r.undone_at IS NULL "
    "AND named.value = m.id)",
    "run that did not archive all": "SELECT r.id FROM prune_runs r, json_each(r.memory_ids) named "
    "LEFT JOIN memories m ON m.world_id = r.world_id AND m.id = named.value "
    "WHERE r.undone_at IS NULL AND m.prune_id IS NOT r.id",
}
"""What must give no row, once what was left over is done."""
WORDS_AGREE = f"INSERT INTO {TABLE}({TABLE}, rank) VALUES ('integrity-check', 1)"
"""What fails if the full text does not have the words of the memories."""


PRUNING = PruningParams(target=20, start=20, hard_limit=20, kept_unread_days=0.0)
RUNS = "SELECT id, undone_at IS NOT NULL FROM prune_runs"


def settings_of(data_dir: Path) -> Settings:
    """Say where data is; Chroma is written to often, and there is always something to prune."""
    index = IndexSettings(kind="chroma", batch=BATCH)
    log = LogSettings(level="ERROR")
    return Settings(_env_file=None, data_dir=data_dir, index=index, log=log, pruning=PRUNING)


async def call(service: Service, name: str, /, **arguments: Any) -> dict[str, Any]:
    """Call an operation, as a door does."""
    catalogue.operations()
    return await call_operation(service, name, arguments)


def word_of(request_id: str) -> str:
    """Return the one word that only the memory of this request has."""
    return f"word{request_id.replace('-', 'x')}"


async def store(service: Service, request_id: str) -> None:
    """Tell a persona something, once."""
    persona = PERSONAS[sum(request_id.encode()) % len(PERSONAS)]
    said = f"In my chest lies a {word_of(request_id)}, and it is mine."
    its = {"persona_id": persona, "content": said, "request_id": request_id}
    await call(service, "memory_store", **its)


async def write(settings: Settings, number: int, told: Connection) -> None:
    """Write memory after memory, and search now and then, which is when Chroma takes them."""
    async with open_service(settings, InstantModel(), WordEmbedder()) as service:
        told.send(("ready", ""))
        count = 0
        while True:
            request_id = f"w-{number}-{count}"
            told.send(("asked", request_id))
            await store(service, request_id)
            told.send(("answered", request_id))
            await call(service, "memory_search", persona_id="aria", query=word_of(request_id))
            count += 1


async def reindex(settings: Settings, number: int, told: Connection) -> None:
    """Make the index anew again and again, every second time with new vectors."""
    count = 0
    while True:
        embedder = WordEmbedder()
        async with open_service(settings, InstantModel(), embedder, new_index=True) as service:
            told.send(("ready", ""))
            told.send(("asked", f"reindex-{number}-{count}"))
            await service.indexer.reindex(WORLD, lambda *_: None, embed=count % 2 == 0)
            told.send(("answered", f"reindex-{number}-{count}"))
            count += 1


async def prune(settings: Settings, number: int, told: Connection) -> None:
    """Prune and undo, again and again; what the last life left is undone first."""
    async with open_service(settings, InstantModel(), WordEmbedder()) as service:
        told.send(("ready", ""))
        for run, undone in (await runs_in(service)).items():
            if not undone:
                await call(service, "memory_prune", undo_prune_id=run)
        count = 0
        while True:
            persona = PERSONAS[count % len(PERSONAS)]
            told.send(("asked", f"prune-{number}-{count}"))
            done = await call(service, "memory_prune", persona_id=persona, force=True)
            run = done["prune_id"]
            told.send(("answered", f"pruned {run}"))
            told.send(("asked", f"undo-{number}-{count}"))
            await call(service, "memory_prune", undo_prune_id=run)
            told.send(("answered", f"undone {run}"))
            count += 1


async def runs_in(service: Service) -> dict[str, bool]:
    """Return the runs of pruning, and whether each was undone."""

    def read(connection: SqlConnection) -> dict[str, bool]:
        return {row[0]: bool(row[1]) for row in connection.execute(text(RUNS))}

    return await service.database.read(read)


Life = Callable[[Settings, int, Connection], Awaitable[None]]
LIVES: dict[str, Life] = {"write": write, "reindex": reindex, "prune": prune}
"""What a process does until it is killed; a further one needs only its line here."""


def live(what: str, settings: Settings, number: int, told: Connection) -> None:
    """Work without end; the process is killed."""
    configure_logging(settings.log)
    asyncio.run(LIVES[what](settings, number, told))  # type: ignore[arg-type]


async def fill(settings: Settings) -> set[str]:
    """Store the memories that are there before the first kill; return their requests."""
    async with open_service(settings, InstantModel(), WordEmbedder()) as service:
        names = [f"f-{number}" for number in range(FIRST)]
        for name in names:
            await store(service, name)
        await drain(service.indexer, LIMIT_S)
    return set(names)


def play(data_dir: Path, what: str, rounds: int, seed: int) -> Iterator[Round]:
    """Live and die so many times.

    Args:
        data_dir: A new folder.
        what: Which of LIVES.
        rounds: How often.
        seed: Of the moments.
    """
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")  # imports once, forks each life
    context.set_forkserver_preload(
        ["persona_mcp.server.service", "persona_mcp.state.index.chroma", "tests.doubles"]
    )
    settings = settings_of(data_dir)
    kept = set() if what == "write" else asyncio.run(fill(settings))
    runs: set[str] = set()
    for number in range(rounds):
        heard, told = context.Pipe(duplex=False)
        process = context.Process(target=live, args=(what, settings, number, told))
        process.start()
        told.close()
        lived, seen = killed_after(process, heard, chance, patient=number == 0)
        asked, answered = requests_in(heard, seen)
        if what == "write":
            kept |= set(answered)
        if what == "prune":
            runs |= set(answered)
        wrong = asyncio.run(faults(settings, kept, runs, chance)) if data_dir.exists() else []
        yield Round(lived, len(asked), len(answered), 0, wrong)


async def faults(
    settings: Settings, kept: set[str], runs: set[str], chance: random.Random
) -> list[str]:
    """Open the folder as a start does, let it come to rest, and look for what is wrong.

    Args:
        settings: Where.
        kept: The requests whose memories must be there.
        runs: What was acknowledged of runs of pruning: "pruned <id>", "undone <id>".
        chance: Draws the memories that are searched.
    """
    async with open_service(settings, InstantModel(), WordEmbedder()) as service:
        await drain(service.indexer, LIMIT_S)
        await service.index.reconcile(WORLD)
        missing, extra = await service.index.reconcile(WORLD)

        def read(connection: SqlConnection) -> tuple[list[str], dict[str, bool]]:
            found = []
            for fault, query in FAULTS.items():
                rows = connection.execute(text(query)).all()
                found += [f"{fault}: {row[0]}" for row in rows]
            contents = connection.execute(text("SELECT content, archived_at FROM memories"))
            return found, {row[0].split()[5].rstrip(","): row[1] is None for row in contents}

        found, words = await service.database.read(read)
        try:
            await service.database.write(lambda connection: connection.execute(text(WORDS_AGREE)))
        except StorageUnavailable:
            found.append("the full text is not that of the memories")
        found += [f"lost: {name}" for name in sorted(kept) if word_of(name) not in words]
        if service.index.kind != "chroma":
            found.append("the index is not Chroma any more")
        if missing or extra:
            found.append(f"the index lacks {missing} and has {extra} too many")
        for name in chance.sample(sorted(kept), min(PROBES, len(kept))):
            found += await search_faults(service, name, words.get(word_of(name), False))
        known = await runs_in(service)
        for what, run in (one.split() for one in sorted(runs)):
            if run not in known or (what == "undone" and not known[run]):
                found.append(f"not {what}: {run}")
    return found


async def search_faults(service: Service, name: str, kept: bool) -> list[str]:
    """Search a memory that is kept, or that is archived, and look for what is wrong."""
    there, degraded = await finds(service, word_of(name))
    found = [] if there == kept else [f"archived and found, or neither: {name}"]
    return [*found, f"{name} was searched by words alone: {degraded}"] if degraded else found


async def finds(service: Service, word: str) -> tuple[bool, str]:
    """Tell whether one of the personas finds a word, and why not by meaning, if so."""
    degraded = ""
    for persona in PERSONAS:
        found = await call(service, "memory_search", persona_id=persona, query=word)
        degraded = degraded or found["degraded"] or ""
        # With its comma: the word of f-3 is a part of that of f-33.
        if any(f"{word}," in memory["content"] for memory in found["memories"]):
            return True, degraded
    return False, degraded


def main() -> None:
    """Run the rounds and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash_memory")
    parser.add_argument("--what", choices=(*LIVES, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    table = Table("kills during", "kills", "begun", "acknowledged", "faults")
    wrong: list[str] = []
    for what in LIVES if given.what == "all" else (given.what,):
        with tempfile.TemporaryDirectory(prefix="persona-crash-") as folder:
            lives = list(play(Path(folder) / "data", what, given.rounds, given.seed))
        faults_there = [f"{what}: {fault}" for life in lives for fault in life.faults]
        counts = (sum(life.asked for life in lives), sum(life.answered for life in lives))
        table.add_row(what, str(len(lives)), *map(str, counts), str(len(faults_there)))
        wrong += faults_there
    Console(width=100).print(table)
    for fault in wrong:
        print(fault)
    print("FAILED" if wrong else "nothing lost, SQL and index agree")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
