"""What must hold of a data folder whatever happened to its processes; and a model for them."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Select, select

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.store import laws_of
from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.effects import EffectParams, read_arrow
from persona_mcp.state.feelings import fold_feelings, to_feelings
from persona_mcp.state.personas import find
from persona_mcp.state.relationship_store import read_log

ROOT = Path(__file__).parents[1]
OF_TURNS = select(tables.Memory.exchange_id).where(tables.Memory.turn_id.is_not(None))
"""A summary names the last exchange that it sums up."""
LEFT_BEHIND: dict[str, tuple[Select[*tuple[Any, ...]], int]] = {
    "turns": (select(tables.Turn.exchange_id), 2),
    "memories": (OF_TURNS, 2),
    "relationship events": (select(tables.RelationshipEvent.exchange_id), 2),
    "mood impulses": (select(tables.MoodImpulse.exchange_id), 1),
    "costs": (select(tables.EnergySpent.exchange_id), 2),
}
"""How many rows an exchange leaves behind once it is done; before, none."""


@contextmanager
def model_server(word_s: float, behaviour: str = "ok") -> Iterator[str]:
    """Run the tests' model server as a process of its own, with a wait before each word.

    Args:
        word_s: The wait, in seconds.
        behaviour: What it does, of those that it knows.

    Returns:
        Its base address in the OpenAI form.
    """
    command = [sys.executable, "-m", "tests.model_server", "--delay-s", str(word_s)]
    command += ["--behaviour", behaviour]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip() + "/v1"
        finally:
            process.kill()


async def faults(settings: Settings, acknowledged: set[str]) -> list[str]:
    """Look for what was lost, doubled or half there.

    Args:
        settings: Whose data folder; no other process needs to be stopped.
        acknowledged: Request ids whose reply was seen outside.

    Returns:
        A line for each fault; none if all is well.
    """
    database = open_database(settings)
    try:
        params = laws_of(settings).effects
        found = await exchange_faults(database, acknowledged) + await order_faults(database)
        return [
            *found,
            *await arrow_faults(database, settings.world, params),
            *await feeling_faults(database, settings.world, params),
        ]
    finally:
        await database.aclose()


async def rows(database: Database, query: Select[*tuple[Any, ...]]) -> list[Any]:
    """Run a query."""
    with database.reading() as connection:
        return list(connection.execute(query).all())


async def exchange_faults(database: Database, acknowledged: set[str]) -> list[str]:
    """Look at what each exchange left behind."""
    X = tables.Exchange
    exchanges = await rows(database, select(X.id, X.request_id, X.status))
    status = {row.request_id: row.status for row in exchanges}
    found = [
        f"lost: {request_id} was acknowledged and is {status.get(request_id, 'nowhere')}"
        for request_id in sorted(acknowledged)
        if status.get(request_id) != "done"
    ]
    for what, (query, expected) in LEFT_BEHIND.items():
        counts = Counter(row[0] for row in await rows(database, query))
        for row in exchanges:
            due = expected if row.status == "done" else 0
            if counts[row.id] != due:
                found.append(f"{row.request_id} ({row.status}) has {counts[row.id]} {what}")
    return found


async def order_faults(database: Database) -> list[str]:
    """Look whether turns are numbered 1, 2, ..., and message and reply stand together."""
    T = tables.Turn
    turns: dict[str, list[Any]] = {}
    columns = T.conversation_id, T.number, T.exchange_id, T.position
    for row in await rows(database, select(*columns)):
        turns.setdefault(row.conversation_id, []).append(row)
    found = []
    for conversation, listed in turns.items():
        listed.sort(key=lambda row: row.number)
        numbers = [row.number for row in listed]
        pairs = zip(listed[::2], listed[1::2], strict=False)
        if numbers != list(range(1, len(listed) + 1)):
            found.append(f"conversation {conversation} has turns {numbers}")
        elif any(
            (a.exchange_id, a.position, b.position) != (b.exchange_id, 0, 1) for a, b in pairs
        ):
            found.append(f"conversation {conversation} mixes exchanges")
    return found


async def arrow_faults(database: Database, world_id: str, params: EffectParams) -> list[str]:
    """Compare each relationship's cache with the fold of its events."""
    E = tables.RelationshipEvent
    found = []
    for from_id, to_id in {tuple(row) for row in await rows(database, select(E.from_id, E.to_id))}:
        with database.reading() as connection:
            log = read_log(connection, world_id, from_id, to_id)
            cached = read_arrow(connection, world_id, from_id, to_id)
        if cached != log.fold(params.relationships):
            found.append(f"the relationship {from_id} -> {to_id} is not the fold of its events")
    return found


async def feeling_faults(database: Database, world_id: str, params: EffectParams) -> list[str]:
    """Compare each persona's cache with the fold of its impulses and costs."""
    found = []
    with database.reading() as connection:
        query = select(tables.PersonaState).where(tables.PersonaState.world_id == world_id)
        for row in connection.execute(query).all():
            persona = find(connection, world_id, row.persona_id)
            if fold_feelings(connection, world_id, persona, params) != to_feelings(row):
                found.append(f"the feelings of {persona.id} are not the fold of their log")
    return found
