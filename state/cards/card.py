"""Character cards and personas: what of a card a persona is made of, and the way back.

The card is kept whole; a persona takes its fields, and what was changed since is written over those
fields alone. What the card formats do not know of a persona stands in the extension `persona_mcp`.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from pydantic import ValidationError

from persona_mcp.state.cards.fields import Book, Data, read_data
from persona_mcp.state.cards.text import Json, bad_card, parsed
from persona_mcp.state.persona import Example, PersonaSpec

Spec = Literal["v1", "v2", "v3"]
SPECS: dict[str, Spec] = {"chara_card_v2": "v2", "chara_card_v3": "v3"}
VERSIONS = {"v1": "1.0", "v2": "2.0", "v3": "3.0"}
LOREBOOK = "lorebook_v3"
EXTENSION, EXTENSION_VERSION = "persona_mcp", 1
MAPPED = ("name", "description", "tags", "system_prompt")
"""Fields of a persona that stand in fields of a card; the others stand in the extension."""
LINE = 400
NAME, DESCRIPTION, SYSTEM, TAG = 80, 8000, 20000, 40
TAGS, EXAMPLES = 32, 16
START = re.compile(r"<START>", re.IGNORECASE)
SAID = re.compile(r"^\{\{(user|char)\}\}:\s*", re.IGNORECASE | re.MULTILINE)
MACRO = re.compile(r"\{\{(char|user|original)\}\}", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """A character card.

    Attributes:
        spec: Whose shape it has.
        version: As it says.
        text: Its JSON, as it was written.
        data: What of it is understood.
        warnings: What is odd about it.
    """

    spec: Spec
    version: str
    text: str
    data: Data
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardUse:
    """What of a card bears on prompts beside the persona itself.

    Attributes:
        called: What {{char}} stands for; empty for the persona's name.
        after_history: Instructions that stand behind the transcript.
        has_system: Its system prompt stands in place of our instructions.
        greetings: Ways to open a talk, the first one first.
        book: Its lore.
    """

    called: str
    after_history: str
    has_system: bool
    greetings: tuple[str, ...]
    book: Book | None


def read_card(text: str) -> Card:
    """Read the JSON of a card of any version.

    Raises:
        BadSnapshot: It is none, or a field that is understood is of another type.
    """
    document = parsed(text)
    spec, warnings = spec_of(document)
    data = document if spec == "v1" else document.get("data")
    if not isinstance(data, dict):
        raise bad_card("its field data is no object")
    version = document.get("spec_version", VERSIONS[spec])
    if not isinstance(version, str):
        raise bad_card("its field spec_version is no text")
    if spec != "v1" and version > VERSIONS[spec]:
        warnings = [f"its version {version[:20]} is newer than {VERSIONS[spec]}; read as that one"]
    return Card(spec, version[:40], text, read_data(data), tuple(warnings))


def spec_of(document: Json) -> tuple[Spec, list[str]]:
    """Tell whose shape a card has, with a warning if it says of another one.

    Raises:
        BadSnapshot: It is no card.
    """
    said = document.get("spec")
    if said is None and isinstance(document.get("name"), str):
        return "v1", []
    if isinstance(said, str) and said in SPECS:
        return SPECS[said], []
    if said == LOREBOOK:
        raise bad_card("it is a lorebook without a character; put it into a card's character_book")
    if isinstance(said, str) and said.startswith("chara_card_"):
        return "v3", [f"its spec {said[:40]} is not known; read as chara_card_v3"]
    raise bad_card("it has neither a spec of chara_card_v2 or v3, nor a name as V1 has")


def persona_of(card: Card) -> tuple[PersonaSpec, list[str]]:
    """Make a persona of a card, and tell what did not fit.

    Raises:
        BadSnapshot: What stands in its extension is no persona.
    """
    data, warnings = card.data, list(card.warnings)
    own = extension_of(data)
    fields = {
        "name": fitting(data.name, NAME, "name", warnings),
        "description": fitting(described(data), DESCRIPTION, "description", warnings),
        "system_prompt": fitting(data.system_prompt, SYSTEM, "system_prompt", warnings),
        "tags": tags_of(data.tags, warnings),
        "examples": [e.model_dump() for e in examples_of(data.mes_example, warnings)],
        **{name: value for name, value in own.items() if name in PersonaSpec.model_fields},
    }
    fields |= {"name": fields["name"] or "Nameless"}
    if "state" in own:
        warnings.append("its state stays in the card: a persona begins anew; state_load moves one")
    try:
        return PersonaSpec.model_validate(fields), warnings
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise bad_card(f"extensions.{EXTENSION}.{where}: {error.errors()[0]['msg']}") from error


def extension_of(data: Data) -> dict[str, Any]:
    """Return our own extension of a card; empty where there is none.

    Raises:
        BadSnapshot: It is of another version, or no object.
    """
    own = data.extensions.get(EXTENSION)
    if own is None:
        return {}
    if not isinstance(own, dict) or own.get("version") != EXTENSION_VERSION:
        raise bad_card(f"extensions.{EXTENSION} is not of version {EXTENSION_VERSION}")
    return {name: value for name, value in own.items() if name not in MAPPED}


def described(data: Data) -> str:
    """Put together what a card says of who the character is."""
    parts = [
        data.description,
        data.personality and f"Personality: {data.personality}",
        data.scenario and f"Scenario: {data.scenario}",
    ]
    return "\n".join(part for part in parts if part.strip())


def clean(text: str) -> str:
    """Bring a text into our form: NFC, line ends, no control characters, no space around."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc").strip()


