import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.server.batch.outputs import write_outputs
from persona_mcp.server.report.arms import ArmTally
from persona_mcp.server.report.controls import evenly
from persona_mcp.server.report.curves import scale
from persona_mcp.server.report.findings import FAILED, TALKS, TURNS_DRAWN, Gatherer
from persona_mcp.server.report.graph import bent, graph
from persona_mcp.server.report.html import data, el, html
from persona_mcp.server.report.sections import interval, number, span
from persona_mcp.server.report.talks import dots
from persona_mcp.state.batch.plan import BatchPlan, plan_batch
from persona_mcp.state.batch.reading import DIMENSIONS, beginnings, said
from persona_mcp.state.batch.statistics import Interval, Moments
from persona_mcp.state.batch.values import Cast, Outcome
from persona_mcp.state.dialogue_spec import DialogueSpec
from tests.browser import CHROMIUM, page
from tests.outcomes import LAWS, NARRATOR, Arrows, Line, cast_of, job_of, outcome_of

EVIL = "</script><img src=x onerror=alert(1)>\"'&\u2028\u2029]]>"
CAST = cast_of(ada="Ada", ben=f"Ben {EVIL}", cy="Cy")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


def plan_of(repeats: int = 1, **more: Any) -> BatchPlan:
    people = {id: {"persona": {"name": id}} for id in ("ada", "ben", "cy")}
    given = {"name": f"harbour {EVIL}"[:80], "personas": people, "outputs": ["report"]}
    return plan_batch(DialogueSpec.model_validate({**given, "repeats": repeats, **more}))


TWO_ARMS = {"variations": {"dialogue.scene": [f"The quay {EVIL}", "An inn"]}}


def talks(arms: int = 2, repeats: int = 2) -> Iterator[Outcome]:
    """In the second arm they are kinder; in each talk one whispers and one comes late."""
    index = 0
    for arm in range(arms):
        for repeat in range(repeats):
            arrows: Arrows = {}
            job = job_of(
                index,
                arm=arm,
                repeat=repeat,
                topic=f"the boat {EVIL}",
                scene=("The quay", "An inn")[arm],
                whispers=[{"turn": 2, "to": ["ada"]}],
                joins=[{"persona": "cy", "turn": 3}],
            )
            lines = [
                Line("ada", f"Good morning {EVIL}", 0.1 + arm / 2, heard_by=["ben"]),
                Line("ben", "The key is under the stone.", 0.3 + arm / 2, heard_by=["ada"]),
                Line(NARRATOR, "A bell rings.", heard_by=["ada", "ben", "cy"]),
                Line("cy", "What did I miss?", 0.02 * repeat, heard_by=["ada", "ben"]),
                Line("ada", "Nothing at all.", 0.0, heard_by=["ben", "cy"], template=True),
            ]
            yield outcome_of(job, lines, arrows, summaries={"cy": "I came late."})
            index += 1


def write(
    folder: Path, outcomes: Sequence[Outcome], plan: BatchPlan, cast: Cast = CAST
) -> tuple[str, "Elements"]:
    write_outputs(folder, plan, lambda: iter(outcomes), lambda _: cast)
    text = (folder / "report.html").read_text("utf-8")
    return text, Elements(text)


