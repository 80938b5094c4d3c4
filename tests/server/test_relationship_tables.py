"""Relationships as text: a matrix that fits 80 columns, lists, and bars."""

import io
from typing import Any, get_args

import pytest

from persona_mcp.server.relationship_curves import Curve
from persona_mcp.server.relationship_tables import (
    BARS,
    COLUMNS,
    SHORT,
    hundredths,
    in_bars,
    show_arrows,
    show_curves,
    show_views,
)
from persona_mcp.server.terminal import SafeConsole, Terminal
from persona_mcp.state.arrow import RelationshipType
from tests.arrows import DAY, NOW
from tests.server.test_relationship_curves import curve

WIDTH = 80


def terminal(encoding: str = "utf-8", width: int = WIDTH) -> Terminal:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", newline="\n")
    console = SafeConsole(file=file, width=width, color_system=None, markup=False, emoji=False)
    return Terminal(console, console)


def printed(to: Terminal) -> str:
    file = to.out.file
    assert isinstance(file, io.TextIOWrapper)
    file.flush()
    buffer = file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(file.encoding)


def world(count: int, name: str = "Person") -> dict[str, Any]:
    """A world in which each knows each."""
    ids = [f"p{number}" for number in range(count)]
    return {
        "nodes": [{"id": id, "name": f"{name} {id}", "kind": "persona"} for id in ids],
        "edges": [
            {
                "from": a,
                "to": b,
                "affinity": -0.4,
                "trust": 0.1,
                "respect": 0.0,
                "intimacy": 0.0,
                "familiarity": 0.5,
                "type": "rival" if a < b else "friend",
            }
            for a in ids
            for b in ids
            if a != b
        ],
    }


def shown(found: dict[str, Any], width: int = WIDTH) -> str:
    to = terminal(width=width)
    show_arrows(to, found)
    return printed(to)


def test_every_type_has_a_short_name_of_its_own() -> None:
    assert set(SHORT) == set(get_args(RelationshipType))
    assert len(set(SHORT.values())) == len(SHORT)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.424, "+.42"), (-0.1, "-.10"), (0.0, "+.00"), (-0.001, "+.00"), (1.0, "+1.0"), (-1, "-1.0")],
)
def test_a_number_takes_four_characters(value: float, text: str) -> None:
    assert hundredths(value) == text


def test_eight_who_know_each_other_fit_eighty_columns_as_a_matrix() -> None:
    text = shown(world(8))

    assert text.count("-.40 ri") == text.count("-.40 fr") == 28
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "Rows see, columns are seen" in text
    assert "fr friend, ri rival." in text


def test_more_are_listed_arrow_by_arrow() -> None:
    text = shown(world(9))

    assert "who sees" in text
    assert text.count("rival") == 36
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_a_wider_terminal_has_room_for_more() -> None:
    assert "Rows see" in shown(world(12), width=160)


def test_long_names_are_folded_and_not_cut() -> None:
    text = shown(world(3, "Bartholomew"))

    assert "Barthol" in text
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_a_user_is_seen_and_does_not_see() -> None:
    found = world(2)
    found["nodes"].append({"id": "ann", "name": "ann", "kind": "user"})
    found["edges"].append({**found["edges"][0], "from": "p0", "to": "ann"})

    lines = shown(found).splitlines()

    assert not any(line.startswith("ann") for line in lines)
    assert "ann" in lines[0] + lines[1]
    assert any(line.startswith("Person p1") and "-" in line for line in lines)


def test_a_world_without_a_meeting_says_so() -> None:
    assert "nobody has met anybody yet" in shown({"nodes": [], "edges": []})


def test_one_who_has_met_nobody_says_so() -> None:
    to = terminal()

    show_views(to, {"persona_id": "aria", "relationships": []})

    assert printed(to) == "aria has not met anybody yet\n"


def test_bars_stand_between_the_lowest_and_the_highest() -> None:
    assert in_bars([None, -1.0, 0.0, 1.0], BARS) == f" {BARS[0]}{BARS[4]}{BARS[-1]}"


def test_what_hardly_moved_is_drawn_flat() -> None:
    assert in_bars([0.0, 0.01], BARS) == BARS[0] * 2


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_curves_are_rows_of_bars_with_the_last_events_in_any_encoding(encoding: str) -> None:
    to = terminal(encoding)
    times = [NOW + 30.0 * n for n in range(12)]

    show_curves(to, [curve(*times, now=times[-1] + 10 * DAY), early(*times)])

    lines = printed(to).splitlines()
    assert lines[0] == "How Aria sees ann"
    assert [line.split()[0] for line in lines[1:6]] == [
        *("affinity", "trust", "respect", "intimacy", "events"),
    ]
    assert "?" not in "".join(lines[1:5])
    assert all(len(line) <= WIDTH for line in lines[1:7])
    assert "  2023-11-14 22:18  why 12" in lines
    assert lines[-1] == "After 2023-11-14 22:18 nothing happened for 10 days; drawn shorter."
    assert len([line for line in lines if line.startswith("How ")]) == 2


def early(*times: float) -> Curve:
    return curve(*times[:2], now=times[-1])


def test_marks_tell_one_event_from_several() -> None:
    to = terminal()

    show_curves(to, [curve(NOW, NOW + 1, NOW + 3600, now=NOW + 3600)])

    [events] = [line for line in printed(to).splitlines() if line.startswith("  events")]
    assert events[11:].split() == ["#", "|", "3"]
    assert len(events) == 11 + COLUMNS + 3
