"""`persona memory ...`: what there is, with which options; work is imported when it is run."""

from pathlib import Path
from typing import Annotated

import typer

from persona_mcp.server.cli.options import AsJson, Commands, Whose, World, command

memory = typer.Typer(cls=Commands, no_args_is_help=True, help="Memories and their index.")
upkeep = typer.Typer(cls=Commands, no_args_is_help=True, help="The background upkeep of memories.")
memory.add_typer(upkeep, name="upkeep")

Limit = Annotated[int, typer.Option("--limit", "-n", help="Memories shown, at most.")]
Kind = Annotated[
    str | None, typer.Option("--type", help="Only this type, e.g. fact.", metavar="TYPE")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show what it would do; nothing is changed.")
]
OneOrAll = Annotated[
    str | None,
    typer.Option("--persona", "-p", help="Whose memories: id or name; or --all.", metavar="NAME"),
]
Everyone = Annotated[bool, typer.Option("--all", help="All personas of the world.")]
Id = Annotated[
    str, typer.Argument(help="From `persona memory list` or `search`.", metavar="MEMORY_ID")
]


@memory.command("list")
def list_memories(
    persona: Whose = None,
    kind: Kind = None,
    order: Annotated[
        str, typer.Option("--order", help="created (newest first), importance or accessed.")
    ] = "created",
    archived: Annotated[
        bool, typer.Option("--archived", help="What was archived, in place of the rest.")
    ] = False,
    limit: Limit = 50,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="next_cursor of the page before.")
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """List what a persona remembers, the newest first.

    Example: persona memory list --persona Aria --order importance
    """
    command("memory", "list_memories")(
        persona, kind, order, archived, limit, cursor, world, as_json
    )


