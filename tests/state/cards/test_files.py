"""Character cards and what carries them: nothing lost on the way, and nothing hostile let in."""

import base64
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from persona_mcp.state.cards import charx as card_charx
from persona_mcp.state.cards import png as card_png
from persona_mcp.state.cards.card import persona_of
from persona_mcp.state.cards.files import FILE_BYTES, Format, export_card, read_file
from persona_mcp.state.cards.text import JSON_BYTES
from persona_mcp.state.errors import BadSnapshot
from persona_mcp.state.persona import PersonaSpec
from tests.cards import SPELLED, V1, V2, V3, as_charx, as_json, as_png, text_chunk

CARRIED: dict[str, tuple[bytes, Format, dict[str, Any]]] = {
    "V2 JSON": (as_json(V2), "v2", V2),
    "V3 JSON": (as_json(V3), "v3", V3),
    "V2 PNG": (as_png(("chara", V2)), "png", V2),
    "V3 PNG": (as_png(("ccv3", V3)), "png", V3),
    "V3 PNG with a copy for older readers": (as_png(("chara", V2), ("ccv3", V3)), "png", V3),
    "V3 zTXt": (as_png(("ccv3", V3), kind=b"zTXt"), "png", V3),
    "V3 iTXt": (as_png(("ccv3", V3), kind=b"iTXt"), "png", V3),
    "V1 PNG": (as_png(("chara", V1)), "png", V1),
    "V3 CHARX": (as_charx(V3), "charx", V3),
    "V2 CHARX": (as_charx(V2), "charx", V2),
}


@pytest.mark.parametrize("name", CARRIED)
def test_a_card_that_was_not_changed_comes_back_as_it_came_to_the_byte(name: str) -> None:
    raw, wanted, card = CARRIED[name]
    kept = read_file(raw)

    done = export_card(persona_of(kept.card)[0], kept, wanted)

    assert done.data == raw
    assert json.loads(done.text) == card


@pytest.mark.parametrize("wanted", ["v3", "png", "charx"])
@pytest.mark.parametrize("name", CARRIED)
def test_a_card_that_goes_through_another_carrier_has_every_field(
    name: str, wanted: Format
) -> None:
    raw, _, card = CARRIED[name]
    kept = read_file(raw)

    came = read_file(export_card(persona_of(kept.card)[0], kept, wanted).data)

    data = card.get("data", card)
    found = json.loads(came.card.text)["data"] if came.card.spec != "v1" else V1
    assert {key: found[key] for key in data} == data
    assert persona_of(came.card)[0] == persona_of(kept.card)[0]


def test_numbers_and_the_order_of_names_are_kept_when_something_else_is_changed() -> None:
    kept = read_file(SPELLED.encode())
    spec = persona_of(kept.card)[0].model_copy(update={"charisma": 15, "name": "Mira Berg"})

    done = export_card(spec, kept, "v3").text

    for spelled in ("1.50", "1E+2", "-0,", "12345678901234567890123", "0.10"):
        assert spelled in done.replace("\n", "")
    assert list(json.loads(done)["data"])[-3:] == ["zeta", "alpha", "modification_date"]
    assert json.loads(done)["data"]["extensions"]["persona_mcp"] == {"version": 1, "charisma": 15}
    assert persona_of(read_file(done.encode()).card)[0] == spec


def test_a_persona_without_a_card_goes_through_one_unchanged() -> None:
    spec = PersonaSpec.model_validate(
        {
            "name": "Ada",
            "description": "Counts things.",
            "personality_traits": {"openness": 80, "scale": 100, "voice": "low"},
            "topic_preferences": {"numbers": 90},
            "examples": [{"user": "Hi", "reply": "One."}],
            "exit_lines": {"tired": ["Enough."]},
            "tags": ["sums"],
        }
    )

    for wanted in ("v2", "v3", "png", "charx"):
        came = read_file(export_card(spec, None, wanted).data)
        assert persona_of(came.card) == (spec, []), wanted


def test_a_v3_card_in_a_picture_has_a_copy_for_older_readers_without_decorators() -> None:
    kept = read_file(as_json(V3))
    file = export_card(persona_of(kept.card)[0], kept, "png").data

    chunks = {chunk.keyword: chunk for chunk in card_png.chunks_of(file)[0]}
    copy = json.loads(base64.b64decode(card_png.text_of(chunks["chara"])))

    assert copy["spec"] == "chara_card_v2"
    assert copy["data"]["creator_notes"].startswith("This is a V3 card")
    assert "@@" not in copy["data"]["character_book"]["entries"][0]["content"]
    assert read_file(file).card.spec == "v3"


