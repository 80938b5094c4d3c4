"""Whether a finished batch is what its manifest says, and what its recording makes of it again."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.batches import Event, run_batch
from persona_mcp.server.batch.folder import (
    CAST,
    MANIFEST,
    OURS,
    OUTPUTS,
    RECORDING,
    SPEC,
    sha256_of,
)
from persona_mcp.server.batch.manifest import (
    MADE_WITH,
    SUM,
    Manifest,
    changed_files,
    read_manifest,
    unreadable,
    versions,
)
from persona_mcp.server.batch.replay import Replay, open_replay
from persona_mcp.server.batch.results import finish
from persona_mcp.server.batch.rows import NAME as STORE
from persona_mcp.server.batch.settings import begun_in
from persona_mcp.server.batch.store import BatchStore
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import BadSnapshot, PersonaError

INPUTS = (SPEC, CAST, RECORDING)
"""What a batch is held again from."""
TABLE, JSON_LINES, JSON = ".parquet", ".jsonl", ".json"
SHOWN, BEFORE = 60, 20
"""Characters of a value that are shown, and of those that come before where it parts."""


@dataclass(frozen=True)
class Difference:
    """Something that is not as it should be.

    Attributes:
        file: Where.
        line: 1, 2, ...; of a table its row; None where there is no telling.
        field: Path of a field in it; empty where there is none.
        what: In words.
    """

    file: str
    line: int | None
    field: str
    what: str

    def __str__(self) -> str:
        """Write it in one line."""
        line = f", line {self.line}" if self.line is not None else ""
        field = f", {self.field}" if self.field else ""
        return f"{self.file}{line}{field}: {self.what}"


@dataclass(frozen=True)
class Verdict:
    """What a check came to.

    Attributes:
        files: How many were compared.
        dialogues: How many were held again.
        calls: Recorded calls that were played.
        differences: What is not as it should be, the first of each file; empty if all is well.
        notes: What does not count: versions that the batch was made with, files that are not its.
    """

    files: int
    dialogues: int
    calls: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether everything is as it should be."""
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {"verified": self.good, **asdict(self)}


async def verify_batch(
    path: Path,
    settings: Settings,
    embedder: Embedder | None = None,
    told: Callable[[Event], None] = lambda _: None,
) -> Verdict:
    """Check the hashes of a batch's files; then hold it again from its recording, and compare.

    Args:
        path: Its folder; nothing is written there, and no data folder is needed.
        settings: In effect here; what dialogues depend on is from the manifest.
        embedder: In place of the one that they name.
        told: Is told what happens while it is held again.

    Raises:
        NotFound: There is no finished batch.
        Conflict: Another embedder is set here.
    """
    try:
        manifest = await asyncio.to_thread(read_manifest, path)
    except BadSnapshot as error:
        what = error.message.removeprefix(f"{MANIFEST}: ")
        return refused([Difference(MANIFEST, None, "", what)])
    strange = await asyncio.to_thread(lambda: tuple(strange_files(path, manifest)))
    notes = (*strange, *other_versions(manifest))
    changed = await asyncio.to_thread(changed_files, path, manifest)
    if any(name in INPUTS for name in changed):
        found = await asyncio.to_thread(lambda: [located(path, name) for name in changed])
        return refused(found, notes)
    async with open_replay(path, begun_in(manifest), settings, embedder) as replay:
        try:
            again = await held_again(replay, told)
        except BadSnapshot as error:
            unread = [Difference(name, None, "", CHANGED) for name in changed]
            wrong = Difference(RECORDING, None, "", error.message)
            return refused([*unread, wrong], notes)
        found = await asyncio.to_thread(differences, path, replay.folder.path, manifest, again)
    count = manifest["counts"]
    return Verdict(len(manifest["files"]), count["dialogues"], count["calls"], tuple(found), notes)


CHANGED = "its check sum is not the one in the manifest: it was changed or is damaged"
GONE = "it is not there"


def refused(found: list[Difference], notes: tuple[str, ...] = ()) -> Verdict:
    """Give the verdict on a batch that cannot be held again as it is."""
    return Verdict(0, 0, 0, tuple(found), notes)


async def held_again(replay: Replay, told: Callable[[Event], None]) -> Manifest:
    """Hold a whole batch again, and write its results.

    Raises:
        BadSnapshot: The recording is not one of this batch, or of another version.
    """
    folder = replay.folder
    await run_batch(
        replay.plan,
        replay.casts,
        folder.store,
        replay.engine,
        Worlds(replay.host),
        told,
        asyncio.Event(),
    )
    return await finish(folder, replay.plan, replay.casts, replay.settings)


def located(path: Path, name: str) -> Difference:
    """Say where a file was changed that is not made again, as far as there is telling."""
    if (fault := fault_of(path / name)) is not None:
        return Difference(name, None, "", fault)
    if name == RECORDING and (path / STORE).is_file():
        told = in_recording(path)
        if told is not None:
            return told
    return Difference(name, None, "", CHANGED)


def fault_of(file: Path) -> str | None:
    """Say why a file cannot be compared; None if it can."""
    if not file.is_file():
        return GONE
    try:
        with file.open("rb"):
            return None
    except OSError as error:
        return unreadable(error)


