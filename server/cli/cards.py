"""Commands on character cards: import files and folders, export one."""

import asyncio
import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import Arguments, Ask, Shown, carry_out, counted
from persona_mcp.server.cli.files import save
from persona_mcp.server.cli.run import FAILED
from persona_mcp.server.terminal import Terminal, open_terminal
from persona_mcp.server.wire import problem_of
from persona_mcp.state.cards.files import FILE_BYTES
from persona_mcp.state.errors import BadSnapshot, Conflict, InvalidParams, PersonaError

ENDINGS = (".json", ".png", ".apng", ".charx")
PERSONA_ENDINGS = (".yaml", ".yml")
CARRIED = {"v2": "same", "v3": "same"}
FORMATS = {".json": "same", ".png": "png", ".apng": "png", ".charx": "charx"}


def import_cards(
    paths: Sequence[Path], on_conflict: str, dry_run: bool, world: str | None, as_json: bool
) -> None:
    """Import cards, one after the other; one that is refused does not stop the others."""
    files: list[Path] = []
    failed: list[str] = []

    def look(_: Settings, __: Terminal, ___: asyncio.Runner) -> None:
        for path in paths:
            files.extend(cards_in(path))

    async def work(ask: Ask, given: Arguments) -> Shown:
        console = open_terminal().err
        with Progress(console=console, disable=not (files[1:] and console.is_terminal)) as bar:
            cards = [
                await import_one(ask, file, given)
                for file in bar.track(files, description="importing")
            ]
        if dry_run:
            cards = list(one_after_another(cards, on_conflict))
        failed.extend(card["file"] for card in cards if "error" in card)
        return {"cards": cards, "imported": len(cards) - len(failed), "failed": len(failed)}

    given = {"on_conflict": on_conflict, "dry_run": dry_run, "world_id": world}
    carry_out(work, given, show_imported, as_json, first=look)
    if failed:
        raise typer.Exit(FAILED)


def one_after_another(cards: Sequence[Shown], on_conflict: str) -> Iterator[Shown]:
    """Tell of cards that would be imported what those before them in the same run do to them."""
    seen = set[str]()
    for card in cards:
        name = card.get("name", "").casefold()
        if name and name in seen and on_conflict == "fail":
            taken = f"name: an earlier file of these makes a persona called '{card['name']}'"
            yield {"file": card["file"], "error": problem_of(Conflict(taken, field="name"))}
            continue
        if name and name in seen:
            again = f"an earlier file of these has this name too: --on-conflict {on_conflict}"
            card = {**card, "warnings": [*card["warnings"], again]}
        seen.add(name)
        yield card


def cards_in(path: Path) -> list[Path]:
    """Return a file, or the files of a folder that may be cards, by name.

    Raises:
        InvalidParams: It is not there, or a folder without any.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidParams.one("FILE", "a file or a folder that is there", str(path))
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    if not found:
        raise InvalidParams.one(
            "FILE", f"a folder with files that end in {', '.join(ENDINGS)}", str(path)
        )
    return found


async def import_one(ask: Ask, file: Path, given: Arguments) -> Shown:
    """Import one file; what it is refused with is part of the answer."""
    try:
        if file.suffix.lower() in PERSONA_ENDINGS:
            raise BadSnapshot("this is no character card: `persona create` takes files in YAML")
        data = await asyncio.to_thread(read_bytes, file)
        done = await ask("persona_import", {**given, "data": base64.b64encode(data).decode()})
    except PersonaError as error:
        return {"file": str(file), "error": problem_of(error)}
    return {"file": str(file), **done}


def read_bytes(file: Path) -> bytes:
    """Read a file, but not one that is too large for a card.

    Raises:
        BadSnapshot: It cannot be read, is empty or too large.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES + 1)
    except OSError as error:
        raise BadSnapshot(f"the file cannot be read: {error.strerror}") from error
    if not data:
        raise BadSnapshot("the file is empty")
    if len(data) > FILE_BYTES:
        raise BadSnapshot(f"the file is too large: {FILE_BYTES:,} bytes are allowed")
    return data


def show_imported(terminal: Terminal, found: Shown) -> None:
    """Print a table of what became of each file."""
    table = Table("file", "persona", "card", "what to know", show_lines=True)
    for card in found["cards"]:
        name = Path(card["file"]).name
        if "error" in card:
            table.add_row(name, Text("refused", style="red"), "", card["error"]["message"])
            continue
        known = [
            *(
                [counted(card["lore_entries"], "lore entry", "lore entries")]
                if card["lore_entries"]
                else []
            )
        ]
        known += ["changed the one that was there"] if card["replaced"] else []
        notes = "; ".join([*known, *card["warnings"]])
        table.add_row(name, f"{card['name']}\n{card['persona_id']}", card["spec"], notes)
    terminal.out.print(table)
    dry = any(card.get("dry_run") for card in found["cards"])
    done = "would be imported" if dry else "imported"
    refused = f", {found['failed']} refused" if found["failed"] else ""
    terminal.out.print(f"{counted(found['imported'], 'card')} {done}{refused}")


def export(
    name: str, file: Path, shape: str | None, include_state: bool, world: str | None, as_json: bool
) -> None:
    """Write a persona as a character card; the ending of the file says in what."""

    def check(_: Settings, __: Terminal, ___: asyncio.Runner) -> None:
        if shape is None and file.suffix.lower() not in FORMATS:
            raise InvalidParams.one(
                "FILE", f"a name that ends in {', '.join(FORMATS)}, or --format", str(file)
            )
        carried = FORMATS.get(file.suffix.lower(), shape)
        if shape is not None and carried not in (shape, CARRIED.get(shape, shape)):
            raise InvalidParams.one(
                "--format", f"what a file that ends in {file.suffix} holds", shape
            )

    async def work(ask: Ask, given: Arguments) -> Shown:
        done: dict[str, Any] = await ask("persona_export", given)
        data = base64.b64decode(done["data"])
        await asyncio.to_thread(save, file, data, "FILE")
        kept = ("persona_id", "name", "mime", "bytes", "sha256", "warnings")
        return {"file": str(file), **{key: done[key] for key in kept}}

    def show(terminal: Terminal, found: Shown) -> None:
        text = f"{found['name']} is in {found['file']}: {found['bytes']:,} bytes"
        terminal.out.print(text, soft_wrap=True)
        for warning in found["warnings"]:
            terminal.err.print(f"note: {warning}", soft_wrap=True)

    given = {
        "persona_id": name,
        "format": shape or FORMATS.get(file.suffix.lower()),
        "include_state": include_state,
        "world_id": world,
    }
    carry_out(work, given, show, as_json, first=check)
