"""Documents split into parts that are each worth a memory: at headings, paragraphs, sentences.

A part is a stretch of the text, and the parts cover all of it, so no word is lost and none moves.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

DOCUMENT_BYTES = 4 * 1024 * 1024
"""Of a document, at most."""
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]{1,2}|[^\s\u3040-\u30ff\u3400-\u9fff]{1,64}")
"""What is counted: text without spaces would be one word, however long, so it counts in pieces."""
SENTENCE_END = re.compile(
    r"(?<=[.!?\u2026])[\"'\u2019\u201d)\]]{0,3}(?=\s)|[\u3002\uff01\uff1f]|\n"
)
HEADING = re.compile(r" {0,3}(#{1,6})(?=\s|$)")
CLOSING = re.compile(r"(?<=\s)#+$")
UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
TITLE_CHARS = 60
"""Of a heading, as it is kept beside a part."""


@dataclass(frozen=True)
class Block:
    """A heading or a paragraph, with blank lines around it.

    Attributes:
        start: Where it begins.
        end: Where the next one begins.
        level: Of a heading, 1..6; 0 for a paragraph.
        title: Of a heading, shortened.
    """

    start: int
    end: int
    level: int = 0
    title: str = ""


@dataclass(frozen=True)
class Part:
    """A part of a document.

    Attributes:
        text: As it stands in the document, headings too, without space at its ends.
        headings: Under which it stands, the outermost first.
    """

    text: str
    headings: tuple[str, ...]


def split(text: str, most_words: int) -> list[Part]:
    """Split a text, Markdown or plain, into parts in their order.

    A heading begins a new part; paragraphs under one heading are put together as long as they fit.
    What does not fit by itself is cut at ends of sentences, else between words.

    Args:
        text: Lines end with a newline.
        most_words: Of a part, >= 1; words of more than 64 characters count as several.
    """
    parts: list[Part] = []
    path: dict[int, str] = {}
    start, held, body = 0, 0, False

    def close(end: int) -> None:
        nonlocal start, held, body
        if written := text[start:end].strip():
            parts.append(Part(written, tuple(path[level] for level in sorted(path))))
        start, held, body = end, 0, False

    for block in blocks(text):
        if block.level:
            if body:
                close(block.start)
            path = {level: title for level, title in path.items() if level < block.level}
            path[block.level] = block.title
        for begin, words in pieces(text, block, most_words):
            if held + words > most_words:
                close(begin)
            held += words
        body = not block.level
    close(len(text))
    return parts


def pieces(text: str, block: Block, most_words: int) -> Iterator[tuple[int, int]]:
    """Cut a block into the pieces that parts are put together from.

    Returns:
        Of each piece, where it begins and how many words it has, 1..most_words.
    """
    words = [found.start() for found in WORD.finditer(text, block.start, block.end)]
    if len(words) <= most_words:
        if words:
            yield words[0], len(words)
        return
    ends = [found.end() for found in SENTENCE_END.finditer(text, block.start, block.end)]
    firsts = sorted({0, *(bisect_left(words, end) for end in ends), len(words)})
    for first, next_first in pairwise(firsts):
        yield from cut(words[first:next_first], most_words)


def cut(words: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Cut a sentence into pieces of at most so many words."""
    for first in range(0, len(words), most):
        yield words[first], len(words[first : first + most])


def blocks(text: str) -> Iterator[Block]:
    """Cut a text into headings and paragraphs, in order; between them are blank lines alone.

    Headings are those of Markdown, with `#` or underlined; between fences there are none.
    """
    lines = list(lines_of(text))
    fence, start, blank = "", 0, True
    found: list[Block] = []

    def close(end: int, level: int = 0, title: str = "") -> None:
        nonlocal start
        if text[start:end].strip():
            found.append(Block(start, end, level, title.strip()[:TITLE_CHARS]))
        start = end

    for at, (begin, end, line) in enumerate(lines):
        marks = FENCE.match(line)
        if fence:
            if marks and marks[1].startswith(fence):
                fence = ""
        elif marks:
            fence = marks[1]
        elif heading := HEADING.match(line):
            close(begin)
            close(end, len(heading[1]), CLOSING.sub("", line[heading.end() :].rstrip()))
        elif at and (under := UNDERLINE.fullmatch(line)) and is_title(lines, at - 1):
            close(lines[at - 1][0])
            close(end, 1 if "=" in under[1] else 2, lines[at - 1][2])
        elif blank and line.strip():
            close(begin)
        blank = not line.strip()
    close(len(text))
    yield from found


def is_title(lines: Sequence[tuple[int, int, str]], at: int) -> bool:
    """Tell whether a line stands alone and is no heading already: one below can underline it."""
    line = lines[at][2]
    alone = at == 0 or not lines[at - 1][2].strip()
    return alone and bool(line.strip()) and not (HEADING.match(line) or FENCE.match(line))


def lines_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Return each line: where it begins, where the next begins, and what it says."""
    start = 0
    for line in text.split("\n"):
        end = min(start + len(line) + 1, len(text))
        yield start, end, line
        start = end
