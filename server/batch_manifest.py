"""What a finished batch is: check sums of its files, and everything that they depend on."""

import hashlib
import json
import platform
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from persona_mcp.nodes import casting, prompts, summarising, wording
from persona_mcp.server.batch_folder import CAST, MANIFEST, SPEC, sha256_of, write_file
from persona_mcp.server.batch_rows import Counts
from persona_mcp.state.batch_plan import BatchPlan
from persona_mcp.state.errors import BadSnapshot, NotFound
from persona_mcp.state.snapshot_file import canonical

FORMAT = "persona-mcp-batch/1"
PROGRAM = "persona-mcp"
LIBRARIES = ("langgraph", "numpy", "onnxruntime", "pyarrow", "pydantic", "sqlalchemy", "tokenizers")
"""Those that a figure or a byte of an output could depend on."""
PROMPTS = (casting, prompts, summarising, wording)
"""Modules whose texts the model reads."""
SUM = "sha256"
MADE_WITH = "made_with"
Manifest = dict[str, Any]


def manifest_of(
    path: Path,
    files: Iterable[str],
    plan: BatchPlan,
    begun: Mapping[str, Any],
    models: list[str],
    counts: Counts,
) -> Manifest:
    """Describe a batch whose files are there; reads all of them.

    Args:
        path: Its folder.
        files: Names of its outputs and of its recording.
        plan: What was held.
        begun: What it was begun with: settings and embedder.
        models: Those that answered, `provider:name`, sorted.
        counts: What came of it.
    """
    spec = plan.spec
    told: Manifest = {
        "format": FORMAT,
        "name": spec.name,
        "specification": sha256_of(path / SPEC),
        "files": {
            name: {"sha256": sha256_of(path / name), "bytes": (path / name).stat().st_size}
            for name in sorted({SPEC, CAST, *files})
        },
        "seeds": {"seed": spec.seed, "seeds": spec.seeds, "repeats": spec.repeats},
        "models": models,
        "prompts": prompts_sha256(),
        **begun,
        "counts": {
            "arms": len(plan.arms),
            "dialogues": plan.total,
            "done": counts.done,
            "failed": counts.failed,
            "turns": counts.turns,
            "calls": counts.calls,
        },
        MADE_WITH: versions(),
    }
    return {**told, SUM: sum_of(told)}


def sum_of(told: Mapping[str, Any]) -> str:
    """Return the check sum of a manifest, that itself left out."""
    return hashlib.sha256(canonical({k: v for k, v in told.items() if k != SUM})).hexdigest()


def write_manifest(path: Path, told: Manifest) -> None:
    """Write a manifest into a batch's folder, for people too."""
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    write_file(path / MANIFEST, [text.encode(), b"\n"])


def read_manifest(path: Path) -> Manifest:
    """Read the manifest in a batch's folder.

    Raises:
        NotFound: It is not finished, or no batch.
        BadSnapshot: It is damaged, or of another format.
    """
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError:
        why = f"it has no {MANIFEST}; `persona dialogue status` tells how far it is"
        raise NotFound(
            f"no finished batch in '{path.name}': {why if path.is_dir() else 'no such folder'}",
            kind="batch",
            id=path.name,
        ) from None
    try:
        told = json.loads(text)
        whole = isinstance(told, dict) and told.get(SUM) == sum_of(told)
    except ValueError:
        whole = False
    if not whole:
        raise BadSnapshot(f"{MANIFEST}: it was changed or is damaged: its check sum is another one")
    if told["format"] != FORMAT:
        raise BadSnapshot(f"{MANIFEST}: only {FORMAT} can be read, this one is {told['format']}")
    return dict(told)


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


def versions() -> dict[str, str]:
    """Name the program, the libraries and the machine that a figure could depend on."""
    found = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": sys.platform,
    }
    for name in (PROGRAM, *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
