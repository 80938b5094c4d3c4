"""Pictures of relationships: what is in them, that it can be told apart, and the same bytes."""

import itertools
import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.server.relationship_curves import DIMENSIONS, Axis
from persona_mcp.server.relationship_plots import (
    LIKING,
    Circle,
    beside_each_other,
    draw_curves,
    draw_graph,
    label_of,
    line_width,
    ticks_of,
)
from tests.arrows import DAY, NOW
from tests.server.test_relationship_curves import curve, eventful

SVG = "{http://www.w3.org/2000/svg}"
PNG = b"\x89PNG\r\n\x1a\n"


def node(id: str, kind: str = "persona", name: str = "") -> dict[str, Any]:
    return {"id": id, "name": name or id.title(), "kind": kind}


def edge(start: str, end: str, affinity: float = 0.5, familiarity: float = 0.5) -> dict[str, Any]:
    return {
        "from": start,
        "to": end,
        "affinity": affinity,
        "familiarity": familiarity,
        "strength": affinity,
    }


def texts(picture: bytes) -> list[str]:
    root = ElementTree.fromstring(picture)
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def strokes(picture: bytes) -> list[str]:
    """Colours of the lines, arrows among them."""
    return re.findall(r"stroke: (#[0-9a-f]{6})", picture.decode())


def hexed(affinity: float) -> str:
    red, green, blue, _ = LIKING((affinity + 1) / 2)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))


PAIR = [node("aria"), node("ann", "user")]


def test_both_directions_are_drawn_each_in_its_own_colour() -> None:
    people = [node("aria"), node("kira")]

    drawn = strokes(
        draw_graph(people, [edge("aria", "kira", 0.9), edge("kira", "aria", -0.9)], "svg")
    )

    assert drawn.count(hexed(0.9)) >= 1
    assert drawn.count(hexed(-0.9)) >= 1


def test_everybody_is_named_and_the_legend_says_what_colour_width_and_shape_mean() -> None:
    said = texts(draw_graph(PAIR, [edge("aria", "ann")], "svg"))

    assert {"Aria", "Ann", "affinity", "dislikes", "likes", "familiarity", "new", "a user"} <= set(
        said
    )
    assert "a user" not in texts(draw_graph([node("a"), node("b")], [edge("a", "b")], "svg"))


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_relationships_give_the_same_bytes(kind: str) -> None:
    edges = [edge("aria", "ann")]
    curves = [curve(NOW, NOW + 60, now=NOW + 90)]

    assert draw_graph(PAIR, edges, kind) == draw_graph(PAIR, edges, kind)
    assert draw_curves(curves, kind) == draw_curves(curves, kind)
    assert draw_curves(curves, kind).startswith(PNG if kind == "png" else b"<?xml")
    assert b"<dc:date>" not in draw_curves(curves, kind)


@pytest.mark.parametrize(
    "name", ["$x_1$ & <b>", "\x00\x1b[31mRed", "名前", "A" * 80, "_^\\frac{1}{"]
)
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_any_name_can_be_drawn(name: str, kind: str) -> None:
    people = [node("aria"), node("odd", name=name)]

    picture = draw_graph(people, [edge("aria", "odd")], kind)

    if kind == "svg":
        assert label_of(name).split("\n")[0] in texts(picture)


def test_a_long_name_is_written_in_a_few_short_lines() -> None:
    lines = label_of("Professor Emeritus Bartholomew Featherstonehaugh of the Seven Seas").split(
        "\n"
    )

    assert len(lines) == 3
    assert all(len(line) <= 18 for line in lines)
    assert lines[-1].endswith("…")


def test_who_has_most_to_do_with_each_other_stand_next_to_each_other() -> None:
    edges = [
        edge("a", "c", 0.9),
        edge("c", "a", 0.8),
        edge("b", "d", -0.9),
        edge("a", "b", 0.1, 0.0),
    ]

    order = beside_each_other(["a", "b", "c", "d"], edges)

    assert abs(order.index("a") - order.index("c")) == 1
    assert sorted(order) == ["a", "b", "c", "d"]
    assert beside_each_other([], []) == []


@given(st.integers(3, 30))
@settings(max_examples=28)
def test_law_the_arrows_of_a_pair_are_apart_and_no_arrow_runs_through_a_third(count: int) -> None:
    ids, radius = [str(number) for number in range(count)], 0.21 * max(9, count)
    circle = Circle(ids, radius)

    for one, other in itertools.combinations(ids, 2):
        there, back = (middle(circle, *ends) for ends in ((one, other), (other, one)))
        length = math.dist(circle.place(one), circle.place(other))
        assert math.dist(there, back) == pytest.approx(0.14 * length)
        third = [circle.place(id) for id in ids if id not in (one, other)]
        assert all(math.dist(m, place) > 0.25 for m in (there, back) for place in third)


def middle(circle: Circle, start: str, end: str) -> tuple[float, float]:
    """Return the middle of a bent arrow, as matplotlib's arc3 draws it."""
    (x1, y1), (x2, y2) = circle.place(start), circle.place(end)
    bend = circle.bend(start, end) / 2
    return (x1 + x2) / 2 + bend * (y2 - y1), (y1 + y2) / 2 - bend * (x2 - x1)


def test_a_pair_stands_side_by_side() -> None:
    circle = Circle(["a", "b"], 2.0)

    assert circle.place("a") == pytest.approx((-2, 0))
    assert circle.place("b") == pytest.approx((2, 0))


def test_who_knows_another_better_has_the_wider_arrow() -> None:
    widths = [line_width(familiarity) for familiarity in (0.0, 0.3, 1.0)]

    assert widths == sorted(set(widths))
    assert widths[0] > 0.5


def test_dislike_and_liking_are_told_apart_by_any_eye() -> None:
    """Orange and blue: the one has little blue, the other little red."""
    disliked, liked = LIKING(0.0), LIKING(1.0)

    assert disliked[0] - disliked[2] > 0.5
    assert liked[2] - liked[0] > 0.5


def test_curves_name_both_directions_their_dimensions_and_how_long_nothing_happened() -> None:
    times = [NOW + 30.0 * n for n in range(12)]
    long_ago = curve(*times, now=times[-1] + 10 * DAY)

    said = texts(draw_curves([long_ago, long_ago], "svg"))

    assert said.count("How Aria sees ann") == 2
    assert {*DIMENSIONS, "event", "10 days later", "UTC"} <= set(said)


def test_times_below_the_curves_are_far_enough_apart_to_be_read() -> None:
    times = tuple(NOW + 60.0 * n for n in range(100))
    axis = Axis(times, tuple(n / 99 for n in range(100)), ((times[3], times[4]),))

    ticks = ticks_of(axis)

    assert ticks[0] == (0.0, "22:13")
    assert ticks[-1][0] == 1.0
    assert all(b[0] - a[0] >= 0.12 for a, b in itertools.pairwise(ticks))


def test_a_rest_that_is_drawn_narrow_has_no_words() -> None:
    busy = [NOW + 30.0 * n for n in range(400)]

    said = texts(draw_curves([eventful(*busy, until=busy[-1] + 9 * DAY)], "svg"))

    assert not any("later" in text for text in said)
