"""The pages below docs/reference: every operation with what it takes, returns and refuses.

Examples and errors are real: they come from calls in the small world of `reference_world`. What is
another each time is written by a stand-in (`Shown`).
"""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import Operation
from persona_mcp.server.reference_world import Played, played_here
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.rpc_methods import method_of
from persona_mcp.state.validation import in_words, resolve

FOLDER = "docs/reference"
INDEX = f"{FOLDER}/README.md"
DECIMALS = 3
MEASURED = re.compile(r"(processing_time|uptime_seconds|bytes|took_s|age_s|(?<!wait)_ms)$")
"""Fields that say how long something took, or how long it is with the times in it."""
OTHER_CLOCK = re.compile(r"\b(?!2026-01-)20\d\d-\d\d-\d\dT[\d:.]+Z")
"""A time of a clock that does not stand still: LangGraph's, of its checkpoints."""
FILE = re.compile(r"[A-Za-z0-9+/=]{200,}")
METRICS = "# HELP"
"""Begins the text of metrics; of which only the lines that begin so are the same each time."""
DISK = re.compile(r"[\d.]+ of [\d.]+ GB")
RANDOM = re.compile(r"\b(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
EVERYWHERE = ("world_id", "session_id", "request_id")
"""Parameters that many operations have; what they are is said once."""
HEAD = """\
# Reference

Made from the registry of operations by `make docs`; do not edit.

Every operation is the same through every door: as an MCP tool, as `POST` with a JSON object, and as
a method of JSON-RPC over WebSocket. [http.md](../http.md) has the doors, and every error with its
numbers. `persona tools` prints this table, `persona tools NAME` one operation.

The examples are real calls in a small world with the bundled personas, in which Aria was told of a
red boat, Kira knows of a ferry, and the two met once. In the answers random ids are written `id-1`,
`id-2` in the order in which they come, check sums as `digest`, times that a call took and lengths
of files as 0; the numbers of a disk and of metrics are made up or left out, and others have three
decimals, where the doors give six.

Three parameters mean the same wherever they are taken:

{everywhere}

What every operation can refuse: `invalid_params` (an argument is missing, of the wrong kind, out of
range or unknown: the error names the field, what is allowed and what was given), `not_found` (the
world or the session is not there), `memory_error` (the database does not answer; nothing was
changed) and `internal_error` (a defect of ours; the log has the cause). The lists below have what
else there is, each with a message that a call really got.
"""


def toolsets() -> list[str]:
    """Return the toolsets in the order in which the registry has them."""
    return list(dict.fromkeys(str(o.toolset) for o in operations("all")))


def page_of(toolset: str) -> str:
    """Return the path of a toolset's page below the root of the project."""
    return f"{FOLDER}/{toolset}.md"


@cache
def examples() -> dict[str, Played]:
    """Run the examples, once in this process."""
    return asyncio.run(played_here())


def index_page() -> str:
    """Write the page that names all operations."""
    rows = ["| operation | toolset | scope | core | title |", "|---|---|---|---|---|"]
    for o in operations("all"):
        link = f"[`{o.name}`]({o.toolset}.md#{o.name})"
        rows.append(f"| {link} | {o.toolset} | {o.scope} | {'yes' if o.core else ''} | {o.title} |")
    schemas = [o.input_schema for o in operations("all")]
    having = (next(s for s in schemas if field in s["properties"]) for field in EVERYWHERE)
    shared = (row_of(field, schema) for field, schema in zip(EVERYWHERE, having, strict=True))
    return "\n".join([HEAD.format(everywhere="\n".join([*TAKES, *shared])), *rows, ""])


def toolset_page(toolset: str) -> str:
    """Write the page of a toolset."""
    its = [o for o in operations("all") if o.toolset == toolset]
    head = (
        f"# Operations: {toolset}\n\nMade from the registry by `make docs`; do not edit. "
        "[What is common to all operations](README.md).\n"
    )
    return "\n".join([head, *(section(o, examples()[o.name]) for o in its)])


def section(operation: Operation, played: Played) -> str:
    """Write what there is to know of one operation."""
    shown = Shown()
    arguments, answer = shown(played.arguments), shown(played.answer)
    return "\n\n".join(
        [
            f"## {operation.name}",
            f"**{operation.title}.** {operation.description}",
            f"`POST {PREFIX}{path_of(operation.name)}`, method `{method_of(operation.name)}`; "
            f"{', '.join(facts(operation))}.",
            parameters(operation),
            result(operation),
            errors(played),
            f"Example, the arguments and the result:\n\n{block(arguments)}",
            f"{block(answer.get('result', answer))}\n",
        ]
    )


def facts(operation: Operation) -> Iterator[str]:
    """Say what a caller must be allowed, and what a call may do."""
    yield f"scope `{operation.scope}`"
    yield "core toolset" if operation.core else "not in the core toolset"
    if operation.read_only:
        yield "changes nothing"
    if operation.destructive:
        yield "can take something away for good"
    if operation.idempotent and not operation.read_only:
        yield "the same call again changes nothing more"
    if operation.open_world:
        yield "asks the model"


TAKES = ("| parameter | allowed | left out | meaning |", "|---|---|---|---|")
RETURNS = ("| result | value | meaning |", "|---|---|---|")


def parameters(operation: Operation) -> str:
    """Write the table of parameters, but for those that are everywhere."""
    schema = operation.input_schema
    own = [field for field in schema["properties"] if field not in EVERYWHERE]
    also = [f"`{field}`" for field in EVERYWHERE if field in schema["properties"]]
    table = [*TAKES, *(row_of(field, schema) for field in own)] if own else []
    return "\n".join([*table, "" if own else "Takes nothing of its own.", f"Also {listed(also)}."])


def row_of(field: str, root: dict[str, Any]) -> str:
    """Write the line of a parameter."""
    schema = root["properties"][field]
    allowed = in_words(resolve(schema, root), root)
    if field in root.get("required", []):
        default = "required"
    else:
        value = schema.get("default")
        default = "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"
    return line(f"`{field}`", allowed, default, schema.get("description", ""))


def result(operation: Operation) -> str:
    """Write the table of the result's fields, those of its parts below them."""
    return "\n".join([*RETURNS, *fields_of(operation.output_schema, operation.output_schema, "")])


def fields_of(schema: dict[str, Any], root: dict[str, Any], path: str) -> Iterator[str]:
    """Write a line for each field of an object, then those of the objects in it."""
    for name, member in schema.get("properties", {}).items():
        found = dict(resolve(member, root))
        null = any(branch.get("type") == "null" for branch in member.get("anyOf", ()))
        value = in_words(found, root) + (" or null" if null else "")
        yield line(f"`{path}{name}`", value, member.get("description", ""))
        items = dict(resolve(found.get("items", {}), root))
        if "properties" in items:
            yield from fields_of(items, root, f"{path}{name}[].")
        elif "properties" in found:
            yield from fields_of(found, root, f"{path}{name}.")


def errors(played: Played) -> str:
    """List the errors that wrong calls of the operation got, one of each kind."""
    told: dict[str, str] = {}
    for _, answer in played.refused:
        error = Shown()(answer.get("error"))
        if error is not None:
            told.setdefault(error["data"]["code"], error["message"])
    if not told:
        return "Refuses nothing beside what every operation does."
    return "Refuses:\n\n" + "\n".join(f"- `{code}`: {said}" for code, said in told.items())


def line(*cells: str) -> str:
    """Write a line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def listed(words: list[str]) -> str:
    """Write `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def block(value: Any) -> str:
    """Write JSON as a block of code."""
    return f"```json\n{json.dumps(value, ensure_ascii=False, indent=2)}\n```"


class Shown:
    """Writes a stand-in for what is another each time; the same thing by the same one."""

    def __init__(self) -> None:
        """Begin to count."""
        self._ids: dict[str, str] = {}

    def __call__(self, value: Any, field: str = "") -> Any:
        """Return a value as the page has it."""
        if isinstance(value, dict):
            return {key: self(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item, field) for item in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float) and MEASURED.search(field):
            return type(value)(0)
        if isinstance(value, float):
            return round(value, DECIMALS) + 0.0
        return value

    def _text(self, text: str) -> str:
        if text.startswith(METRICS):
            text = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(METRICS))
        plain = DISK.sub("100.0 of 200.0 GB", DIGEST.sub("digest", text))
        plain = OTHER_CLOCK.sub("2026-01-01T12:00:00Z", FILE.sub("a file in base64", plain))
        return RANDOM.sub(self._stand_in, plain)

    def _stand_in(self, found: re.Match[str]) -> str:
        return self._ids.setdefault(found[0], f"id-{len(self._ids) + 1}")


PAGES = {INDEX: index_page} | {page_of(t): partial(toolset_page, t) for t in toolsets()}
"""Every page, by what writes it."""
