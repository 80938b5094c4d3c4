import json
import re
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from persona_mcp.server.batch.output_chats import BEGINNING
from persona_mcp.server.batch.output_files import json_line, written_whole
from persona_mcp.server.batch.output_tables import Table, turns_schema
from persona_mcp.server.batch.outputs import write_outputs
from persona_mcp.state.batch.plan import BatchPlan, plan_batch
from persona_mcp.state.batch.values import Cast, Outcome
from persona_mcp.state.dialogue_spec import DialogueSpec
from tests.outcomes import NARRATOR, Arrows, Line, cast_of, job_of, outcome_of

CAST = cast_of(ada="Ada", ben="Ben", cy="Cy")
EVIL = "</script><b>\"'&\u2028 \u202e"


def plan_of(total: int, outputs: Sequence[str] | None = None, arms: int = 1) -> BatchPlan:
    people = {"ada": "Ada", "ben": "Ben", "cy": "Cy"}
    given: dict[str, Any] = {
        "personas": {id: {"persona": {"name": name}} for id, name in people.items()},
        "repeats": max(1, total // arms),
        "variations": {"dialogue.scene": [f"place {number}" for number in range(arms)]},
    }
    if outputs is not None:
        given["outputs"] = list(outputs)
    return plan_batch(DialogueSpec.model_validate(given))


def secret() -> Outcome:
    """A talk of three: one whispers, one comes late, a narrator speaks."""
    job = job_of(
        people=("ada", "ben"),
        topic="the map",
        scene="An inn, at night.",
        joins=[{"persona": "cy", "turn": 3}],
        whispers=[{"turn": 2, "to": ["ada"]}],
    )
    return outcome_of(
        job,
        [
            Line("ada", "What do you know?", 0.2, heard_by=["ben"]),
            Line("ben", "The map is in the clock.", 0.6, heard_by=["ada"]),
            Line(NARRATOR, "The door opens.", heard_by=["ada", "ben", "cy"]),
            Line("cy", "Good evening.", 0.4, heard_by=["ada", "ben"]),
            Line("ada", "We spoke of the weather.", 0.1, heard_by=["ben", "cy"]),
        ],
        summaries={"ada": "Ben told me where the map is.", "cy": "They spoke of the weather."},
    )


def write(
    folder: Path,
    outcomes: Sequence[Outcome],
    outputs: Sequence[str] | None = None,
    casts: Callable[[int], Cast] = lambda _: CAST,
    arms: int = 1,
) -> list[str]:
    return write_outputs(
        folder, plan_of(len(outcomes), outputs, arms), lambda: iter(outcomes), casts
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_dialogue_is_one_line_with_all_that_came_of_it(tmp_path: Path) -> None:
    write(tmp_path, [secret()], arms=1)

    (line,) = lines(tmp_path / "dialogues.jsonl")

    assert line["index"] == 0 and line["id"] == "d0" and line["seed"] == 100
    assert line["place"] == {
        "arm": 0,
        "values": {"dialogue.scene": "place 0"},
        "repeat": 0,
        "wave": 0,
        "number": 0,
    }
    assert (line["status"], line["error"], line["exit_reason"]) == ("done", None, "time_limit")
    assert line["participants"] == ["ada", "ben", "cy"] and line["turns"] == 4
    assert line["tokens"] == 33 and line["tokens_estimated"] is True and line["calls"] == 4
    assert line["started_at"] == "2026-01-01T08:00:00.000Z"
    assert line["ended_at"] == "2026-01-01T08:01:40.000Z"
    assert line["scores"][0] == {"turn": 1, "speaker": "ada", "score": 69.123457}
    assert line["before"] == [] and line["after"][0].keys() >= {
        "from",
        "to",
        "affinity",
        "strength",
    }
    assert line["summaries"]["cy"] == "They spoke of the weather."
    assert line["interventions"] == [
        {"turn": 3, "text": "The door opens.", "heard_by": ["ada", "ben", "cy"]}
    ]


def test_a_failed_dialogue_says_why_and_has_what_was_said_before(tmp_path: Path) -> None:
    failure = {"code": "model_timeout", "message": "no answer"}
    failed = outcome_of(job_of(), [Line("ada", "Hello?")], error=failure)

    write(tmp_path, [failed])

    (line,) = lines(tmp_path / "dialogues.jsonl")
    assert (line["status"], line["error"], line["turns"]) == ("failed", failure, 1)
    assert line["exit_reason"] is None
    assert pq.read_table(tmp_path / "turns.parquet").num_rows == 1
    assert lines(tmp_path / "sharegpt.jsonl") == [] and lines(tmp_path / "openai.jsonl") == []


def test_a_turn_is_one_row(tmp_path: Path) -> None:
    write(tmp_path, [secret()])

    rows = pq.read_table(tmp_path / "turns.parquet").to_pylist()

    assert [(r["turn"], r["place"], r["speaker"], r["kind"], r["heard_by"]) for r in rows] == [
        (1, 1, "ada", "said", ["ben"]),
        (2, 2, "ben", "whispered", ["ada"]),
        (3, 3, NARRATOR, "narrated", ["ada", "ben", "cy"]),
        (3, 4, "cy", "said", ["ada", "ben"]),
        (4, 5, "ada", "said", ["ben", "cy"]),
    ]
    assert rows[1]["text"] == "The map is in the clock."
    assert rows[0]["score"] == 69.123457 and dict(rows[0]["score_terms"])["time"] == 30.0
    assert rows[2]["score"] is None and rows[2]["response_type"] is None
    assert rows[0]["at"].isoformat() == "2026-01-01T08:00:20+00:00"


def test_a_relationship_has_a_row_for_each_turn_that_bore_on_it(tmp_path: Path) -> None:
    outcome = secret()
    write(tmp_path, [outcome])

    rows = pq.read_table(tmp_path / "relationships.parquet").to_pylist()

    assert [(r["turn"], r["from"], r["to"]) for r in rows] == [
        (1, "ben", "ada"),
        (2, "ada", "ben"),
        (3, "ada", "cy"),
        (3, "ben", "cy"),
        (4, "ben", "ada"),
        (4, "cy", "ada"),
    ]
    assert rows[1]["warmth"] == 0.6 and rows[1]["affinity_change"] > 0
    assert rows[1]["why"].startswith("warmth +0.6")
    assert rows[4]["affinity"] == pytest.approx(outcome.after["ben", "ada"]["affinity"], abs=1e-6)


def test_a_chat_for_training_has_what_its_persona_heard_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, [secret()])

    chats = {chat["persona"]: chat for chat in lines(tmp_path / "sharegpt.jsonl")}
    messages = {chat["persona"]: chat["messages"] for chat in lines(tmp_path / "openai.jsonl")}

    assert chats.keys() == messages.keys() == {"ada", "ben", "cy"}
    assert "clock" in json.dumps(chats["ada"]) and "clock" in json.dumps(chats["ben"])
    assert "clock" not in json.dumps(chats["cy"]) and "clock" not in json.dumps(messages["cy"])
    assert "What do you know" not in json.dumps(chats["cy"])
    assert chats["cy"]["conversations"] == [
        {
            "from": "system",
            "value": "You are Cy.\n\nYou are Cy, of the harbour.\n\n"
            "An inn, at night.\nTopic: the map\n\nYou talk with Ada.",
        },
        {"from": "human", "value": "[The door opens.]"},
        {"from": "gpt", "value": "Good evening."},
    ]
    assert messages["cy"][1:] == [
        {"role": "user", "content": "[The door opens.]"},
        {"role": "assistant", "content": "Good evening.", "name": "cy"},
        {"role": "user", "content": "Ada: We spoke of the weather.", "name": "ada"},
    ]
    assert messages["ada"][2]["content"] == "Ben (whispering): The map is in the clock."


def test_in_sharegpt_human_and_gpt_take_turns_and_gpt_is_last(tmp_path: Path) -> None:
    write(tmp_path, [secret()])

    for chat in lines(tmp_path / "sharegpt.jsonl"):
        who = [part["from"] for part in chat["conversations"]]
        assert who[:2] == ["system", "human"] and who[-1] == "gpt"
        assert all(a != b for a, b in pairwise(who))
        assert (chat["conversations"][1]["value"] == BEGINNING) == (chat["persona"] == "ada")


def test_the_network_has_how_each_run_ended(tmp_path: Path) -> None:
    arrows: Arrows = {}
    first = outcome_of(job_of(0), [Line("ada", "Dear Ben.", 0.9), Line("ben", "Ada.", 0.5)], arrows)
    second = outcome_of(job_of(1, ("ben", "cy"), wave=1), [Line("ben", "Go away.", -0.9)], arrows)
    other = outcome_of(job_of(2, arm=1), [Line("ada", "Hm.", 0.0)])

    write(tmp_path, [first, second, other], arms=2)

    edges = edges_of(tmp_path / "network.graphml")
    assert [(e["source"], e["target"], e["arm"]) for e in edges] == [
        ("ada", "ben", "0"),
        ("ben", "ada", "0"),
        ("cy", "ben", "0"),
        ("ben", "ada", "1"),
    ]
    assert float(edges[2]["affinity"]) == pytest.approx(
        second.after["cy", "ben"]["affinity"], abs=1e-6
    )
    assert len({e["id"] for e in edges}) == 4


def edges_of(path: Path) -> list[dict[str, str]]:
    space = "{http://graphml.graphdrawing.org/xmlns}"
    root = ElementTree.parse(path).getroot()  # of our own making
    keys = {key.get("id"): key.get("attr.name") for key in root.iter(f"{space}key")}
    return [
        {**edge.attrib, **{keys[d.get("key")] or "": d.text or "" for d in edge}}
        for edge in root.iter(f"{space}edge")
    ]


def test_hostile_names_and_texts_stay_texts(tmp_path: Path) -> None:
    cast = cast_of(ada=f"Ada {EVIL}", ben="Ben]]>", cy="Cy")

    write(
        tmp_path,
        [outcome_of(job_of(), [Line("ada", EVIL), Line("ben", "ok")])],
        None,
        lambda _: cast,
    )

    root = ElementTree.parse(tmp_path / "network.graphml").getroot()
    assert f"Ada {EVIL}" in [data.text for data in root.iter() if data.tag.endswith("data")]
    for name in ("dialogues.jsonl", "sharegpt.jsonl", "openai.jsonl"):
        text = (tmp_path / name).read_text("utf-8")
        assert text.splitlines() == text.split("\n")[:-1], "no reader ends a line within one"
    assert EVIL in json.dumps(lines(tmp_path / "openai.jsonl"), ensure_ascii=False).replace(
        '\\"', '"'
    )


def test_the_same_outcomes_give_the_same_bytes(tmp_path: Path) -> None:
    outcomes = [secret()]
    names = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        names.append(write(tmp_path / place, outcomes))

    assert names[0] == names[1]
    for name in names[0]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_measured_times_are_in_no_file(tmp_path: Path) -> None:
    first, second = secret(), secret()
    object.__setattr__(second, "measured", {"wall_s": 99.0})
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    names = write(tmp_path / "one", [first])
    write(tmp_path / "two", [second])

    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    assert write(tmp_path, [secret()], ["sharegpt"]) == ["dialogues.jsonl", "sharegpt.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dialogues.jsonl",
        "sharegpt.jsonl",
    ]


def test_after_an_error_the_old_files_stand_and_no_half_ones(tmp_path: Path) -> None:
    write(tmp_path, [secret()], ["parquet"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Iterator[Outcome]:
        yield secret()
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_outputs(tmp_path, plan_of(2, ["parquet"]), broken, lambda _: CAST)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_is_written_by_row_groups(tmp_path: Path) -> None:
    numbers = ("dialogue", "arm", "repeat", "wave", "turn", "place", "tokens", "at")
    row: dict[str, Any] = dict.fromkeys(numbers, 1)
    row |= dict.fromkeys(("speaker", "text", "kind"), "a")
    row |= {"heard_by": ["b"], "response_type": None, "score": None, "score_terms": []}
    row["tokens_estimated"] = False
    with written_whole(tmp_path / "t.parquet") as file, Table(file, turns_schema(), 4) as table:
        for _ in range(5):
            table.add([row] * 2)

    meta = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [4, 4, 2]


def test_memory_in_use_does_not_grow_with_the_dialogues(tmp_path: Path) -> None:
    one = outcome_of(job_of(), [Line("ada", "A word, or two."), Line("ben", "And more.")] * 8)

    def peak(count: int) -> int:
        def outcomes() -> Iterator[Outcome]:
            return (replace(one, job=job_of(number)) for number in range(count))

        tracemalloc.start()
        outputs = ["sharegpt", "openai", "graphml"]  # tables by row groups; the report by samples
        write_outputs(tmp_path, plan_of(count, outputs), outcomes, lambda _: CAST)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    least = 300  # bytes a dialogue; one held in memory is a hundred times that
    assert peak(300) - peak(100) < 200 * least


def test_numbers_are_rounded_and_what_is_no_number_is_nothing() -> None:
    line = json_line({"b": 0.123456789, "a": [-0.0000001, float("nan"), 3, True, "\u2028"]})

    assert line == b'{"a": [0.0, null, 3, true, "\\u2028"], "b": 0.123457}\n'
    assert not re.search(rb"-0\.0", line)
