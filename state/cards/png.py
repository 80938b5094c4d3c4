"""PNG files that carry a character card in a text chunk; every other byte of them is kept.

Source: PNG Specification, third edition (chunks, tEXt, zTXt, iTXt); the keywords `chara` and
`ccv3` are those of the card specifications V2 and V3.
"""

import base64
import binascii
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from persona_mcp.state.cards.text import JSON_BYTES, bad_card

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORDS = ("ccv3", "chara")
"""Where both stand, the first counts: the other is a copy for older readers."""
CHUNKS = 8192
FRAME = 12
"""Bytes of a chunk beside its data: length, type and check sum."""
TEXT_BYTES = JSON_BYTES * 4 // 3 + 4
WIDTH, HEIGHT, SHADE = 256, 384, b"\x4a\x52\x66"


class Chunk(NamedTuple):
    """A chunk of a PNG file.

    Attributes:
        kind: Its type.
        data: What it holds.
        raw: All of its bytes.
    """

    kind: bytes
    data: bytes
    raw: bytes

    @property
    def keyword(self) -> str:
        """What a text chunk is about; empty for others."""
        if self.kind not in (b"tEXt", b"zTXt", b"iTXt"):
            return ""
        return self.data.partition(b"\0")[0].decode("latin-1")


def card_of(file: bytes) -> bytes:
    """Return the JSON of the card that a PNG carries.

    Raises:
        BadSnapshot: It is no whole PNG, or carries no card.
    """
    there = {chunk.keyword: chunk for chunk in chunks_of(file)[0]}
    chunk = next((there[keyword] for keyword in KEYWORDS if keyword in there), None)
    if chunk is None:
        raise bad_card("the picture carries no card: no text chunk chara or ccv3")
    try:
        return base64.b64decode(text_of(chunk), validate=True)
    except binascii.Error as error:
        raise bad_card(f"its chunk {chunk.keyword} is no base64") from error


def with_cards(file: bytes | None, cards: Mapping[str, str]) -> bytes:
    """Put cards, by their keywords, into a PNG in place of those that it carries.

    Args:
        file: The picture; None for a plain one.
        cards: Their JSON.
    """
    chunks, rest = chunks_of(file or plain_picture())
    kept = [chunk.raw for chunk in chunks if chunk.keyword not in KEYWORDS]
    texts = [
        chunk_bytes(b"tEXt", keyword.encode() + b"\0" + base64.b64encode(card.encode()))
        for keyword, card in cards.items()
    ]
    return b"".join([SIGNATURE, *kept[:-1], *texts, kept[-1], rest])


def chunks_of(file: bytes) -> tuple[list[Chunk], bytes]:
    """Take a PNG apart: its chunks, and what stands behind the last one.

    Raises:
        BadSnapshot: A chunk is cut off or damaged, the first or the last is missing, or there are
            too many.
    """
    if not file.startswith(SIGNATURE):
        raise bad_card("it is no PNG")
    found: list[Chunk] = []
    at = len(SIGNATURE)
    while not found or found[-1].kind != b"IEND":
        if len(found) == CHUNKS:
            raise bad_card(f"the PNG has more than {CHUNKS:,} chunks")
        if at + FRAME > len(file):
            raise bad_card("the PNG is cut off")
        length, kind = struct.unpack_from(">I4s", file, at)
        end = at + FRAME + length
        if end > len(file):
            raise bad_card(f"the PNG is cut off, or its chunk {kind!r} has a wrong length")
        raw = file[at:end]
        if zlib.crc32(raw[4:-4]) != int.from_bytes(raw[-4:], "big"):
            raise bad_card(f"the chunk {kind!r} of the PNG is damaged: its check sum is wrong")
        if not found and kind != b"IHDR":
            raise bad_card("the PNG does not begin with its header")
        found.append(Chunk(kind, raw[8:-4], raw))
        at = end
    return found, file[at:]


def text_of(chunk: Chunk) -> bytes:
    """Return the text of a text chunk, unpacked.

    Raises:
        BadSnapshot: It cannot be unpacked, or is too large.
    """
    text = chunk.data.partition(b"\0")[2]
    packed = chunk.kind == b"zTXt"
    if packed:
        text = text[1:]
    elif chunk.kind == b"iTXt":
        packed = text[:1] == b"\1"
        text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed:
        unpack = zlib.decompressobj()
        try:
            text = unpack.decompress(text, TEXT_BYTES + 1)
        except zlib.error as error:
            raise bad_card(f"its chunk {chunk.keyword} cannot be unpacked") from error
    if len(text) > TEXT_BYTES:
        raise bad_card(f"its chunk {chunk.keyword} is too large: {JSON_BYTES:,} bytes are allowed")
    return text


def chunk_bytes(kind: bytes, data: bytes) -> bytes:
    """Write a chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def plain_picture() -> bytes:
    """Draw a plain picture, for a card that has none."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + SHADE * WIDTH) * HEIGHT, 9)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk_bytes(kind, data) for kind, data in chunks)
