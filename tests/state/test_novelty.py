"""What counts as saying nothing new."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.novelty import content_words, new_share, stale_turns

words = st.sampled_from(["boat", "harbour", "winter", "letter", "storm", "garden", "debt"])
texts = st.lists(words, min_size=1, max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("text", "before", "share"),
    [
        ("The boat sank.", "", 1.0),
        ("The boat sank.", "A boat!", 0.5),
        ("A BOAT, the boat.", "a boat", 0.0),
        ("...", "", 0.0),
        ("灯台 🌊", "", 1.0),
    ],
)
def test_the_share_of_new_words_leaves_out_those_that_carry_nothing(
    text: str, before: str, share: float
) -> None:
    assert new_share(text, content_words(before)) == share


@given(st.lists(texts, max_size=8), texts)
def test_who_says_again_what_was_said_adds_one_stale_turn(turns: list[str], text: str) -> None:
    before = [*turns, text]

    assert stale_turns([*before, text], 0.15) == stale_turns(before, 0.15) + 1


@given(st.lists(texts, max_size=8))
def test_a_new_word_alone_ends_the_circle(turns: list[str]) -> None:
    assert stale_turns([*turns, "zyzzyva"], 0.15) == 0


@given(st.lists(texts, max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_more_is_stale_the_more_has_to_be_new(turns: list[str], one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert 0 <= stale_turns(turns, low) <= stale_turns(turns, high) <= len(turns)
    assert stale_turns(turns, 0.0) == 0
