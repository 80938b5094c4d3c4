"""YAML (and JSON, which is YAML) as plain values that know their lines.

Plain means YAML 1.2's core schema, which reads JSON as JSON: `no` and `2026-01-01T08:00:00Z` are
text, `1e-3` is a number. Tags, values within themselves, keys that stand twice and aliases that
would blow up are faults with their line.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from persona_mcp.state.batch.faults import FAULTS_MOST
from persona_mcp.state.errors import Fault
from persona_mcp.state.language_files import LOADER
from persona_mcp.state.validation import MOST_LEVELS, cut, shorten

VALUES_MOST = 2_000_000
"""With aliases written out."""
MERGE = "<<"
ALLOWED_TAGS = {"tag:yaml.org,2002:" + name for name in ("str", "null", "bool", "int", "float")}
CONTAINER_TAGS = {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
TEXT_TAGS = {"!", "tag:yaml.org,2002:str"}
NULL = ("", "~", "null", "Null", "NULL")
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
WHOLE = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
PAIR = re.compile(r"(\\\\)|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
"""Two escapes that JSON writes one character with; an escaped backslash is passed over."""
PLAIN = "a plain value, without a tag"
Lines = dict[Any, int]


@dataclass
class Document:
    """A file as values.

    Attributes:
        value: What it says: mappings with keys of text, lists, texts, numbers, booleans, None.
        faults: What is wrong with it; `value` is of no use if there are any.
    """

    value: Any = None
    faults: list[Fault] = field(default_factory=list)
    _lines: dict[int, Lines] = field(default_factory=dict)

    def line_of(self, path: str) -> int:
        """Return the line, 1, 2, ..., of a path such as `personas.ada.charisma`.

        Of one that is not in the file: of what would hold it.
        """
        here, line, rest = self.value, 1, path
        while rest and isinstance(here, dict | list):
            keys: Sequence[Any] = list(here) if isinstance(here, dict) else range(len(here))
            found = [key for key in keys if f"{rest}.".startswith(f"{key}.")]
            if not found:
                break
            key = max(found, key=lambda one: len(str(one)))
            line = self._lines.get(id(here), {}).get(key, line)
            here, rest = here[key], rest[len(str(key)) + 1 :]
        return line

    def add(self, line: int, path: Sequence[Any], allowed: str, given: str) -> None:
        """Note what is wrong; of very many faults the first are kept."""
        if len(self.faults) < FAULTS_MOST:
            name = ".".join(cut(str(part)) for part in path)
            self.faults.append({"line": line, "field": name, "allowed": allowed, "given": given})


@dataclass
class Open:
    """A container that is being read.

    Attributes:
        value: What is in it so far.
        lines: Where each of its parts stands.
        anchor: What aliases call it.
        key: Of a mapping: the key whose value comes next; None if a key comes next.
        own: Of a mapping: keys that it has itself, and not by `<<`.
        size: Values in it, with aliases written out.
        skips: A fault was found at the key: what comes next is not kept.
    """

    value: Any
    lines: Lines
    anchor: str | None
    key: str | None = None
    own: set[str] = field(default_factory=set)
    size: int = 1
    skips: bool = False


def document_of(text: str) -> Document:
    """Read YAML or JSON; whatever is wrong is in the faults, never raised."""
    found = Document()
    if match := CONTROL.search(text):
        line = text.count("\n", 0, match.start()) + 1
        found.add(line, (), "text without control characters", f"\\x{ord(match.group()):02x}")
        return found
    try:
        Reader(found).read(yaml.parse(as_yaml(text), Loader=LOADER))
    except yaml.YAMLError as error:
        found.faults.append(unreadable(error))
    return found


def as_yaml(text: str) -> str:
    """Write JSON so that a reader of YAML takes it; other text stays as it is.

    Tabs may stand between values of JSON, and one character may be written as two escapes.
    """
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return text
    try:
        json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return text
    return PAIR.sub(lambda m: m[1] or joined(m[2], m[3]), text.replace("\t", " "))


def joined(high: str, low: str) -> str:
    """Return the character that two surrogates stand for."""
    return chr(0x10000 + (int(high, 16) - 0xD800) * 0x400 + (int(low, 16) - 0xDC00))


def unreadable(error: yaml.YAMLError) -> Fault:
    """Say where a text stops being YAML, and what was expected there."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or "unreadable"
    context, begun = getattr(error, "context", None), getattr(error, "context_mark", None)
    about = f" {context} that begins in line {begun.line + 1}" if context and begun else ""
    line = mark.line + 1 if mark else 1
    return {"line": line, "field": "", "allowed": "YAML or JSON", "given": f"{problem}{about}"}


