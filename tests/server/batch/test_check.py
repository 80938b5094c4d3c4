import json
import re
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.config.settings import LLMSettings, Settings
from persona_mcp.config.spec_files import read_plan
from persona_mcp.server.batch.check import Checked, check, duration, rows_of, show
from persona_mcp.server.store import open_store
from persona_mcp.server.terminal import open_terminal
from persona_mcp.state.errors import InvalidParams, ModelError, StorageUnavailable
from persona_mcp.state.model import ChatModel, ModelInfo
from persona_mcp.state.relationship_params import RelationshipParams
from tests.doubles import Fails, Says, ScriptedModel

pytestmark = pytest.mark.anyio
TEXT = """\
name: meeting
personas:
  aria:
  bo: {persona: {name: Bo}}
dialogue: {max_turns: 10, token_budget: 500}
waves: [{times: 2, dialogues: [{}, {max_turns: 4}]}]
repeats: 3
variations:
  dialogue.scene: [a room, a street]
outputs: [report]
"""
EMBEDDED = ModelInfo("embedded", "smollm2", 2048, small=True)


def written(folder: Path, text: str = TEXT) -> Path:
    file = folder / "meeting.yaml"
    file.write_text(text)
    return file


async def checked(file: Path, settings: Settings, model: ChatModel | None) -> Checked:
    return await check(*read_plan(file), settings, model)


async def test_it_says_what_a_batch_comes_to(tmp_path: Path, settings: Settings) -> None:
    found = await checked(written(tmp_path), settings, None)

    assert found.as_json() == {
        "file": "meeting.yaml",
        "name": "meeting",
        "cast": {"aria": "Aria", "bo": "Bo"},
        "arms": 2,
        "runs": 6,
        "waves": 2,
        "dialogues": 24,
        "turns_max": 168,
        "calls_max": 168,
        "appraisals_max": 0,
        "attempts": 3,
        "tokens_max": 12_000,
        "model": "auto",
        "endpoints": [],
        "slots": 4,
        "outputs": ["report"],
        "estimate": None,
        "no_estimate": "the model was not asked",
    }
    assert not settings.data_dir.exists(), "reading makes no data folder"


async def test_one_call_of_the_model_tells_how_long_it_takes(
    tmp_path: Path, settings: Settings
) -> None:
    model = ScriptedModel(Says("Good evening.", tokens=3))

    found = await checked(written(tmp_path), settings, model)

    estimate = found.estimate
    assert estimate is not None
    assert (estimate.model, estimate.tokens, estimate.at_once) == ("scripted:large", 3, 4)
    assert estimate.least_s == pytest.approx(estimate.call_s * 168 / 4 * 0.5)
    assert estimate.most_s == pytest.approx(estimate.call_s * 168 / 4 * 2)
    (asked,) = model.history
    assert "You are Aria" in asked.system
    assert "a room" in asked.text
    assert asked.sampling.max_tokens == 60
    assert json.loads(json.dumps(found.as_json()))["estimate"]["tokens"] == 3


async def test_replies_of_the_embedded_model_are_not_counted_on_to_be_made_at_once(
    tmp_path: Path, settings: Settings
) -> None:
    found = await checked(written(tmp_path), settings, ScriptedModel("Hello.", info=EMBEDDED))

    estimate = found.estimate
    assert estimate is not None
    assert estimate.most_s == pytest.approx(estimate.call_s * 168 * 2)
    assert estimate.least_s == pytest.approx(estimate.call_s * 168 / 4 * 0.5)


async def test_no_more_is_held_at_once_than_there_are_dialogues(
    tmp_path: Path, settings: Settings
) -> None:
    one = "personas: {aria: , kira: }\nmodel: {slots: 16}\nwaves: [{times: 3}]\n"

    found = await checked(written(tmp_path, one), settings, ScriptedModel("Hello."))

    assert found.slots == 16
    assert found.estimate is not None
    assert found.estimate.at_once == 1


async def test_a_model_that_does_not_answer_leaves_the_time_unknown(
    tmp_path: Path, settings: Settings
) -> None:
    model = ScriptedModel(Fails(ModelError("scripted:large refused the connection")))

    found = await checked(written(tmp_path), settings, model)

    assert found.estimate is None
    assert dict(rows_of(found))["time"] == (
        "not known: the model did not answer: scripted:large refused the connection"
    )


