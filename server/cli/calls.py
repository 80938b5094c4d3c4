"""How commands on memories call operations, ask before what cannot be undone, and show memories."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import typer
from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.run import FAILED, STDIN, command_module, read_stdin, run_loop
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.store import Store, open_store
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import Fault, InvalidParams, NotFound

MADE = 12
"""Width of a column, in characters."""
LEFT = {"weight": "importance", "left": "retention"}
"""Columns of a table of memories, and the fields that they show."""
PEEKED = 10
"""Memories that are shown of those that would go."""
YES = ("y", "yes")
OPTIONS = {
    "chunk_words": "--chunk-words",
    "content": "TEXT",
    "cursor": "--cursor",
    "data": "FILE",
    "decay_factor": "--factor",
    "expected_version": "--expect-version",
    "expires": "--expires",
    "format": "--format",
    "ids": "MEMORY_ID",
    "importance": "--importance",
    "include": "--include",
    "into": "--into",
    "interval_hours": "--interval-hours",
    "limit": "--limit",
    "memory_id": "MEMORY_ID",
    "memory_type": "--type",
    "metadata": "--metadata",
    "min_importance": "--min-importance",
    "n_results": "--limit",
    "name": "--name",
    "note": "--note",
    "on_conflict": "--on-conflict",
    "order": "--order",
    "max_turns": "--turns",
    "persona1_id": "ONE",
    "persona2_id": "OTHER",
    "persona_id": "--persona",
    "persona_ids": "--persona",
    "query": "QUERY",
    "related_personas": "--share-with",
    "scopes": "--scopes",
    "seed": "--seed",
    "status": "--status",
    "snapshot_id": "--id",
    "title": "--title",
    "token_budget": "--budget",
    "topic": "--topic",
    "undo_decay_id": "--undo",
    "undo_prune_id": "--undo",
    "version": "--version",
    "visibility": "--visibility",
    "witnesses": "--witness",
    "world_id": "--world",
    "worlds": "--worlds",
}
"""What an operation's arguments are called on the command line."""

Arguments = dict[str, Any]
Shown = dict[str, Any]
Show = Callable[[Terminal, Shown], None]
Ask = Callable[[str, Arguments], Awaitable[Shown]]
Work = Callable[[Ask, Arguments], Awaitable[Shown]]
First = Callable[[Settings, Terminal, asyncio.Runner], None]


def call(
    operation: str,
    arguments: Arguments,
    show: Show,
    as_json: bool,
    *,
    live: bool = False,
    first: First | None = None,
) -> None:
    """Call an operation and show its result; the rest is as in `carry_out`."""

    async def work(ask: Ask, given: Arguments) -> Shown:
        return await ask(operation, given)

    carry_out(work, arguments, show, as_json, live=live, first=first)


def carry_out(
    work: Work,
    arguments: Arguments,
    show: Show,
    as_json: bool,
    *,
    live: bool = False,
    first: First | None = None,
) -> None:
    """Call operations and show the result.

    Args:
        work: Calls them.
        arguments: What it is given; None is left out, and `-` read from standard input.
        show: Prints the result for people.
        as_json: Print it as JSON instead.
        live: It needs the embedder and the index, which take longer to open.
        first: What is checked or asked before anything is done.
    """

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        if first is not None:
            first(settings, terminal, runner)
        found = runner.run(answered(settings, work, given_of(arguments), live))
        if as_json:
            terminal.print_json(found)
        else:
            show(terminal, found)

    run_loop(loop, as_json=as_json)


async def answered(settings: Settings, work: Work, given: Arguments, live: bool = False) -> Shown:
    """Open what is needed and do the work.

    Raises:
        PersonaError: What an operation raises, in the words of the command line.
    """
    if live:
        opening = command_module("service").open_service(settings, holds_batches=False)
    else:
        opening = open_store(settings)
    async with opening as store:
        try:
            return await work(partial(call_operation, store), given)
        except InvalidParams as error:
            raise in_options(error) from error


async def world_named(store: Store, world: str | None) -> str:
    """Return the world that `--world` names; left out, it is the one of the settings.

    Raises:
        NotFound: It is not there.
    """
    world_id = store.settings.world if world is None else world
    await store.personas.check_world(world_id)
    return world_id


