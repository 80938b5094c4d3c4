"""Options and arguments that several commands take; and how a command finds its work."""

import importlib
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="auto, or provider:model, e.g. ollama:llama3.1:8b.", metavar="MODEL"
    ),
]
User = Annotated[
    str | None, typer.Option("--user", help="Who talks; each user is remembered apart.")
]
Name = Annotated[str, typer.Argument(help="The persona's id or name; see `persona list`.")]
Whose = Annotated[
    str | None, typer.Option("--persona", "-p", help="Whose memories: id or name.", metavar="NAME")
]
World = Annotated[
    str | None,
    typer.Option("--world", help="World to work in; left out: PERSONA_WORLD.", metavar="WORLD"),
]


def command(module: str, name: str) -> Any:
    """Return a command's function; only now what it needs is imported."""
    return getattr(importlib.import_module(f"persona_mcp.server.{module}"), name)