def fitting(text: str, most: int, field: str, warnings: list[str]) -> str:
    """Return a text in our form, and no longer than a persona's field takes."""
    text = clean(text)
    if len(text) > most:
        warnings.append(f"{field} has {len(text):,} characters: {most:,} are used, all are kept")
    return text[:most].rstrip()


def tags_of(tags: Sequence[str], warnings: list[str]) -> list[str]:
    """Return the tags that a persona can have."""
    found = list(dict.fromkeys(tag for tag in (clean(one) for one in tags) if 0 < len(tag) <= TAG))
    left = len(set(tags)) - len(found[:TAGS])
    if left > 0:
        warnings.append(f"{left} of its tags are not used: too many, too long or blank")
    return found[:TAGS]


def examples_of(text: str, warnings: list[str]) -> list[Example]:
    """Read example dialogues: a line of the user's and the reply to it."""
    found, left = list[Example](), 0
    for block in START.split(text):
        parts = SAID.split(block)
        said = [
            (who.casefold(), clean(line))
            for who, line in zip(parts[1::2], parts[2::2], strict=True)
        ]
        for (one, line), (other, reply) in pairwise(said):
            if (one, other) != ("user", "char"):
                continue
            if 0 < len(line) <= LINE and 0 < len(reply) <= LINE and len(found) < EXAMPLES:
                found.append(Example(user=line, reply=reply))
            else:
                left += 1
    if left:
        warnings.append(f"{left} of its example dialogues are not used: too many or too long")
    return found


@lru_cache(64)
def use_of(text: str) -> CardUse:
    """Return what of a stored card bears on prompts."""
    data = read_card(text).data
    return CardUse(
        called=clean(data.nickname or ""),
        after_history=clean(data.post_history_instructions),
        has_system=bool(data.system_prompt.strip()),
        greetings=tuple(g for g in map(clean, [data.first_mes, *data.alternate_greetings]) if g),
        book=data.character_book,
    )


def filled_in(text: str, called: str, user: str, original: str = "") -> str:
    """Fill in what {{char}}, {{user}} and {{original}} stand for, in any case."""
    if "{{" not in text:
        return text
    meant = {"char": called, "user": user, "original": original}
    return MACRO.sub(lambda match: meant[match[1].casefold()], text)


def changes_of(spec: PersonaSpec, before: PersonaSpec) -> dict[str, Any]:
    """Return the fields of a persona that are other than those that its card makes."""
    now, then = spec.model_dump(mode="json"), before.model_dump(mode="json")
    return {name: value for name, value in now.items() if value != then[name]}


def written_over(data: Json, changes: Mapping[str, Any], state: Json | None) -> None:
    """Write changes of a persona, and its state, into the data of a card."""
    for name in MAPPED:
        if name in changes:
            data[name] = changes[name]
    if "description" in changes:  # it has these two in it
        data |= {"personality": "", "scenario": ""}
    own = {name: value for name, value in changes.items() if name not in MAPPED}
    if state is not None:
        own["state"] = state
    if own:
        extensions = data.setdefault("extensions", {})
        there = extensions.get(EXTENSION, {})
        extensions[EXTENSION] = {**there, "version": EXTENSION_VERSION, **own}
