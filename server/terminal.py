"""Terminal output that works everywhere: in colour, in a pipe, under NO_COLOR, without Unicode.

Text of personas and people is not to be trusted: control characters are taken out of it, and rich's
markup and emoji codes are off, so that `[smiles]` and `:)` stay as they were written.
"""

import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 200
"""Columns of a table in a pipe, unless COLUMNS says otherwise; other text is not wrapped there."""
KEPT = "\n\t"
CONTROL = "Cc"
PLAIN = str.maketrans(
    {
        "‘": "'",  # noqa: RUF001 - these are the characters to replace
        "’": "'",  # noqa: RUF001
        "“": '"',
        "”": '"',
        "«": '"',
        "»": '"',
        "–": "-",  # noqa: RUF001
        "—": "-",
        "−": "-",  # noqa: RUF001
        "…": "...",
        "•": "*",
        "·": "-",
        "→": "->",
        "←": "<-",
        "✓": "+",
        "✗": "x",
        "\N{NO-BREAK SPACE}": " ",
    }
)


def printable(text: str) -> str:
    """Take control characters (terminal escapes too) out of a text; newline and tab stay."""
    return "".join(c for c in text if c in KEPT or unicodedata.category(c) != CONTROL)


def encodable(text: str, encoding: str) -> str:
    """Replace what an encoding cannot show: by a plain form where there is one, else by `?`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = unicodedata.normalize("NFKD", text.translate(PLAIN))
        kept = "".join(c for c in plain if not unicodedata.combining(c))
        return kept.encode(encoding, "replace").decode(encoding)
    return text


class Unwritable(Exception):
    """Output cannot be written, for this reason: the disk is full, or the like."""


class SafeFile:
    """A text stream that never fails for its encoding, and otherwise in words for people."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream; everything but writing is the stream's own."""
        self._stream = stream
        self.encoding = stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write what the encoding can show of a text.

        Raises:
            Unwritable: It cannot be written.
            BrokenPipeError: Nobody reads on.
        """
        with in_words():
            return self._stream.write(encodable(text, self.encoding))

    def flush(self) -> None:
        """Pass on what is kept back; raises what `write` does."""
        with in_words():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Pass everything else on."""
        return getattr(self._stream, name)


@contextmanager
def in_words() -> Iterator[None]:
    """Tell what a stream raises apart from what any other file does."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(error.strerror or str(error)) from error


class SafeConsole(Console):
    """A console that takes control characters out of every plain string, and cuts nothing off."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; what is too long for its column of a table, an id above all, goes on below."""
        for table in objects:
            for column in table.columns if isinstance(table, Table) else ():
                column.overflow = "fold"
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make rich's text of a string."""
        return super().render_str(printable(text), **options)


@dataclass(frozen=True)
class Terminal:
    """Where a command writes.

    Attributes:
        out: What was asked for.
        err: Progress, notes and errors.
    """

    out: SafeConsole
    err: SafeConsole

    def print_json(self, value: Any) -> None:
        """Write one JSON object: one line in a pipe, indented on a terminal.

        Args:
            value: JSON values only; NaN is none.
        """
        indent = 2 if self.out.is_terminal else None
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
        if encodable(text, self.out.encoding) != text:
            text = json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent)
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """Write a text as it is, neither wrapped nor styled."""
        try:
            self.out.file.write(text)
            self.out.file.flush()
        except BrokenPipeError:  # `| head`: nobody reads on
            self.out.on_broken_pipe()


def open_terminal() -> Terminal:
    """Make the consoles of this process's stdout and stderr, as they are now.

    To be called first: what writes to stdout by itself (typer's help) does not fail then either.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Terminal(*(open_console(stream or nowhere()) for stream in (sys.stdout, sys.stderr)))


def nowhere() -> TextIO:
    """Open a stream in place of one that the process was started without."""
    return open(os.devnull, "w", encoding="utf-8")


def discard_output() -> None:
    """Let what is left of the output go nowhere, or Python tries again, and fails, at its end."""
    with suppress(OSError, AttributeError):  # it is no file of the system, or there is none
        hole = os.open(os.devnull, os.O_WRONLY)
        os.dup2(hole, sys.stdout.fileno())
        os.close(hole)


def open_console(stream: TextIO) -> SafeConsole:
    """Make a console on a stream: styled on a terminal only, and never under NO_COLOR."""
    terminal = stream.isatty()
    plain = not terminal or bool(os.environ.get("NO_COLOR"))
    columns = os.environ.get("COLUMNS", "")
    return SafeConsole(
        file=cast("TextIO", SafeFile(stream)),
        force_terminal=terminal,
        color_system=None if plain else "auto",
        width=None if terminal else int(columns) if columns.isdecimal() else PIPE_WIDTH,
        soft_wrap=not terminal,
        markup=False,
        emoji=False,
        highlight=False,
    )
