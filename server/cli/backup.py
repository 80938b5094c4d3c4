"""`persona db backup` and `persona db restore`."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from persona_mcp.config import backups
from persona_mcp.config.backups import Backup
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import confirm
from persona_mcp.server.cli.run import run_loop, tidy_at_sigterm
from persona_mcp.server.terminal import Terminal

PAGE_BYTES = 4096


def backup(folder: Path, as_json: bool) -> None:
    """Copy the data folder, with a progress bar."""

    def loop(settings: Settings, terminal: Terminal, _: asyncio.Runner) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
        quiet = not terminal.err.is_terminal
        with (
            Progress(*columns, console=terminal.err, transient=True, disable=quiet) as bar,
            tidy_at_sigterm(),
        ):
            task = bar.add_task("copying", total=None)

            def told(name: str, done: int, total: int) -> None:
                size, whole = done * PAGE_BYTES, total * PAGE_BYTES
                bar.update(task, description=name, completed=size, total=whole)

            # In no thread beside an event loop: there a Ctrl-C waits for the end, and it is made.
            made = backups.back_up(settings, folder, told)
        if as_json:
            terminal.print_json({"folder": str(folder), **shown(made)})
        else:
            terminal.out.print(
                f"wrote {described(made)}, to {folder}; it was checked", soft_wrap=True
            )

    run_loop(loop, as_json=as_json)


def restore(folder: Path, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Check a backup, ask, and put it in place."""

    def loop(settings: Settings, terminal: Terminal, _: asyncio.Runner) -> None:
        found = backups.read_backup(folder)
        if dry_run:
            told, aside = "would be put into", None
        else:
            if not yes:
                confirm(
                    terminal,
                    as_json,
                    lambda: (
                        f"Put {described(found)} into {settings.data_dir}, and what is there aside?"
                    ),
                )
            with tidy_at_sigterm():
                found, aside = backups.restore(settings, folder)
            told = "is now in"
        if as_json:
            kept = None if aside is None else str(aside)
            terminal.print_json({"restored": not dry_run, "kept": kept, **shown(found)})
            return
        terminal.out.print(f"{described(found)} {told} {settings.data_dir}", soft_wrap=True)
        if aside is not None:
            terminal.out.print(f"what was there is in {aside}", soft_wrap=True)

    run_loop(loop, as_json=as_json)


def described(made: Backup) -> str:
    """Write in words what a backup is."""
    moment = datetime.fromtimestamp(made.made_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"a backup of {moment}, {made.bytes:,} bytes"


def shown(made: Backup) -> dict[str, object]:
    """Write for scripts what a backup is."""
    return {
        "version": made.version,
        "revision": made.revision,
        "made_at": made.made_at,
        "files": made.files,
        "bytes": made.bytes,
    }
