"""Short turns of threads, for as long as somebody wants them."""

import sys

import pytest

from persona_mcp.state.turns import TURN_S, short_turns


def test_threads_take_short_turns_and_afterwards_those_that_they_had() -> None:
    before = sys.getswitchinterval()
    with short_turns():
        assert sys.getswitchinterval() == pytest.approx(TURN_S)

    assert sys.getswitchinterval() == before


def test_of_several_who_want_them_the_last_to_leave_puts_back_what_was_before() -> None:
    before = sys.getswitchinterval()
    one, another = short_turns(), short_turns()
    one.__enter__()
    another.__enter__()
    one.__exit__(None, None, None)
    between = sys.getswitchinterval()
    another.__exit__(None, None, None)

    assert between == pytest.approx(TURN_S)
    assert sys.getswitchinterval() == before


def test_they_end_with_work_that_fails() -> None:
    before = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError), short_turns():
        _ = 1 / 0

    assert sys.getswitchinterval() == before
