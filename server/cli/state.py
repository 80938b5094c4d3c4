"""Commands on saved states: save, load, list, export."""

import asyncio
import base64
from functools import partial
from pathlib import Path

from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import (
    Arguments,
    Ask,
    Shown,
    answered,
    call,
    carry_out,
    confirm,
    counted,
)
from persona_mcp.server.cli.files import check_file, read
from persona_mcp.server.cli.files import save as write_file
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams

FILE = "FILE"
"""What the commands' argument is called."""
FILE_BYTES = 256 * 1024 * 1024
"""Of a file, at most; state_load takes no more."""
TOLD = (
    ("personas", "persona", "personas"),
    ("memories", "memory", "memories"),
    ("conversations", "conversation", "conversations"),
    ("turns", "turn", "turns"),
)
"""Of the rows that a saved state holds: what people count."""


def save(
    file: Path | None,
    name: str | None,
    note: str | None,
    personas: list[str] | None,
    include: list[str] | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Save the world and say what it is called."""

    def check(*_: object) -> None:
        if file is not None:  # else the state is saved, and saved again by each further try
            check_file(file, FILE)

    async def work(ask: Ask, given: Arguments) -> Shown:
        found: Shown = (await ask("state_save", given))["state"]
        if file is not None:
            await write_out(ask, {"snapshot_id": found["snapshot_id"], "world_id": world}, file)
            found["file"] = str(file)
        return found

    def show(terminal: Terminal, found: Shown) -> None:
        what = f"saved '{found['name']}' version {found['version']}: {in_words(found['counts'])}"
        terminal.out.print(what, soft_wrap=True)
        if file is not None:
            terminal.out.print(f"wrote it to {file}", soft_wrap=True)

    arguments = {
        "name": name,
        "note": note,
        "persona_ids": personas or None,
        "include": include or None,
        "world_id": world,
    }
    carry_out(work, arguments, show, as_json, first=check)


def load(
    file: Path | None,
    snapshot: str | None,
    name: str | None,
    version: int | None,
    into: str | None,
    merge: bool,
    dry_run: bool,
    yes: bool,
    world: str | None,
    as_json: bool,
) -> None:
    """Load what was saved; asks before it replaces what is there."""
    arguments: Arguments = {
        "snapshot_id": snapshot,
        "name": name,
        "version": version,
        "into": into,
        "mode": "merge" if merge else "replace",
        "world_id": world,
    }

    async def look(ask: Ask, given: Arguments) -> Shown:
        return await ask("state_load", {**given, "dry_run": True})

    def ask_first(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        if file is not None:
            arguments["data"] = read_in(file)
        arguments["dry_run"] = dry_run
        if merge or dry_run or yes:
            arguments["confirm"] = True
            return
        given = {key: value for key, value in arguments.items() if value is not None}
        found = runner.run(answered(settings, look, given, live=True))
        if any(found["replaced"].values()):
            confirm(terminal, as_json, partial(question, found))
        arguments["confirm"] = True

    async def work(ask: Ask, _: Arguments) -> Shown:
        given = {key: value for key, value in arguments.items() if value is not None}
        return await ask("state_load", given)

    carry_out(work, {}, show_loaded, as_json, live=True, first=ask_first)


def question(found: Shown) -> str:
    """Ask whether a world is to be replaced."""
    return (
        f"Replace what is in world '{found['world_id']}' ({in_words(found['replaced'])}) by "
        f"{in_words(found['restored'])}? What is there is saved first."
    )


def show_loaded(terminal: Terminal, found: Shown) -> None:
    """Say what was, or would be, loaded, and how to undo it."""
    terminal.out.print(found["message"], soft_wrap=True)
    for one in found["conflicts"]:
        terminal.out.print(f"{one['table']} {one['id']}: {one['reason']}", soft_wrap=True)
    if found["memories_to_embed"]:
        later = f"{found['memories_to_embed']} memories are found by words until they are embedded"
        terminal.out.print(later, soft_wrap=True)
    if found["previous_snapshot_id"]:
        world = f"--world {found['world_id']}"
        undo = f"undo it with: persona state load --id {found['previous_snapshot_id']} {world}"
        terminal.out.print(undo, style="dim", soft_wrap=True)


def list_states(
    name: str | None, limit: int, cursor: str | None, world: str | None, as_json: bool
) -> None:
    """Print a table of what is saved."""

    def show(terminal: Terminal, found: Shown) -> None:
        if not found["snapshots"]:
            terminal.out.print("nothing is saved; persona state save does it")
            return
        table = Table("name", "saved at, id", "holds", "note")
        for one in found["snapshots"]:
            table.add_row(
                f"{one['name']} {one['version']}",
                f"{one['timestamp']}\n{one['snapshot_id']}",
                in_words(one["counts"]),
                one["note"],
            )
        terminal.out.print(table)
        if found["next_cursor"]:
            more = f"{found['total_count']} in all; the next: --cursor {found['next_cursor']}"
            terminal.out.print(more, soft_wrap=True)

    arguments = {"name": name, "limit": limit, "cursor": cursor, "world_id": world}
    call("state_list", arguments, show, as_json)


def export(
    file: Path,
    snapshot: str | None,
    name: str | None,
    version: int | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Write what is saved to a file."""

    async def work(ask: Ask, given: Arguments) -> Shown:
        return await write_out(ask, given, file)

    def show(terminal: Terminal, found: Shown) -> None:
        what = f"wrote '{found['name']}' version {found['version']} to {file}"
        terminal.out.print(f"{what}: {found['bytes']} bytes", soft_wrap=True)

    arguments = {"snapshot_id": snapshot, "name": name, "version": version, "world_id": world}
    carry_out(work, arguments, show, as_json)


async def write_out(ask: Ask, given: Arguments, file: Path) -> Shown:
    """Fetch a saved state piece by piece and write it to a file.

    Raises:
        InvalidParams: The file cannot be written.
    """
    given = {key: value for key, value in given.items() if value is not None}
    found = await ask("state_export", given)
    whole = {"snapshot_id": found["snapshot_id"]}
    if "world_id" in given:
        whole["world_id"] = given["world_id"]
    pieces = [base64.b64decode(found["data"])]
    while (offset := found["next_offset"]) is not None:
        found = await ask("state_export", {**whole, "offset": offset})
        pieces.append(base64.b64decode(found["data"]))
    await asyncio.to_thread(write_file, file, b"".join(pieces).decode("utf-8"), FILE)
    told = ("snapshot_id", "name", "version", "bytes", "sha256")
    return {**{key: found[key] for key in told}, "file": str(file)}


def read_in(file: Path) -> str:
    """Read a file as state_load takes it.

    Raises:
        NotFound: It is not there.
        InvalidParams: It cannot be read, is empty, or is too large.
    """
    data = read(file, FILE_BYTES)
    if len(data) > FILE_BYTES:
        raise InvalidParams.one(FILE, f"a file of at most {FILE_BYTES} bytes", str(file))
    if not data:
        raise InvalidParams.one(FILE, "a file from persona state save or export", f"{file} (empty)")
    return base64.b64encode(data).decode()


def in_words(counts: Shown) -> str:
    """Write how much is saved, for people; a table that has no count has no rows."""
    return ", ".join(counted(counts.get(table, 0), one, many) for table, one, many in TOLD)
