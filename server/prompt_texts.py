"""The texts that prompts are made of, as one check sum: another prompt makes another reply."""

import hashlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from persona_mcp.nodes import casting, prompts, summarising, wording
from persona_mcp.state.snapshots.file import canonical

PROMPTS = (casting, prompts, summarising, wording)
"""Modules whose texts the model reads."""


def prompts_sha256() -> str:
    """Return a check sum of every text that prompts are made of."""
    return hashlib.sha256(canonical({m.__name__: texts_of(m) for m in PROMPTS})).hexdigest()


def texts_of(module: ModuleType) -> dict[str, Any]:
    """Collect the constants of a module that are text, or hold some."""
    return {
        name: plain(value)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, (str, tuple, list, Mapping))
    }


def plain(value: Any) -> Any:
    """Write a constant as JSON; what is no text in it by its form."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(one) for one in value]
    return value if isinstance(value, (str, int, float)) else repr(type(value))
