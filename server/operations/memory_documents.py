"""Operations that carry memories in and out: documents and exports."""

import asyncio
import base64
import hashlib
import time
from typing import Annotated

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.memories import PERSONA, Visibility
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import WHOLE, Id, Reference, Text, clean_text
from persona_mcp.state.ids import derived_id
from persona_mcp.state.memory.changes import CHUNK_WORDS, Imported
from persona_mcp.state.memory.documents import DOCUMENT_BYTES, Part, split
from persona_mcp.state.memory.export import Format, read_page, written
from persona_mcp.state.memory.importance import ImportanceParams, Occasion, importance, interests_of
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.persona import Persona
from persona_mcp.state.validation import shorten

BASE64_CHARS = (DOCUMENT_BYTES + 2) // 3 * 4
MOST_PARTS = 10_000
"""Of a document; more would hold up other writers for seconds."""
TITLE_CHARS = 80
"""Of a title that is taken from the document."""
PAGE_BYTES = 4 * 1024 * 1024
"""Of an export; the memory that goes beyond it is the page's last."""
BYTE_ORDER_MARK = "\ufeff"


class MemoryImportArguments(Arguments):
    """Arguments of memory_import."""

    persona_id: Reference | None = Field(
        None, description="Who is told: id or name, from persona_list"
    )
    text: Annotated[Text, Field(min_length=1, max_length=1_000_000)] | None = Field(
        None, description="The document, plain or Markdown; or give data"
    )
    data: Annotated[Text, Field(min_length=1, max_length=BASE64_CHARS)] | None = Field(
        None, description="The document as base64 of UTF-8, in place of text; at most 4 MiB"
    )
    title: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="What it is called; left out: its first heading, else its first words"
    )
    visibility: Visibility = Field(
        "private", description="Who may know it: private, shared, public"
    )
    chunk_words: Annotated[int, Field(ge=40, le=400), WHOLE] = Field(
        120, description="Words of a memory, at most"
    )
    dry_run: bool = Field(False, description="Only tell what would be stored")


class MemoryImport(Result):
    """Result of memory_import."""

    memory_ids: list[str] = Field(description="Of the whole document, in its order")
    count: int
    stored: int = Field(description="New ones; in a dry run, those that would be new")
    already_there: int = Field(description="From an earlier import; they stay as they are")
    archived: int = Field(description="Of those: archived; memory_update restores them")
    title: str
    dry_run: bool
    message: str


@operation("Import a document", "memory", "manage", core=False, idempotent=True)
async def memory_import(call: Call, arguments: MemoryImportArguments) -> MemoryImport:
    """Tell a persona a whole document, plain text or Markdown, that it is to remember.

    It is split at headings and paragraphs; each part is a memory of type fact that knows its title,
    headings and place. The same document again stores nothing twice.
    """
    persona = await current_persona(call, arguments.persona_id)
    weights = call.store.laws.importance
    # In a thread: large documents take seconds.
    title, parts = await asyncio.to_thread(memories_of, call.world_id, persona, arguments, weights)
    done = await call.store.memory_changes.put_in(
        call.world_id, parts, arguments.dry_run, time.time()
    )
    call.store.wake()
    return MemoryImport(
        memory_ids=[part.id for part in parts],
        count=len(parts),
        stored=len(done.stored),
        already_there=len(done.known),
        archived=len(done.archived),
        title=title,
        dry_run=arguments.dry_run,
        message=in_words(done, arguments.dry_run),
    )


def memories_of(
    world_id: str, persona: Persona, arguments: MemoryImportArguments, weights: ImportanceParams
) -> tuple[str, list[NewMemory]]:
    """Split a document into memories, whose ids are the same for the same document.

    Returns:
        Its title, and the memories in order.

    Raises:
        InvalidParams: There is no document, or two, or it cannot be read or is too long.
    """
    text = document_of(arguments)
    parts = split(text, arguments.chunk_words)
    if len(parts) > MOST_PARTS:
        allowed = f"as many as leave at most {MOST_PARTS} parts; or import it in pieces"
        raise InvalidParams.one(
            "chunk_words", allowed, f"{arguments.chunk_words}, which gives {len(parts)}"
        )
    title = arguments.title or title_of(parts)
    key = derived_id(
        *(world_id, "memory_import", persona.id, title), hashlib.sha256(text.encode()).hexdigest()
    )
    own = interests_of(persona.spec.topic_preferences, persona.spec.personality_traits)
    fact = Occasion(memory_type="fact")
    found = []
    for number, part in enumerate(parts, 1):
        weighed = importance(part.text, own, None, fact, weights)
        place = {"part": number, "parts": len(parts), CHUNK_WORDS: arguments.chunk_words}
        found.append(
            NewMemory(
                id=derived_id(key, number),
                persona_id=persona.id,
                content=part.text,
                importance=weighed.value,
                importance_terms=dict(weighed.terms),
                memory_type="fact",
                visibility=arguments.visibility,
                details={"title": title, "headings": list(part.headings), **place},
                heading=" > ".join(dict.fromkeys((title, *filter(None, part.headings)))),
            )
        )
    return title, found


