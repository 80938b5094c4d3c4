"""Logging: one line each, to stderr only, with the correlation id, and never an exception."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import structlog
from rich.logging import RichHandler
from structlog.testing import capture_logs

from persona_mcp.config.logging import LOUD, StderrHandler, configure_logging
from persona_mcp.config.settings import LogSettings
from persona_mcp.state.correlation import correlation, current_correlation_id

Written = Callable[[], str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError("gone")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in LOUD}
    yield
    root.handlers[:], root.level = handlers, level
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)
    structlog.reset_defaults()


def configure(
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO",
    format: Literal["auto", "console", "json"] = "json",
) -> None:
    configure_logging(LogSettings(level=level, format=format))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_our_lines_and_the_libraries_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    structlog.get_logger("ours").info("started")
    logging.getLogger("uvicorn.error").info("Started %s", "server")

    ours, theirs = lines(capsys)
    assert ours["event"] == "started"
    assert theirs["event"] == "Started server"
    assert (ours["logger"], theirs["logger"]) == ("ours", "uvicorn.error")
    assert ours.keys() == theirs.keys() == {"event", "logger", "level", "timestamp"}


def test_positional_arguments_are_put_into_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    structlog.stdlib.get_logger("ours").info("took %d ms", 12)

    assert [line["event"] for line in lines(capsys)] == ["took 12 ms"]


def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure("ERROR")

    structlog.get_logger("ours").warning("left out")
    logging.getLogger(LOUD[0]).warning("left out")
    logging.getLogger("httpx").error("kept")

    assert [line["event"] for line in lines(capsys)] == ["kept"]


def test_loud_libraries_say_warnings_only_even_at_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("DEBUG")

    for name in LOUD:
        logging.getLogger(name).info("chatter")
    logging.getLogger("mcp").debug("kept")

    assert [line["event"] for line in lines(capsys)] == ["kept"]


def test_every_line_of_a_call_has_its_correlation_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    async def call(id: str) -> None:
        with correlation(id):
            structlog.get_logger("ours").info("one")
            await asyncio.to_thread(logging.getLogger("alembic").info, "two")

    async def calls() -> None:
        await asyncio.gather(call("first"), call("second"))

    asyncio.run(calls())

    found = sorted((line["correlation_id"], line["event"]) for line in lines(capsys))
    assert found == [("first", "one"), ("first", "two"), ("second", "one"), ("second", "two")]
    assert current_correlation_id() is None


def test_configuring_again_replaces_the_settings_and_doubles_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = structlog.get_logger("ours")
    configure("ERROR")
    log.info("left out")
    configure("INFO")
    configure("INFO")

    log.info("kept")

    assert [line["event"] for line in lines(capsys)] == ["kept"]


def test_handlers_that_libraries_set_up_before_are_replaced_and_others_stay(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger().addHandler(RichHandler())
    uvicorn = logging.getLogger("uvicorn")
    uvicorn.addHandler(logging.StreamHandler())
    uvicorn.propagate = False
    configure()

    uvicorn.info("once")

    assert [line["event"] for line in lines(capsys)] == ["once"]
    assert caplog.records


def test_capture_logs_works_on_a_logger_that_was_used_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure()
    log = structlog.get_logger("ours")
    log.info("before")

    with capture_logs() as captured:
        log.info("within")

    assert [line["event"] for line in captured] == ["within"]
    assert [line["event"] for line in lines(capsys)] == ["before"]


def test_an_exception_is_shown_without_the_values_of_its_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for format in ("json", "console"):
        configure(format=format)
        hidden = "sk-secret"
        try:
            raise ValueError(f"length {len(hidden)}")
        except ValueError:
            structlog.get_logger("ours").exception("failed")
            logging.getLogger("httpx").exception("failed")

        err = capsys.readouterr().err
        assert err.count("ValueError: length 9") == 2
        assert "sk-secret'" not in err.replace('hidden = "sk-secret"', "")


def test_a_line_that_cannot_be_formatted_is_named_and_raises_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger().handlers.clear()  # pytest's raise
    configure()

    structlog.get_logger("ours").info("odd", value=Unprintable())
    logging.getLogger("httpx").info("%d", "not a number")

    err = capsys.readouterr().err
    assert "a log line of ours cannot be shown: RuntimeError" in err
    assert "a log line of httpx cannot be shown: TypeError" in err


@pytest.mark.parametrize("stream", [Broken(), None])
def test_a_stderr_that_is_gone_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    configure()

    logging.getLogger("httpx").error("nobody reads this")

    assert any(isinstance(h, StderrHandler) for h in logging.getLogger().handlers)


def test_a_stderr_that_cannot_show_unicode_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    configure(format="console")

    logging.getLogger("httpx").error("naïve ☃")

    assert b"na\\xefve \\u2603" in raw.getvalue()


@pytest.mark.parametrize(
    ("format", "terminal", "no_color", "is_json", "coloured"),
    [
        ("auto", True, "", False, True),
        ("auto", True, "1", False, False),
        ("auto", False, "", True, False),
        ("json", True, "", True, False),
        ("console", False, "", False, False),
    ],
)
def test_format_and_colour_fit_where_the_lines_go(
    monkeypatch: pytest.MonkeyPatch,
    format: Literal["auto", "console", "json"],
    terminal: bool,
    no_color: str,
    is_json: bool,
    coloured: bool,
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("NO_COLOR", no_color)
    configure(format=format)

    logging.getLogger("httpx").error("one")

    written = stream.getvalue()
    assert written.startswith("{") is is_json
    assert ("\x1b[" in written) is coloured


def test_the_mcp_server_leaves_logging_as_it_was_configured() -> None:
    script = (
        "import logging, sys\n"
        "from persona_mcp.config.logging import configure_logging\n"
        "from persona_mcp.config.settings import LogSettings\n"
        "configure_logging(LogSettings(level='INFO', format='json'))\n"
        "before = logging.getLogger().handlers[:]\n"
        "from mcp.server import MCPServer\n"
        "import chromadb\n"
        "MCPServer('test')\n"
        "sys.exit(0 if logging.getLogger().handlers == before else 'handlers changed')\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
