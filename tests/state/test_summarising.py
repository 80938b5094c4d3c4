"""When turns are summed up, which ones, and by which sentences."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.exchange import Turn
from persona_mcp.state.summarising import (
    Sentence,
    SummaryParams,
    extract,
    is_due,
    sentences_of,
    spans_of,
    tokens_of,
)
from tests.scenes import turn

P = SummaryParams(every=4)
sentences = st.lists(
    st.builds(
        Sentence,
        st.sampled_from(["ann", "Mara"]),
        st.text("abc é", min_size=1, max_size=40).map(lambda text: f"x{text}x."),
        st.sampled_from([0.1, 0.4, 0.9]),
    ),
    max_size=12,
)


def turns(count: int, start: int = 1) -> list[Turn]:
    return [turn(start + n, "ann" if n % 2 else "mara", f"said {start + n}") for n in range(count)]


@given(st.integers(0, 60), st.integers(0, 20), st.integers(2, 12))
def test_a_growing_conversation_is_due_once_for_every_so_many_turns_that_left(
    exchanges: int, window: int, every: int
) -> None:
    counts = [2 * n for n in range(exchanges + 1)]

    due = sum(is_due(before, after, window, every) for before, after in pairwise(counts))

    assert due == max(0, counts[-1] - window) // every


@given(st.integers(0, 60), st.integers(0, 20), st.integers(0, 40))
def test_turns_are_summed_up_once_in_order_and_never_those_that_are_shown(
    count: int, window: int, summed_to: int
) -> None:
    spans = spans_of(turns(count), window, summed_to, P)

    numbers = [one.number for span in spans for one in span]
    assert all(len(span) == P.every for span in spans)
    assert len(spans) <= P.overdue
    assert numbers == list(range(min(numbers, default=0), max(numbers, default=-1) + 1))
    assert all(summed_to < number <= count - window for number in numbers)


def test_of_many_summaries_that_are_due_the_newest_are_made() -> None:
    spans = spans_of(turns(40), 2, 0, SummaryParams(every=4, overdue=2))

    assert [(span[0].number, span[-1].number) for span in spans] == [(29, 32), (33, 36)]


@given(sentences, st.integers(16, 60), st.floats(1, 8))
def test_an_extract_fits_its_limit_and_is_of_what_was_said_in_order(
    said: list[Sentence], most: int, ratio: float
) -> None:
    text = extract(said, most, ratio)

    assert tokens_of(text, ratio) <= most
    assert bool(text) == bool(said)
    rest = iter(said)  # each sentence stands behind the one before it, in both
    for piece in re.split(r"(?<=x\.) ?(?:ann: |Mara: )?", text.partition(": ")[2])[:-1]:
        assert any(one.text == piece for one in rest)


def test_the_weightiest_sentences_are_picked_and_told_in_the_order_of_the_talk() -> None:
    said = [
        Sentence("ann", "I promise to come back.", 0.9),
        Sentence("ann", "It rains.", 0.2),
        Sentence("Mara", "The harbour froze.", 0.5),
        Sentence("Mara", "The harbour froze.", 0.5),
        Sentence("Mara", "I will wait for you.", 0.8),
    ]

    assert extract(said, 26, 3.0) == (
        "ann: I promise to come back. Mara: The harbour froze. I will wait for you."
    )
    assert extract(said, 16, 2.0) == "ann: I promise to come back."
    assert extract(said, 4, 3.0) == "ann: I promi"
    assert extract([], 16, 3.0) == ""


def test_turns_are_split_into_sentences_under_the_names_of_their_speakers() -> None:
    said = [turn(1, "ann", "Hello there! How are you?\n"), turn(2, "mara", "Fine")]

    found = sentences_of(said, lambda text: len(text) / 100, {"mara": "Mara"})

    assert [(one.speaker, one.text) for one in found] == [
        ("ann", "Hello there!"),
        ("ann", "How are you?"),
        ("Mara", "Fine"),
    ]
    assert found[0].weight == pytest.approx(0.12)
