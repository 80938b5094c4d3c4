"""Commands on personas: what there is, with which options; work is imported when it is run."""

from pathlib import Path
from typing import Annotated

import typer

from persona_mcp.server.cli.options import AsJson, Name, World, command

personas = typer.Typer()
"""Commands of `persona` itself."""


@personas.command("list")
def list_personas(world: World = None, as_json: AsJson = False) -> None:
    """List the personas."""
    command("personas", "list_personas")(world, as_json)


@personas.command()
def show(
    name: Name,
    now: Annotated[
        bool, typer.Option("--now", help="How it stands now: feelings, time left, memories, looks.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that is set of a persona, as a file that `persona create` takes.

    Example: persona show Aria --now
    """
    command("personas", "show_now" if now else "show")(name, world, as_json)


@personas.command()
def create(
    file: Annotated[
        Path, typer.Argument(help="A YAML file; `persona show NAME` prints one.", metavar="FILE")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the file; change nothing.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Create a persona from a file.

    Example: persona show Aria > mira.yaml, change the name and the rest, persona create mira.yaml
    """
    command("personas", "create")(file, dry_run, world, as_json)


@personas.command("import")
def import_cards(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Cards (JSON, PNG, CHARX), or folders of them.", metavar="FILE"),
    ],
    on_conflict: Annotated[
        str,
        typer.Option("--on-conflict", help="If a name is taken: fail, rename or replace."),
    ] = "fail",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be made.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Make personas of character cards of version V1, V2 or V3.

    Example: persona import cards/ --on-conflict rename
    """
    command("cards", "import_cards")(paths, on_conflict, dry_run, world, as_json)


@personas.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Ends in .json, .png or .charx.", metavar="FILE")],
    shape: Annotated[
        str | None, typer.Option("--format", help="v2, v3, png or charx; left out: as it came.")
    ] = None,
    include_state: Annotated[
        bool, typer.Option("--include-state", help="Also how it sees others and feels now.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Write a persona as a character card for other applications.

    Example: persona export Aria aria.png
    """
    command("cards", "export")(name, file, shape, include_state, world, as_json)


@personas.command()
def update(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(help="A YAML file with the fields that are to change.", metavar="FILE"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field and its value as YAML; repeat it.", metavar="F=VALUE"),
    ] = None,
    version: Annotated[
        int | None, typer.Option("--expect-version", help="Only if it still has this version.")
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Change a persona; its memories and relationships stay.

    Example: persona update Aria --set charisma=12 --set "topic_preferences={opera: 90}"
    """
    command("persona_changes", "update")(name, file, settings or [], version, world, as_json)


@personas.command()
def delete(
    name: Name,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Delete its memories and relationships for good, too."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go; change nothing.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Delete a persona: it is listed and answers no more, and its name is free.

    Example: persona delete Aria --purge --dry-run
    """
    command("persona_changes", "delete")(name, purge, yes, dry_run, world, as_json)


@personas.command("import-original")
def import_original(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Of its data: personas.db and chroma.sqlite3, or above them.", metavar="FOLDER"
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what it would do; nothing is changed.")
    ] = False,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Import personas, relationships, talks and memories of the original Persona MCP server.

    Nothing is written to its folder, and importing twice adds nothing.

    Example: persona import-original ~/persona-mcp/data --dry-run
    """
    command("original", "import_folder")(folder, world, dry_run, as_json)
