"""What an exchange costs by itself: processor time and bytes, at exchange 10, 100 and 1,000.

    python -m benchmarks.exchange --exchanges 1000

One conversation, an instant model in this process, the work for the index included. Its exchanges
follow one another at once, so that what one leaves to be written soon is written with the next.
Once with an embedder that costs nothing, once with the embedded one, whose embeddings are then
counted apart. Before and behind them a bare LangGraph run of as many empty nodes, with the same
saver, in the same process; and where the time goes, by node and by kind of thread.
"""

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.instant import BareGraph, HashEmbedder, InstantModel, RecordingEmbedder, message
from persona_mcp.config.checkpoints import open_checkpointer
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings, Settings
from persona_mcp.server.event_loop import busy_runner
from persona_mcp.server.metric_families import NODES, SQL
from persona_mcp.server.runs import ChatRequest
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.ids import thread_id

POINTS = (10, 100, 1000)
AROUND = 5
"""Exchanges on each side of a point that its figures are the median of."""
WARM_UP = 30
QUIET_S = 0.005
MS = 1000.0
LEAST_MS = 0.05
"""Threads that take less than this at every point are not shown."""
CPU_BAR_MS, GROWTH_BAR, CHECKPOINT_BAR = 12.0, 1.1, 2000.0
BARE_RUNS = 20
"""Before the exchanges about a point, and as many behind them."""


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk, and how many exchanges of the conversation are there."""

    exchanges: int
    database: int
    checkpoint_file: int


@dataclass(frozen=True)
class Figures:
    """What one exchange costs about one point of the conversation.

    Attributes:
        exchange: The point: 10, 100, 1,000.
        cpu_ms: Processor time of all threads, embeddings included, in milliseconds.
        own_ms: The same without the embeddings: the same texts are embedded once more, alone.
        bare_ms: Of a bare LangGraph run, measured at the same time, in milliseconds.
        embeddings: Texts that are embedded.
        database_bytes: Growth of the database's pages since the point before.
        checkpoint_bytes: Checkpoint, metadata and writes that are stored.
        file_bytes: Growth of the file of checkpoints since the point before.
        nodes: Milliseconds of the clock in each node of the graph, waits included, by its name.
        transactions: Milliseconds and number of the transactions that read and that write, those of
            nodes and all others, by kind.
        threads: Milliseconds of processor time by kind of thread; none where the system tells none.
    """

    exchange: int
    cpu_ms: float
    own_ms: float
    bare_ms: float
    embeddings: float
    database_bytes: float
    checkpoint_bytes: float
    file_bytes: float
    nodes: dict[str, float]
    transactions: dict[str, tuple[float, float]]
    threads: dict[str, float]


@dataclass(frozen=True)
class Talk:
    """A conversation under measurement.

    Attributes:
        service: Everything that is live.
        beside: Looks into its database; opened once, since that takes a millisecond.
        embedder: Notes what is embedded.
        bare: The graph to compare with.
        conversation_id: Which one.
        user_id: Who talks.
        persona: With whom.
    """

    service: Service
    beside: sqlite3.Connection
    embedder: RecordingEmbedder
    bare: BareGraph
    persona: str = "aria"
    user_id: str = "sam"


async def measure(settings: Settings, embedder: Embedder, points: list[int]) -> list[Figures]:
    """Talk until the last point, and measure about each.

    Args:
        settings: Whose data folder is new.
        embedder: The stub, or the real one.
        points: Numbers of exchanges, in order.
    """
    noting = RecordingEmbedder(embedder)
    bare_settings = settings.model_copy(update={"data_dir": settings.data_dir / "bare"})
    async with (
        open_service(settings, InstantModel(), noting) as service,
        open_checkpointer(bare_settings) as saver,
    ):
        with closing(opened(settings, "persona.db")) as beside:
            talk = Talk(service, beside, noting, BareGraph(saver))
            warm = replace(talk, persona="kira", user_id="eve")
            where: str | None = None
            for number in range(WARM_UP):
                where = await exchange(warm, -number - 1, where)
                await talk.bare.run(number)
            return await figures(talk, points)


async def figures(talk: Talk, points: list[int]) -> list[Figures]:
    """Walk through the conversation from point to point."""
    found: list[Figures] = []
    where = await exchange(talk, 0, None)
    number, before = 1, sizes(talk.service.settings, 1)
    for point in points:
        while number < point - AROUND - 1:
            await exchange(talk, number, where)
            number += 1
        cpu: list[float] = []
        threads: list[dict[str, float]] = []
        bare = [await timed(talk.bare.run(number)) for number in range(BARE_RUNS)]
        await exchange(talk, number, where)
        number += 1
        counted = steps(talk.service)
        talk.embedder.calls.clear()
        while number < point + AROUND:
            started = clocks()
            cpu.append(await timed(exchange(talk, number, where)))
            threads.append({kind: s - started.get(kind, 0.0) for kind, s in clocks().items()})
            number += 1
        bare += [await timed(talk.bare.run(number)) for number in range(BARE_RUNS)]
        after = sizes(talk.service.settings, number)
        calls = tuple(talk.embedder.calls)
        embedding_ms = await timed(talk.embedder.again(calls)) / len(cpu)
        embeddings = sum(1 if isinstance(one, str) else len(one) for one in calls) / len(cpu)
        new = after.exchanges - before.exchanges
        took = {step: (n - counted[step]) / len(cpu) for step, n in steps(talk.service).items()}
        cpu_ms = median(cpu)
        found.append(
            Figures(
                exchange=point,
                cpu_ms=cpu_ms,
                own_ms=cpu_ms - embedding_ms,
                bare_ms=median(bare),
                embeddings=embeddings,
                database_bytes=(after.database - before.database) / new,
                checkpoint_bytes=stored(talk.service.settings, where, len(cpu)),
                file_bytes=(after.checkpoint_file - before.checkpoint_file) / new,
                nodes={
                    node: seconds * MS
                    for (name, node), seconds in took.items()
                    if name == f"{NODES}_sum" and seconds
                },
                transactions={
                    kind: (took[f"{SQL}_sum", kind] * MS, took[f"{SQL}_count", kind])
                    for kind in ("read", "write")
                },
                threads={
                    kind: median(each.get(kind, 0.0) for each in threads) * MS
                    for kind in set[str]().union(*threads)
                },
            )
        )
        print(f"exchange {point:,}: {cpu_ms:.1f} ms of processor time", file=sys.stderr)
        before = after
    return found


def steps(service: Service) -> Counter[tuple[str, str]]:
    """Read what the service counts of nodes and transactions, by its name and which one it is."""
    samples = service.metrics.samples()
    return Counter(
        {
            (name, labels["node" if name.startswith(NODES) else "kind"]): value
            for name in (f"{NODES}_sum", f"{SQL}_sum", f"{SQL}_count")
            for labels, value in samples[name]
        }
    )


def clocks() -> dict[str, float]:
    """Read the processor time that threads have taken, in seconds, by kind: names but numbers."""
    taken = defaultdict[str, float](float)
    if hasattr(time, "pthread_getcpuclockid"):
        for thread in threading.enumerate():
            clock = time.pthread_getcpuclockid(thread.ident or 0)
            taken[thread.name.rstrip("_0123456789")] += time.clock_gettime(clock)
    return taken


async def timed(work: Any) -> float:
    """Return the processor time of all threads that some work takes, in milliseconds."""
    started = time.process_time()
    await work
    return (time.process_time() - started) * MS


async def exchange(talk: Talk, number: int, conversation_id: str | None) -> str:
    """Say something, wait for the reply and for the index, and return the conversation."""
    run, accepted = await talk.service.chat(
        ChatRequest(
            world_id=talk.service.settings.world,
            persona=talk.persona,
            user_id=talk.user_id,
            message=message(number),
            conversation_id=conversation_id,
        )
    )
    await run.outcome()
    while talk.beside.execute("SELECT EXISTS (SELECT 1 FROM outbox)").fetchone()[0]:
        await asyncio.sleep(QUIET_S)
    return accepted.conversation_id


def opened(settings: Settings, file: str) -> sqlite3.Connection:
    """Open a database of the data folder beside the service."""
    return sqlite3.connect(settings.data_dir / file)


def sizes(settings: Settings, exchanges: int) -> Sizes:
    """Read how many bytes the pages take, those in the write-ahead log included."""
    found = []
    for file in ("persona.db", "checkpoints.db"):
        with closing(opened(settings, file)) as connection:
            pages, free, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            found.append((pages - free) * size)
    return Sizes(exchanges, *found)


def stored(settings: Settings, conversation_id: str, newest: int) -> float:
    """Return the bytes of checkpoints that an exchange stores, over the newest exchanges."""
    thread = thread_id(settings.world, conversation_id)
    ids = (
        "SELECT checkpoint_id FROM checkpoints WHERE thread_id = :thread "
        "ORDER BY checkpoint_id DESC LIMIT :newest"
    )
    query = (
        "SELECT (SELECT sum(length(checkpoint) + length(metadata)) FROM checkpoints "
        f"WHERE thread_id = :thread AND checkpoint_id IN ({ids})) + "
        "(SELECT coalesce(sum(length(value)), 0) FROM writes "
        f"WHERE thread_id = :thread AND checkpoint_id IN ({ids}))"
    )
    with closing(opened(settings, "checkpoints.db")) as connection:
        total = connection.execute(query, {"thread": thread, "newest": newest}).fetchone()[0]
    return float(total) / newest


def bar(held: bool, what: str) -> str:
    """Say whether a bar is held."""
    return f"{'held  ' if held else 'MISSED'} {what}"


def bars(stub: list[Figures]) -> list[str]:
    """Compare the figures with what the product holds itself to."""
    first, last = stub[0], stub[-1]
    grown = last.own_ms / first.own_ms
    # A machine whose speed changes meanwhile changes the bare runs beside each as well.
    beside = grown * first.bare_ms / last.bare_ms
    worst = max(f.own_ms for f in stub)
    checkpoints = max(f.checkpoint_bytes for f in stub)
    return [
        bar(worst <= CPU_BAR_MS, f"{worst:.1f} ms of processor time, at most {CPU_BAR_MS:g}"),
        bar(
            grown <= GROWTH_BAR,
            f"exchange {last.exchange:,} costs {grown:.2f} times exchange {first.exchange}, "
            f"at most {GROWTH_BAR:g} ({beside:.2f} in multiples of the bare runs beside them)",
        ),
        bar(
            checkpoints <= CHECKPOINT_BAR,
            f"{checkpoints:,.0f} bytes of checkpoints an exchange, at most {CHECKPOINT_BAR:,.0f}",
        ),
    ]


def show(found: dict[str, list[Figures]]) -> None:
    """Print the table and what it says of the bars."""
    table = Table("embedder", "exchange", "CPU ms", "own ms", "bare ms", "x bare", "embeddings")
    for column in ("db bytes", "checkpoint bytes", "its file"):
        table.add_column(column)
    for name, figures in found.items():
        for f in figures:
            table.add_row(
                name,
                f"{f.exchange:,}",
                *(f"{value:.1f}" for value in (f.cpu_ms, f.own_ms, f.bare_ms)),
                *(f"{value:.1f}" for value in (f.own_ms / f.bare_ms, f.embeddings)),
                *(f"{v:,.0f}" for v in (f.database_bytes, f.checkpoint_bytes, f.file_bytes)),
            )
    console = Console(width=110)
    console.print(table)
    print(
        "per exchange; own: without the embeddings, which are made once more to be measured alone;"
    )
    print("bare: LangGraph with as many empty nodes")
    for name, figures in found.items():
        console.print(where_it_goes(name, figures))
    print("ms of the clock an exchange, waits included: in each node, and in all its transactions;")
    print("and of processor time in each kind of thread (medians)")
    print("\n".join(bars(next(iter(found.values())))))


def where_it_goes(embedder: str, figures: list[Figures]) -> Table:
    """Make the table of what an exchange's nodes, transactions and threads take."""
    table = Table(embedder, *(f"exchange {f.exchange:,}" for f in figures))
    for node in sorted({node for f in figures for node in f.nodes}):
        table.add_row(node, *(f"{f.nodes.get(node, 0.0):.2f}" for f in figures))
    table.add_section()
    for kind in ("read", "write"):
        its = (f.transactions[kind] for f in figures)
        table.add_row(f"{kind}s", *(f"{ms:.2f} in {count:.1f}" for ms, count in its))
    table.add_section()
    for kind in sorted({kind for f in figures for kind, ms in f.threads.items() if ms >= LEAST_MS}):
        table.add_row(f"CPU of {kind}", *(f"{f.threads.get(kind, 0.0):.2f}" for f in figures))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exchange")
    parser.add_argument("--exchanges", type=int, default=POINTS[-1], help="the last point")
    parser.add_argument("--embedder", choices=("both", "stub", "minilm"), default="both")
    parser.add_argument(
        "--index",
        choices=("held", "chroma", "exact"),
        default="held",
        help="what is searched: what is held in memory, as usual, or always the one index or other",
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON, without bars")
    given = parser.parse_args()
    configure_logging(LogSettings())
    points = sorted({p for p in POINTS if p <= given.exchanges} | {max(given.exchanges, AROUND)})
    found: dict[str, list[Figures]] = {}
    for name in ("stub", "minilm"):
        if given.embedder in ("both", name):
            print(f"{name}, {given.index}", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="persona-exchange-") as folder:
                held = given.index == "held"
                index = {"kind": "chroma"} if held else {"kind": given.index, "held_each": 0}
                settings = load_settings(data_dir=Path(folder), index=index)
                embedder = HashEmbedder() if name == "stub" else open_embedder(settings.embedder)
                with busy_runner() as runner:  # as `persona serve` runs
                    found[name] = runner.run(measure(settings, embedder, points))
    if given.json:
        print(json.dumps({name: [asdict(f) for f in rows] for name, rows in found.items()}))
    else:
        show(found)


if __name__ == "__main__":
    main()