class Reader:
    """Makes values of the events of YAML's parser, without recursion."""

    def __init__(self, found: Document) -> None:
        """Fill this document."""
        self._found = found
        self._open: list[Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._documents = 0

    def read(self, events: Iterator[yaml.Event]) -> None:
        """Read to the end.

        Raises:
            YAMLError: It is no YAML.
        """
        for event in events:
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    self._found.add(line, (), "one document", "another one")
                    return
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                if not self._begin(event, line):
                    return
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end(line)

    def _path(self) -> Iterator[Any]:
        for one in self._open:
            if isinstance(one.value, list):
                yield len(one.value)
            elif one.key is not None:
                yield one.key

    def _fault(self, line: int, allowed: str, given: str) -> None:
        self._found.add(line, list(self._path()), allowed, given)

    def _begin(self, event: yaml.CollectionStartEvent, line: int) -> bool:
        """Open a container; false if it is too deep to go on."""
        if len(self._open) >= MOST_LEVELS:
            self._found.add(line, (), f"at most {MOST_LEVELS} levels", "one more")
            return False
        inside = self._open[-1] if self._open else None
        if inside is not None and isinstance(inside.value, dict) and inside.key is None:
            self._fault(line, "a text as key", "a list or an object")
            inside.key, inside.skips = "", True
        if event.tag not in CONTAINER_TAGS:
            self._fault(line, PLAIN, str(event.tag))
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)
        if inside is not None and isinstance(inside.value, list):
            inside.lines[len(inside.value)] = line
        self._open.append(Open(value, {}, event.anchor))
        return True

    def _end(self, line: int) -> None:
        done = self._open.pop()
        self._found._lines[id(done.value)] = done.lines
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, done.size)
        self._put(done.value, done.size, line)

    def _alias(self, event: yaml.AliasEvent, line: int) -> None:
        name = event.anchor
        if name in self._anchors:
            self._put(*self._anchors[name], line)
            return
        within = any(one.anchor == name for one in self._open)
        given = f"*{name}, which stands within itself" if within else f"*{name}"
        self._fault(line, f"an alias of what stands above it, as &{name}", given)
        self._put(None, 1, line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        inside = self._open[-1] if self._open else None
        if inside is not None and isinstance(inside.value, dict) and inside.key is None:
            self._key(inside, event, line)
            return
        value = self._value(event, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._put(value, 1, line)

    def _key(self, inside: Open, event: yaml.ScalarEvent, line: int) -> None:
        key = event.value
        if key == MERGE and not event.style:
            inside.key = MERGE
            inside.lines.setdefault(MERGE, line)
            return
        inside.key, inside.skips = key, key in inside.own
        if inside.skips:
            first = inside.lines[key]
            self._fault(line, f"a key once: it stands in line {first}, too", cut(key))
        else:
            inside.own.add(key)
            inside.lines[key] = line
        if event.anchor is not None:
            self._anchors[event.anchor] = (key, 1)

    def _value(self, event: yaml.ScalarEvent, line: int) -> Any:
        text, tag = event.value, event.tag
        if tag in TEXT_TAGS or (tag is None and event.style):
            return text
        value = plain_value(text)
        if tag is not None and (tag not in ALLOWED_TAGS or isinstance(value, str)):
            self._fault(line, PLAIN, f"{tag} {shorten(text)}")
        return value

    def _put(self, value: Any, size: int, line: int) -> None:
        """Put a value where it belongs."""
        if not self._open:
            self._found.value = value
            return
        inside = self._open[-1]
        inside.size += size
        if inside.size > VALUES_MOST:
            allowed = f"at most {VALUES_MOST:,} values, with aliases written out"
            self._fault(line, allowed, "more")
            inside.size = 1
            return
        if isinstance(inside.value, list):
            inside.lines.setdefault(len(inside.value), line)
            inside.value.append(value)
            return
        key, inside.key = inside.key, None
        if inside.skips:
            inside.skips = False
        elif key == MERGE and MERGE not in inside.own:
            self._merge(inside, value, line)
        else:
            inside.value[key] = value

    def _merge(self, inside: Open, value: Any, line: int) -> None:
        """Take over what a mapping does not have itself."""
        sources = value if isinstance(value, list) else [value]
        for source in sources:
            if not isinstance(source, dict):
                inside.key = MERGE
                self._fault(line, "an object, or a list of objects", shorten(source))
                inside.key = None
                return
            lines: Mapping[Any, int] = self._found._lines.get(id(source), {})
            for key, taken in source.items():
                if key not in inside.value and key not in inside.own:
                    inside.value[key] = taken
                    inside.lines[key] = lines.get(key, line)


def plain_value(text: str) -> Any:
    """Read a value that stands without quotes, as YAML 1.2's core schema does."""
    if text in NULL:
        return None
    if text in TRUE or text in FALSE:
        return text in TRUE
    if WHOLE.fullmatch(text):
        try:
            return int(text)
        except ValueError:  # more digits than Python reads
            return text
    if NUMBER.fullmatch(text):
        return float(text)
    if SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