def test_all_else_in_a_picture_stays_to_the_byte_when_its_card_is_changed() -> None:
    raw = as_png(("chara", V2))
    kept = read_file(raw)
    spec = persona_of(kept.card)[0].model_copy(update={"tags": ["new"]})

    file = export_card(spec, kept, "png").data

    def others(data: bytes) -> list[bytes]:
        return [c.raw for c in card_png.chunks_of(data)[0] if c.keyword != "chara"]

    assert others(file) == others(raw)
    assert file.endswith(b"tail")
    assert read_file(file).card.data.tags == ["new"]


def test_all_else_in_a_charx_stays_when_its_card_is_changed() -> None:
    kept = read_file(as_charx(V3))
    spec = persona_of(kept.card)[0].model_copy(update={"tags": ["new"]})

    file = export_card(spec, kept, "charx").data

    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        assert archive.read("module.json") == b'{"a": 1}'
        assert archive.read("assets/icon/images/main.png") == b"\x89PNG"
    assert read_file(file).card.data.tags == ["new"]


def test_a_newer_version_is_read_with_a_warning() -> None:
    card = read_file(as_json({**V3, "spec_version": "3.7"})).card
    other = read_file(as_json({**V3, "spec": "chara_card_v4"})).card

    assert "newer than 3.0" in card.warnings[0]
    assert "chara_card_v4 is not known" in other.warnings[0]


def test_what_does_not_fit_is_told() -> None:
    long = {**V2, "data": {**V2["data"], "description": "x" * 9000, "tags": ["y" * 41, "z"]}}  # type: ignore[dict-item]

    spec, warnings = persona_of(read_file(as_json(long)).card)

    assert len(spec.description) == 8000
    assert spec.tags == ["z"]
    assert any("8,000 are used" in warning for warning in warnings)
    assert any("1 of its tags" in warning for warning in warnings)


def picture(change: Callable[[bytes], bytes]) -> bytes:
    return change(as_png(("chara", V2)))


def with_length(file: bytes) -> bytes:
    at = file.index(b"tEXt") - 4
    return file[:at] + struct.pack(">I", 2**31 - 1) + file[at + 4 :]


def bomb(name: str = "bomb.bin", size: int = 130 * 2**20) -> bytes:
    return as_charx(V3, {name: bytes(size)})


def lying(file: bytes) -> bytes:
    """Say in the directory of a zip that an entry is small."""
    size = struct.pack("<I", 2 * JSON_BYTES)
    return file.replace(size, struct.pack("<I", 100))


def encrypted(file: bytes) -> bytes:
    at = file.rindex(b"PK\x01\x02")
    return file[: at + 8] + b"\x01" + file[at + 9 :]


def twice() -> bytes:
    made = io.BytesIO()
    with pytest.warns(UserWarning), zipfile.ZipFile(made, "w") as archive:
        archive.writestr("card.json", as_json(V2))
        archive.writestr("card.json", as_json(V3))
    return made.getvalue()


def nested(depth: int) -> bytes:
    return b'{"name": "x", "extensions": {"a": ' + b"[" * depth + b"]" * depth + b"}}"


