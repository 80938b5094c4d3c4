"""Commands on worlds: list, delete."""

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import Shown, confirm, counted
from persona_mcp.server.cli.run import command_module, run, run_loop
from persona_mcp.server.store import open_store
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams, StorageUnavailable
from persona_mcp.state.ids import thread_id
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.worlds import (
    WorldUse,
    conversations_of,
    list_worlds,
    remove_world,
    use_of,
)

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

NOUNS = {
    "personas": ("persona", "personas"),
    "conversations": ("conversation", "conversations"),
    "memories": ("memory", "memories"),
    "saved_states": ("saved state", "saved states"),
    "dialogues": ("batch of dialogues", "batches of dialogues"),
}
"""What is said of what is in a world."""


def list_all(as_json: bool) -> None:
    """Print a table of all worlds."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        async with open_store(settings) as store:
            found = await store.database.read(list_worlds)
        if as_json:
            terminal.print_json({"worlds": [shown(one, settings) for one in found]})
            return
        table = Table("world", "personas", "conversations", "memories", "last used")
        for one in found:
            usual = " (default)" if one.id == settings.world else ""
            counts = (str(count) for count in (one.personas, one.conversations, one.memories))
            table.add_row(f"{one.id}{usual}", *counts, seconds(one.used_at))
        terminal.out.print(table)

    run(work, as_json=as_json)


def delete(world_id: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete a world after asking; or only show what would go."""

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        check_deletable(settings, world_id)
        found = runner.run(planned(settings, world_id))
        if not (yes or dry_run):
            confirm(terminal, as_json, lambda: question(terminal, found))
        if not dry_run:
            found = runner.run(removed(settings, world_id))
        tokens = runner.run(tokens_of(settings, world_id))
        if as_json:
            told = {"deleted": not dry_run, "dry_run": dry_run, "tokens": tokens}
            terminal.print_json({**shown(found, settings), **told})
        else:
            done = "would be deleted" if dry_run else "was deleted"
            terminal.out.print(f"{found.id} {done}: {in_words(found)}", soft_wrap=True)
            for token in tokens:
                terminal.out.print(
                    f"the token {token} names it, and would open a new world of that name; end it "
                    f"with: persona token revoke {token}",
                    soft_wrap=True,
                )

    run_loop(loop, as_json=as_json)


def check_deletable(settings: Settings, world_id: str) -> None:
    """Make sure that a world is not the default one.

    Raises:
        InvalidParams: It is.
    """
    if world_id == settings.world:
        allowed = (
            "another world than the default one, which would be made anew at once (PERSONA_WORLD "
            "names it)"
        )
        raise InvalidParams.one("WORLD", allowed, world_id)


async def planned(settings: Settings, world_id: str) -> WorldUse:
    """Return what is in a world that is to be deleted.

    Raises:
        NotFound: It is not there.
    """
    async with open_store(settings) as store:
        return await store.database.read(use_of, world_id)


async def tokens_of(settings: Settings, world_id: str) -> list[str]:
    """Return the ids of the tokens in use that name a world."""
    async with open_store(settings) as store:
        return [token.id for token in await store.tokens.opening(world_id, time.time())]


async def removed(settings: Settings, world_id: str) -> WorldUse:
    """Delete a world: in the database, in the checkpoints, in the data folder, in the index.

    What lies beside the database goes before it, since it alone knows what there is: a deletion
    that is cut off is done again. It goes after it once more: what still runs in the world can
    store nothing from then on, but could until then. An index that another process holds forgets
    the world there, within seconds.

    Raises:
        NotFound: It is not there any more.
        StorageUnavailable: One of these cannot be written.
    """
    async with command_module("service").open_service(settings, holds_batches=False) as service:
        before = await service.database.read(conversations_of, world_id)
        await clear_beside(service, world_id, before)
        found, conversations = await service.database.write(remove_world, world_id, time.time())
        await clear_beside(service, world_id, conversations)
        await service.index.forget()
    use: WorldUse = found
    return use


async def clear_beside(service: "Service", world_id: str, conversations: Sequence[str]) -> None:
    """Delete the checkpoints of a world's conversations, and the folder of its batches.

    Raises:
        StorageUnavailable: They cannot be deleted.
    """
    threads = [thread_id(world_id, conversation) for conversation in conversations]
    await service.checkpointer.aprune(threads, strategy="delete")
    folder = command_module("batch.folder").world_path(service.settings.data_dir, world_id)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if os.path.lexists(folder):
        raise StorageUnavailable(f"the folder of its batches cannot be deleted: {folder}")


def question(terminal: Terminal, found: WorldUse) -> str:
    """Show what is in a world, and ask whether it is to be deleted."""
    terminal.err.print(f"{found.id} would be deleted: {in_words(found)}", soft_wrap=True)
    return f"Delete world {found.id} for good? Nothing brings it back."


def shown(found: WorldUse, settings: Settings) -> Shown:
    """Return what is told of a world as JSON."""
    its = asdict(found)
    usual = found.id == settings.world
    return {"world_id": its.pop("id"), **its, "used_at": rfc3339(found.used_at), "default": usual}


def in_words(found: WorldUse) -> str:
    """Say what is in a world."""
    counts = asdict(found)
    told = [counted(counts[what], *nouns) for what, nouns in NOUNS.items() if counts[what]]
    return ", ".join(told) or "nothing in it"


def seconds(at: float) -> str:
    """Write a time for people, UTC."""
    return rfc3339(at).partition(".")[0].replace("T", " ").removesuffix("Z")
