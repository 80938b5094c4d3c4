"""`persona memory ...`: what there is, with which options; work is imported when it is run."""

from typing import Annotated

import typer

from persona_mcp.server.cli_options import AsJson, Whose, World, command

memory = typer.Typer(no_args_is_help=True, help="Memories and their index.")

Limit = Annotated[int, typer.Option("--limit", "-n", help="Memories shown, at most.")]
Kind = Annotated[
    str | None, typer.Option("--type", help="Only this type, e.g. fact.", metavar="TYPE")
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
    command("cli_memory", "list_memories")(
        persona, kind, order, archived, limit, cursor, world, as_json
    )


@memory.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    persona: Whose = None,
    kind: Kind = None,
    limit: Limit = 5,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Search what a persona remembers, by meaning and by words, the best first.

    Example: persona memory search "my cat" --persona Aria
    """
    command("cli_memory", "search")(query, persona, kind, limit, world, as_json)


@memory.command()
def show(
    memory_id: Annotated[str, typer.Argument(help="From `persona memory list` or `search`.")],
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that is kept of one memory.

    Example: persona memory show 0f8e7d6c5b4a39281706f5e4d3c2b1a0
    """
    command("cli_memory", "show")(memory_id, world, as_json)


@memory.command()
def store(
    text: Annotated[str, typer.Argument(help="What to remember; - reads standard input.")],
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
    command("cli_memory", "store")(
        text, persona, kind, importance, visibility, pinned, world, as_json
    )


@memory.command()
def stats(persona: Whose = None, world: World = None, as_json: AsJson = False) -> None:
    """Count what a persona remembers, with histograms of importance and of what has not faded.

    Example: persona memory stats --persona Aria
    """
    command("cli_memory", "stats")(persona, world, as_json)


@memory.command("reindex")
def reindex(
    embed: Annotated[bool, typer.Option("--embed", help="Also compute every vector anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the index anew from the vectors in the database; may be stopped and run again."""
    command("cli_system", "reindex")(embed, as_json)
