"""`persona relationships`: tables, lists, curves and pictures, and what it says when it cannot."""

import asyncio
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.relationships import INSTALL
from tests.arrows import CRUEL, happen
from tests.command_line import Cli


@pytest.fixture
def known(cli: Cli) -> Cli:
    """Aria likes Kira, Kira dislikes Aria, and Aria knows the user ann."""
    cli.good("ask", "Aria", "Good evening!", "--user", "ann")
    database = open_database(Settings(data_dir=cli.data_dir, _env_file=None))
    now = time.time()
    for number in range(4):
        at = now - 3600 + 60 * number
        happen(database, f"a{number}", "aria", "kira", at=at, why=f"kind {number}")
        happen(database, f"k{number}", "kira", "aria", CRUEL, at=at, why=f"cruel {number}")
    asyncio.run(database.aclose())
    return cli


def test_the_whole_world_is_a_matrix(known: Cli) -> None:
    out = known.good("relationships").out

    aria, kira = (next(x for x in out.splitlines() if x.startswith(n)) for n in ("Aria", "Kira"))
    assert aria.count("+.") == 2
    assert "-." in kira
    assert "Noor" not in out
    edges = known.good("relationships", "--json").json["edges"]
    assert {(e["from"], e["to"]) for e in edges} == {
        ("aria", "ann"),
        ("aria", "kira"),
        ("kira", "aria"),
    }


def test_one_persona_is_listed_with_whom_it_wants_to_talk_to(known: Cli) -> None:
    out = known.good("relationships", "--of", "ARIA").out
    found = known.good("relationships", "--of", "aria", "--json").json

    assert "wants" in out
    assert [one["other_persona_id"] for one in found["relationships"]] == ["kira", "ann"]
    assert all(0 <= one["wants_to_talk"] <= 100 for one in found["relationships"])
    assert str(found["relationships"][0]["wants_to_talk"]) in out


def test_a_persona_that_met_nobody_says_so(known: Cli) -> None:
    assert known.good("relationships", "--of", "Noor").out == "noor has not met anybody yet\n"


def test_two_are_followed_over_time_in_both_directions(known: Cli) -> None:
    out = known.good("relationships", "--over-time", "Kira", "Aria").out
    curves = known.good("relationships", "--over-time", "Kira", "aria", "--json").json["curves"]

    assert out.index("How Kira sees Aria") < out.index("How Aria sees Kira")
    assert "cruel 3" in out
    assert [(one["from"], one["to"]) for one in curves] == [("kira", "aria"), ("aria", "kira")]
    assert [event["event_id"] for event in curves[0]["events"]] == ["k0", "k1", "k2", "k3"]
    assert curves[0]["points"][-1]["affinity"] < 0 < curves[1]["points"][-1]["affinity"]


def test_a_user_has_no_view_of_its_own(known: Cli) -> None:
    out = known.good("relationships", "--over-time", "Aria", "ann").out

    assert [line for line in out.splitlines() if line.startswith("How ")] == ["How Aria sees ann"]


@pytest.mark.parametrize("ending", ["svg", "png", "SVG"])
@pytest.mark.parametrize("what", [(), ("--of", "aria"), ("--over-time", "aria", "kira")])
def test_each_of_them_can_be_drawn_over_what_was_there(
    known: Cli, tmp_path: Path, ending: str, what: tuple[str, ...]
) -> None:
    file = tmp_path / f"picture.{ending}"
    file.write_text("an older one")

    said = known.good("relationships", *what, "--plot", str(file)).out

    assert said == f"wrote {file}\n"
    if ending == "png":
        assert file.read_bytes().startswith(b"\x89PNG")
    else:
        assert "Kira" in "".join(ElementTree.parse(file).getroot().itertext())


def test_a_picture_of_one_shows_only_its_own_arrows(known: Cli, tmp_path: Path) -> None:
    file = tmp_path / "kira.svg"

    told = known.good("relationships", "--of", "Kira", "--plot", str(file), "--json").json

    drawn = "".join(ElementTree.parse(file).getroot().itertext())
    assert told["plot"] == str(file)
    assert "Aria" in drawn
    assert "ann" not in drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot", "x.pdf"), "--plot: allowed is a file that ends in .svg or .png, given was x"),
        (("--plot", "nowhere/x.svg"), "--plot: allowed is a file that can be written"),
        (("--of", "aria", "--over-time", "a", "b"), "--of: allowed is without --over-time"),
        (("--of", "nobody"), "persona 'nobody' not found"),
        (("--over-time", "aria", "nobody"), "persona 'nobody' not found"),
        (("--over-time", "aria", "Aria"), "--over-time: allowed is two different personas"),
        (("--over-time", "aria", "noor"), "nothing has happened between Aria and Noor yet"),
        (("--of", "noor", "--plot", "x.svg"), "--plot: nobody has met anybody yet"),
        (("--world", "elsewhere"), "world 'elsewhere' not found"),
    ],
)
def test_what_cannot_be_shown_is_said(known: Cli, arguments: tuple[str, ...], message: str) -> None:
    done = known("relationships", *arguments)

    assert done.code == 1
    assert message in done.err
    assert done.out == ""


def test_without_the_library_a_picture_says_how_to_get_it(
    known: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "persona_mcp.server.relationship_plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    done = known("relationships", "--plot", "x.svg")

    assert done.code == 1
    assert INSTALL in done.err
    known.good("relationships")


def test_the_library_is_loaded_for_a_picture_only(
    known: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    known.good("relationships")
    known.good("relationships", "--over-time", "aria", "kira")
