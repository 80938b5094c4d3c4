"""Options and arguments that several commands take; and how a command finds its work."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

LONGEST_SENTENCE = 200

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="auto, or provider:model, e.g. ollama:llama3.1:8b; left out: PERSONA_LLM__MODEL.",
        metavar="MODEL",
    ),
]
User = Annotated[
    str | None,
    typer.Option("--user", help="Who talks, each remembered apart; left out: PERSONA_USER."),
]
Name = Annotated[
    str, typer.Argument(help="The persona's id or name; see `persona list`.", metavar="NAME")
]
Whose = Annotated[
    str | None,
    typer.Option("--persona", "-p", help="Whose memories: id or name; needed.", metavar="NAME"),
]
World = Annotated[
    str | None,
    typer.Option("--world", help="World to work in; left out: PERSONA_WORLD.", metavar="WORLD"),
]


class Commands(TyperGroup):
    """Commands whose help lists the first sentence of each whole; Click cuts it to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a row for each command, wrapped where the terminal is narrow."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, self.commands[name].get_short_help_str(LONGEST_SENTENCE))
                    for name in self.list_commands(ctx)
                ]
            )


def command(module: str, name: str) -> Any:
    """Return a command's function; only now what it needs is imported."""
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)
