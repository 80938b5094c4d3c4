"""persona_import and persona_export: cards come in and go out, and their lore is used."""

import base64
import json
from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.errors import BadSnapshot, Conflict, InvalidParams
from tests.calls import call, dump, say
from tests.cards import V1, V2, V3, as_charx, as_json, as_png
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio


def coded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


async def test_a_card_makes_a_persona_that_is_told_of(service: Service) -> None:
    made = await call(service, "persona_import", card=V3)

    assert (made["name"], made["spec"], made["spec_version"]) == ("Mira Holm", "v3", "3.0")
    assert (made["lore_entries"], made["replaced"], made["dry_run"]) == (2, False, False)
    assert [asset["type"] for asset in made["assets"]] == ["icon", "x-unknown"]
    found = (await call(service, "persona_get", persona_id=made["persona_id"]))["persona"]
    assert "Personality: dry, patient" in found["description"]
    assert found["tags"] == ["sea", "quiet"]
    assert found["examples"][0]["reply"] == "Only for guests."
    assert found["greetings"] == ["You are late, {{user}}.", "The door is open."]
    assert found["charisma"] == 10


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (as_json(V2), "v2"),
        (as_json(V3), "v3"),
        (as_png(("chara", V2)), "png"),
        (as_png(("ccv3", V3)), "png"),
        (as_charx(V3), "charx"),
    ],
    ids=["V2", "V3", "V2 PNG", "V3 PNG", "CHARX"],
)
async def test_a_card_goes_out_as_it_came_in(service: Service, raw: bytes, wanted: str) -> None:
    made = await call(service, "persona_import", data=coded(raw))

    gone = await call(service, "persona_export", persona_id=made["persona_id"], format=wanted)

    assert base64.b64decode(gone["data"]) == raw
    assert gone["bytes"] == len(raw)
    number = gone["card"]["data"]["character_book"]["extensions"]["somebody"]["deep"][1]["x"]
    assert number == 0.1234567891  # not ours to round


async def test_a_change_goes_out_with_the_card(service: Service) -> None:
    made = await call(service, "persona_import", card=V2)
    await call(service, "persona_update", persona_id="Mira Holm", charisma=17, tags=["new"])

    gone = await call(service, "persona_export", persona_id=made["persona_id"], format="v2")

    assert gone["card"]["data"]["tags"] == ["new"]
    assert gone["card"]["data"]["extensions"]["persona_mcp"] == {"version": 1, "charisma": 17}
    assert gone["card"]["unknown"] == V2["unknown"]


async def test_a_bundled_persona_goes_out_and_comes_back(service: Service) -> None:
    gone = await call(service, "persona_export", persona_id="aria", format="png")

    made = await call(service, "persona_import", data=gone["data"], on_conflict="rename")

    assert made["name"] == "Aria 2"
    aria, copy = [
        (await call(service, "persona_get", persona_id=id))["persona"]
        for id in ("aria", made["persona_id"])
    ]
    own = {"id", "name", "version", "created_at", "updated_at"}
    assert {k: v for k, v in aria.items() if k not in own} == {
        k: v for k, v in copy.items() if k not in own
    }


async def test_state_goes_out_only_when_it_is_asked_for(
    service: Service, model: ScriptedModel
) -> None:
    model.add("It is.")
    await say(service, "A lovely morning!")

    plain = await call(service, "persona_export", persona_id="aria")
    full = await call(service, "persona_export", persona_id="aria", include_state=True)

    assert "state" not in plain["card"]["data"]["extensions"]["persona_mcp"]
    state = full["card"]["data"]["extensions"]["persona_mcp"]["state"]
    assert list(state["relationships"]) == ["user"]
    assert set(state["emotion"]) >= {"mood", "curiosity"}
    again = await call(service, "persona_import", card=full["card"], on_conflict="rename")
    assert any("begins anew" in warning for warning in again["warnings"])


