import pytest

from persona_mcp.state.memory.memory import Recall, day
from tests.state.rows import NOW, new_memory


def test_what_is_searched_names_the_day_and_the_speaker() -> None:
    assert new_memory("m1").indexed_text(NOW) == "[14 November 2023] Ann: The harbour froze."


@pytest.mark.parametrize(
    ("at", "written"),
    [(0.0, "1 January 1970"), (NOW, "14 November 2023"), (1_683_504_000.0, "8 May 2023")],
)
def test_a_day_is_written_in_words(at: float, written: str) -> None:
    assert day(at) == written


def test_a_recall_is_whole_unless_it_says_why_not() -> None:
    assert Recall(()).degraded == ""
