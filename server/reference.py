"""The pages that are made from the code: settings, the reference, tables, graphs.

`python -m persona_mcp.server.reference` writes them below the current folder; with `--check` it
says which of them are stale, and exits with 1 if there are any.
"""

import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import PREFIX, LogSettings, Settings
from persona_mcp.config.variables import (
    MASK,
    Section,
    Variable,
    dotenv_value,
    sections_of,
)
from persona_mcp.server import reference_pages
from persona_mcp.server.metrics_page import metrics_page
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.pictures import mermaid, svg
from persona_mcp.server.reference_specification import with_specification
from persona_mcp.server.rest import PREFIX as PREFIX_OF_ROUTES
from persona_mcp.server.rest import path_of
from persona_mcp.server.wire import WIRES
from persona_mcp.state.errors import PersonaError

WIDTH = 98
SETTINGS_HEAD = f"""\
# Settings

Made from the sections in `config/` by `make docs`; do not edit.

Every setting is an environment variable, or a line in a file `.env` in the current folder
(`.env.example` has them all). The environment goes before the file, and an option of the command
line before both. Letter case does not matter in names. A wrong value or an unknown `{PREFIX}` name
stops the start, and the message says what is allowed. `persona config` shows what is in effect, and
where each value is from; secrets are shown as `{MASK}`.

A JSON value is written in one line, in single quotes: it takes the place of the whole default.
"""
ENV_HEAD = """\
Settings of Persona MCP. Copy this file to .env and take the # away from what you change.
Made from the sections in config/ by `make docs`; docs/settings.md has the same as a page.
"""


def settings_page() -> str:
    """Write the page of all settings, a table for each section."""
    return "\n".join([SETTINGS_HEAD, *(_section_table(s) for s in sections_of(Settings))])


def _section_table(section: Section) -> str:
    rows = [
        "| Variable | Default | Allowed | Meaning |",
        "|---|---|---|---|",
        *(_row(variable) for variable in section.variables),
    ]
    return "\n".join([f"## {_title(section)}", "", section.meaning, "", *rows, ""])


def _title(section: Section) -> str:
    return ".".join(section.path) or "General"


def _row(variable: Variable) -> str:
    default = variable.default
    if default and default == variable.example:
        default = f"`{default}`"
    cells = (f"`{variable.name}`", default or "empty", variable.allowed, variable.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def env_example() -> str:
    """Write the example of a `.env` file: every setting, commented out, with its default."""
    parts = [_commented(ENV_HEAD)]
    for section in sections_of(Settings):
        parts.append(_commented(f"=== {_title(section)}: {section.meaning}"))
        parts += [_assignment(variable) for variable in section.variables]
    return "\n".join(parts)


def _assignment(variable: Variable) -> str:
    about = _commented(f"{variable.meaning}. Allowed: {variable.allowed}.")
    return f"{about}# {variable.name}={dotenv_value(variable.example)}\n"


def _commented(text: str) -> str:
    lines = [piece for line in text.splitlines() for piece in textwrap.wrap(line, WIDTH)]
    return "".join(f"## {line}\n" for line in lines)


PAGES: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_page,
    ".env.example": env_example,
    **reference_pages.PAGES,
    "docs/metrics.md": metrics_page,
}


GRAPH_BLOCK = re.compile(r"(<!-- graph: (\w+) -->\n```mermaid\n).*?(```\n)", re.DOTALL)
"""Where a page shows a graph, written as Mermaid."""


def with_graphs(text: str) -> str:
    """Put the graphs as they are now into a page that shows them."""
    return GRAPH_BLOCK.sub(lambda m: f"{m[1]}{mermaid(m[2]).rstrip()}\n{m[3]}", text)


TABLE_BLOCK = re.compile(r"(<!-- (operations|errors) -->\n).*?(<!-- /\2 -->\n)", re.DOTALL)
"""Where a page has a table that is made from the registry or the error tree."""


def with_tables(text: str) -> str:
    """Put the tables as they are now into a page that has them."""
    tables = {"operations": operations_table, "errors": errors_table}
    return TABLE_BLOCK.sub(lambda m: f"{m[1]}\n{tables[m[2]]()}\n\n{m[3]}", text)


def operations_table() -> str:
    """Write the table of operations: tool, route, toolset and what it does."""
    rows = ["| tool | route | core | does |", "|---|---|---|---|"]
    for operation in operations("all"):
        does = operation.description.split(". ")[0].rstrip(".")
        route = f"`POST {PREFIX_OF_ROUTES}{path_of(operation.name)}`"
        core = "yes" if operation.core else ""
        rows.append(f"| `{operation.name}` | {route} | {core} | {does} |")
    return "\n".join(rows)


def errors_table() -> str:
    """Write the table of errors: the word, the numbers on the wires, and what it means."""
    rows = ["| data.code | HTTP | JSON-RPC | means |", "|---|---|---|---|"]
    for code, wire in WIRES.items():
        meaning = (MEANINGS[code].__doc__ or "").splitlines()[0].rstrip(".")
        rows.append(f"| `{code}` | {wire.http} | {wire.rpc} | {meaning} |")
    return "\n".join(rows)


MEANINGS = {kind.code: kind for kind in reversed(PersonaError.__subclasses__())}

FILLED: dict[str, Callable[[str], str]] = {
    "docs/http.md": with_tables,
    "docs/architecture.md": with_graphs,
    "docs/dialogues.md": with_specification,
    "docs/conversation.svg": lambda _: svg("conversation"),
}
"""Pages of which a part is made from the code, by what makes the new text of the old."""


def stale_pages(root: Path) -> list[str]:
    """Name the pages below a folder that differ from what the code says, or are missing."""
    wanted = {name: page() for name, page in PAGES.items()}
    wanted |= {name: fill(text_of(root / name)) for name, fill in FILLED.items()}
    return [name for name, text in wanted.items() if text_of(root / name) != text]


def text_of(file: Path) -> str:
    """Read a file; empty if it is missing."""
    return file.read_text("utf-8") if file.is_file() else ""


def main(check: bool) -> None:
    """Write the pages below the current folder, or check them.

    Raises:
        SystemExit: A page is stale; its message names them.
    """
    configure_logging(LogSettings(level="WARNING"))
    if check:
        if stale := stale_pages(Path()):
            sys.exit(f"stale: {', '.join(stale)}; run `make docs`")
        return
    written = {name: page() for name, page in PAGES.items()}
    written |= {name: fill(text_of(Path(name))) for name, fill in FILLED.items()}
    for name, text in written.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(check=sys.argv[1:] == ["--check"])
