"""The command that lists conversations."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from persona_mcp.server.cli.calls import Shown, call
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.continuation import reason_in_words

DIM = "dim"


def list_conversations(which: Mapping[str, Any], as_json: bool) -> None:
    """Print a table of conversations, the last begun first."""
    wanted = {name: value for name, value in which.items() if value is not None}
    call("conversation_list", wanted, show_conversations, as_json)


def show_conversations(terminal: Terminal, found: Shown) -> None:
    """Lay conversations out in 80 columns."""
    if not found["conversations"]:
        terminal.out.print("no talks; begin one: persona chat Aria")
        return
    table = Table("began", "who, about what, id", "turns", "status")
    for one in found["conversations"]:
        began = one["started_at"].partition(".")[0].replace("T", "\n")
        who = f"{', '.join(one['participants'])}\n{one['topic']}\n{one['id']}"
        ended_by = reason_in_words(one["exit_reason"] or "")
        status = "\n".join(filter(None, (one["status"], ended_by)))
        table.add_row(began, who, str(one["turn_count"]), status)
    terminal.out.print(table)
    if found["next_cursor"]:
        terminal.out.print(f"more: --cursor {found['next_cursor']}", style=DIM)
