"""What a finished batch is: check sums of its files, and everything that they depend on."""

import hashlib
import json
import platform
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from persona_mcp.server.batch.folder import CAST, MANIFEST, SPEC, sha256_of, write_file
from persona_mcp.server.batch.rows import Counts
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.errors import BadSnapshot, NotFound
from persona_mcp.state.snapshots.file import canonical

FORMAT = "persona-mcp-batch/1"
PROGRAM = "persona-mcp"
LIBRARIES = ("langgraph", "numpy", "onnxruntime", "pyarrow", "pydantic", "sqlalchemy", "tokenizers")
"""Those that a figure or a byte of an output could depend on."""
SUM = "sha256"
MADE_WITH = "made_with"
Manifest = dict[str, Any]


def manifest_of(
    path: Path,
    files: Iterable[str],
    plan: BatchPlan,
    begun: Mapping[str, Any],
    models: list[str],
    prompts: str,
    counts: Counts,
) -> Manifest:
    """Describe a batch whose files are there; reads all of them.

    Args:
        path: Its folder.
        files: Names of its outputs and of its recording.
        plan: What was held.
        begun: What it was begun with: settings and embedder.
        models: Those that answered, `provider:name`, sorted.
        prompts: Check sum of the texts that prompts are made of.
        counts: What came of it.
    """
    spec = plan.spec
    told: Manifest = {
        "format": FORMAT,
        "name": spec.name,
        "specification": sha256_of(path / SPEC),
        "files": {name: checked(path / name) for name in sorted({SPEC, CAST, *files})},
        "seeds": {"seed": spec.seed, "seeds": spec.seeds, "repeats": spec.repeats},
        "models": models,
        "prompts": prompts,
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


def checked(file: Path) -> dict[str, Any]:
    """Return a file's check sum and length."""
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def with_file(told: Manifest, file: Path) -> Manifest:
    """Return a manifest with the check sum of one file that was written anew."""
    new = {**told, "files": {**told["files"], file.name: checked(file)}}
    return {**new, SUM: sum_of(new)}


def sum_of(told: Mapping[str, Any]) -> str:
    """Return the check sum of a manifest, that itself left out."""
    return hashlib.sha256(canonical({k: v for k, v in told.items() if k != SUM})).hexdigest()


def write_manifest(path: Path, told: Manifest) -> None:
    """Write a manifest into a batch's folder, for people too."""
    write_file(path / MANIFEST, [bytes_of(told)])


def bytes_of(told: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    return text.encode() + b"\n"


def read_manifest(path: Path) -> Manifest:
    """Read the manifest in a batch's folder.

    Raises:
        NotFound: It is not finished, or no batch.
        BadSnapshot: It is damaged, or of another format.
    """
    try:
        text = (path / MANIFEST).read_bytes()
    except PermissionError as error:
        raise BadSnapshot(f"{MANIFEST}: {unreadable(error)}") from error
    except OSError:
        why = f"it has no {MANIFEST}; `persona dialogue status` tells how far it is"
        raise NotFound(
            f"no finished batch in '{path.name}': {why if path.is_dir() else 'no such folder'}",
            kind="batch",
            id=path.name,
        ) from None
    try:
        told = json.loads(text)
        whole = isinstance(told, dict) and told.get(SUM) == sum_of(told) and bytes_of(told) == text
    except ValueError:
        whole = False
    if not whole:
        raise BadSnapshot(f"{MANIFEST}: it was changed or is damaged: its check sum is another one")
    if told["format"] != FORMAT:
        raise BadSnapshot(f"{MANIFEST}: only {FORMAT} can be read, this one is {told['format']}")
    return dict(told)


def changed_files(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Name the files that are not as the manifest has them."""
    return [name for name, its in manifest["files"].items() if sum_in(path / name) != its["sha256"]]


def sum_in(file: Path) -> str | None:
    """Return the check sum of a file; None of one that is not there or cannot be read."""
    try:
        return sha256_of(file)
    except OSError:
        return None


def unreadable(error: OSError) -> str:
    """Say why a file cannot be read."""
    return f"it cannot be read ({error.strerror or 'no reason was given'})"


def counts_in(told: Manifest) -> Counts:
    """Read what came of a batch."""
    counts = told["counts"]
    return Counts(counts["done"], counts["failed"], counts["turns"], counts["calls"])


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
