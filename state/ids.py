"""Names of things: random where somebody could guess, derived where a write may be repeated."""

import re
import time
import unicodedata
import uuid
from hashlib import sha1

NAMESPACE = uuid.UUID("6f1d1c0e-8c1f-5c0a-9a43-7f0f6a5b2d11")
VARIANT = str.maketrans("0123456789abcdef", 4 * "89ab")
"""The digit of a UUID whose two highest bits are 10."""
ID_LENGTH = 64
TIME_DIGITS = 12
"""Of an id that begins with its time, in milliseconds since the epoch."""
NS_PER_MS = 1_000_000
NAME_TAIL = 8
"""Room that is left behind a name for a number."""


def new_id() -> str:
    """Return a random id: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def timed_id() -> str:
    """Return a random id that sorts by when it was made, so rows lie in an index as they came.

    Then a write changes a few pages of each index, and not one for each row. Source: UUID version 7
    of RFC 9562, of which 74 bits are random.
    """
    return f"{time.time_ns() // NS_PER_MS:0{TIME_DIGITS}x}7{uuid.uuid4().hex[TIME_DIGITS + 1 :]}"


def id_within(world_id: str, exchange_id: str, *parts: str | int) -> str:
    """Return the derived id of a part of an exchange: one made of a `timed_id` lies beside it."""
    digits = derived_id(world_id, exchange_id, *parts)
    if len(exchange_id) == len(digits) and exchange_id[TIME_DIGITS] == "7":
        return exchange_id[:TIME_DIGITS] + digits[TIME_DIGITS:]
    return digits


def derived_id(*parts: str | int) -> str:
    """Return the same 32 hexadecimal digits for the same parts: a repeated write finds its row.

    They are those of `uuid.uuid5`, which takes three times as long: a turn makes a dozen.
    """
    name = "\x1f".join(map(str, parts)).encode()
    digits = sha1(NAMESPACE.bytes + name, usedforsecurity=False).hexdigest()
    return f"{digits[:12]}5{digits[13:16]}{digits[16].translate(VARIANT)}{digits[17:32]}"


def thread_id(world_id: str, conversation_id: str) -> str:
    """Return the checkpoint thread of a conversation; LangGraph's server asks for a UUID."""
    return str(uuid.uuid5(NAMESPACE, f"thread\x1f{world_id}\x1f{conversation_id}"))


def id_from_name(name: str) -> str:
    """Make an id of a name: ASCII letters and digits, the rest dashes; random if none is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    return slug[: ID_LENGTH - NAME_TAIL] or new_id()


def name_key(name: str) -> str:
    """Return what two names share when they are the same name: NFC and casefolded."""
    return unicodedata.normalize("NFC", name.strip()).casefold()
