"""The page on scale says what its own figures come to, and the figures are of what is measured."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.scale import (
    SIZES,
    Assumed,
    Cost,
    Sample,
    computed,
    computed_table,
    line_through,
    measure,
    measured_table,
    placed,
    read_measured,
)

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text("utf-8")


def test_the_computed_table_of_the_page_follows_from_its_measured_one() -> None:
    found = read_measured(PAGE)

    assert placed(PAGE, "measured", measured_table(found)) == PAGE
    assert placed(PAGE, "computed", computed_table(found, Assumed())) == PAGE


def test_the_page_says_what_the_computed_table_is_for() -> None:
    assumed = Assumed()

    assert f"dialogues of {assumed.turns} turns" in PAGE
    assert f"takes {assumed.seconds:g} s for a reply and makes {assumed.slots} at once" in PAGE
    assert f"{assumed.processors} processors" in PAGE
    assert SIZES[-1] == 1_000_000


def test_costs_are_the_line_through_both_batches() -> None:
    short = Sample(4, {"rows": 50, "calls": 4, "store": 300, "results": 9, "world": 0, "cpu_ms": 8})
    long = Sample(
        12, {"rows": 130, "calls": 12, "store": 500, "results": 9, "world": 8, "cpu_ms": 4}
    )

    found = line_through(short, long)

    assert (found.rows, found.calls) == (Cost(10, 10), Cost(0, 1))
    assert (found.store, found.results) == (Cost(200, 25), Cost(9, 0))
    assert (found.world, found.cpu_ms) == (Cost(0, 1), Cost(8, 0))  # none is below nothing


def test_sizes_and_hours_follow_from_the_costs() -> None:
    found = read_measured(PAGE)
    assumed = Assumed(turns=10, seconds=2.0, slots=4, processors=2)

    thousand, million = computed(found, 1_000, assumed), computed(found, 1_000_000, assumed)

    assert thousand[:2] == ["1,000", "10,000"]
    assert (thousand[3], thousand[6]) == ("10,000", "1.4 h")
    assert (million[3], million[6]) == ("10,000,000", "1,388.9 h")
    assert million[4].endswith("GB")


def test_a_page_without_its_figures_or_places_is_refused() -> None:
    with pytest.raises(ValueError, match="no line for rows"):
        read_measured("nothing")
    with pytest.raises(ValueError, match="no place for the table 'computed'"):
        placed("nothing", "computed", "|")


def test_a_small_real_batch_gives_the_figures() -> None:
    found = asyncio.run(measure(2))

    assert (found.calls.dialogue, found.calls.turn) == (0.0, 1.0)
    assert found.rows.turn >= 5  # a turn, its witnesses, memories, events
    assert found.store.turn > 100 and found.results.turn > 100 and found.world.turn > 100
