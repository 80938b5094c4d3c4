"""Files that carry a character card: JSON, PNG and CHARX, read and written."""

import hashlib
import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from persona_mcp.state.cards import charx, png
from persona_mcp.state.cards.card import (
    Card,
    Spec,
    changes_of,
    persona_of,
    read_card,
    written_over,
)
from persona_mcp.state.cards.text import Json, bad_card, decoded, respelled
from persona_mcp.state.lore import without_decorators
from persona_mcp.state.persona import PersonaSpec

FILE_BYTES = 32 * 2**20
Carrier = Literal["json", "png", "charx"]
Format = Literal["v2", "v3", "same", "png", "charx"]
MIME: dict[Carrier, str] = {
    "json": "application/json",
    "png": "image/png",
    "charx": "application/zip",
}
ZIP_BEGINNINGS = (charx.BEGINNING, b"PK\x05\x06")
INSIDE = ("embeded://", "embedded://")
"""As the specification spells it, and as some write it."""
SPEC_NAMES = {"v2": ("chara_card_v2", "2.0"), "v3": ("chara_card_v3", "3.0")}
BACK_FILL = "This is a V3 card; an application that reads V2 alone does not show all of it.\n\n"
V3_ONLY = ("nickname", "assets", "group_only_greetings", "source", "creator_notes_multilingual")
EMPTY: Json = {
    "name": "",
    "description": "",
    "personality": "",
    "scenario": "",
    "first_mes": "",
    "mes_example": "",
    "creator_notes": "",
    "system_prompt": "",
    "post_history_instructions": "",
    "alternate_greetings": [],
    "tags": [],
    "creator": "",
    "character_version": "",
    "extensions": {},
}
"""The fields that a V2 card must have."""


@dataclass(frozen=True)
class CardFile:
    """A card as it came.

    Attributes:
        card: What it says.
        carrier: What carried it.
        file: All bytes of what carried it; None for JSON, which the card has.
        warnings: What is odd about the file.
    """

    card: Card
    carrier: Carrier
    file: bytes | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """A card as it goes.

    Attributes:
        text: Its JSON.
        data: The bytes of the file.
        mime: What they are.
        warnings: What its readers will not see.
    """

    text: str
    data: bytes
    mime: str
    warnings: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Check sum of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def read_file(raw: bytes) -> CardFile:
    """Read a card, whatever carries it.

    Raises:
        BadSnapshot: It is too large, damaged, no card, or tries what a card never does.
    """
    if len(raw) > FILE_BYTES:
        raise bad_card(f"the file has {len(raw):,} bytes, and {FILE_BYTES:,} are allowed")
    if raw.startswith(png.SIGNATURE):
        return CardFile(read_card(decoded(png.card_of(raw))), "png", raw)
    if raw.startswith(ZIP_BEGINNINGS):
        card = read_card(decoded(charx.card_of(raw)))
        return CardFile(card, "charx", raw, missing_assets(card, charx.names_of(raw)))
    return CardFile(read_card(decoded(raw)), "json", None)


def missing_assets(card: Card, names: set[str]) -> tuple[str, ...]:
    """Tell of assets that a CHARX says to have and has not."""
    paths = [
        asset.uri.removeprefix(scheme)
        for asset in card.data.assets or []
        for scheme in INSIDE
        if asset.uri.startswith(scheme)
    ]
    return tuple(f"the asset {path[:80]} is not in the file" for path in paths if path not in names)


def export_card(
    spec: PersonaSpec,
    kept: CardFile | None,
    wanted: Format,
    changed_at: float = 0.0,
    state: Json | None = None,
) -> Exported:
    """Write a persona as a card; the one that it came from is given back but for what changed.

    Args:
        spec: The persona as it is now.
        kept: The card that it was made from; None for one that has none.
        wanted: v2 or v3 as JSON, or same: as the card came, else v3; or a card in a PNG or CHARX.
        changed_at: When the persona was last changed, in seconds since the epoch, UTC.
        state: Relationships and feelings, which go into our extension.
    """
    carrier: Carrier = "png" if wanted == "png" else "charx" if wanted == "charx" else "json"
    file = kept.file if kept is not None and kept.carrier == carrier else None
    shape: Spec = "v2" if wanted == "v2" else "v3"
    if kept is not None and (file is not None or wanted == "same"):
        shape = kept.card.spec  # as it came
    text = card_text(spec, kept, Changes(shape, changed_at, state))
    warnings = list(kept.warnings) if kept else []
    if shape == "v2" and kept is not None and kept.card.spec == "v3":
        warnings.append(f"V2 has no {', '.join(V3_ONLY)}: kept in the file, not read as V2")
    if carrier == "json":
        data = text.encode()
    elif kept is not None and file is not None and text == kept.card.text:
        data = file
    elif carrier == "charx":
        data = charx.with_card(file, text)
    else:
        cards = {"ccv3": text, "chara": back_fill(text)} if shape == "v3" else {"chara": text}
        data = png.with_cards(file, cards)
    return Exported(text, data, MIME[carrier], tuple(warnings))


@dataclass(frozen=True)
class Changes:
    """How a card is to be other than it is.

    Attributes:
        shape: Whose shape it is to have.
        at: When the persona was last changed, in seconds since the epoch, UTC.
        state: What goes into our extension.
        fields: Fields of the persona that are other than the card's.
    """

    shape: Spec
    at: float = 0.0
    state: Json | None = None
    fields: Json = field(default_factory=dict)


def card_text(spec: PersonaSpec, kept: CardFile | None, how: Changes) -> str:
    """Write the JSON of a card; unchanged it is the same to the byte."""
    if kept is None:
        whole = replace(how, fields=spec.model_dump(mode="json"))
        return json.dumps(made(deepcopy(EMPTY), whole), ensure_ascii=False, indent=2)
    changes = changes_of(spec, persona_of(kept.card)[0])
    if not changes and how.state is None and kept.card.spec == how.shape:
        return kept.card.text
    how = replace(how, fields=changes)

    def change(document: Json) -> Json:
        if kept.card.spec == "v1":
            shape: Spec = "v2" if how.shape == "v1" else how.shape
            return made({**deepcopy(EMPTY), **document}, replace(how, shape=shape))
        return shaped(document, how)

    return respelled(kept.card.text, change)


def made(data: Json, how: Changes) -> Json:
    """Make a card of its data alone."""
    return shaped({"spec": "", "spec_version": "", "data": data}, how)


def shaped(document: Json, how: Changes) -> Json:
    """Bring a card of V2 or V3 into another shape, with changes written over it."""
    data: Json = document["data"]
    if document["spec"] != SPEC_NAMES[how.shape][0]:
        document["spec"], document["spec_version"] = SPEC_NAMES[how.shape]
    if how.shape == "v3":
        data.setdefault("group_only_greetings", [])
        for entry in (data.get("character_book") or {}).get("entries", []):
            entry.setdefault("use_regex", False)
    written_over(data, how.fields, how.state)
    if how.shape == "v3" and (how.fields or how.state is not None):
        data["modification_date"] = int(how.at)
    return document


def back_fill(text: str) -> str:
    """Write the V2 card that stands beside a V3 card for older readers."""

    def change(document: Json) -> Json:
        found = shaped(document, Changes("v2"))
        data: dict[str, Any] = found["data"]
        data["creator_notes"] = BACK_FILL + str(data.get("creator_notes", ""))
        for entry in (data.get("character_book") or {}).get("entries", []):
            entry["content"] = without_decorators(entry.get("content", ""))
        return found

    return respelled(text, change)