def document_of(arguments: MemoryImportArguments) -> str:
    """Return the text of a document.

    Raises:
        InvalidParams: There is none, or two, or it is no text.
    """
    text, data = arguments.text, arguments.data
    if text is not None and data is None:
        return text
    if data is not None and text is None:
        return decoded(data)
    raise InvalidParams.one("text", "one of text and data", "neither" if text is None else "both")


def decoded(data: str) -> str:
    """Read a document that was sent as base64.

    Raises:
        InvalidParams: It is not base64, not UTF-8, too long, binary, or blank.
    """
    try:
        raw = base64.b64decode("".join(data.split()), validate=True)
    except ValueError:  # binascii.Error is one
        raise InvalidParams.one("data", "base64, as RFC 4648 has it", shorten(data)) from None
    if len(raw) > DOCUMENT_BYTES:
        raise InvalidParams.one("data", f"at most {DOCUMENT_BYTES} bytes", f"{len(raw)} bytes")
    try:
        text = raw.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
        cleaned = clean_text(text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n"))
    except UnicodeDecodeError as error:
        given = f"another byte at {error.start}"
        raise InvalidParams.one("data", "text in UTF-8", given) from None
    except ValueError as error:
        raise InvalidParams.one("data", str(error), "binary data") from None
    if not cleaned:
        raise InvalidParams.one("data", "text that is not blank", "nothing")
    return str(cleaned)


def title_of(parts: list[Part]) -> str:
    """Take a title from a document: its first heading, else its first words."""
    first = parts[0]
    named = next((part.headings[0] for part in parts if part.headings), "")
    return named or first.text.split("\n")[0][:TITLE_CHARS].strip()


def in_words(done: Imported, dry_run: bool) -> str:
    """Say what an import did."""
    count = len(done.stored)
    parts, were = ("part", "was") if count == 1 else ("parts", "were")
    new = f"{count} {parts} {'would be' if dry_run else were} stored"
    if not done.known:
        return new
    known = f"{len(done.known)} were there already and stay as they are"
    hidden = f", {len(done.archived)} of them archived" if done.archived else ""
    return f"{new}; {known}{hidden}"


class MemoryExportArguments(Arguments):
    """Arguments of memory_export."""

    persona_id: Reference | None = Field(None, description=PERSONA)
    format: Format = Field("jsonl", description="json, jsonl (an object a line) or csv")
    include_archived: bool = Field(False, description="What was archived, too")
    limit: Annotated[int, Field(ge=1, le=10_000), WHOLE] = Field(
        1000, description="Memories a page, at most; a page also ends after 4 MiB"
    )
    cursor: Id | None = Field(None, description="next_cursor of the page before")


class MemoryExport(Result):
    """Result of memory_export."""

    persona_id: str
    format: Format
    data: str = Field(description="This page; of csv, only the first names the columns")
    count: int = Field(description="Memories on this page")
    total_count: int = Field(description="Memories on all pages")
    sha256: str = Field(description="Of data as UTF-8")
    truncated: bool = Field(description="There are more: call again with next_cursor")
    next_cursor: str | None


@operation("Export memories", "memory", "manage", core=False, reads=True)
async def memory_export(call: Call, arguments: MemoryExportArguments) -> MemoryExport:
    """Write a persona's own memories out whole, oldest first, with everything but their vectors.

    Many memories come in pages, each of which can be read by itself. Cells of CSV that a
    spreadsheet would take for a formula begin with a quote.
    """
    persona = await current_persona(call, arguments.persona_id)
    after = arguments.cursor
    page = await read_page(
        call.store.database,
        *(call.world_id, persona.id, arguments.include_archived, after, arguments.limit),
    )
    data, count = await asyncio.to_thread(
        written, page.records, arguments.format, after is None, PAGE_BYTES
    )
    more = page.more or count < len(page.records)
    return MemoryExport(
        persona_id=persona.id,
        format=arguments.format,
        data=data,
        count=count,
        total_count=page.total,
        sha256=hashlib.sha256(data.encode()).hexdigest(),
        truncated=more,
        next_cursor=page.ids[count - 1] if more else None,
    )
