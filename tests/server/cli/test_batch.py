"""Batches by the command line: run, stopped, gone on with, verified, and what is in the outputs."""

import json
import os
import shlex
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import typer

from persona_mcp.server.batch.batches import Summary
from persona_mcp.server.cli import run as cli_run
from persona_mcp.server.cli.batch import SOME_FAILED, again, pace
from persona_mcp.server.cli.batch_check import check
from tests.batches import lines, results, specification, written
from tests.command_line import Cli
from tests.model_server import Behaviour
from tests.processes import end, eventually, run, start

SMALL: dict[str, Any] = {
    "repeats": 1,
    "waves": [
        {"dialogues": [{"participants": ["ada", "bo"]}, {"participants": ["bo", "cleo"]}]},
        {"gap_hours": 5.0, "dialogues": [{"participants": ["ada", "cleo"]}]},
    ],
}
TURNS, DIALOGUES = 12, 3


@pytest.fixture
def spec(cli: Cli, tmp_path: Path) -> str:
    """A small batch; the model server's replies depend on what it is asked."""
    cli.server.default = cli.server.named("hashed")
    return written(tmp_path / "batch.yaml", specification(**SMALL))


def given_to(cli: Cli) -> list[str]:
    """Return each prompt that the model was given, as one text."""
    asked = [request.body for request in cli.server.requests]
    return ["\n".join(str(one["content"]) for one in body["messages"]) for body in asked]


def test_a_batch_is_run_with_all_its_files_and_a_summary(cli: Cli, spec: str) -> None:
    done = cli.good("dialogue", "run", spec, "--out", "out")

    out = Path("out")
    assert "report: out/report.html" in done.out.replace(os.sep, "/")
    assert f"{DIALOGUES}/{DIALOGUES} dialogues, {TURNS} turns" in done.err
    assert set(results(out)) == {
        *("spec.yaml", "cast.json", "recording.jsonl", "manifest.json", "report.html"),
        *("dialogues.jsonl", "turns.parquet", "relationships.parquet"),
        *("sharegpt.jsonl", "openai.jsonl", "network.graphml"),
    }
    assert (out / "spec.yaml").read_bytes() == Path(spec).read_bytes()
    assert len(lines(out / "timings.jsonl")) == DIALOGUES
    assert len(cli.server.requests) == TURNS == len(lines(out / "recording.jsonl"))


def test_the_manifest_names_all_that_the_results_depend_on(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "out")

    manifest = json.loads(Path("out/manifest.json").read_text("utf-8"))
    assert set(manifest["files"]) == set(results(Path("out"))) - {"manifest.json"}
    assert manifest["model"] == "openai:test"
    assert manifest["models"] == ["openai:test"]
    assert manifest["embedder"] == "openai-words"
    assert manifest["seeds"] == {"seed": 7, "seeds": None, "repeats": 1}
    counts = {"arms": 1, "dialogues": 3, "done": 3, "failed": 0, "turns": 12, "calls": 12}
    assert manifest["counts"] == counts
    assert manifest["settings"]["conversation"] == {"window_turns": 20, "attempts": 3}
    assert {"persona-mcp", "python", "numpy", "machine"} < set(manifest["made_with"])


def test_two_runs_of_a_batch_come_to_the_same_bytes(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "one", "--workers", "1")
    cli.good("dialogue", "run", spec, "--out", "other", "--workers", "8")

    assert results(Path("one")) == results(Path("other"))


def test_events_are_json_lines(cli: Cli, spec: str) -> None:
    done = cli.good("dialogue", "run", spec, "--out", "out", "--json")

    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("started", "finished")
    assert kinds.count("turn") == TURNS
    assert kinds.count("dialogue_done") == DIALOGUES
    assert kinds.count("wave") == 2
    last = events[-1]
    assert (last["done"], last["failed"], last["stopped"]) == (DIALOGUES, 0, False)
    assert last["report"] == str(Path("out/report.html"))


