"""A short run of the benchmark of batches: what it measures is there, and every turn is said."""

import pytest

from benchmarks.batch import SLOTS, Instant, Waited, bars, instant, show, waited

pytestmark = pytest.mark.anyio
SOON, LATER = 1, 3
REPLY_S = 1.0


async def test_a_batch_keeps_every_place_of_the_model_busy_and_asks_once_a_turn() -> None:
    # Long enough for a slow machine to begin all of them before the first one is answered.
    found = await waited(REPLY_S, "local", dialogues=2 * SLOTS, turns=2)
    assert (found.turns, found.calls) == (4 * SLOTS, 4 * SLOTS)
    assert found.most_at_once == SLOTS
    assert found.ideal_s == pytest.approx(2 * 2 * REPLY_S)
    assert found.wall_s >= found.ideal_s
    assert found.cpu_ms > 0


async def test_a_batch_is_measured_over_processes_too(compiled: None) -> None:
    found = await waited(0.05, "processes", dialogues=4, turns=2)
    assert (found.turns, found.calls, found.most_at_once) == (8, 8, None)
    assert found.wall_s >= found.ideal_s


async def test_the_memory_in_use_is_read_after_so_many_dialogues() -> None:
    found = await instant([SOON, LATER], turns=2)
    assert (found.dialogues, found.turns, found.calls) == (LATER, 2 * LATER, 2 * LATER)
    assert list(found.memory) == [SOON, LATER]
    assert all(size > 2**20 for size in found.memory.values())
    assert found.bare_ms > 0


def test_a_bar_is_held_or_missed_by_its_figure() -> None:
    def said(wall_s: float, calls: int, cpu_ms: float, late: int) -> list[str]:
        slow = [Waited(1.0, "local", 150, 1800, 1800, 112.5, wall_s, 4.0, 16)]
        at_once = Instant(1000, 12_000, calls, cpu_ms, 3.0, 90.0, {100: 2000, 1000: late})
        return [line.split()[0] for line in bars(slow, at_once)]

    assert said(118.0, 12_000, 12.0, 2200) == ["held"] * 4
    assert said(118.2, 12_001, 12.1, 2201) == ["MISSED"] * 4


def test_its_figures_are_shown_as_tables_with_the_bars_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow = [Waited(0.05, "processes", 32, 384, 384, 1.2, 1.44, 4.0, None)]
    show(slow, Instant(100, 1200, 1200, 9.0, 3.0, 90.0, {10: 200 * 2**20, 100: 202 * 2**20}))
    shown = capsys.readouterr().out
    for told in ("1.200", "384", "9.0", "200.0", "202.0", "held   a model of 0.05 s: 1.200 times"):
        assert told in shown
