"""Commands on memories: each calls an operation and shows its result, as a table or as JSON."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from rich.table import Table

from persona_mcp.server.cli.calls import LEFT, Shown, call, check_alone, table_of
from persona_mcp.server.terminal import Terminal

BAR = 20
"""Length of the longest bar, in characters."""
CHART = 36
"""Width of a chart; two of them stand side by side in 80 columns."""
ACROSS_LEAST = 0.6
"""Importance from which a search across personas finds memories, unless another is given."""
COUNTS = (
    ("total_memories", "memories"),
    ("avg_importance", "mean importance"),
    ("high_importance_count", "of importance 0.7 or more"),
    ("created_today", "made today (UTC)"),
    ("pinned_count", "pinned"),
    ("archived_count", "archived, beside these"),
)


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
        if found["memories"]:
            terminal.out.print(table_of(found["memories"]))
        shown, total, more = len(found["memories"]), found["total_count"], found["next_cursor"]
        rest = f"; go on with --cursor {more}" if more else ""
        counted = f"{shown} of {total}{rest}" if total else "no memories"
        terminal.out.print(counted, style="dim")

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
    least: float | None,
    limit: int,
    across: bool,
    world: str | None,
    as_json: bool,
) -> None:
    """Print what bears on a text, the best first; `across`: in what others share, too."""

    def check(*_: object) -> None:
        check_alone("--type", kind, "--across", across)

    def show(terminal: Terminal, found: Shown) -> None:
        if found["degraded"]:
            terminal.err.print(f"by words alone: {found['degraded']}", style="yellow")
        memories = found["memories"]
        if across:
            whose = [
                {**memory, "id": memory["memory_id"], "whose": memory["source_persona"]}
                for memory in memories
            ]
            shown = table_of(whose, {"weight": "importance", "score": "score"})
        else:
            shown = table_of(memories, {**LEFT, "score": "score"})
        if memories:
            terminal.out.print(shown)
        else:
            terminal.out.print(nothing_found(least, across), style="dim")

    arguments = {
        "persona_id": persona,
        "query": query,
        "memory_type": kind,
        "min_importance": ACROSS_LEAST if across and least is None else least,
        "n_results": limit,
        "world_id": world,
    }
    operation = "memory_search_cross_persona" if across else "memory_search"
    call(operation, arguments, show, as_json, live=True, first=check)


def nothing_found(least: float | None, across: bool) -> str:
    """Say that a search found nothing, and why that may be."""
    if least is None and not across:
        return "nothing was found"
    weight = ACROSS_LEAST if least is None else least
    return f"nothing of importance {weight:g} or more was found; --min-importance takes less"


def show(memory_id: str, world: str | None, as_json: bool) -> None:
    """Print everything that is kept of a memory."""

    def print_fields(terminal: Terminal, found: Shown) -> None:
        table = Table("field")
        table.add_column("value")
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
    call("memory_store", arguments, show, as_json)


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


def shared(world: str | None, as_json: bool) -> None:
    """Print what personas have open to each other."""

    def show(terminal: Terminal, found: Shown) -> None:
        counts = found["shared_memory_statistics"]
        if not counts["by_persona"]:
            terminal.out.print("no memory is shared or public", style="dim")
            return
        table = Table("persona")
        for name in ("shared", "public", "that name others"):
            table.add_column(name, justify="right")
        total = ("shared_memories", "public_memories", "cross_references")
        for persona_id, its in counts["by_persona"].items():
            table.add_row(persona_id, *(str(number) for number in its.values()))
        table.add_row("all", *(str(counts[name]) for name in total), style="bold")
        terminal.out.print(table)

    call("memory_shared_stats", {"world_id": world}, show, as_json)


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
