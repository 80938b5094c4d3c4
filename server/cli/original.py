"""The command that imports the original Persona MCP server's data."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import world_named
from persona_mcp.server.cli.run import run
from persona_mcp.server.store import open_store
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.original import read_original
from persona_mcp.state.original_import import Imported, import_original


class OnlyPlanned(Exception):
    """Rolls back what a dry run wrote."""

    def __init__(self, found: Imported) -> None:
        """Keep what it would be."""
        super().__init__()
        self.found = found


def import_folder(folder: Path, world: str | None, dry_run: bool, as_json: bool) -> None:
    """Import a folder, and say what was and what was not read."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        original = await asyncio.to_thread(read_original, folder)
        async with open_store(settings) as store:
            world_id = await world_named(store, world)

            def write(connection: Connection) -> Imported:
                found = import_original(
                    connection, world_id, original, store.laws.effects, time.time()
                )
                if dry_run:
                    raise OnlyPlanned(found)
                return found

            try:
                done = await store.database.write(write)
            except OnlyPlanned as planned:
                done = planned.found
        shown: dict[str, Any] = {**asdict(done), "world_id": world_id, "dry_run": dry_run}
        if as_json:
            terminal.print_json(shown)
            return
        would = "would be " if dry_run else ""
        for kind, count in done.added.items():
            there = f", {done.there[kind]} there already" if done.there.get(kind) else ""
            terminal.out.print(f"{kind}: {count} {would}imported{there}", soft_wrap=True)
        for what in done.unread:
            terminal.err.print(f"not read: {what}", style="yellow", soft_wrap=True)

    run(work, as_json=as_json)