async def test_a_name_that_is_taken_is_refused_renamed_or_replaced(service: Service) -> None:
    first = await call(service, "persona_import", card=V2)
    before = await dump(service.database)

    with pytest.raises(Conflict, match="Mira Holm"):
        await call(service, "persona_import", card=V3)
    assert await dump(service.database) == before
    renamed = await call(service, "persona_import", card=V3, on_conflict="rename")
    other = {"name": "mira holm", "description": "Another one."}
    replaced = await call(service, "persona_import", card=other, on_conflict="replace")

    assert renamed["name"] == "Mira Holm 2"
    assert (replaced["persona_id"], replaced["replaced"]) == (first["persona_id"], True)
    found = (await call(service, "persona_get", persona_id=first["persona_id"]))["persona"]
    assert (found["description"], found["version"], found["greetings"]) == ("Another one.", 2, [])


async def test_a_dry_run_tells_and_changes_nothing(service: Service) -> None:
    before = await dump(service.database)

    would = await call(service, "persona_import", card=V1, dry_run=True)

    assert (would["name"], would["spec"], would["dry_run"]) == ("Mira Holm", "v1", True)
    assert await dump(service.database) == before


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({}, InvalidParams, "card or data"),
        ({"card": V2, "data": coded(as_json(V2))}, InvalidParams, "card or data"),
        ({"data": "%%%"}, BadSnapshot, "not base64"),
        ({"data": "ä"}, BadSnapshot, "not base64"),
        ({"data": coded(b"GIF89a")}, BadSnapshot, "no character card"),
        ({"card": V2, "format": "v3"}, BadSnapshot, "not v3"),
        ({"card": {"spec": "chara_card_v2", "data": 4}}, BadSnapshot, "data is no object"),
    ],
)
async def test_what_is_no_card_is_refused_and_changes_nothing(
    service: Service, given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    before = await dump(service.database)

    with pytest.raises(kind, match=words):
        await call(service, "persona_import", **given)

    assert await dump(service.database) == before


async def test_a_card_bears_on_prompts_by_its_own_rules(
    service: Service, model: ScriptedModel
) -> None:
    made = await call(service, "persona_import", card=V3)
    model.add("Since the war.")
    model.add("No.")
    persona = made["persona_id"]

    first = await call(
        service, "persona_chat", persona_id=persona, message="Is the lighthouse lit?", user_id="tom"
    )
    await call(
        service,
        "persona_chat",
        persona_id=persona,
        message="Does a ship sail in a storm?",
        user_id="tom",
        conversation_id=first["conversation_id"],
    )

    one, two = (asked.messages for asked in model.history)
    text = json.dumps([vars(message) for message in one])
    assert "Write as a novelist would." in one[0].content
    assert "in character, in at most" in one[0].content  # {{original}}
    assert "Mir keeps the lighthouse." in one[0].content
    assert "The lighthouse of Mir has been dark" in one[0].content
    assert "November" not in text
    assert (one[1].role, one[1].content) == ("assistant", "You are late, tom.")
    assert (one[-2].role, one[-2].content) == ("system", "Keep Mir in the present tense.")
    assert "Nobody sails in November." in two[0].content
    assert "SECRET" not in text
    assert "@@" not in text
    assert "{{" not in text


async def test_a_system_prompt_of_a_card_stands_in_place_of_ours(
    service: Service, model: ScriptedModel
) -> None:
    card = {"name": "Odd", "description": "Odd.", "system_prompt": "Only rhyme."}
    await call(service, "persona_import", card=card)
    model.add("Day, say.")

    await call(service, "persona_chat", persona_id="odd", message="Hello")

    assert "Only rhyme." in model.history[0].messages[0].content
    assert "in character, in at most" not in model.history[0].messages[0].content


async def test_a_deleted_and_purged_persona_takes_its_card_with_it(service: Service) -> None:
    made = await call(service, "persona_import", card=V3)

    await call(service, "persona_delete", persona_id=made["persona_id"], confirm=True, purge=True)

    assert (await dump(service.database))["persona_cards"] == []
