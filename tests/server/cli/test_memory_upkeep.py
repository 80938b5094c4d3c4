"""`persona memory prune`, `fade`, `upkeep`, `shared` and `search --across`."""

import pytest

from persona_mcp.server.cli.calls import in_options
from persona_mcp.server.cli.memory_upkeep import DONE
from persona_mcp.server.cli.run import FAILED
from persona_mcp.state.errors import InvalidParams
from tests.command_line import Cli

ARIA = ("--persona", "Aria")
FEW = {
    "TARGET": "2",
    "START": "3",
    "LEAST": "1",
    "MOST_SHARE": "0.9",
    "KEPT_UNREAD_DAYS": "0",
    "PAUSE_S": "0",
}
"""Settings under which few memories are too many."""


@pytest.fixture
def few(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name, value in FEW.items():
        monkeypatch.setenv(f"PERSONA_PRUNING__{name}", value)
    return cli


def stored(cli: Cli, text: str, *more: str) -> str:
    id: str = cli.good("memory", "store", text, *ARIA, "--json", *more).json["memory_id"]
    return id


def three(cli: Cli) -> str:
    """Store three memories; return the id of the least."""
    least = stored(cli, "It rains.", "--importance", "0.2")
    stored(cli, "Sam's cat is called Biscuit.", "--importance", "0.5")
    stored(cli, "Sam is afraid of water.", "--importance", "0.6")
    return least


def undo_of(out: str) -> list[str]:
    [undo] = [line for line in out.splitlines() if line.startswith("undo it with: persona ")]
    return undo.removeprefix("undo it with: persona ").split()


def count(cli: Cli) -> int:
    total: int = cli.good("memory", "list", *ARIA, "--json").json["total_count"]
    return total


def test_pruning_shows_what_would_go_then_does_it_and_is_undone(few: Cli) -> None:
    least = three(few)

    tried = few.good("memory", "prune", *ARIA, "--dry-run").out
    as_json = few.good("memory", "prune", *ARIA, "--dry-run", "--json").json
    assert count(few) == 3
    done = few.good("memory", "prune", *ARIA).out
    assert count(few) == 2
    again = few.good("memory", "prune", *ARIA).out
    undone = few.good(*undo_of(done)).out

    assert least in tried
    assert "1 of 3 memories would be archived, of mean importance 0.20" in tried
    assert as_json["memory_ids"] == [least]
    assert done.startswith("1 of 3 memories archived, of mean importance 0.20; ")
    assert again == "nothing to archive: 2 memories; pruning begins with 3 or more\n"
    assert undone == "1 of 1 memories came back\n"
    assert count(few) == 3


def test_what_does_not_fit_the_table_of_a_dry_run_is_counted(few: Cli) -> None:
    few.good("memory", "import", "-", *ARIA, "--chunk-words", "40", said="\n\n".join(
        f"# Part {number}\n\n" + f"word{number} " * 30 for number in range(14)
    ))  # fmt: skip

    tried = few.good("memory", "prune", *ARIA, "--dry-run", "--force").out

    assert f"and {14 - 2 - 10} more" in tried


def test_all_personas_are_pruned_and_each_run_has_its_undo(few: Cli) -> None:
    three(few)

    tried = few.good("memory", "prune", "--all", "--dry-run").out
    done = few.good("memory", "prune", "--all").out
    undone = few.good(*undo_of(done), "--json").json

    assert tried == "1 of 3 memories of 3 personas would be archived\n"
    assert done.splitlines()[:2] == ["1 of 3 memories of 3 personas archived", "aria:"]
    assert (undone["status"], undone["memories_restored"]) == ("undone", 1)


def test_fading_is_tried_done_and_undone(cli: Cli) -> None:
    three(cli)

    tried = cli.good("memory", "fade", *ARIA, "--factor", "0.5", "--dry-run").out
    done = cli.good("memory", "fade", "--all", "--factor", "0.5").out
    faded = cli.good("memory", "stats", *ARIA, "--json").json["avg_importance"]
    undone = cli.good(*undo_of(done)).out
    again = cli.good(*undo_of(done)).out

    assert tried.startswith("3 of 3 memories would weigh 50% less")
    assert done.startswith("3 of 3 memories weigh 50% less")
    assert faded == pytest.approx((0.1 + 0.25 + 0.3) / 3, abs=1e-6)
    assert undone == "3 of 3 memories have their importance back\n"
    assert again.startswith("0 of 3 memories have their importance back; undone before")


def test_upkeep_is_switched_on_and_off_and_says_how_it_stands(cli: Cli) -> None:
    before = cli.good("memory", "upkeep", "status").out
    on = cli.good("memory", "upkeep", "on", "--interval-hours", "1").out
    again = cli.good("memory", "upkeep", "on", "--no-pruning").out
    between = cli.good("memory", "upkeep", "status").out
    as_json = cli.good("memory", "upkeep", "status", "--json").json["decay_statistics"]
    off = cli.good("memory", "upkeep", "off").out
    twice = cli.good("memory", "upkeep", "off").out

    assert before.startswith("upkeep is off; persona memory upkeep on starts it\n")
    assert "last round   never" in before
    assert all(f"       0 {meaning}\n" in before for _, meaning in DONE)
    assert on.startswith("upkeep is on: every 1 hour it archives what has faded and prunes")
    assert again.startswith("upkeep is on already: every 6 hours it archives what has faded; ")
    assert between.startswith("upkeep is on: every 6 hours, without pruning\n")
    assert as_json["background_running"]
    assert (off, twice) == ("upkeep is off\n", "upkeep is off already\n")


def test_what_is_open_is_counted_by_persona(cli: Cli) -> None:
    none = cli.good("memory", "shared").out
    stored(cli, "The harbour opens at six.", "--visibility", "public")

    shown = cli.good("memory", "shared").out
    as_json = cli.good("memory", "shared", "--json").json["shared_memory_statistics"]

    assert none == "no memory is shared or public\n"
    assert "aria" in shown
    assert as_json["public_memories"] == 1


def test_a_search_across_personas_says_whose_it_is(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    id = stored(cli, "The harbour opens at six.", "--visibility", "public", "--importance", "0.7")
    search = ("memory", "search", "harbour", "--persona", "Kira")

    shown = cli.good(*search, "--across").out
    found = cli.good(*search, "--across", "--json").json["memories"]
    nothing = cli.good(*search, "--across", "--min-importance", "0.9").out
    alone = cli.good("memory", "search", "harbour", *ARIA, "--min-importance", "0.5").out

    assert id in shown
    assert "aria" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert [memory["source_persona"] for memory in found] == ["aria"]
    assert nothing == ("nothing of importance 0.9 or more was found; --min-importance takes less\n")
    assert id in alone


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("prune",), "--persona: allowed is one of --persona, --all, --undo, given was none"),
        (("prune", *ARIA, "--all"), "given was --persona and --all"),
        (("prune", "--all", "--force"), "--force: allowed is without --all"),
        (("prune", "--undo", "x", "--force"), "--force: allowed is without --undo"),
        (("prune", "--undo", "x", "--dry-run"), "--dry-run: allowed is without --undo"),
        (("prune", "--undo", "x"), "prune run 'x' not found"),
        (("fade",), "--persona: allowed is one of"),
        (("fade", "--undo", "x", "--factor", "0.2"), "--factor: allowed is without --undo"),
        (("fade", "--all", "--factor", "2"), "--factor: allowed is number 0.01..0.9"),
        (("upkeep", "on", "--interval-hours", "500"), "--interval-hours: allowed is whole"),
        (("search", "x", *ARIA, "--across", "--type", "fact"), "--type: allowed is without"),
    ],
)
def test_what_is_wrong_is_said_and_the_command_fails(
    cli: Cli, arguments: tuple[str, ...], reason: str
) -> None:
    done = cli("memory", *arguments, "--json")

    assert done.code == FAILED
    assert reason in done.err
    assert reason in done.json["error"]["message"]


def test_an_error_without_fields_stays_as_it_is() -> None:
    error = InvalidParams("not so")

    assert in_options(error) is error


def test_help_has_an_example_of_each_command(cli: Cli) -> None:
    for name in ("prune", "fade"):
        assert f"persona memory {name}" in cli.good("memory", name, "--help").out
    for name in ("on", "off", "status"):
        assert f"persona memory upkeep {name}" in cli.good("memory", "upkeep", name, "--help").out
