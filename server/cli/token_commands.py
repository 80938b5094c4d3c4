"""`persona token ...`: what there is, with which options; work is imported when it is run."""

from typing import Annotated

import typer

from persona_mcp.server.cli.options import AsJson, Commands, command

token = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Tokens: who may call a server, and for what."
)


@token.command()
def create(
    name: Annotated[str, typer.Option("--name", help="What to call it, such as who it is for.")],
    scopes: Annotated[
        str,
        typer.Option("--scopes", help="Some of read, chat, manage, admin; none holds another."),
    ] = "read,chat",
    worlds: Annotated[
        str | None,
        typer.Option(
            "--worlds",
            help="Ids of the worlds that it opens; * for every one; left out: PERSONA_WORLD.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            help="How long it lasts, as 30d, 12h or 45m, or until when, as 2027-01-31 or "
            "2027-01-31T12:00:00Z; left out: until it is revoked.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once; only a sign of it is kept.

    A caller sends it with every request, as Authorization: Bearer TOKEN.

    Example: persona token create --name reader --scopes read --worlds main --expires 30d
    """
    command("tokens", "create")(name, scopes, worlds, expires, as_json)


@token.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """List the tokens: what each allows, how long it lasts, when it was last used.

    Example: persona token list --json
    """
    command("tokens", "list_tokens")(as_json)


@token.command()
def revoke(
    which: Annotated[
        str, typer.Argument(help="Its name or id, from `persona token list`.", metavar="NAME")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Revoke without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a token; servers that run notice within seconds (PERSONA_ACCESS__KEPT_S).

    Example: persona token revoke reader
    """
    command("tokens", "revoke")(which, yes, as_json)
