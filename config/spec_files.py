"""The file that asks for a batch of dialogues: read, checked, and each fault told with its line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from persona_mcp.config.spec_yaml import Document, document_of
from persona_mcp.state.batch.faults import FAULTS_MOST, spec_of
from persona_mcp.state.batch.plan import BatchPlan, plan_batch
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.errors import Fault, InvalidParams, complaint
from persona_mcp.state.validation import shorten

log = structlog.get_logger(__name__)

FILE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class SpecFile:
    """A specification, and where it stands.

    Attributes:
        path: The file; paths of cards are from its folder.
        text: As it was given.
        spec: What it says.
        document: Its values, with their lines.
    """

    path: Path
    text: str
    spec: DialogueSpec
    document: Document

    @property
    def folder(self) -> Path:
        """Return where its cards are looked for."""
        return self.path.parent

    def line_of(self, path: str) -> int:
        """Return the line of a field, 1, 2, ...; if it is left out: of what would hold it."""
        return self.document.line_of(path)

    @contextmanager
    def telling_lines(self) -> Iterator[None]:
        """Put lines to the faults that a check of the specification finds.

        Raises:
            InvalidParams: As the check, with the file and a line for each fault.
        """
        try:
            yield
        except InvalidParams as error:
            if not error.faults:
                raise
            raise with_lines(self.path, lined(error.faults, self.document)) from error


def read_spec(path: Path) -> SpecFile:
    """Read a specification from a YAML or JSON file, strictly.

    Raises:
        InvalidParams: It is not there, no text, too large, no YAML, or says what is not allowed;
            the message has a line for each fault, and `errors` has them as `{line, field, allowed,
            given}`.
    """
    text = text_of(path)
    document = document_of(text)
    if document.faults:
        raise with_lines(path, document.faults)
    if not isinstance(document.value, dict):
        allowed = "a specification: fields with values, personas at least"
        given = "nothing" if document.value is None else shorten(document.value)
        raise with_lines(path, [{"line": 1, "field": "", "allowed": allowed, "given": given}])
    try:
        spec = spec_of(document.value)
    except InvalidParams as error:
        raise with_lines(path, lined(error.faults, document)) from None
    return SpecFile(path, text, spec, document)


def read_plan(path: Path) -> tuple[SpecFile, BatchPlan]:
    """Read a specification and plan what it asks for.

    Raises:
        InvalidParams: As `read_spec`; and what cannot be held, each with its line.
    """
    log.debug("reading a specification", file=str(path))
    file = read_spec(path)
    with file.telling_lines():
        plan = plan_batch(file.spec)
    log.debug("planned a batch", file=str(path), arms=len(plan.arms))
    return file, plan


def text_of(path: Path) -> str:
    """Read a file.

    Raises:
        InvalidParams: It is not there, too large, empty, or no text.
    """
    if not path.is_file():
        given = "a folder" if path.is_dir() else "no file of this name"
        raise with_lines(path, [fault("a YAML or JSON file that is there", given)])
    try:
        raw = path.read_bytes() if path.stat().st_size <= FILE_BYTES else None
    except OSError as error:
        given = error.strerror or "an error"
        raise with_lines(path, [fault("a file that can be read", given)]) from error
    if raw is None:
        given = f"{path.stat().st_size:,} bytes"
        raise with_lines(path, [fault(f"at most {FILE_BYTES:,} bytes", given)])
    if not raw.strip():
        raise with_lines(path, [fault("a specification, personas at least", "an empty file")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        given = f"byte {raw[error.start]:#x} at {error.start}"
        raise with_lines(path, [fault("text in UTF-8", given, line)]) from error


def fault(allowed: str, given: str, line: int = 0) -> Fault:
    """Make a fault of a whole file; without a line, if it is about none."""
    return {"line": line, "field": "", "allowed": allowed, "given": given}


def lined(faults: Sequence[Fault], document: Document) -> list[Fault]:
    """Put to each fault the line of its field."""
    return [{**one, "line": document.line_of(one["field"])} for one in faults]


def with_lines(path: Path, faults: Sequence[Fault]) -> InvalidParams:
    """Make one error of all faults of a file; the message has a line for each.

    Args:
        path: The file; its name is told.
        faults: Each with its line; 0 for the whole file.
    """
    kept = sorted(faults, key=lambda one: one["line"])[:FAULTS_MOST]
    rows = [written(path.name, one) for one in kept]
    if len(faults) > len(kept):
        rows.append(f"(and {len(faults) - len(kept)} more)")
    listed: list[dict[str, Any]] = [dict(one) for one in kept]
    first = {name: kept[0][name] for name in ("line", "field", "allowed", "given")}
    return InvalidParams("\n".join(rows), **first, file=path.name, errors=listed)


def written(name: str, one: Fault) -> str:
    """Write a fault: `quarrel.yaml:14: dialogue.max_turns: allowed is ..., given was 0`."""
    where = f"{name}:{one['line']}" if one["line"] else name
    wrong = f"{one['field']}{complaint(one)}"
    return f"{where}: {wrong.removeprefix(': ')}"