@pytest.mark.parametrize(
    ("model", "llm", "slots"),
    [
        ({}, LLMSettings(concurrency=7), 7),
        ({}, LLMSettings(model="embedded:smollm2", embedded_slots=2), 2),
        ({"name": "embedded:smollm2"}, LLMSettings(embedded_slots=3), 3),
        ({"slots": 9}, LLMSettings(), 9),
        (
            {
                "name": "ollama:x",
                "endpoints": [{"url": "http://a", "slots": 2}, {"url": "http://b", "slots": 5}],
            },
            LLMSettings(),
            7,
        ),
    ],
)
async def test_replies_at_once_are_those_of_the_file_else_of_the_settings(
    tmp_path: Path, settings: Settings, model: dict[str, Any], llm: LLMSettings, slots: int
) -> None:
    text = TEXT + f"model: {json.dumps(model)}\n"

    found = await checked(written(tmp_path, text), settings.model_copy(update={"llm": llm}), None)

    assert found.slots == slots
    assert found.model == model.get("name", llm.model)
    assert len(found.endpoints) == len(model.get("endpoints", ()))


async def test_where_the_model_appraises_its_calls_are_counted(
    tmp_path: Path, settings: Settings
) -> None:
    laws = {"relationships": RelationshipParams(appraiser="model")}

    found = await checked(written(tmp_path), settings.model_copy(update=laws), None)

    assert found.appraisals_max == 168
    assert "168 to appraise them" in dict(rows_of(found))["model calls"]


async def test_the_cast_of_every_arm_is_read_and_told_at_its_line(
    tmp_path: Path, settings: Settings
) -> None:
    text = TEXT.replace("dialogue.scene: [a room, a street]", "personas.bo:\n    - {source: kira}\n"
                        "    - {source: nobody}\n    - {card: none.png}")  # fmt: skip

    with pytest.raises(InvalidParams) as refused:
        await checked(written(tmp_path, text), settings, None)

    assert re.search(
        r"^meeting\.yaml:11: variations\.personas\.bo\.1\.source: allowed is persona or card",
        refused.value.message,
    )


async def test_a_wrong_specification_is_told_and_no_model_is_asked(
    tmp_path: Path, settings: Settings
) -> None:
    model = ScriptedModel()

    with pytest.raises(InvalidParams, match=r"meeting\.yaml:7: repeats: "):
        await checked(written(tmp_path, TEXT.replace("repeats: 3", "repeats: 0")), settings, model)

    assert model.history == []


@pytest.mark.sqlite
async def test_a_data_folder_that_nobody_comes_from_is_left_alone(
    tmp_path: Path, settings: Settings
) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "persona.db").write_bytes(b"damaged" * 1000)
    inline = "personas: {a: {persona: {name: A}}, b: {persona: {name: B}}}\n"

    found = await checked(written(tmp_path, inline), settings, None)

    assert found.dialogues == 1
    with pytest.raises(StorageUnavailable):
        await checked(written(tmp_path), settings, None)


async def test_personas_come_from_the_data_folder(tmp_path: Path, settings: Settings) -> None:
    async with open_store(settings):
        pass

    found = await checked(written(tmp_path, "personas: {Noor: , Kira: }\n"), settings, None)

    assert found.cast == {"Noor": "Noor", "Kira": "Kira"}


async def test_it_is_shown_as_a_table(
    tmp_path: Path,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    model = {"name": "ollama:x", "endpoints": [{"url": "http://a", "slots": 1}]}
    found = await checked(written(tmp_path, TEXT + f"model: {json.dumps(model)}\n"), settings, None)

    show(open_terminal(), found)

    shown = capsys.readouterr().out
    assert "meeting.yaml: meeting" in shown
    assert "Aria (aria), Bo (bo)" in shown
    assert "168 at most, one a turn; a reply that is refused is made again, 3 times" in shown
    assert "ollama:x, 1 reply at once" in shown
    assert "http://a, 1 slot" in shown
    assert "dialogues.jsonl, report" in shown


async def test_a_large_cast_is_not_listed_whole(tmp_path: Path, settings: Settings) -> None:
    names = ", ".join(f"p{n}: {{persona: {{name: P{n}}}}}" for n in range(20))
    text = f"personas: {{{names}}}\nwaves: [{{pairs: drawn}}]\n"

    found = await checked(written(tmp_path, text), settings, None)

    assert isinstance(found, Checked)
    assert dict(rows_of(found))["cast"].endswith("P11 (p11) and 8 more")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (90, "90 s"), (150, "2 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_a_time_is_told_in_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text
