"""Logging: ours and the libraries', one line each, to stderr only.

`configure_logging` comes before anything that sets up logging of its own (`MCPServer`, uvicorn):
they leave a configured root logger alone. Uvicorn must be given `log_config=None`.
"""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO

import structlog
from structlog.typing import Processor

from persona_mcp.config.settings import LogSettings

LIBRARIES = (
    "alembic",
    "chromadb",
    "httpx",
    "langchain",
    "langgraph",
    "mcp",
    "sqlalchemy",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
)
"""They may have handlers of their own by now; their lines go the common way."""
LOUD = ("aiosqlite", "asyncio", "hpack", "httpcore", "openai")
"""Below WARNING they write many lines a call, or whole prompts."""


class StderrHandler(logging.Handler):
    """Writes to whatever `sys.stderr` is now; no fault of a line or the stream gets out.

    An exception from a handler would end an MCP session for good.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; if it cannot be formatted, say so; if that fails too, do nothing."""
        try:
            line = self.format(record)
        except Exception as error:  # the last handler there is
            line = f"a log line of {record.name} cannot be shown: {type(error).__name__}"
        with suppress(Exception):
            write_line(sys.stderr, line)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line at once, with escapes for what the stream's encoding cannot show."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def configure_logging(settings: LogSettings) -> None:
    """Send every log line, structlog's and the standard library's, through the same processors.

    May be called again: the new settings replace the old ones.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a cached logger would keep old settings for ever
    )
    handler = StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.processors.StackInfoRenderer(),
                *_renderers(settings),
            ],
        )
    )
    _take_over(handler, settings.level)


def _renderers(settings: LogSettings) -> list[Processor]:
    terminal = bool(sys.stderr and sys.stderr.isatty())  # None where it was closed
    if settings.format == "console" or (settings.format == "auto" and terminal):
        return [
            structlog.dev.ConsoleRenderer(
                colors=terminal and not os.environ.get("NO_COLOR"),
                # The default shows local variables, and with them keys and messages.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _take_over(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    for old in [old for old in root.handlers if _writes_to_a_terminal(old)]:
        root.removeHandler(old)
    handler.setLevel(level)
    root.addHandler(handler)
    root.setLevel(level)
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [h for h in library.handlers if not _writes_to_a_terminal(h)]
        library.propagate = True
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


def _writes_to_a_terminal(handler: logging.Handler) -> bool:
    """Tell the handlers of `basicConfig`, uvicorn, rich and ours from a test's or a file's."""
    kind = type(handler)
    return kind in (logging.StreamHandler, StderrHandler) or kind.__module__ == "rich.logging"