def test_what_was_begun_is_gone_on_with_only_on_request(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "out")
    asked = len(cli.server.requests)

    finished = cli.good("dialogue", "run", spec, "--out", "out", "--resume")
    other = written(Path("other.yaml"), specification(name="other", **SMALL))
    refused = cli("dialogue", "run", other, "--out", "out", "--resume")

    assert len(cli.server.requests) == asked
    assert "report: " in finished.out
    assert refused.code == cli_run.FAILED
    assert "holds another batch" in refused.err
    cli.good("dialogue", "run", other, "--out", "out", "--force")
    assert len(cli.server.requests) == 2 * asked


def test_what_is_wrong_is_told_before_anything_is_made(cli: Cli, spec: str) -> None:
    bad = written(Path("bad.yaml"), {**specification(**SMALL), "repeats": 0})

    for arguments, said in (
        ((bad, "--out", "out"), "bad.yaml:"),
        ((spec, "--out", "out", "--engine", "dask"), "--engine: allowed is local, processes, ray"),
        (("nowhere.yaml", "--out", "out"), "no file of this name"),
    ):
        done = cli("dialogue", "run", *arguments)
        assert done.code == cli_run.FAILED
        assert said in done.err
    assert not Path("out").exists()
    assert cli.server.requests == []


def test_a_dry_run_tells_what_would_be_and_makes_nothing(cli: Cli, spec: str) -> None:
    told = cli.good("dialogue", "run", spec, "--out", "out", "--dry-run", "--json").json
    checked = cli.good("dialogue", "check", spec, "--json").json

    assert (told["dialogues"], told["calls_max"], told["estimate"]) == (DIALOGUES, TURNS, None)
    assert checked["estimate"]["model"] == "openai:test"
    assert not Path("out").exists()
    assert len(cli.server.requests) == 1


def test_a_check_without_the_probe_does_not_ask_the_model(cli: Cli, spec: str) -> None:
    told = cli.good("dialogue", "check", spec, "--no-probe", "--json").json

    assert (told["dialogues"], told["estimate"]) == (DIALOGUES, None)
    assert told["no_estimate"] == "the model was not asked"
    assert cli.server.requests == []


def test_a_failed_dialogue_is_told_and_held_again_with_what_came_after_it(
    cli: Cli, spec: str
) -> None:
    cli.good("dialogue", "run", spec, "--out", "whole")
    before = len(cli.server.requests)
    cli.server.script(*["hashed"] * 3, "400")

    failed = cli("dialogue", "run", spec, "--out", "out", "--workers", "1")
    status = cli.good("dialogue", "status", "out", "--json").json
    words = cli.good("dialogue", "status", "out").out
    shown = lines(Path("out/dialogues.jsonl"))

    assert failed.code == SOME_FAILED
    assert "--retry-failed" in failed.out
    assert "dialogue 0 failed: " in failed.err
    assert (status["status"], status["done"], status["failed"]) == ("finished", 2, 1)
    [one] = status["failures"]
    assert one["dialogue"] == 0
    assert "openai:test refused the request (400)" in one["reason"]
    assert "openai:test refused the request (400)" in words
    assert [line["status"] for line in shown] == ["failed", "done", "done"]
    assert shown[0]["error"]["message"] == one["reason"]
    assert results(Path("out")) != results(Path("whole"))
    assert cli.good("dialogue", "verify", "out").out.startswith("verified: ")
    asked = len(cli.server.requests)

    cli.good("dialogue", "run", spec, "--out", "out", "--retry-failed")

    assert results(Path("out")) == results(Path("whole"))
    # One call of the failed one; the second wave, whose world has changed; nothing else.
    assert len(cli.server.requests) - asked == 1 + 4
    assert asked - before == TURNS


def test_a_failed_batch_is_not_held_again_by_itself(cli: Cli, spec: str) -> None:
    cli.server.script("400")
    first = cli("dialogue", "run", spec, "--out", "out", "--json")
    asked = len(cli.server.requests)

    again = cli("dialogue", "run", spec, "--out", "out", "--resume")

    events = [json.loads(line) for line in first.out.splitlines()]
    [told] = [event for event in events if event["event"] == "dialogue_failed"]
    assert told["error"]["message"]
    assert (first.code, again.code) == (SOME_FAILED, SOME_FAILED)
    assert len(cli.server.requests) == asked


