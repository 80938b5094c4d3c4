"""`persona state ...`: what there is, with which options; work is imported when it is run."""

from pathlib import Path
from typing import Annotated

import typer

from persona_mcp.server.cli.options import AsJson, Commands, World, command

state = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Save the world, load it, carry it elsewhere."
)

SavedName = Annotated[
    str | None, typer.Option("--name", help="Of what is saved; left out: default.", metavar="NAME")
]
SavedVersion = Annotated[
    int | None, typer.Option("--version", help="Of the name; left out: the newest.")
]


@state.command()
def save(
    file: Annotated[
        Path | None, typer.Argument(help="Also write a file of it.", metavar="FILE")
    ] = None,
    name: SavedName = None,
    note: Annotated[str | None, typer.Option("--note", help="What to say about it.")] = None,
    personas: Annotated[
        list[str] | None,
        typer.Option("--persona", "-p", help="Only these and what is theirs.", metavar="NAME"),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            help="Only these parts: personas, relationships, emotions, memories, conversations.",
            metavar="PART",
        ),
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Save the world as it stands, as the next version of a name.

    Example: persona state save --note "before the storm"
    """
    command("state", "save")(file, name, note, personas, include, world, as_json)


@state.command()
def load(
    file: Annotated[
        Path | None,
        typer.Argument(help="A file of `persona state export`; else --name.", metavar="FILE"),
    ] = None,
    name: SavedName = None,
    version: SavedVersion = None,
    snapshot: Annotated[
        str | None, typer.Option("--id", help="Of what is saved, from `persona state list`.")
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into", help="World to load into, made if it is not there.", metavar="WORLD"
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Beside what is there, in place of replacing it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what it would do; nothing is changed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace without asking.")] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Load what was saved: in place of what is there, beside it, or into a new world.

    What is replaced is saved first, and the id of that is told.

    Example: persona state load world.json --into copy
    """
    command("state", "load")(
        file, snapshot, name, version, into, merge, dry_run, yes, world, as_json
    )


@state.command("list")
def list_states(
    name: Annotated[
        str | None, typer.Option("--name", help="Only of this name; left out: all.", metavar="NAME")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Shown, at most.")] = 50,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="next_cursor of the page before.")
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """List what is saved, the newest first."""
    command("state", "list_states")(name, limit, cursor, world, as_json)


@state.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write it.", metavar="FILE")],
    name: SavedName = None,
    version: SavedVersion = None,
    snapshot: Annotated[
        str | None, typer.Option("--id", help="Of what is saved, from `persona state list`.")
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Write what is saved to a file that `persona state load` takes, here or elsewhere.

    Example: persona state export world.json
    """
    command("state", "export")(file, snapshot, name, version, world, as_json)