def in_options(error: InvalidParams) -> InvalidParams:
    """Name the options in place of the arguments that they stand for."""
    faults: list[Fault] = [
        {**fault, "field": OPTIONS.get(fault["field"].partition(".")[0], fault["field"])}
        for fault in error.faults
    ]
    return InvalidParams.of(faults) if faults else error


def given_of(arguments: Arguments) -> Arguments:
    """Return what an operation is given.

    Raises:
        InvalidParams: Nobody's memories are named, or standard input cannot be read.
    """
    if arguments.get("persona_id", "") is None:
        raise InvalidParams.one(
            "--persona", "a persona's id or name, from `persona list`", "nothing"
        )
    given = {key: value for key, value in arguments.items() if value is not None}
    return {key: read_stdin() if value == STDIN else value for key, value in given.items()}


def one_way(ways: Mapping[str, object]) -> None:
    """Make sure that exactly one of some options is there.

    Raises:
        InvalidParams: None is, or several are.
    """
    given = [option for option, value in ways.items() if value]
    if len(given) != 1:
        allowed = f"one of {', '.join(ways)}"
        raise InvalidParams.one((given or list(ways))[0], allowed, " and ".join(given) or "none")


def check_alone(option: str, present: object, other: str, other_present: object) -> None:
    """Make sure that two options are not there together.

    Raises:
        InvalidParams: They are.
    """
    if present and other_present:
        raise InvalidParams.one(option, f"without {other}", "both")


def confirm(terminal: Terminal, as_json: bool, question: Callable[[], str]) -> None:
    """Ask the user before what cannot be undone; not while an event loop runs.

    Only a line that says yes is one: nothing else that a question can end with changes anything.

    Args:
        terminal: Where to ask.
        as_json: The output is for a script; it is not asked.
        question: Shows what it is about, and returns what is asked.

    Raises:
        InvalidParams: Nobody is there to be asked.
        typer.Exit: The user does not want it.
        KeyboardInterrupt: The user pressed Ctrl-C; what was asked about is not to be done.
    """
    asked = sys.stdin is not None and sys.stdin.isatty() and terminal.err.is_terminal
    if as_json or not asked:
        raise InvalidParams(
            "--yes: needed where nobody can be asked; try --dry-run first where there is one",
            field="--yes",
        )
    try:
        terminal.err.print(f"{question()} [y/N] ", end="", soft_wrap=True)
        answer = read_answer(terminal)
    except KeyboardInterrupt:
        terminal.err.print("\nnothing was changed")
        raise
    if answer not in YES:
        terminal.err.print("nothing was changed")
        raise typer.Exit(FAILED)


def read_answer(terminal: Terminal) -> str:
    """Read what is typed; nothing where no whole line is, or it is no text.

    `input` would fail where standard output is closed, and take what is before a Ctrl-D for a line.
    """
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError:
        return ""
    except OSError:  # the terminal is gone
        line = ""
    if not line.endswith("\n"):
        terminal.err.print()
        return ""
    return line.strip().lower()


async def peek(ask: Ask, ids: Sequence[str], world: str | None) -> list[Shown]:
    """Read the first of some memories, but for those that are not there."""
    found = []
    for id in ids[:PEEKED]:
        try:
            shown = await ask("memory_get", {"memory_id": id, "world_id": world})
        except NotFound:
            continue
        found.append(shown["memory"])
    return found


def table_of(memories: Sequence[Shown], numbers: Mapping[str, str] = LEFT) -> Table:
    """Lay memories out in 80 columns; a star tells what is pinned.

    Args:
        memories: As operations return them; `whose` is shown where it is there.
        numbers: Columns of numbers and their fields.
    """
    whose = any("whose" in memory for memory in memories)
    table = Table(show_lines=True)
    head = "made, type, whose" if whose else "made, type"
    table.add_column(head, max_width=MADE)
    for name in numbers:
        table.add_column(name, no_wrap=True)
    table.add_column("memory, id")
    for memory in memories:
        first = [memory["created_at"].partition("T")[0], memory["memory_type"]]
        table.add_row(
            "\n".join([*first, memory["whose"]] if whose else first),
            *(f"{memory[field]:.2f}" for field in numbers.values()),
            f"{'* ' if memory.get('pinned') else ''}{memory['content']}\n{memory['id']}",
        )
    return table


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a number of things: `1 memory`, `2 memories`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def memories_in_words(count: int) -> str:
    """Write a number of memories."""
    return counted(count, "memory", "memories")
