"""The files of a language's words that come with the package."""

from importlib.resources import files
from typing import Any

import yaml

FOLDER = "words"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Takes a tenth of the time where PyYAML was built with its library in C; both read the same."""


def read_language_file(name: str, language: str) -> Any:
    """Read `words/NAME.LANGUAGE.yaml`.

    Raises:
        FileNotFoundError: There is none for this language.
    """
    source = files("persona_mcp.state") / FOLDER / f"{name}.{language}.yaml"
    return yaml.load(source.read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506 - a SafeLoader
