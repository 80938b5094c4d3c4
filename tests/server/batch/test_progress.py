"""How far a batch is, as it is shown on a terminal and elsewhere."""

from dataclasses import replace

import pytest

from persona_mcp.server.batch.progress import Bar, Events, Lines, Tally, display, duration
from persona_mcp.server.terminal import SafeConsole, open_terminal

MOST = {"turns_max": 40}


def test_a_bar_is_for_terminals_and_lines_for_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    terminal = open_terminal()
    shown = Lines(terminal, lambda: now[0])
    shown.told({"event": "started", "dialogues": 4, "done": 1, "failed": 1, "turns": 9, **MOST})
    for turn in range(1, 11):
        shown.told({"event": "turn", "dialogue": 2, "turn": turn, "speaker": "ada", "tokens": 30})
    now[0] = 15.0
    shown.told({"event": "dialogue_done", "dialogue": 2, "turns": 10})
    shown.close()

    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "2/4 dialogues, 1 failed, 9 turns, 0 tokens/s"
    assert second == "3/4 dialogues, 1 failed, 19 turns, 20 tokens/s, 15 s left"
    assert last == second
    assert isinstance(display(terminal, as_json=False), Lines)
    assert isinstance(display(terminal, as_json=True), Events)
    assert [duration(s) for s in (9.4, 600, 12_000)] == ["9 s", "10 min", "3 h 20 min"]


def test_turns_tell_what_time_is_left_before_a_dialogue_is_over() -> None:
    now = [0.0]
    tally = Tally(lambda: now[0])
    tally.count({"event": "started", "dialogues": 4, "done": 0, "failed": 0, "turns": 0, **MOST})
    now[0] = 10.0
    assert tally.left == ""

    tally.count({"event": "turn", "dialogue": 1, "turn": 5, "speaker": "ada", "tokens": 30})

    assert tally.left == "1 min left"  # half of one of four took 10 s


def test_a_bar_moves_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = open_terminal()
    console = SafeConsole(file=terminal.err.file, force_terminal=True, width=100)
    bar = display(replace(terminal, err=console), as_json=False)
    assert isinstance(bar, Bar)
    bar.told({"event": "started", "dialogues": 4, "done": 1, "failed": 0, "turns": 9, **MOST})
    bar.told({"event": "dialogue_failed", "dialogue": 2, "turns": 0, "error": {}})
    bar.close()

    shown = capsys.readouterr().err
    assert "dialogues" in shown
