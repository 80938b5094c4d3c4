"""Lines that a user types: with editing and history on a terminal, read as they are elsewhere."""

import importlib
import re
import sys

from rich.text import Text

from persona_mcp.server.terminal import Terminal

STYLING = re.compile(r"\x1b\[[0-9;]*m")


def read_edited(terminal: Terminal, prompt: Text) -> str:
    """Ask for one line; its end may be on it.

    Args:
        terminal: Where to ask.
        prompt: What stands before the line. Its last character has no style: some editors lose the
            code that ends one there.

    Raises:
        EOFError: There is no more.
    """
    if can_edit(terminal):
        return input(measured(terminal, prompt))
    terminal.out.print(prompt, end="")
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        raise EOFError
    return line


def can_edit(terminal: Terminal) -> bool:
    """Tell whether a user is at both ends, and Python can edit lines; `input` does it from then."""
    if sys.stdin is None or sys.stdout is None:
        return False
    if not (sys.stdin.isatty() and terminal.out.is_terminal):
        return False  # not even imported: some versions write to stdout when they are
    try:
        importlib.import_module("readline")
    except ImportError:  # as on Windows, whose terminal edits lines itself
        return False
    return True


def measured(terminal: Terminal, prompt: Text) -> str:
    """Write a prompt so that the editor does not count its colours as columns."""
    with terminal.out.capture() as captured:
        terminal.out.print(prompt, end="")
    return STYLING.sub(lambda code: f"\001{code.group()}\002", captured.get())