NOISE = hashlib.sha256(b"noise").digest()
"""It cannot be packed any smaller, so a CHARX holds it as it is."""
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no card at all": (lambda: b"hello", "no JSON"),
    "nothing": (lambda: b"", "no JSON"),
    "half a character": (lambda: b'{"name": "a", "x": "\\ud800"}', "half a character"),
    "a list": (lambda: b"[1]", "no object"),
    "another object": (lambda: b'{"a": 1}', "neither a spec"),
    "not UTF-8": (lambda: b'{"name": "\xff"}', "not UTF-8"),
    "too large": (lambda: bytes(FILE_BYTES + 1), "are allowed"),
    "JSON too large": (lambda: b'{"name": "' + b"x" * JSON_BYTES + b'"}', "are allowed"),
    "deeper than 64": (lambda: nested(65), "deeper than 64"),
    "as deep as the stack": (lambda: nested(200_000), "deeper than 64"),
    "a name twice": (lambda: b'{"name": "a", "name": "b"}', "stands twice"),
    "NaN": (lambda: b'{"name": "a", "extensions": {"x": NaN}}', "NaN"),
    "a number too large": (lambda: b'{"name": "a", "extensions": {"x": 1e999}}', "too large"),
    "a number too long": (lambda: b'{"name": "a", "x": ' + b"9" * 5000 + b"}", "digits"),
    "a field of another type": (lambda: b'{"name": "a", "description": 5}', "description"),
    "a book of another type": (
        lambda: as_json({**V2, "data": {"name": "a", "character_book": {"entries": [1]}}}),
        "character_book.entries.0",
    ),
    "no data": (lambda: as_json({"spec": "chara_card_v2", "data": "x"}), "data is no object"),
    "no name": (lambda: as_json({**V2, "data": {"description": "x"}}), "name"),
    "a lorebook": (lambda: b'{"spec": "lorebook_v3", "data": {}}', "lorebook without a character"),
    "our extension of another kind": (
        lambda: as_json({"name": "a", "extensions": {"persona_mcp": {"version": 9}}}),
        "persona_mcp",
    ),
    "our extension with a wrong value": (
        lambda: as_json(
            {"name": "a", "extensions": {"persona_mcp": {"version": 1, "charisma": 900}}}
        ),
        "charisma",
    ),
    "a picture without a card": (card_png.plain_picture, "carries no card"),
    "a picture cut off": (lambda: picture(lambda f: f[:-40]), "cut off"),
    "a picture with a wrong length": (lambda: picture(with_length), "cut off"),
    "a picture with a wrong check sum": (
        lambda: picture(lambda f: f.replace(b"tEXtchara", b"tEXtchars")),
        "check sum",
    ),
    "a picture without a header": (
        lambda: card_png.SIGNATURE + text_chunk("chara", b"{}"),
        "header",
    ),
    "a picture with no base64": (
        lambda: picture(lambda f: f[:-16] + card_png.chunk_bytes(b"tEXt", b"chara\0%%%") + f[-16:]),
        "base64",
    ),
    "a picture with a bomb": (
        lambda: (
            card_png.plain_picture()[:-12]
            + card_png.chunk_bytes(b"zTXt", b"chara\0\0" + zlib.compress(bytes(2 * JSON_BYTES)))
            + card_png.plain_picture()[-12:]
        ),
        "too large",
    ),
    "a picture of chunks": (
        lambda: (
            card_png.plain_picture()[:-12]
            + card_png.chunk_bytes(b"prVt", b"") * (card_png.CHUNKS + 1)
        ),
        "more than",
    ),
    "a zip cut off": (lambda: as_charx(V3)[:-30], "no whole zip"),
    "a zip without a card": (
        lambda: as_charx(V3).replace(b"card.json", b"carb.json"),
        "no card.json",
    ),
    "a zip bomb": (bomb, "unpacks to"),
    "a zip that lies": (
        lambda: lying(as_charx(b'{"name": "' + b"x" * (2 * JSON_BYTES - 12) + b'"}')),
        "",
    ),
    "a zip of many": (
        lambda: as_charx(V3, {f"{n}.bin": b"" for n in range(card_charx.ENTRIES)}),
        "entries",
    ),
    "a path out of it": (lambda: as_charx(V3, {"../up.txt": b""}), "leads out"),
    "an absolute path": (lambda: as_charx(V3, {"/etc/x": b""}), "leads out"),
    "a path of Windows": (lambda: as_charx(V3, {"C:/x": b""}), "leads out"),
    "a backslash": (lambda: as_charx(V3, {"a\\b": b""}), "plain ASCII"),
    "a name in another script": (lambda: as_charx(V3, {"ä": b""}), "plain ASCII"),
    "an encrypted entry": (lambda: encrypted(as_charx(V3)), "encrypted"),
    "a card twice": (twice, "stands twice"),
    "a damaged asset": (
        lambda: as_charx(V3, {"noise.bin": NOISE}).replace(NOISE, NOISE[::-1]),
        "'noise.bin' in the CHARX is damaged",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(name: str) -> None:
    make, reason = HOSTILE[name]

    with pytest.raises(BadSnapshot) as refused:
        persona_of(read_file(make()).card)

    assert reason in refused.value.message
    assert refused.value.message.startswith("this is no character card that can be read: ")


def test_a_changed_byte_anywhere_is_noticed_or_harms_nothing_when_it_is_given_back() -> None:
    whole = as_charx(V3)
    for at in range(len(whole)):
        for flip in (0x5A, 0xFF, 0x80):
            broken = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
            try:
                kept = read_file(broken)
            except BadSnapshot:
                continue
            assert export_card(PersonaSpec(name="Ada"), kept, "charx").data


def test_what_a_persona_is_given_back_with_is_its_own_alone() -> None:
    kept = read_file(as_json(V1))
    export_card(persona_of(kept.card)[0], kept, "v3", state={"as_of": 1})

    plain = json.loads(export_card(PersonaSpec(name="Ada"), None, "v3").text)

    assert "state" not in plain["data"]["extensions"]["persona_mcp"]
