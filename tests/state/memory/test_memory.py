import pytest

from persona_mcp.state.memory.memory import Recall, day, rfc3339
from tests.state.rows import NOW, new_memory


def test_what_is_searched_names_the_day_and_the_speaker() -> None:
    assert new_memory("m1").indexed_text(NOW) == "[14 November 2023] Ann: The harbour froze."


@pytest.mark.parametrize(
    ("at", "written"),
    [(0.0, "1 January 1970"), (NOW, "14 November 2023"), (1_683_504_000.0, "8 May 2023")],
)
def test_a_day_is_written_in_words(at: float, written: str) -> None:
    assert day(at) == written


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


def test_a_recall_is_whole_unless_it_says_why_not() -> None:
    assert Recall(()).degraded == ""
