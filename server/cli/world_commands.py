"""`persona world ...`: what there is, with which options; work is imported when it is run."""

from typing import Annotated

import typer

from persona_mcp.server.cli.options import AsJson, Commands, command

world = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Worlds, each with personas, talks and memories of its own. PERSONA_WORLD names the "
    "default one, which is made if it is not there; --world of a command names another.",
)


@world.command("list")
def list_worlds(as_json: AsJson = False) -> None:
    """List the worlds: how much is in each, and when it was last used (UTC).

    Example: persona world list --json
    """
    command("worlds", "list_all")(as_json)


@world.command()
def delete(
    name: Annotated[
        str, typer.Argument(help="From `persona world list`; not the default one.", metavar="WORLD")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a world for good, with everything in it, its saved states too.

    `persona state save FILE --world WORLD` keeps a copy of it.

    Example: persona world delete garden --dry-run
    """
    command("worlds", "delete")(name, yes, dry_run, as_json)