@memory.command()
def search(
    query: Annotated[
        str, typer.Argument(help="What to look for, in plain words.", metavar="QUERY")
    ],
    persona: Whose = None,
    kind: Kind = None,
    least: Annotated[
        float | None,
        typer.Option(
            "--min-importance", help="0..1; left out: 0, with --across 0.6.", metavar="LEAST"
        ),
    ] = None,
    limit: Limit = 5,
    across: Annotated[
        bool, typer.Option("--across", help="Also in what others share with it or made public.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Search what a persona remembers, by meaning and by words, the best first.

    Example: persona memory search "my cat" --persona Aria
    """
    command("memory", "search")(query, persona, kind, least, limit, across, world, as_json)


@memory.command()
def show(
    memory_id: Id,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that is kept of one memory.

    Example: persona memory show 0f8e7d6c5b4a39281706f5e4d3c2b1a0
    """
    command("memory", "show")(memory_id, world, as_json)


@memory.command()
def store(
    text: Annotated[
        str, typer.Argument(help="What to remember; - reads standard input.", metavar="TEXT")
    ],
    persona: Whose = None,
    kind: Annotated[
        str, typer.Option("--type", help="user_input, fact, goal, secret, ...", metavar="TYPE")
    ] = "user_input",
    importance: Annotated[
        float | None, typer.Option("--importance", help="0..1; left out: weighed from the words.")
    ] = None,
    visibility: Annotated[
        str, typer.Option("--visibility", help="private, shared or public.")
    ] = "private",
    pinned: Annotated[bool, typer.Option("--pinned", help="It never fades.")] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Tell a persona something that it is to remember.

    Example: persona memory store "Sam's cat is called Biscuit." --persona Aria --type fact
    """
    command("memory", "store")(text, persona, kind, importance, visibility, pinned, world, as_json)


@memory.command()
def stats(persona: Whose = None, world: World = None, as_json: AsJson = False) -> None:
    """Count what a persona remembers, with histograms of importance and of what has not faded.

    Example: persona memory stats --persona Aria
    """
    command("memory", "stats")(persona, world, as_json)


@memory.command()
def shared(world: World = None, as_json: AsJson = False) -> None:
    """Count what the personas of a world have open to each other.

    Example: persona memory shared
    """
    command("memory", "shared")(world, as_json)


@memory.command()
def update(
    memory_id: Id,
    text: Annotated[
        str | None, typer.Option("--text", help="What it is to say; - reads standard input.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="user_input, fact, goal, ...", metavar="TYPE")
    ] = None,
    importance: Annotated[float | None, typer.Option("--importance", help="0..1.")] = None,
    visibility: Annotated[
        str | None, typer.Option("--visibility", help="private, shared or public.")
    ] = None,
    share_with: Annotated[
        list[str] | None,
        typer.Option("--share-with", help="Whom to share it with; repeat it.", metavar="NAME"),
    ] = None,
    pinned: Annotated[
        bool | None, typer.Option("--pinned/--not-pinned", help="Whether it never fades.")
    ] = None,
    archived: Annotated[
        bool | None,
        typer.Option("--archive/--restore", help="Take it out of what is found, or back."),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", help="Kept beside it.", metavar="JSON")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option("--expect-version", help="Only if it still has this version."),
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Change a memory, archive or restore it; what was there is kept, and `show` tells it.

    Example: persona memory update 0f8e7d6c5b4a39281706f5e4d3c2b1a0 --importance 0.9
    """
    changes = {
        "content": text,
        "memory_type": kind,
        "importance": importance,
        "visibility": visibility,
        "pinned": pinned,
        "archived": archived,
    }
    command("memory_changes", "update")(
        memory_id, changes, metadata, share_with, version, world, as_json
    )


@memory.command()
def delete(
    memory_ids: Annotated[
        list[str],
        typer.Argument(help="From `persona memory list` or `search`.", metavar="MEMORY_ID"),
    ],
    purge: Annotated[
        bool, typer.Option("--purge", help="For good, with all that belongs to them; asks first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Purge without asking.")] = False,
    unmerge: Annotated[
        bool,
        typer.Option(
            "--unmerge", help="Take merged memories apart again; what was merged is back."
        ),
    ] = False,
    dry_run: DryRun = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Archive memories, so that they are found no more; `update --restore` brings one back.

    Example: persona memory delete 0f8e7d6c5b4a39281706f5e4d3c2b1a0
    """
    command("memory_changes", "delete")(
        memory_ids,
        purge=purge,
        yes=yes,
        unmerge=unmerge,
        dry_run=dry_run,
        world=world,
        as_json=as_json,
    )


@memory.command("import")
def import_document(
    file: Annotated[
        str, typer.Argument(help="Plain text or Markdown; - reads standard input.", metavar="FILE")
    ],
    persona: Whose = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Left out: its first heading or first words.")
    ] = None,
    visibility: Annotated[
        str, typer.Option("--visibility", help="private, shared or public.")
    ] = "private",
    chunk_words: Annotated[
        int | None,
        typer.Option("--chunk-words", help="Words of a memory, at most: 40..400; left out: 120."),
    ] = None,
    dry_run: DryRun = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Tell a persona a document; each part becomes a memory, and the same one twice none.

    Example: persona memory import handbook.md --persona Aria
    """
    command("memory_changes", "import_document")(
        file, persona, title, visibility, chunk_words, dry_run, world, as_json
    )


@memory.command()
def export(
    persona: Whose = None,
    form: Annotated[
        str, typer.Option("--format", help="jsonl, json or csv.", metavar="FORMAT")
    ] = "jsonl",
    archived: Annotated[
        bool, typer.Option("--include-archived", help="What was archived, too.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Replaced if it is there; left out: standard output.",
            metavar="FILE",
        ),
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Write all memories of a persona out, oldest first, with everything but their vectors.

    With --json the text is in `data`, unless it goes to a file.

    Example: persona memory export --persona Aria --format csv -o aria.csv
    """
    command("memory_changes", "export")(persona, form, archived, output, world, as_json)


@memory.command()
def prune(
    persona: OneOrAll = None,
    everyone: Everyone = False,
    force: Annotated[
        bool, typer.Option("--force", help="Below 900 memories too, and within an hour again.")
    ] = False,
    dry_run: DryRun = False,
    undo: Annotated[
        str | None, typer.Option("--undo", help="Bring back what a run archived.", metavar="ID")
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Archive the least memories where there are too many; important ones never go.

    Example: persona memory prune --persona Aria --dry-run
    """
    command("memory_upkeep", "prune")(persona, everyone, force, dry_run, undo, world, as_json)


@memory.command()
def fade(
    persona: OneOrAll = None,
    everyone: Everyone = False,
    factor: Annotated[
        float | None,
        typer.Option("--factor", help="Share of the importance to take: 0.01..0.9; left out: 0.1."),
    ] = None,
    dry_run: DryRun = False,
    undo: Annotated[
        str | None, typer.Option("--undo", help="Give back what a call took.", metavar="ID")
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Lower the importance of memories at once; they also fade by themselves.

    Example: persona memory fade --persona Aria --factor 0.2 --dry-run
    """
    command("memory_upkeep", "fade")(persona, everyone, factor, dry_run, undo, world, as_json)


@upkeep.command("on")
def upkeep_on(
    interval_hours: Annotated[
        int, typer.Option("--interval-hours", help="From one round to the next: 1..168.")
    ] = 6,
    no_pruning: Annotated[
        bool, typer.Option("--no-pruning", help="Only archive what has faded.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Archive what has faded, and prune what is too much, in rounds.

    A `persona serve`, `mcp` or `chat` that runs does it; the switch outlives restarts.

    Example: persona memory upkeep on --interval-hours 12
    """
    command("memory_upkeep", "upkeep_on")(interval_hours, not no_pruning, world, as_json)


@upkeep.command("off")
def upkeep_off(world: World = None, as_json: AsJson = False) -> None:
    """Switch the upkeep off; a round that runs ends after its persona.

    Example: persona memory upkeep off
    """
    command("memory_upkeep", "upkeep_off")(world, as_json)


@upkeep.command("status")
def upkeep_status(world: World = None, as_json: AsJson = False) -> None:
    """Say whether the upkeep is on, and what it has done.

    Example: persona memory upkeep status
    """
    command("memory_upkeep", "upkeep_status")(world, as_json)


@memory.command("reindex")
def reindex(
    embed: Annotated[bool, typer.Option("--embed", help="Also compute every vector anew.")] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Make the index anew from the vectors in the database; may be stopped and run again."""
    command("system", "reindex")(embed, world, as_json)