class Elements(HTMLParser):
    """What a page is made of, as a browser reads it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str, kind: str = "") -> int:
        named = [its for name, its in self.found if name == tag]
        return sum(not kind or kind in (its.get("class") or "").split() for its in named)


def test_every_section_is_there(tmp_path: Path) -> None:
    text, found = write(tmp_path, [*talks()], plan_of(2, **TWO_ARMS))

    for name in ("summary", "controls", "relationships", "transcripts", "cost"):
        assert f'<section id="{name}">' in text and f'href="#{name}"' in text
    assert found.count("details", "talk") == 4
    assert found.count("svg", "graph") == 4, "before and after, for each arm"
    assert found.count("svg", "curves") == 2


def test_nothing_in_it_is_from_elsewhere(tmp_path: Path) -> None:
    text, found = write(tmp_path, [*talks()], plan_of(2, **TWO_ARMS))

    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    links = [its[a] for _, its in found.found for a in ("src", "href") if a in its]
    assert all(link is not None and (link == "data:," or link[0] == "#") for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


def test_hostile_names_and_texts_are_shown_and_nothing_else(tmp_path: Path) -> None:
    text, found = write(tmp_path, [*talks()], plan_of(2, **TWO_ARMS))

    assert found.count("img") == 0
    assert not [its for _, its in found.found if any(name.startswith("on") for name in its)]
    assert found.count("script") == 3, "the page's own, and the data of two charts"
    assert any(f"Ben {EVIL}"[:20] in part for part in found.texts)
    for script in re.findall(r'<script type="application/json".*?</script>', text, re.S):
        body = script.removeprefix("<script").partition(">")[2].removesuffix("</script>")
        assert not re.search("[<>&\u2028\u2029]", body)


def test_a_text_that_looks_like_the_template_fills_nothing_in(tmp_path: Path) -> None:
    marks = cast_of(ada="<!--body-->", ben="<!--title-->", cy="Cy")

    text, _ = write(tmp_path, [*talks()], plan_of(2, **TWO_ARMS), marks)

    assert text.count("<main>") == 1 and "&lt;!--body--&gt;" in text


def test_a_whisper_and_who_comes_late_are_seen(tmp_path: Path) -> None:
    text, _ = write(tmp_path, [*talks(1, 1)], plan_of())
    turns = re.findall(r'<li class="turn.*?</li>', text, re.S)

    assert 'class="turn whispered" data-heard="ada ben"' in turns[1]
    assert "not heard by Cy" in turns[1] and "whispered" in turns[1]
    assert 'class="turn narrated" data-heard="ada ben cy"' in turns[2]
    assert "exit line" in turns[4]
    late = text.index("comes in, and knows nothing of what was said before")
    assert text.index("A bell rings") > late > text.index("The key is under the stone")


def test_arms_stand_side_by_side_with_what_is_different(tmp_path: Path) -> None:
    text, _ = write(tmp_path, [*talks(2, 3)], plan_of(3, **TWO_ARMS))
    row = text.split("change of affinity</th>")[1]
    difference = row.split("difference to the first arm")[1].split("</tr>")[0]

    assert 'class="differs"' in difference, "kinder words, and no other difference"
    assert re.search(r"\+0\.\d+ to \+0\.\d+", difference)


def test_a_failed_dialogue_is_counted_and_its_reason_told(tmp_path: Path) -> None:
    error = {"code": -32002, "message": EVIL, "data": {"code": "model_timeout"}}
    failed = outcome_of(job_of(1, repeat=1), [Line("ada", "Hm.")], error=error)

    text, _ = write(tmp_path, [next(talks(1, 1)), failed], plan_of(2))

    assert "model timeout: 1" in text
    assert '<div class="card"><b>1</b><span>failed</span>' in text
    assert "<b>model timeout</b>" in text and "-32002" not in text


def test_a_dialogue_that_made_all_its_turns_does_not_seem_to_have_run_out_of_time(
    tmp_path: Path,
) -> None:
    text, _ = write(tmp_path, [*talks()], plan_of(2, **TWO_ARMS))

    assert "ended: time or turns used up" in text
    assert "<li>time or turns used up: 2</li>" in text


def test_an_empty_batch_still_has_a_report(tmp_path: Path) -> None:
    nothing = outcome_of(job_of(), [], error={"code": "unavailable", "message": "no model"})

    text, _ = write(tmp_path, [nothing], plan_of())

    assert "No relationship moved in run 0." in text and "nothing to estimate it from" in text


def test_each_control_has_its_interval_and_says_how_it_was_found(tmp_path: Path) -> None:
    lines = [Line("ada", f"I saw {n} gulls.", 0.5) for n in range(3)]
    lines += [Line("ben", f"My ledger has {n} lines.", 0.5) for n in range(3)]
    outcomes = [outcome_of(job_of(n, repeat=n), lines) for n in range(12)]

    text, _ = write(tmp_path, outcomes, plan_of(12))
    section = text.split('<section id="controls">')[1].split("</section>")[0]

    for name in ("Agreeableness bias", "Drift in all dialogues", "Repetition", "Distinct voices"):
        row = section.split(f"{name}</th>")[1].split("</tr>")[0]
        assert 'class="interval"' in row, name
    assert "12 of 12 dialogues are such" in section
    assert "bootstrap of dialogues, seeded" in section and "Wilson" in section
    assert "Chance: 50.0 %" in section and "<span>100.0 %</span>" in section


def test_measured_times_do_not_change_the_report(tmp_path: Path) -> None:
    one = next(talks(1, 1))
    pages = [
        write(tmp_path, [replace(one, measured=measured)], plan_of())[0]
        for measured in ({}, {"wall_s": 7.0})
    ]

    assert pages[0] == pages[1]


def test_of_many_dialogues_a_sample_is_shown_and_the_rule_is_said(tmp_path: Path) -> None:
    line = [Line("ada", "A short one."), Line("ben", "Yes, it is.")]
    problem = {"code": "model_timeout", "message": "late"}
    outcomes = [
        outcome_of(job_of(n, repeat=n), line, error=problem if n in (7, 9) else None)
        for n in range(60)
    ]

    text, found = write(tmp_path, outcomes, plan_of(60))

    assert found.count("details", "talk") == TALKS + 1
    assert "21 of 60 dialogues: evenly spaced by index, and the first that failed" in text
    assert 'id="talk-7"' in text and 'id="talk-9"' in text


def test_what_is_held_for_a_report_is_bounded() -> None:
    line = [Line("ada", f"Word {n}.", 0.4) for n in range(30)]
    problem = {"code": "model_timeout", "message": "late"}
    plan = plan_of(1, waves=[{"times": 100}])
    gatherer = Gatherer(plan, lambda _: CAST, LAWS)

    for n in range(100):
        outcome = outcome_of(job_of(n, wave=n), line, error=problem if n % 2 else None)
        gatherer.add(outcome, said(outcome))
    found = gatherer.result()

    assert len(found.talks) <= TALKS + FAILED
    assert sum(len(talk.turns) for talk in found.drawn[0].course) <= TURNS_DRAWN
    assert found.drawn[0].cut and found.counts.turns == 3000


def test_runs_are_the_units_where_an_arm_has_several() -> None:
    tally = ArmTally(0, by_run=True)
    for repeat, turns in ((0, 2), (0, 4), (1, 9)):
        outcome = outcome_of(job_of(repeat=repeat), [Line("ada", "A word.")] * turns)
        tally.add(outcome, said(outcome), beginnings(outcome, LAWS))
    tally.finish()

    found = tally.mean("turns a dialogue")
    assert (found.value, found.count) == (6.0, 2)


def test_indices_are_chosen_evenly() -> None:
    assert evenly(3, 5) == {0, 1, 2}
    assert sorted(evenly(100, 4)) == [0, 25, 50, 75]


def test_an_axis_has_0_on_it_and_few_lines() -> None:
    assert scale(0.02, 0.04) == (0.0, 0.04, 0.01)
    low, high, step = scale(-0.99, 0.7)
    assert (low, high, step) == (-1.0, 1.0, 0.5)
    assert scale(0.0, 0.0) == (0.0, 0.005, 0.005)


def test_arrows_of_opposite_directions_stay_apart() -> None:
    there, back = bent((0.0, 0.0), (100.0, 0.0)), bent((100.0, 0.0), (0.0, 0.0))

    assert there[1][1] > 20 and back[1][1] < -20
    assert there[0][0] > 0 and there[2][0] < 100, "they begin and end at the rims"


def test_a_graph_has_a_node_for_each_and_an_arrow_for_each_view() -> None:
    view = {name: Moments([-0.5]) for name in DIMENSIONS}
    views = {("ada", "ben"): view, ("ada", "elsewhere"): view}

    found = Elements(graph([("ada", "Ada"), ("ben", EVIL)], views, "now"))

    assert found.count("circle", "node") == 2 and found.count("g", "dislike") == 1
    assert any("affinity -0.500" in text for text in found.texts)


def test_a_dot_is_full_for_who_heard_it() -> None:
    marks = dots(["ada"], {"ada": "Ada", "cy": EVIL}, ["ada", "cy"], ["ada", "cy"])

    assert [mark[-8] for mark in marks] == ["●", "○"]
    assert "did not hear it" in marks[1] and "<img" not in marks[1]


def test_elements_escape_what_is_not_markup() -> None:
    assert el("b", "<i>", el("i", "&"), None, title='"') == (
        '<b title="&quot;">&lt;i&gt;<i>&amp;</i></b>'
    )
    assert html("a\x00b") == "a\ufffdb"
    assert data({"a": "</script>"}) == (
        '<script type="application/json">{"a":"\\u003c/script\\u003e"}</script>'
    )


def test_numbers_are_written_for_people() -> None:
    assert number(None, 2) == "\u2013" and number(-0.001, 2) == "0.00"
    assert number(0.5, 2, signed=True) == "+0.50" and number(12345.6, 1) == "12,345.6"
    assert interval(Interval(1.0, None, None, 1, "none")) == "<span>1.00</span>"
    assert [span(s) for s in (59, 300, 36_000, 864_000)] == [
        "59 s",
        "5.0 min",
        "10.0 h",
        "10.0 days",
    ]


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_a_browser_shows_it_without_a_fault_or_a_request(
    tmp_path: Path, width: int, dark: bool
) -> None:
    write(tmp_path, [*talks()], plan_of(2, **TWO_ARMS))

    with page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html", width, dark=dark)

        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert browser.faults == []
        assert browser.requests == [(tmp_path / "report.html").as_uri()]


@needs_chromium
@pytest.mark.parametrize("width", [1200, 390])
def test_a_name_and_a_text_of_one_long_word_make_the_page_no_wider(
    tmp_path: Path, width: int
) -> None:
    word = "W" * 80
    long = outcome_of(job_of(), [Line("ada", word * 10)], {}, summaries={"ada": word * 10})
    write(tmp_path, [long], plan_of(), cast_of(ada=word, ben="Ben", cy="Cy"))

    with page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html", width)

        assert browser.run("document.documentElement.scrollWidth") <= width


@needs_chromium
def test_a_name_from_right_to_left_turns_none_of_the_names_beside_it(tmp_path: Path) -> None:
    talk = outcome_of(job_of(), [Line("ada", "Good morning.")], {})
    write(tmp_path, [talk], plan_of(), cast_of(ada="אברהם", ben="Ben", cy="Cy"))

    with page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html")

        lefts = "[...document.querySelectorAll('.who bdi')].map(name => name.offsetLeft)"
        found = browser.run(lefts)
        assert len(found) > 1
        assert found == sorted(found)


@needs_chromium
def test_a_point_of_a_curve_shows_the_turn_behind_it(tmp_path: Path) -> None:
    write(tmp_path, [*talks()], plan_of(2, **TWO_ARMS))

    with page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html")
        browser.run("document.querySelector('[data-dimension=trust]').click()")
        press = "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})"
        browser.run(f"document.querySelector('.curves').dispatchEvent({press})")
        told = browser.run("document.querySelector('.behind').textContent")
        trust = browser.run("document.querySelector('.dimension.on').dataset.of")

        assert trust == "trust" and "trust " in told
        assert "dialogue #0, turn" in told and "Why: warmth" in told
        assert browser.faults == []


@needs_chromium
def test_a_transcript_is_read_with_the_ears_of_one(tmp_path: Path) -> None:
    write(tmp_path, [*talks(1, 1)], plan_of())

    with page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html")
        browser.run(
            "(select => { select.value = 'cy'; select.dispatchEvent(new Event('change')); })"
            "(document.querySelector('select[data-ears]'))"
        )
        missed = "Array.from(document.querySelectorAll('.unheard .number')).map(n => n.textContent)"

        assert browser.run(missed) == ["1", "2"]
        assert browser.faults == []
