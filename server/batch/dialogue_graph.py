"""The graph that the dialogues of a batch run on, made once a process.

Wiring and compiling one takes as long as a third of a turn. Its nodes ask for the parts of the
dialogue whose task they run in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, cast

from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.graphs.plain import plain
from persona_mcp.graphs.walks import walked
from persona_mcp.nodes.parts import Parts

_parts: ContextVar[Parts] = ContextVar("parts of a dialogue")


class PartsOfTask:
    """Stands for the `Parts` of the dialogue that a task holds."""

    def __getattr__(self, name: str) -> Any:
        """Return one of them.

        Raises:
            LookupError: The task holds no dialogue.
        """
        return getattr(_parts.get(), name)


@contextmanager
def dialogue_graph(parts: Parts) -> Iterator[Any]:
    """Give the compiled graph to a task, which runs it with these parts."""
    token = _parts.set(parts)
    try:
        yield compiled()
    finally:
        _parts.reset(token)


@cache
def compiled() -> Any:
    """Compile it, once."""
    return plain(walked(build_dialogue(cast("Parts", PartsOfTask()))).compile(name="dialogue"))
