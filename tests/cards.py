"""Character cards for tests, with all that the specifications know, and more."""

import base64
import io
import json
import zipfile
import zlib
from typing import Any

from persona_mcp.state.cards import png as card_png

BOOK: dict[str, Any] = {
    "name": "Harbour",
    "scan_depth": 3,
    "token_budget": 200,
    "recursive_scanning": False,
    "extensions": {"somebody": {"deep": [1, {"x": 0.1234567891}]}},
    "entries": [
        {
            "keys": ["lighthouse"],
            "content": "@@depth 4\nThe lighthouse of {{char}} has been dark since the war.",
            "extensions": {"weight": 1.50},
            "enabled": True,
            "insertion_order": 10,
            "use_regex": False,
            "name": "light",
            "id": "e-1",
            "position": "after_char",
        },
        {
            "keys": ["sea", "ship"],
            "secondary_keys": ["storm"],
            "selective": True,
            "content": "Nobody sails in November.",
            "extensions": {},
            "enabled": True,
            "insertion_order": 5,
            "use_regex": False,
            "position": "before_char",
        },
    ],
}
DATA: dict[str, Any] = {
    "name": "Mira Holm",
    "description": "{{char}} keeps the lighthouse.",
    "personality": "dry, patient",
    "scenario": "{{user}} has come by boat.",
    "first_mes": "You are late, {{user}}.",
    "mes_example": "<START>\n{{user}}: Is it cold?\n{{char}}: Only for guests.",
    "creator_notes": "SECRET-NOTES",
    "system_prompt": "Write as a novelist would. {{original}}",
    "post_history_instructions": "Keep {{char}} in the present tense.",
    "alternate_greetings": ["The door is open."],
    "character_book": BOOK,
    "tags": ["sea", "quiet"],
    "creator": "SECRET-CREATOR",
    "character_version": "1.10",
    "extensions": {"elsewhere/app": {"kept": True, "numbers": [1.0, 1e3, -0.0]}},
}
V1 = {name: DATA[name] for name in ("name", "description", "personality", "scenario")} | {
    "first_mes": DATA["first_mes"],
    "mes_example": DATA["mes_example"],
    "metadata": {"tool": "old"},
}
V2 = {"spec": "chara_card_v2", "spec_version": "2.0", "data": DATA, "unknown": ["at", "the root"]}
V3 = {
    "spec": "chara_card_v3",
    "spec_version": "3.0",
    "data": {
        **DATA,
        "nickname": "Mir",
        "group_only_greetings": [],
        "creation_date": 1700000000,
        "source": ["somewhere"],
        "creator_notes_multilingual": {"de": "Notizen"},
        "assets": [
            {"type": "icon", "uri": "embeded://assets/icon/images/main.png", "name": "main"}
            | {"ext": "png"},
            {"type": "x-unknown", "uri": "https://example.org/a", "name": "a", "ext": "bin"},
        ],
    },
}
SPELLED = (
    '{"spec": "chara_card_v3",\n "spec_version": "3.0", "data": {"name": "Mira Holm", "tags": [],\n'
    ' "extensions": {"n": [1.50, 1E+2, -0, 12345678901234567890123, 0.10]},\n'
    ' "group_only_greetings": [], "zeta": 1, "alpha": 2}}'
)


def as_json(card: dict[str, Any]) -> bytes:
    return json.dumps(card, ensure_ascii=False).encode()


def as_png(*cards: tuple[str, dict[str, Any]], kind: bytes = b"tEXt") -> bytes:
    """Make a PNG that carries cards, with a private chunk and bytes behind its end."""
    picture = card_png.plain_picture()
    end = picture[-12:]
    texts = [text_chunk(keyword, as_json(card), kind) for keyword, card in cards]
    private = card_png.chunk_bytes(b"prVt", b"\x00\x01private")
    return picture[:-12] + private + b"".join(texts) + end + b"tail"


def text_chunk(keyword: str, card: bytes, kind: bytes = b"tEXt") -> bytes:
    """Make a chunk of a kind of text that carries a card."""
    value = base64.b64encode(card)
    if kind == b"zTXt":
        value = b"\0" + zlib.compress(value)
    elif kind == b"iTXt":
        value = b"\1\0en\0title\0" + zlib.compress(value)
    return card_png.chunk_bytes(kind, keyword.encode() + b"\0" + value)


def as_charx(card: dict[str, Any] | bytes, more: dict[str, bytes] | None = None) -> bytes:
    """Make a CHARX with an icon and another JSON file beside the card."""
    made = io.BytesIO()
    inside = {"assets/icon/images/main.png": b"\x89PNG", "module.json": b'{"a": 1}'}
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.json", card if isinstance(card, bytes) else as_json(card))
        for name, data in {**inside, **(more or {})}.items():
            archive.writestr(name, data)
    return made.getvalue()
