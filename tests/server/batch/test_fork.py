"""A dialogue of a batch is gone on with otherwise, and compared with what it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.server.batch.comparison import compared, parting, transcript
from persona_mcp.server.cli.batch_fork import at_turn, ended_by, of_pair, pairs_of
from persona_mcp.state.batch.reading import said
from persona_mcp.state.continuation import reason_in_words
from tests.batches import lines, results, specification, written
from tests.command_line import Cli
from tests.outcomes import Line, job_of, outcome_of

TWO = {
    "repeats": 1,
    "waves": [
        {"dialogues": [{"participants": ["ada", "bo"]}]},
        {"gap_hours": 5.0, "dialogues": [{"participants": ["ada", "bo"]}]},
    ],
}
TURNS = 4
OUT = Path("out")


@pytest.fixture
def out(cli: Cli, tmp_path: Path) -> Path:
    """A finished batch of two dialogues, one after the other."""
    cli.server.default = cli.server.named("hashed")
    cli.good(
        "dialogue", "run", written(tmp_path / "two.yaml", specification(**TWO)), "--out", "out"
    )
    return OUT


def fork(cli: Cli, *arguments: str, dialogue: int = 1, turn: int = 2) -> dict[str, Any]:
    which = ("--dialogue", str(dialogue), "--turn", str(turn))
    found: dict[str, Any] = cli.good("dialogue", "fork", "out", *which, *arguments, "--json").json
    return found


def said_in(folder: str, name: str) -> list[str]:
    return (Path(folder) / f"{name}.txt").read_text("utf-8").splitlines()


def test_the_turns_before_stay_and_the_rest_is_held_anew(cli: Cli, out: Path) -> None:
    before, asked = results(out), len(cli.server.requests)

    found = fork(cli, "--set", "dialogue.scene=A storm breaks.", "--out", "fork")

    original, other = found["arms"]
    assert (original["name"], original["parts_at"], original["turns"]) == ("original", None, TURNS)
    assert (other["name"], other["parts_at"], other["status"]) == ("fork 1", 3, "done")
    assert said_in("fork", "original")[:2] == said_in("fork", "fork-1")[:2]
    assert said_in("fork", "original")[2] != said_in("fork", "fork-1")[2]
    assert said_in("fork", "fork-1")[-1] == f"(ended: {reason_in_words(other['exit_reason'])})"
    assert {(one["of"], one["to"]) for one in other["relationships"]} == {
        ("ada", "bo"),
        ("bo", "ada"),
    }
    assert other["relationships"] != original["relationships"]
    assert len(cli.server.requests) - asked == TURNS - 2
    prompts = [str(request.body["messages"]) for request in cli.server.requests]
    assert ["A storm breaks." in text for text in prompts[asked - 1 :]] == [False, True, True]
    assert len(lines(Path("fork/fork-1.jsonl"))) == TURNS
    assert json.loads(Path("fork/fork.json").read_text("utf-8"))["arms"] == found["arms"]
    assert results(out) == before
    cli.good("dialogue", "verify", "out")


def test_nothing_that_is_different_and_the_same_lot_give_the_same_again(
    cli: Cli, out: Path
) -> None:
    found = fork(cli, "--repeats", "3", turn=1)

    original, same, *others = found["arms"]
    assert same == {**original, "name": "fork 1"}
    assert [one["parts_at"] for one in others] == [2, 2]
    assert len({json.dumps(one["relationships"]) for one in others}) == 2


def test_temperature_and_personas_can_be_others_and_the_talk_longer(cli: Cli, out: Path) -> None:
    asked = len(cli.server.requests)

    found = fork(
        cli,
        *("--set", "model.temperature=0.25"),
        *("--set", "personas.ada.description=Ada has lost her voice."),
        *("--set", "personas.ada.persona.charisma=3"),
        *("--set", "dialogue.max_turns=6"),
        turn=3,
    )

    new = cli.server.requests[asked:]
    assert found["arms"][1]["turns"] == 6
    assert {request.body["temperature"] for request in new} == {0.25}
    assert any("Ada has lost her voice." in str(request.body["messages"]) for request in new)
    assert found["set"]["dialogue.max_turns"] == 6


def test_a_whole_dialogue_can_be_held_otherwise(cli: Cli, out: Path) -> None:
    found = fork(cli, "--set", "dialogue.first_speaker=bo", dialogue=0, turn=0)
    other = fork(cli, "--set", "dialogue.first_speaker=ada", dialogue=0, turn=0)

    firsts = [said_in(one["folder"], "fork-1")[0] for one in (found, other)]
    assert [first.split(":")[0] for first in firsts] == ["1. Bo", "1. Ada"]


def test_without_the_store_the_recording_is_enough(cli: Cli, out: Path) -> None:
    wanted = fork(cli, "--set", "dialogue.topics=[winter]")["arms"]
    for path in out.glob("run.db*"):
        path.unlink()
    asked = len(cli.server.requests)

    again = fork(cli, "--set", "dialogue.topics=[winter]")["arms"]

    assert again == wanted
    assert len(cli.server.requests) - asked == TURNS - 2
    assert not (out / "run.db").exists()


def test_forks_lie_in_the_batch_unless_it_is_said_where(cli: Cli, out: Path) -> None:
    folders = [Path(fork(cli, turn=3)["folder"]).name for _ in range(2)]
    table = cli.good("dialogue", "fork", "out", "--dialogue", "1", "--turn", "3").out

    assert folders == ["dialogue-1-turn-3", "dialogue-1-turn-3-2"]
    assert "parts at turn" in table and "ada -> bo: trust" in table
    assert "dialogue-1-turn-3-3" in table
    refused = cli("dialogue", "fork", "out", "--dialogue", "1", "--turn", "3", "--out", "out")
    assert "is not empty" in refused.err


REFUSED = [
    ("max_turns=3", "--set max_turns: allowed is dialogue.FIELD"),
    ("dialogue.max_turns", "--set: allowed is PATH=VALUE"),
    ("dialogue.max_turns=0", "--set dialogue.max_turns: allowed is"),
    ("dialogue.max_turns=many", "--set dialogue.max_turns: allowed is"),
    ("dialogue.max_turn=3", "did you mean max_turns"),
    ("dialogue.scene=[", "a value in YAML"),
    ("dialogue.first_speaker=bo", "first_speaker with --turn 0 alone"),
    ("dialogue.topics=[a, b]", "allowed is one topic"),
    ("dialogue.max_turns=2", "more turns than the 2 that stay"),
    ("dialogue.interventions=[{turn: 2, text: It rains.}]", "turns after the 2 that stay"),
    ("dialogue.whispers=[{turn: 3, to: [nobody]}]", "nobody"),
    ("personas.cleo.charisma=3", "one who is there: ada, bo"),
    ("personas.ada.charisma=99", "--set personas.ada.charisma"),
    ("personas.ada.name=Eve", "who it is stays the same"),
    ("model.temperature=9", "--set model.temperature"),
    ("model.name=openai:b", "--set model.name"),
]


def test_what_cannot_be_is_told_before_anything_runs(cli: Cli, out: Path) -> None:
    asked = len(cli.server.requests)
    at = ("dialogue", "fork", "out", "--dialogue")

    for change, message in REFUSED:
        done = cli(*at, "1", "--turn", "2", "--set", change)
        assert done.code == 1, change
        assert message in done.err, change
    twice = ("--set", "dialogue.scene=a", "--set", "dialogue.scene=b")
    assert "a path once" in cli(*at, "1", "--turn", "2", *twice).err
    assert "--dialogue: allowed is 0..1" in cli(*at, "2", "--turn", "2").err
    assert "--turn: allowed is 0..3" in cli(*at, "1", "--turn", "4").err

    assert len(cli.server.requests) == asked
    assert not (out / "forks").exists()


def test_a_folder_without_a_batch_is_told(cli: Cli) -> None:
    Path("empty").mkdir()

    for folder, message in (("empty", "no finished batch"), ("nowhere", "no finished batch")):
        done = cli("dialogue", "fork", folder, "--dialogue", "0", "--turn", "0")
        assert message in done.err, done


def test_ways_that_a_dialogue_went_are_laid_side_by_side() -> None:
    job = job_of(whispers=[{"turn": 2, "to": ["ada"]}])
    first = Line("ada", "Good evening.")
    one = outcome_of(job, [first, Line("ben", "Hush.", heard_by=["ada"])], {})
    gone = {"code": -1, "message": "the model is gone", "data": {}}
    other = outcome_of(job, [first], {}, error=gone)

    original, fork = compared(one, [other])

    assert parting(said(one), said(one)) is None
    assert (at_turn(original), at_turn(fork)) == ("-", "2")
    ends = ended_by(original), ended_by(fork)
    assert ends == ("time or turns used up", "failed: the model is gone")
    assert pairs_of([original, fork]) == [("ada", "ben"), ("ben", "ada")]
    assert of_pair(fork, "ada", "ben", "trust") == "-"
    assert of_pair(original, "ada", "ben", "trust").startswith(("+", "-0"))
    assert list(transcript(one, {"ada": "Ada", "ben": "Ben"})) == [
        "1. Ada: Good evening.",
        "2. Ben (to Ada alone): Hush.",
        "(ended: time or turns used up)",
    ]
    assert list(transcript(other, {}))[-1] == "(failed: the model is gone)"


def test_a_transcript_has_nothing_that_drives_a_terminal() -> None:
    job = job_of()
    driving = outcome_of(job, [Line("ada", "Red \x1b[31mor \x1b]0;title\x07not \x9b2J.")], {})

    text = "".join(transcript(driving, {"ada": "Ada"}))

    assert "1. Ada: Red [31mor ]0;titlenot 2J." in text
    assert not [c for c in text if c < " " or "\x7f" <= c <= "\x9f"]