def test_another_model_or_embedder_does_not_go_on(
    cli: Cli, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.server.script(*["hashed"] * 3, "400")
    cli("dialogue", "run", spec, "--out", "out")

    other = cli("dialogue", "run", spec, "--out", "out", "--retry-failed", "--model", "openai:b")
    monkeypatch.setenv("PERSONA_EMBEDDER__MODEL", "openai:more")
    embedder = cli("dialogue", "run", spec, "--out", "out", "--retry-failed")

    assert "begun with the model openai:test, now it is openai:b" in other.err
    assert "begun with the embedder openai-words, now it is openai-more" in embedder.err


def test_a_finished_batch_does_not_answer_for_another_model(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "out", "--model", "openai:a")
    asked, whole = len(cli.server.requests), results(Path("out"))

    for options in ([], ["--resume"], ["--retry-failed"]):
        other = cli("dialogue", "run", spec, "--out", "out", "--model", "openai:b", *options)
        assert other.code == cli_run.FAILED
        assert "begun with the model openai:a, now it is openai:b" in other.err
    cli.good("dialogue", "run", spec, "--out", "out", "--model", "openai:a")
    cli.good("dialogue", "run", spec, "--out", "out", "--resume")

    assert (len(cli.server.requests), results(Path("out"))) == (asked, whole)


def test_the_command_that_is_told_to_go_on_with_is_taken_as_it_is_printed(
    cli: Cli, spec: str
) -> None:
    cli.server.script(*["hashed"] * 3, "400")
    file = Path("my batch.yaml")
    file.write_bytes(Path(spec).read_bytes())
    arguments = ("--out", "my results", "--model", "openai:b")

    failed = cli("dialogue", "run", str(file), *arguments)
    _, _, printed = failed.out.partition("hold it again with: persona ")
    words = shlex.split(printed.splitlines()[0])

    assert failed.code == SOME_FAILED
    assert words == ["dialogue", "run", str(file), *arguments, "--retry-failed"]
    cli.good(*words)
    told = again(Path("a"), Path("b"), "processes", None)
    assert told == "persona dialogue run a --out b --engine processes"


def test_ctrl_c_stops_at_turns_and_going_on_comes_to_the_same_bytes(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "whole")
    before = len(cli.server.requests)
    cli.server.default = Behaviour(hashed=True, delay_s=0.01)

    def interrupt() -> None:
        eventually(lambda: len(cli.server.requests) >= before + 3, "the third call")
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    stopped = cli("dialogue", "run", spec, "--out", "out")
    interrupting.join()
    asked = len(cli.server.requests) - before
    status = cli.good("dialogue", "status", "out", "--json").json
    refused = cli("dialogue", "run", spec, "--out", "out")
    cli.good("dialogue", "run", spec, "--out", "out", "--resume")

    assert stopped.code == cli_run.INTERRUPTED
    assert "go on with: persona dialogue run" in stopped.out
    assert "stops where each dialogue's turn ends" in stopped.err
    assert asked < TURNS
    assert (status["status"], status["left"] > 0) == ("stopped", True)
    kept = status["calls_under_way"]
    assert (f"{kept} model call" in stopped.out) is (kept > 0)
    assert "--resume" in refused.err
    assert results(Path("out")) == results(Path("whole"))
    assert len(cli.server.requests) - before == TURNS  # nothing was asked twice


def test_a_second_ctrl_c_stops_at_once(cli: Cli, spec: str) -> None:
    cli.server.default = cli.server.named("silence")
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    process = start("dialogue", "run", spec, "--out", "out", **given)
    try:
        eventually(lambda: cli.server.requests, "the model to be asked")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "Ctrl-C again" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        end(process)

    assert process.returncode == cli_run.INTERRUPTED
    cli.server.default = cli.server.named("hashed")
    cli.good("dialogue", "run", spec, "--out", "out", "--resume")


def test_a_running_batch_is_seen_and_left_alone(cli: Cli, spec: str) -> None:
    cli.server.default = cli.server.named("silence")
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    process = start("dialogue", "run", spec, "--out", "out", **given)
    try:
        eventually(lambda: cli.server.requests, "the model to be asked")

        status = cli.good("dialogue", "status", "out", "--json").json
        refused = cli("dialogue", "run", spec, "--out", "out", "--resume")
    finally:
        process.kill()
        end(process)

    assert status["status"] == "running"
    assert "another process works on that batch" in refused.err


def test_a_report_is_written_again(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "out")
    wanted = results(Path("out"))
    Path("out/report.html").unlink()

    told = cli.good("dialogue", "report", "out", "--json").json

    assert told["report"] == str(Path("out/report.html"))
    assert results(Path("out")) == wanted
    assert cli("dialogue", "report", "nowhere").err.startswith("error: no batch in 'nowhere'")
    assert "report: " in cli.good("dialogue", "report", "out").out


def test_a_folder_that_is_no_batch_is_told(cli: Cli) -> None:
    for command in ("status", "verify", "report"):
        done = cli("dialogue", command, "nowhere")
        assert done.code == cli_run.FAILED
        assert "'nowhere'" in done.err
    assert "no such folder" in cli("dialogue", "verify", "nowhere").err


def test_a_check_of_a_file_that_is_not_there_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        check(Path("nowhere.yaml"), None, as_json=False)

    assert ended.value.exit_code == cli_run.FAILED
    assert "no file of this name" in capsys.readouterr().err


# What is in the outputs: who hears what.


def held(cli: Cli, name: str, **changes: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Run a batch of a spec, and return its folder and its dialogues."""
    file = written(Path(f"{name}.yaml"), specification(name=name, repeats=1, **changes))
    cli.good("dialogue", "run", file, "--out", name)
    cli.good("dialogue", "verify", name)
    return Path(name), lines(Path(name) / "dialogues.jsonl")


def spoken(folder: Path) -> list[dict[str, Any]]:
    """Read the turns of a batch's folder."""
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(folder / "turns.parquet").to_pylist()
    return rows


def talk(**changes: Any) -> dict[str, Any]:
    """Give a wave of one dialogue of three."""
    return {"dialogues": [{"participants": ["ada", "bo", "cleo"], "max_turns": 6, **changes}]}


def prompts_of(cli: Cli, name: str) -> list[str]:
    """Return the prompts that were given to the model for one persona to speak."""
    return [text for text in given_to(cli) if text.startswith(f"You are {name}")]


def heard(folder: Path, turn: int) -> set[str]:
    """Return who heard a spoken turn, or said it."""
    [row] = [r for r in spoken(folder) if r["turn"] == turn and r["kind"] != "narrated"]
    return {row["speaker"], *row["heard_by"]}


def test_a_late_joiner_knows_only_what_it_heard(cli: Cli) -> None:
    cli.server.script("hashed", Behaviour(text="The key lies under the anchor stone."))
    cli.server.default = cli.server.named("hashed")

    late = {"persona": "cleo", "turn": 3}
    folder, [dialogue] = held(cli, "late", waves=[talk(joins=[late])])

    assert [heard(folder, turn) for turn in (1, 2)] == [{"ada", "bo"}] * 2
    assert all(heard(folder, turn) == {"ada", "bo", "cleo"} for turn in range(3, 7))
    assert dialogue["turns"] == 6
    knowing = [text for text in prompts_of(cli, "Cleo") if "anchor stone" in text]
    assert prompts_of(cli, "Cleo") and not knowing
    assert any("anchor stone" in text for text in prompts_of(cli, "Ada"))


def test_a_whisper_is_heard_by_whom_it_is_for(cli: Cli) -> None:
    cli.server.script("hashed", Behaviour(text="The key lies under the anchor stone."))
    cli.server.default = cli.server.named("hashed")

    whisper = {"turn": 2, "by": "bo", "to": ["ada"]}
    folder, _ = held(cli, "whisper", waves=[talk(whispers=[whisper])])

    [row] = [row for row in spoken(folder) if row["turn"] == 2]
    assert (row["speaker"], row["kind"], row["heard_by"]) == ("bo", "whispered", ["ada"])
    assert heard(folder, 3) == {"ada", "bo", "cleo"}
    assert not [text for text in prompts_of(cli, "Cleo") if "anchor stone" in text]
    assert [text for text in prompts_of(cli, "Ada") if "anchor stone" in text]


def test_a_leaver_hears_nothing_from_then_on(cli: Cli) -> None:
    cli.server.default = cli.server.named("hashed")

    leaves = [{"persona": "cleo", "turn": 4}]
    folder, _ = held(cli, "leaver", waves=[talk(leaves=leaves)])

    assert heard(folder, 3) == {"ada", "bo", "cleo"}
    assert all(heard(folder, turn) == {"ada", "bo"} for turn in range(4, 7))


def test_what_was_heard_is_told_on_in_a_later_wave_as_hearsay(cli: Cli) -> None:
    cli.server.script(
        Behaviour(text="Cleo lied to me about the silver, I swear it."),
        "hashed",
        Behaviour(text="Ada says that Cleo lied to her about the silver."),
        "hashed",
    )
    cli.server.default = cli.server.named("hashed")

    two = {"max_turns": 2}
    waves = [
        {"dialogues": [{"participants": ["ada", "bo"], "first_speaker": "ada", **two}]},
        {"dialogues": [{"participants": ["bo", "cleo"], "first_speaker": "bo", **two}]},
    ]
    folder, _ = held(cli, "hearsay", waves=waves)

    rows = spoken(folder)
    assert [heard_by["heard_by"] for heard_by in rows if heard_by["dialogue"] == 0] == [
        ["bo"],
        ["ada"],
    ]
    # Who was told remembers it; who was not there does not, until somebody says it there.
    [later] = [text for text in prompts_of(cli, "Bo") if "silver" in text][-1:]
    assert "Cleo lied to me about the silver" in later
    cleo = prompts_of(cli, "Cleo")
    assert not any("Cleo lied to me about the silver" in text for text in cleo)
    assert any("Ada says that Cleo lied" in text for text in cleo)


def test_a_narrator_comes_in_at_a_turn_and_when_a_condition_holds(cli: Cli) -> None:
    cli.server.script("hashed", Behaviour(text="Look, a lantern at sea, a lantern!"))
    cli.server.default = cli.server.named("hashed")

    interventions = [
        {"text": "The bell of the church rings.", "turn": 2, "to": ["ada", "bo"]},
        {"text": "A boat runs aground.", "when": {"says": "lantern", "by": "bo"}},
    ]
    folder, [dialogue] = held(cli, "narrator", waves=[talk(interventions=interventions)])

    bell, boat = dialogue["interventions"]
    assert (bell["turn"], bell["heard_by"]) == (2, ["ada", "bo"])
    assert (boat["turn"], boat["heard_by"]) == (3, ["ada", "bo", "cleo"])
    assert not [text for text in prompts_of(cli, "Cleo") if "bell of the church" in text]
    assert [text for text in prompts_of(cli, "Bo") if "bell of the church" in text]
    assert [text for text in prompts_of(cli, "Cleo") if "A boat runs aground." in text]
    assert len([row for row in spoken(folder) if row["kind"] == "narrated"]) == 2


def test_a_script_in_a_pipe_reads_events_and_the_exit_code(cli: Cli, spec: str) -> None:
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    done = run("dialogue", "run", spec, "--out", "out", "--json", **given)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "finished"


EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_run_and_verified(cli: Cli, example: Path) -> None:
    cli.server.default = cli.server.named("hashed")

    cli.good("dialogue", "run", str(example), "--out", "out")

    asked = len(cli.server.requests)
    assert cli.good("dialogue", "verify", "out").out.startswith("verified: ")
    assert len(cli.server.requests) == asked


@pytest.mark.parametrize(
    ("busy", "wall_s", "engine", "processors", "advised"),
    [
        (0.97, 60.0, "local", 4, True),
        (0.5, 60.0, "local", 4, False),
        (0.97, 5.0, "local", 4, False),
        (0.97, 60.0, "processes", 4, False),
        (0.97, 60.0, "local", 1, False),
    ],
)
def test_a_long_run_that_its_own_process_held_up_is_told_of_the_other_processors(
    busy: float, wall_s: float, engine: str, processors: int, advised: bool
) -> None:
    summary = Summary(8, 8, 0, 96, 96, stopped=False, wall_s=wall_s, busy=busy)

    advice = pace(summary, engine, processors)

    assert ("busy 97% of the time" in advice and "over 4 processors" in advice) is advised
