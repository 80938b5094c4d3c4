"""A run in Studio, for tests that start none of its servers."""

from types import SimpleNamespace
from typing import Any, cast

KNOBS = {"persona_id": "noor"}
"""Who answers."""


def runtime(live: bool) -> Any:
    """What the Studio server hands to a factory."""
    return cast("Any", SimpleNamespace(execution_runtime=SimpleNamespace() if live else None))
