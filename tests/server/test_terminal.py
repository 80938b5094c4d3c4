"""Terminal output: in colour, in a pipe, under NO_COLOR, and without Unicode."""

import errno
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from persona_mcp.server.terminal import (
    PIPE_WIDTH,
    SafeConsole,
    Terminal,
    Unwritable,
    encodable,
    open_console,
    open_terminal,
    printable,
)

LONG = "word " * 100
SHOWS = (
    "from rich.panel import Panel\n"
    "from persona_mcp.server.terminal import open_terminal\n"
    "terminal = open_terminal()\n"
    "terminal.out.print(Panel('\\u201cZo\\xeb\\u201d'), style='bold red')\n"
    "terminal.out.print('\\u2603')\n"
    "terminal.err.print('\\u2603 note')\n"
    "terminal.print_json({'said': 'na\\xefve \\u2603'})\n"
)


class Tty(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")


def stream(encoding: str = "utf-8", *, tty: bool = False) -> io.TextIOWrapper:
    kind = Tty if tty else io.TextIOWrapper
    return kind(io.BytesIO(), encoding=encoding, newline="")


def text_of(written: io.TextIOWrapper) -> str:
    written.flush()
    raw = written.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode(written.encoding)


def terminal_on(out: io.TextIOWrapper) -> Terminal:
    return Terminal(out=open_console(out), err=open_console(stream()))


def run(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**inherited, **environment}
    )


def test_a_pipe_gets_no_escapes_and_no_wrapping() -> None:
    out = stream()

    open_console(out).print(LONG, style="bold red")

    assert text_of(out) == LONG + "\n"


def test_a_table_in_a_pipe_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("column", expand=True)
    default, given, wrong = stream(), stream(), stream()

    open_console(default).print(table)
    monkeypatch.setenv("COLUMNS", "50")
    open_console(given).print(table)
    monkeypatch.setenv("COLUMNS", "wide")
    open_console(wrong).print(table)

    widths = [len(text_of(written).splitlines()[0]) for written in (default, given, wrong)]
    assert widths == [PIPE_WIDTH, 50, PIPE_WIDTH]


def test_a_terminal_gets_colour() -> None:
    out = stream(tty=True)

    open_console(out).print("red", style="red")

    assert text_of(out) == "\x1b[31mred\x1b[0m\n"


def test_no_color_takes_every_style_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = stream(tty=True)

    open_console(out).print("red", style="bold red underline")

    assert text_of(out) == "red\n"


def test_a_terminal_without_unicode_gets_ascii_boxes_and_plain_characters() -> None:
    out = stream("ascii")

    open_console(out).print(Panel("“Zoë” → naïve… ☃", width=30))

    shown = text_of(out)
    assert shown.splitlines()[0].startswith("+---")
    assert '"Zoe" -> naive... ?' in shown


def test_each_encoding_keeps_what_it_can_show() -> None:
    assert encodable("naïve ☃", "utf-8") == "naïve ☃"
    assert encodable("Zoë said “hm…”", "latin-1") == 'Zoe said "hm..."'
    assert encodable("naïve", "latin-1") == "naïve"
    assert encodable("half \ud83d", "utf-8") == "half ?"


def test_text_of_a_persona_cannot_steer_the_terminal() -> None:
    out = stream()
    console = open_console(out)

    console.print("[smiles] :wave: \x1b[2J\x07gone[/red]\ttab")
    console.print(Text(printable("a\x9bb\nc")))

    assert text_of(out) == "[smiles] :wave: [2Jgone[/red]   tab\nab\nc\n"


def test_json_is_one_line_in_a_pipe_and_indented_on_a_terminal() -> None:
    value = {"reply": LONG, "number": 1, "said": "naïve ☃ [b]"}
    pipe, screen = stream(), stream(tty=True)

    terminal_on(pipe).print_json(value)
    terminal_on(screen).print_json(value)

    assert text_of(pipe).count("\n") == 1
    assert "naïve ☃" in text_of(pipe)
    assert '\n  "reply"' in text_of(screen)
    assert "\x1b" not in text_of(screen)
    assert json.loads(text_of(pipe)) == json.loads(text_of(screen)) == value


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_says_the_same_in_every_encoding(encoding: str) -> None:
    value = {"said": "naïve ☃ “…” \ud83d"}
    out = stream(encoding)

    terminal_on(out).print_json(value)

    assert json.loads(text_of(out)) == value


def test_json_that_is_none_is_a_defect_and_writes_nothing() -> None:
    out = stream()

    with pytest.raises(ValueError, match="JSON compliant"):
        terminal_on(out).print_json({"score": float("nan")})

    assert text_of(out) == ""


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LANG": "C.UTF-8", "NO_COLOR": "1"},
    ],
)
def test_a_program_in_any_environment_ends_well(environment: dict[str, str]) -> None:
    done = run(SHOWS, **environment)

    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == {"said": "naïve ☃"}
    assert b"note" in done.stderr


def test_what_others_write_to_stdout_does_not_fail_either() -> None:
    code = (
        "import sys\n"
        "from persona_mcp.server.terminal import open_terminal\n"
        "open_terminal()\n"
        "sys.stdout.write('snow \\u2603')\n"
    )

    done = run(code, PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stdout) == (0, b"snow ?")


def test_a_stdout_of_another_kind_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    open_terminal().out.print("ok ☃")

    assert out.getvalue() == "ok ☃\n"


def test_a_reader_that_leaves_ends_the_program_without_a_trace() -> None:
    code = (
        "from persona_mcp.server.terminal import open_terminal\n"
        "terminal = open_terminal()\n"
        "while True:\n"
        "    terminal.print_json({'line': 1})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()

    assert (process.returncode, err) == (1, b"")


def test_output_that_cannot_be_written_is_told_apart_from_other_files() -> None:
    with pytest.raises(Unwritable, match="No space left on device"):
        open_console(Full()).print("ok")


@pytest.fixture
def pseudo_terminal() -> Iterator[tuple[int, int]]:
    pair = pty.openpty()
    yield pair
    os.close(pair[0])


def test_a_real_terminal_gets_colour_and_unicode_boxes(pseudo_terminal: tuple[int, int]) -> None:
    master, slave = pseudo_terminal

    done = subprocess.run(
        [sys.executable, "-c", SHOWS], stdout=slave, stderr=slave, env={**os.environ}
    )
    os.close(slave)

    shown = os.read(master, 65536).decode()
    assert done.returncode == 0
    assert "╭" in shown
    assert "\x1b[1;31m" in shown


def test_a_table_that_is_too_wide_cuts_nothing_off() -> None:
    id = "0123456789abcdef" * 2
    out = io.StringIO()
    table = Table("name", "id", box=None)
    table.add_row("", id)

    SafeConsole(file=out, width=24).print(table)

    assert "".join(out.getvalue().split()) == f"nameid{id}"
