"""Commands on memories: each calls an operation and shows its result, as a table or as JSON."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.server import catalogue
from persona_mcp.server.cli_run import STDIN, command_module, read_stdin, run_loop
from persona_mcp.server.operations import call_operation
from persona_mcp.server.store import open_store
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams

BAR = 20
"""Length of the longest bar, in characters."""
MADE, ID = 12, 32
"""Widths of columns, in characters."""
CHART = 36
"""Width of a chart; two of them stand side by side in 80 columns."""
COUNTS = (
    ("total_memories", "memories"),
    ("avg_importance", "mean importance"),
    ("high_importance_count", "of importance 0.7 or more"),
    ("created_today", "made today (UTC)"),
    ("pinned_count", "pinned"),
    ("archived_count", "archived, beside these"),
)

Arguments = dict[str, Any]
Shown = dict[str, Any]
Show = Callable[[Terminal, Shown], None]


def call(
    operation: str, arguments: Arguments, show: Show, as_json: bool, *, live: bool = False
) -> None:
    """Call an operation and show its result.

    Args:
        operation: Its name.
        arguments: What it is given; None is left out, and `-` read from standard input.
        show: Prints the result for people.
        as_json: Print it as JSON instead.
        live: It needs the embedder and the index, which take longer to open.
    """

    async def work(settings: Settings, given: Arguments) -> Shown:
        catalogue.operations()
        opened = command_module("service").open_service if live else open_store
        async with opened(settings) as store:
            return await call_operation(store, operation, given)

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        found = runner.run(work(settings, given_of(arguments)))
        if as_json:
            terminal.print_json(found)
        else:
            show(terminal, found)

    run_loop(loop, as_json=as_json)


def given_of(arguments: Arguments) -> Arguments:
    """Return what an operation is given.

    Raises:
        InvalidParams: Nobody's memories are named, or standard input is closed.
    """
    if arguments.get("persona_id", "") is None:
        allowed = "a persona's id or name, from `persona list`"
        raise InvalidParams.of([{"field": "--persona", "allowed": allowed, "given": None}])
    given = {key: value for key, value in arguments.items() if value is not None}
    return {key: read_stdin() if value == STDIN else value for key, value in given.items()}


def list_memories(
    persona: str | None,
    kind: str | None,
    order: str,
    archived: bool,
    limit: int,
    cursor: str | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Print a page of a persona's memories."""

    def show(terminal: Terminal, found: Shown) -> None:
        terminal.out.print(table_of(found["memories"]))
        shown, total, more = len(found["memories"]), found["total_count"], found["next_cursor"]
        rest = f"; go on with --cursor {more}" if more else ""
        terminal.out.print(f"{shown} of {total}{rest}", style="dim")

    arguments = {
        "persona_id": persona,
        "memory_type": kind,
        "order": order,
        "archived": archived,
        "limit": limit,
        "cursor": cursor,
        "world_id": world,
    }
    call("memory_list", arguments, show, as_json)


def search(
    query: str,
    persona: str | None,
    kind: str | None,
    limit: int,
    world: str | None,
    as_json: bool,
) -> None:
    """Print what bears on a text, the best first."""

    def show(terminal: Terminal, found: Shown) -> None:
        if found["degraded"]:
            terminal.err.print(f"by words alone: {found['degraded']}", style="yellow")
        if found["memories"]:
            terminal.out.print(table_of(found["memories"], "score"))
        else:
            terminal.out.print("nothing was found", style="dim")

    arguments = {
        "persona_id": persona,
        "query": query,
        "memory_type": kind,
        "n_results": limit,
        "world_id": world,
    }
    call("memory_search", arguments, show, as_json, live=True)


def table_of(memories: Sequence[Shown], *more: str) -> Table:
    """Lay memories out in 80 columns; a star tells what is pinned."""
    table = Table(show_lines=True)
    table.add_column("made, type", max_width=MADE, overflow="fold")
    for name in ("weight", "left", *more):
        table.add_column(name, no_wrap=True)
    table.add_column("memory, id", overflow="fold", min_width=ID)
    for memory in memories:
        numbers = (memory[name] for name in ("importance", "retention", *more))
        table.add_row(
            f"{memory['created_at'].partition('T')[0]}\n{memory['memory_type']}",
            *(f"{number:.2f}" for number in numbers),
            f"{'* ' if memory['pinned'] else ''}{memory['content']}\n{memory['id']}",
        )
    return table


def show(memory_id: str, world: str | None, as_json: bool) -> None:
    """Print everything that is kept of a memory."""

    def print_fields(terminal: Terminal, found: Shown) -> None:
        table = Table("field")
        table.add_column("value", overflow="fold")
        for name, value in found["memory"].items():
            table.add_row(name, words_of(value))
        terminal.out.print(table)

    arguments = {"memory_id": memory_id, "world_id": world}
    call("memory_get", arguments, print_fields, as_json)


def words_of(value: Any) -> str:
    """Write a JSON value for people."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(words_of(item) for item in value) or "-"
        case dict():
            return ", ".join(f"{key}: {words_of(item)}" for key, item in value.items()) or "-"
        case _:
            return str(value)


def store(
    text: str,
    persona: str | None,
    kind: str,
    importance: float | None,
    visibility: str,
    pinned: bool,
    world: str | None,
    as_json: bool,
) -> None:
    """Tell a persona something."""

    def show(terminal: Terminal, found: Shown) -> None:
        terminal.out.print(
            f"stored {found['memory_id']}, importance {found['importance']:.2f}", soft_wrap=True
        )

    arguments = {
        "persona_id": persona,
        "content": text,
        "memory_type": kind,
        "importance": importance,
        "visibility": visibility,
        "pinned": pinned,
        "world_id": world,
    }
    call("memory_store", arguments, show, as_json, live=True)


def stats(persona: str | None, world: str | None, as_json: bool) -> None:
    """Print counts, and the two histograms."""

    def show(terminal: Terminal, found: Shown) -> None:
        out = terminal.out
        for name, meaning in COUNTS:
            number = found[name]
            out.print(f"{number:8.2f}" if isinstance(number, float) else f"{number:8}", meaning)
        for kind, count in found["memory_types"].items():
            out.print(f"{count:8} of type {kind}")
        out.print()
        charts = (
            chart("importance", found["importance_histogram"]),
            chart("not faded (retention)", found["retention_histogram"]),
        )
        for left, right in zip_longest(*charts):
            out.print(f"{left:{CHART}}   {right}".rstrip())

    call("memory_stats", {"persona_id": persona, "world_id": world}, show, as_json)


def chart(title: str, counts: Sequence[int]) -> list[str]:
    """Draw counts by tenths as lines of at most CHART characters, the highest tenth first."""
    most = max([1, *counts])
    lines = []
    for tenth, count in reversed(list(enumerate(counts))):
        # What is there is seen, however little of the whole it is.
        bar = "#" * (-(-count * BAR // most))
        low, high = tenth / len(counts), (tenth + 1) / len(counts)
        lines.append(f"{low:.1f}-{high:.1f} {bar:{BAR}} {count:>7}")
    return [title, *lines]
