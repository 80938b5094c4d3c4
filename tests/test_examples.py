"""The examples can be held, and each shows what it is there to show."""

import asyncio
import re
from pathlib import Path

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.config.spec_files import read_plan
from persona_mcp.server.batch.check import check
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.values import Job
from persona_mcp.state.errors import InvalidParams

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BLOCK = re.compile(r"^```(yaml|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = sorted(EXAMPLES.glob("*.yaml"))
LINES_MOST = 90
COMMENT = re.compile(r"(^|\s)# ")


def planned(name: str) -> BatchPlan:
    return read_plan(EXAMPLES / f"{name}.yaml")[1]


def jobs(plan: BatchPlan, arm: int = 0, repeat: int = 0) -> list[list[Job]]:
    return [list(plan.jobs(arm, repeat, wave, 0.0)) for wave in range(plan.waves)]


def test_there_are_five_at_least() -> None:
    names = {file.stem for file in FILES}

    assert names >= {"quarrel", "market", "secret", "panel", "first_meeting"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_can_be_held_on_a_fresh_machine(file: Path, settings: Settings) -> None:
    found = asyncio.run(check(*read_plan(file), settings, None))

    assert found.dialogues >= 1
    assert found.cast
    assert not settings.data_dir.exists()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_short_and_explains_itself(file: Path) -> None:
    lines = file.read_text("utf-8").splitlines()

    assert len(lines) <= LINES_MOST
    assert lines[0].startswith("# ")
    assert sum(bool(COMMENT.search(line)) for line in lines) >= 5


def test_the_quarrel_comes_before_its_repair() -> None:
    plan = planned("quarrel")

    (quarrel,), (repair,) = jobs(plan)
    assert (quarrel.talk.first_speaker, repair.talk.first_speaker) == ("mara", "ilse")
    assert quarrel.talk.scene != repair.talk.scene
    assert plan.gap_s(0, 1) == 72 * 3600
    assert plan.turns_max == 16, "a few minutes on the embedded model"
    assert len(plan.spec.relationships) == 2


def test_at_the_market_each_of_six_is_in_one_pair_a_day() -> None:
    days = jobs(planned("market"))

    pairs = [[tuple(job.talk.participants or ()) for job in day] for day in days]
    assert [len({id for pair in day for id in pair}) for day in pairs] == [6, 6, 6]
    assert len({frozenset(map(frozenset, day)) for day in pairs}) > 1


def test_the_secret_is_whispered_before_the_late_one_comes() -> None:
    ((job,),) = jobs(planned("secret"))

    (whisper,), (late,) = job.talk.whispers, job.talk.joins
    assert (whisper.by, whisper.to, late.persona) == ("ines", ["tomas"], "bela")
    assert whisper.turn < late.turn
    assert job.talk.ends_when is not None
    assert job.talk.ends_when.by == "bela"


def test_the_panel_of_six_is_led_by_initiative_and_two_interventions() -> None:
    ((job,),) = jobs(planned("panel"))

    assert len(job.talk.participants or ()) == 6
    assert job.talk.speakers == "initiative"
    by_turn, by_condition = job.talk.interventions
    assert by_turn.turn == 6
    assert by_condition.when is not None
    assert job.talk.ends_when is not None


def test_the_first_meeting_is_held_with_the_same_seeds_in_both_arms() -> None:
    plan = planned("first_meeting")

    assert (len(plan.arms), plan.repeats, plan.total) == (2, 3, 6)
    for repeat in range(3):
        (one,), (other,) = (jobs(plan, arm, repeat)[0] for arm in (0, 1))
        assert (one.seed, one.topic, one.id) == (other.seed, other.topic, other.id)


def blocks(kind: str) -> list[str]:
    page = (ROOT / "docs" / "dialogues.md").read_text("utf-8")
    return [text for its, text in BLOCK.findall(page) if its == kind]


def planned_as(folder: Path, text: str) -> BatchPlan:
    file = folder / "first.yaml"
    file.write_text(text, "utf-8")
    return read_plan(file)[1]


def test_what_the_page_says_can_be_held(tmp_path: Path) -> None:
    first, more, talk, grid = blocks("yaml")

    assert planned_as(tmp_path, first).turns_max == 8
    assert planned_as(tmp_path, first + more).total == 20
    indented = talk.replace("\n", "\n  ").rstrip(" ")
    assert planned_as(tmp_path, f"{first}  {indented}").spec.dialogue.ends_when is not None
    waves = "waves: [{}, {}]\n"
    assert len(planned_as(tmp_path, first + waves + grid).arms) == 64


def test_faults_read_as_the_page_shows_them(tmp_path: Path) -> None:
    first, *_ = blocks("yaml")
    lines = first.splitlines()
    lines.insert(5, "      charisma: 99")
    lines.append("  first_speaker: marra")
    shown, also = blocks("text")[0].splitlines()

    with pytest.raises(InvalidParams) as refused:
        planned_as(tmp_path, "\n".join(lines))
    with pytest.raises(InvalidParams) as again:
        planned_as(tmp_path, "\n".join(lines).replace("99", "9"))

    assert (refused.value.message, again.value.message) == (shown, also)