def in_recording(path: Path) -> Difference | None:
    """Compare a recording with the calls that the batch's store has; None without telling."""
    try:
        with closing(BatchStore(path / STORE).recording()) as kept:
            wanted = (text.encode() + b"\n" for text in kept)
            with (path / RECORDING).open("rb") as found:
                return first_in_lines(RECORDING, found, wanted, as_json=True)
    except (PersonaError, UnicodeDecodeError):
        return None


def differences(path: Path, again: Path, manifest: Manifest, made: Manifest) -> list[Difference]:
    """Compare what is there with what was made again: the first difference of each file."""
    found = []
    for name in sorted({*manifest["files"], *made["files"]}):
        if (fault := fault_of(path / name)) is not None:
            found.append(Difference(name, None, "", fault))
        elif not (again / name).is_file():
            found.append(Difference(name, None, "", "the recording makes no such file"))
        elif sha256_of(path / name) != sha256_of(again / name):
            found.append(first_difference(name, path / name, again / name))
    left_out = {MADE_WITH, SUM, "files"}
    for name in sorted({*manifest, *made} - left_out):
        if manifest.get(name) != made.get(name):
            what = words(manifest.get(name), made.get(name))
            found.append(Difference(MANIFEST, None, name, what))
    return found


def first_difference(name: str, one: Path, other: Path) -> Difference:
    """Say where a file and the same file made again are different first."""
    if name.endswith(TABLE):
        return first_in_table(name, one, other)
    with one.open("rb") as there, other.open("rb") as again:
        as_json = name.endswith((JSON_LINES, JSON))
        found = first_in_lines(name, there, again, as_json=as_json)
    return found or Difference(name, None, "", CHANGED)


def first_in_lines(
    name: str, one: Iterator[bytes], other: Iterator[bytes], *, as_json: bool
) -> Difference | None:
    """Compare two files line by line."""
    for number, (there, again) in enumerate(zip_longest(one, other), start=1):
        if there == again:
            continue
        if there is None or again is None:
            what = "the file ends before it" if there is None else "it is one too many"
            return Difference(name, number, "", what)
        field, what = first_in_values(there, again) if as_json else ("", words(there, again))
        return Difference(name, number, field, what)
    return None


def first_in_values(one: bytes, other: bytes) -> tuple[str, str]:
    """Compare two lines of JSON: the path of the first field that is different, and how."""
    try:
        found = first_in(json.loads(one), json.loads(other), "")
    except ValueError:
        return "", "it is no JSON"
    return found or ("", "it is written in another way")


def first_in(one: Any, other: Any, path: str) -> tuple[str, str] | None:
    """Compare two JSON values."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(key, one.get(key), other.get(key)) for key in sorted({*one, *other})]
    elif isinstance(one, list) and isinstance(other, list):
        pairs = [(str(at), *pair) for at, pair in enumerate(zip_longest(one, other))]
    else:
        return None if one == other else (path, words(one, other))
    found = (first_in(a, b, f"{path}.{key}" if path else key) for key, a, b in pairs)
    return next((one for one in found if one is not None), None)


def first_in_table(name: str, one: Path, other: Path) -> Difference:
    """Say where two tables are different first: row and column."""
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 - slow to import

    try:
        there, again = (parquet.ParquetFile(path) for path in (one, other))
        rows = zip_longest(rows_of(there), rows_of(again))
        for number, (left, right) in enumerate(rows, start=1):
            if left != right:
                found = first_in(left, right, "")
                return Difference(name, number, *(found or ("", CHANGED)))
    except (ArrowException, OSError, ValueError, KeyError):
        return Difference(name, None, "", CHANGED)
    return Difference(name, None, "", "its rows are the same, its bytes are not")


def rows_of(file: Any) -> Iterator[dict[str, Any]]:
    """Read the rows of a table, some at a time."""
    for batch in file.iter_batches():
        yield from batch.to_pylist()


def words(there: Any, again: Any) -> str:
    """Write two values that should be one; of long ones the piece where they part."""
    one, other = written(there), written(again)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    part = sum(1 for _ in same)
    start = part - BEFORE if part > SHOWN - BEFORE else 0
    return f"{piece(one, start)} there, {piece(other, start)} again"


def written(value: Any) -> str:
    """Write a value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\n")
    return json.dumps(value, ensure_ascii=False, default=str)


def piece(text: str, start: int) -> str:
    """Return a text from somewhere on, not all of a long one."""
    text = f"…{text[start:]}" if start else text
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def strange_files(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Name what lies in the folder, and the manifest says nothing of."""
    ours = {MANIFEST, *manifest["files"], *(OURS - {SPEC, CAST, RECORDING, *OUTPUTS})}
    for name in sorted({entry.name for entry in path.iterdir()} - ours):
        yield f"{name} lies there too and is no file of the batch; it was not looked at"


def other_versions(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Name what is of another version here than where the batch was made."""
    here = versions()
    for name, its in sorted(manifest[MADE_WITH].items()):
        if here.get(name, "") != its:
            yield f"made with {name} {its or 'none'}, here is {here.get(name) or 'none'}"
