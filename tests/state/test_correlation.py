"""The id that follows a call: where it is from, and where it ends."""

import pytest

from persona_mcp.state.correlation import (
    correlation,
    current_correlation_id,
    new_correlation_id,
)


def test_a_new_correlation_id_is_made_only_where_none_is_bound() -> None:
    with correlation() as outer, correlation() as inner, correlation("given") as given:
        assert outer == inner
        assert len(outer) == len(new_correlation_id()) == 32
        assert current_correlation_id() == given == "given"


@pytest.mark.parametrize("id", ["", "x" * 65, "two\nlines", "{}"])
def test_an_id_from_outside_that_could_spoil_a_log_is_replaced(id: str) -> None:
    with correlation(id) as used:
        assert len(used) == 32


def test_an_id_ends_with_its_block_and_the_one_outside_is_there_again() -> None:
    with correlation("outer"):
        with correlation("inner"):
            pass

        assert current_correlation_id() == "outer"
    assert current_correlation_id() is None
