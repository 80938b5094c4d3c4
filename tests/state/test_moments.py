import pytest

from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.moments import check_span, moment, rfc3339
from tests.state.rows import NOW


@pytest.mark.parametrize(
    ("at", "written"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (NOW, "2023-11-14T22:13:20.000Z"),
        (NOW + 0.1239, "2023-11-14T22:13:20.123Z"),
    ],
)
def test_a_time_is_written_to_the_millisecond(at: float, written: str) -> None:
    assert rfc3339(at) == written


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.000Z"])
def test_the_first_and_the_last_moment_are_written_as_they_were_given(given: str) -> None:
    assert rfc3339(moment(given)) == given


@pytest.mark.parametrize(
    "given",
    [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:59.999999Z",
    ],
)
def test_a_time_that_has_no_date_in_utc_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="to 9999-12-31T23:59:59Z"):
        moment(given)


def test_a_span_ends_after_it_begins_or_has_an_open_end() -> None:
    check_span(NOW, NOW + 1.0)
    check_span(None, NOW)
    check_span(NOW, None)

    with pytest.raises(InvalidParams, match="until: allowed is a time after since"):
        check_span(NOW, NOW)
