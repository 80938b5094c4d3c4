"""Commands that change memories or carry them in and out: update, delete, import, export."""

import asyncio
import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import typer

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
    memories_in_words,
    peek,
    table_of,
)
from persona_mcp.server.cli.files import read, save
from persona_mcp.server.cli.run import FAILED, STDIN, read_stdin
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.memory.documents import DOCUMENT_BYTES

READABLE = "a file that can be read, or - for standard input"
PAGE = 10_000
"""Memories that an export asks for at once."""


def update(
    memory_id: str,
    changes: Arguments,
    metadata: str | None,
    share_with: list[str] | None,
    version: int | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Change a memory and say what is different."""
    arguments: Arguments = {
        **changes,
        "metadata": metadata,
        "related_personas": share_with or None,
    }

    def check(*_: object) -> None:
        if all(value is None for value in arguments.values()):
            raise InvalidParams.one("--text", "this or another change; see --help", "nothing")
        if metadata is not None:
            arguments["metadata"] = json_of(metadata)
        arguments.update(memory_id=memory_id, expected_version=version, world_id=world)

    def show(terminal: Terminal, found: Shown) -> None:
        what = ", ".join(found["changed"])
        done = f"changed {what}" if what else "nothing is different"
        terminal.out.print(f"{done}; version {found['version']}", soft_wrap=True)

    call("memory_update", arguments, show, as_json, first=check)


def json_of(text: str) -> Any:
    """Read JSON that an option gives.

    Raises:
        InvalidParams: It is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParams.one(
            "--metadata", 'a JSON object, such as {"from": "Sam"}', text
        ) from None


def delete(
    ids: list[str],
    *,
    purge: bool = False,
    yes: bool = False,
    unmerge: bool = False,
    dry_run: bool = False,
    world: str | None = None,
    as_json: bool = False,
) -> None:
    """Archive memories, take them apart, or delete them for good after asking.

    Raises:
        typer.Exit: Some are not there; what was done to the others stays done.
    """
    gone: list[Shown] = []
    missing: list[str] = []
    done = "deleted for good" if purge else "archived"

    async def look(ask: Ask, given: Arguments) -> Shown:
        gone[:] = await peek(ask, ids, world)
        return {}

    def ask_first(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        if dry_run and not as_json:
            runner.run(answered(settings, look, {}))
        if purge and not (yes or dry_run or unmerge):
            confirm(terminal, as_json, lambda: question(settings, terminal, runner))

    def question(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> str:
        runner.run(answered(settings, look, {}))
        terminal.err.print(table_of(gone))
        count = len(set(ids))
        back = "it" if count == 1 else "them"
        return f"Delete {memories_in_words(count)} for good? Nothing brings {back} back."

    async def work(ask: Ask, given: Arguments) -> Shown:
        found = await ask("memory_delete", given)
        missing.extend(found["not_found"])
        return found

    def show(terminal: Terminal, found: Shown) -> None:
        if dry_run and gone:
            terminal.out.print(table_of(gone))
        show_deleted(terminal, found, "taken apart" if unmerge else done)

    arguments = {
        "ids": ids,
        "purge": purge,
        "confirm": purge,
        "unmerge": unmerge,
        "dry_run": dry_run,
        "world_id": world,
    }
    carry_out(work, arguments, show, as_json, first=ask_first)
    if missing:
        raise typer.Exit(FAILED)


def show_deleted(terminal: Terminal, found: Shown, done: str) -> None:
    """Say what was, or would be, done, and how to undo it."""
    would = "would be " if found["dry_run"] else ""
    terminal.out.print(f"{memories_in_words(found['deleted'])} {would}{done}")
    if found["restored"]:
        back = "would be back" if found["dry_run"] else "back, and pinned"
        terminal.out.print(f"{back}: {', '.join(found['restored'])}", soft_wrap=True)
    if found["archived_already"]:
        already = ", ".join(found["archived_already"])
        terminal.out.print(f"archived already: {already}", soft_wrap=True)
    if found["not_found"]:
        missing = ", ".join(found["not_found"])
        terminal.err.print(f"not found: {missing}", style="yellow", soft_wrap=True)
    if done == "archived" and not found["dry_run"]:
        for memory_id in found["memory_ids"]:
            undo = f"undo it with: persona memory update {memory_id} --restore"
            terminal.out.print(undo, style="dim", soft_wrap=True)


def import_document(
    file: str,
    persona: str | None,
    title: str | None,
    visibility: str,
    chunk_words: int | None,
    dry_run: bool,
    world: str | None,
    as_json: bool,
) -> None:
    """Tell a persona a document, and say how many memories it became."""
    arguments: Arguments = {"persona_id": persona}

    def read(*_: object) -> None:
        if persona is not None:  # else that is said, and not what may be wrong with the file
            arguments["data"] = base64.b64encode(document(file)).decode()

    def show(terminal: Terminal, found: Shown) -> None:
        verb = "would be stored" if dry_run else "stored"
        text = f'{counted(found["stored"], "part")} of "{found["title"]}" {verb}'
        if found["already_there"]:
            text += f"; {found['already_there']} were there already and stay as they are"
        if found["archived"]:
            text += f", {found['archived']} of them archived"
        terminal.out.print(text, soft_wrap=True)

    arguments |= {
        "title": title,
        "visibility": visibility,
        "chunk_words": chunk_words,
        "dry_run": dry_run,
        "world_id": world,
    }
    call("memory_import", arguments, show, as_json, first=read)


def document(file: str) -> bytes:
    """Read a document from a file, or from standard input.

    Raises:
        NotFound: There is no such file.
        InvalidParams: It cannot be read, is too long, or blank.
    """
    if file == STDIN:
        raw = read_stdin().encode("utf-8", "surrogateescape")
    else:
        raw = read(Path(file), DOCUMENT_BYTES, READABLE)
    if len(raw) > DOCUMENT_BYTES:
        raise InvalidParams.one(
            "FILE", f"at most {DOCUMENT_BYTES} bytes; import it in pieces", len(raw)
        )
    if not raw.strip():
        raise InvalidParams.one("FILE", "text that is not blank", "nothing")
    return raw


def export(
    persona: str | None,
    form: str,
    archived: bool,
    output: Path | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Write all memories of a persona to a file, or to standard output."""

    async def work(ask: Ask, given: Arguments) -> Shown:
        page = await ask("memory_export", given)
        pages = [page]
        while page["truncated"]:
            page = await ask("memory_export", {**given, "cursor": page["next_cursor"]})
            pages.append(page)
        text = joined([page["data"] for page in pages], form)
        found = {
            "persona_id": page["persona_id"],
            "format": form,
            "count": sum(page["count"] for page in pages),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        if output is None:
            return {**found, "data": text}
        save(output, text, "--output")
        return {**found, "file": str(output)}

    def show(terminal: Terminal, found: Shown) -> None:
        count = memories_in_words(found["count"])
        if output is not None:
            terminal.out.print(f"wrote {count} to {output}", soft_wrap=True)
            return
        terminal.write(found["data"])
        if not found["count"]:
            terminal.err.print(f"{found['persona_id']} has no memories to export")

    arguments = {
        "persona_id": persona,
        "format": form,
        "include_archived": archived,
        "limit": PAGE,
        "world_id": world,
    }
    carry_out(work, arguments, show, as_json)


def joined(pages: list[str], form: str) -> str:
    """Put the pages of an export together; each can be read by itself, and so can the whole."""
    if form != "json":
        return "".join(pages)
    lists = [page.removeprefix("[").removesuffix("]") for page in pages]
    return "[" + ",\n".join(one for one in lists if one) + "]\n"
