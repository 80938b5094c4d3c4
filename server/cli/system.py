"""Commands on the system itself: config, doctor, graph, db, memory."""

import asyncio
import importlib
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from persona_mcp.config.loading import list_settings
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.files import save
from persona_mcp.server.cli.run import FAILED, command_module, llm, run
from persona_mcp.server.terminal import Terminal

HELD = "; another process has Chroma's folder open: end it and run this again to rebuild that too"


def config(as_json: bool) -> None:
    """Print every setting, its value and source."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        listed = list_settings(settings)
        if as_json:
            terminal.print_json({s.name: {"value": s.value, "source": s.source} for s in listed})
            return
        table = Table("variable", "value", "source")
        for setting in listed:
            style = None if setting.source == "default" else "bold"
            table.add_row(setting.name, setting.value, setting.source, style=style)
        terminal.out.print(table)

    run(work, as_json=as_json)


def doctor(model: str | None, as_json: bool) -> None:
    """Check every part; exits with 1 if one needs attention."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        findings = await command_module("cli.doctor").check_all(settings)
        if as_json:
            terminal.print_json(
                {"ok": all(f.ok for f in findings), "checks": [vars(f) for f in findings]}
            )
        else:
            table = Table("part", "state", "what was found, what to do")
            for finding in findings:
                style = None if finding.ok else "bold red"
                state = "ok" if finding.ok else "attention"
                table.add_row(finding.part, state, finding.detail, style=style)
            terminal.out.print(table)
        if not all(finding.ok for finding in findings):
            raise typer.Exit(FAILED)

    run(work, as_json=as_json, llm=llm(model))


def graph(name: str, svg: Path | None) -> None:
    """Print a graph as Mermaid, or draw it."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        pictures = command_module("pictures")
        if svg is None:
            terminal.out.print(pictures.mermaid(name).rstrip(), soft_wrap=True)
            return
        save(svg, pictures.svg(name), "--svg")
        terminal.out.print(f"wrote {svg}")

    run(work)


def upgrade() -> None:
    """Bring the schema up to date."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        database = importlib.import_module("persona_mcp.config.database")
        before, after = await asyncio.to_thread(database.upgrade_database, settings)
        if before == after:
            terminal.out.print(f"the database is at {after} already")
        else:
            terminal.out.print(f"the database went from {before or 'nothing'} to {after}")

    run(work)


def reindex(embed: bool, world: str | None, as_json: bool) -> None:
    """Make the index of a world anew, with a progress bar."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        service_module = command_module("service")
        async with service_module.open_service(
            settings, new_index=True, holds_batches=False
        ) as service:
            world_id = await command_module("cli.calls").world_named(service, world)
            with Progress(*columns, console=terminal.err, transient=True) as bar:
                task = bar.add_task("embedding", total=None)

                def progress(done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)

                count = await service.indexer.reindex(world_id, progress, embed)
            told: dict[str, Any] = {"indexed": count, "index": service.index.kind}
        if as_json:
            terminal.print_json(told)
        else:
            held = "" if told["index"] == "chroma" or settings.index.kind == "exact" else HELD
            terminal.out.print(f"{count} memories are in the index ({told['index']}){held}")

    run(work, as_json=as_json)
