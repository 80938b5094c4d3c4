"""How every command runs: settings, logging, a correlation id, one end for errors and Ctrl-C."""

import asyncio
import importlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import structlog
import typer

from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.server.event_loop import busy_runner, end_at_once, keep_imports, share_heaps
from persona_mcp.server.terminal import Terminal, Unwritable, discard_output, open_terminal
from persona_mcp.server.wire import problem_of
from persona_mcp.state.correlation import correlation, new_correlation_id
from persona_mcp.state.errors import InternalError, InvalidParams, PersonaError

log = structlog.get_logger(__name__)

FAILED = 1
INTERRUPTED, TERMINATED = 130, 143
ERROR = "bold red"
STDIN = "-"
"""In place of a text: it is read from standard input."""

Work = Callable[[Settings, Terminal], Coroutine[Any, Any, None]]
Loop = Callable[[Settings, Terminal, asyncio.Runner], None]


def run(work: Work, *, as_json: bool = False, busy: bool = False, **overrides: Any) -> None:
    """Run a command to its end; exits with 1 on an error and 130 on Ctrl-C.

    Args:
        work: What to do.
        as_json: Errors go to stdout as `{"error": ...}` too.
        busy: It does many things at once, for longer than the faster event loop takes to import.
        overrides: Settings that an option gives; None leaves a setting as it is.
    """
    run_loop(lambda s, t, runner: runner.run(work(s, t)), as_json=as_json, busy=busy, **overrides)


def run_loop(loop: Loop, *, as_json: bool = False, busy: bool = False, **overrides: Any) -> None:
    """Run a command that asks its user between steps; the steps share one event loop."""
    terminal = open_terminal()
    with correlation(new_correlation_id()), writable(terminal):
        try:
            raise_at_ctrl_c()
            settings = load_settings(**{k: v for k, v in overrides.items() if v is not None})
            configure_logging(settings.log)
            share_heaps()
            keep_imports()
            end_at_once()
            with busy_runner() if busy else asyncio.Runner() as runner:
                loop(settings, terminal, runner)
        except PersonaError as error:
            fail(terminal, error, as_json)
        except KeyboardInterrupt:
            terminal.err.print("stopped")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, Unwritable):
            raise
        except Exception:  # the last handler of the command line
            log.exception("command failed")
            ours = InternalError("something went wrong on our side; the log above has the cause")
            fail(terminal, ours, as_json)


def raise_at_ctrl_c() -> None:
    """Have a Ctrl-C raised from now on, where it ended the process while modules were imported."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def tidy_at_sigterm() -> Iterator[None]:
    """Have what a block made removed at SIGTERM, too, which else ends the process where it is."""
    usual = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


@contextmanager
def writable(terminal: Terminal) -> Iterator[None]:
    """End a command whose output cannot be written; of an error's JSON, too.

    Raises:
        typer.Exit: With 1, then.
    """
    try:
        yield
    except Unwritable as error:
        tell_unwritten(terminal, str(error))
        raise typer.Exit(FAILED) from None


def tell_unwritten(terminal: Terminal, reason: str) -> None:
    """Say, where that is possible, that output cannot be written; what is left of it goes nowhere.

    Args:
        terminal: Where to say it.
        reason: Why it cannot.
    """
    discard_output()
    with suppress(Unwritable):  # it was standard error, or both
        terminal.err.print(f"error: standard output cannot be written ({reason})", style=ERROR)


def end_unwritten(error: OSError) -> NoReturn:
    """End the program, whose help could not be written, as a command ends.

    Raises:
        SystemExit: Always, with 1.
    """
    tell_unwritten(open_terminal(), error.strerror or str(error))
    raise SystemExit(FAILED)


def fail(terminal: Terminal, error: PersonaError, as_json: bool) -> None:
    """Say what was wrong and end.

    Raises:
        typer.Exit: Always, with 1.
    """
    problem = problem_of(error)
    terminal.err.print(f"error: {error.message}", style=ERROR)
    if as_json or isinstance(error, InternalError):  # the log says no more of a mistake
        terminal.err.print(f"correlation id: {problem['data']['correlation_id']}", style="dim")
    if as_json:
        terminal.print_json({"error": problem})
    raise typer.Exit(FAILED)


def llm(model: str | None) -> dict[str, str] | None:
    """Return the setting that `--model` stands for."""
    return {"model": model} if model else None


def command_module(name: str) -> Any:
    """Import a module of the server when it is needed: LangGraph alone takes a second."""
    return importlib.import_module(f"persona_mcp.server.{name}")


def read_stdin() -> str:
    """Read a text from standard input; not while an event loop runs, or Ctrl-C waits for its end.

    Raises:
        InvalidParams: It is closed, or no text.
    """
    given = "a closed standard input"
    try:
        if sys.stdin is not None:
            return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        given = f"another byte at {error.start}"
    allowed = "text on standard input"
    raise InvalidParams.one(STDIN, allowed, given)
