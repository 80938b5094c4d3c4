import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.memory.retrieval import (
    Dates,
    Numbers,
    Pool,
    Scored,
    Spoken,
    Turns,
    dates_of,
    lengthy,
    named,
    rank,
    standardise,
)

values = st.lists(st.none() | st.floats(-1, 1), max_size=20)
MEANING = RetrievalParams(
    dense_weight=1.0,
    lexical_weight=0.0,
    previous_weight=0.0,
    next_weight=0.0,
    session_weight=0.0,
    speaker_weight=0.0,
    date_weight=0.0,
    year_weight=0.0,
    question_penalty=0.0,
    length_weight=0.0,
)
"""Meaning alone; a test switches on what it is about."""
MAY_8 = datetime(2023, 5, 8, 13, tzinfo=UTC)


def spoken(
    text: str = "The harbour froze.",
    number: int | None = 1,
    conversation: str = "c1",
    speaker: str = "Ann",
    at: datetime = MAY_8,
    owner: str = "mara",
) -> Spoken:
    return Spoken(owner, conversation, number, at.timestamp(), speaker, text)


class Candidate(NamedTuple):
    """A row of a pool."""

    id: str
    dense: float | None
    lexical: float
    spoken: Spoken | None = None


def numbers(values: Sequence[float | None]) -> Numbers:
    return np.array([np.nan if value is None else value for value in values])


def pooled(candidates: Sequence[Candidate], unwanted: str | None = None) -> Pool:
    turns = Turns()
    for one in candidates:
        turns.add(one.spoken)
    return Pool(
        ids=[one.id for one in candidates],
        rows=np.arange(len(candidates)),
        dense=numbers([one.dense for one in candidates]),
        lexical=numbers([one.lexical for one in candidates]),
        turns=turns.taken(np.arange(len(candidates))),
        wanted=np.array([one.id != unwanted for one in candidates], dtype=np.bool_),
    )


def scores(pool: list[Candidate], query: str = "harbour", **weights: float) -> dict[str, float]:
    params = RetrievalParams.model_validate({**MEANING.model_dump(), **weights})
    return {hit.id: hit.score for hit in rank(query, pooled(pool), params)}


@given(values)
def test_scores_have_mean_zero_and_missing_ones_are_at_the_mean(scores: list[float | None]) -> None:
    found = standardise(numbers(scores)).tolist()

    there = [z for z, score in zip(found, scores, strict=True) if score is not None]
    assert len(found) == len(scores)
    assert all(z == 0.0 for z, score in zip(found, scores, strict=True) if score is None)
    assert sum(there) == pytest.approx(0.0, abs=1e-6)
    assert not there or float(np.std(there)) <= 1.0 + 1e-9


def test_scores_that_are_all_alike_say_nothing() -> None:
    assert standardise(numbers([0.3, 0.3])).tolist() == [0.0, 0.0]
    assert standardise(numbers([None])).tolist() == [0.0]
    assert standardise(numbers([])).tolist() == []


def test_meaning_and_words_add_up_by_their_weights_and_ties_go_by_id() -> None:
    pool = [Candidate("b", 1.0, 0.0), Candidate("a", 0.0, 3.0), Candidate("c", None, 0.0)]

    found = scores(pool, dense_weight=2.0, lexical_weight=1.0)

    dense, lexical = standardise(numbers([1.0, 0.0, None])), standardise(numbers([0.0, 3.0, 0.0]))
    assert found == pytest.approx(
        {id: 2 * d + w for id, d, w in zip("bac", dense, lexical, strict=True)}
    )
    alike = [Candidate(id, 0.5, 0.0) for id in ("b", "c", "a")]
    assert [hit.id for hit in rank("harbour", pooled(alike), MEANING)] == ["a", "b", "c"]
    assert not list(rank("harbour", pooled([]), MEANING))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_score_that_is_no_number_ends_all_the_same() -> None:
    pool = pooled([Candidate("a", math.inf, 0.0), Candidate("b", 0.5, 1.0)])

    assert {hit.id for hit in rank("harbour", pool, MEANING)} == {"a", "b"}


def test_a_turn_gains_from_the_turns_around_it_in_the_same_talk_alone() -> None:
    pool = [
        Candidate("first", 1.0, 0.0, spoken(number=1)),
        Candidate("second", 0.0, 0.0, spoken(number=2)),
        Candidate("elsewhere", 0.0, 0.0, spoken(number=2, conversation="c2")),
        Candidate("another's", 0.0, 0.0, spoken(number=2, owner="tom")),
        Candidate("fact", 0.0, 0.0),
    ]
    high, low = 2.0, -0.5  # the z-scores of one 1 among four 0

    found = scores(pool, previous_weight=0.4, next_weight=0.2)

    assert found == pytest.approx(
        {
            "first": high + 0.2 * low,
            "second": low + 0.4 * high,
            "elsewhere": low,
            "another's": low,
            "fact": low,
        },
        abs=1e-4,
    )


def test_a_turn_gains_from_the_best_of_its_day_and_anything_else_from_itself() -> None:
    next_day = MAY_8.replace(day=9)
    pool = [
        Candidate("a", 1.0, 0.0, spoken(number=1)),
        Candidate("b", 0.0, 0.0, spoken(number=9)),
        Candidate("later", 0.0, 0.0, spoken(number=10, at=next_day)),
        Candidate("fact", 0.0, 0.0),
        Candidate("fact too", 0.0, 0.0),
    ]
    high, low = 2.0, -0.5

    found = scores(pool, session_weight=1.0, session_best=2)

    assert found == pytest.approx(
        {
            "a": high + (high + low) / 2,
            "b": low + (high + low) / 2,
            "later": 2 * low,
            "fact": 2 * low,
            "fact too": 2 * low,
        },
        abs=1e-4,
    )


def test_what_is_not_wanted_counts_for_others_and_is_not_returned() -> None:
    params = RetrievalParams.model_validate({**MEANING.model_dump(), "previous_weight": 0.4})
    pool = [
        Candidate("first", 1.0, 0.0, spoken(number=1)),
        Candidate("second", 0.0, 0.0, spoken(number=2)),
        Candidate("fact", 0.5, 0.0),
    ]

    whole = {hit.id: hit for hit in rank("harbour", pooled(pool), params)}
    some = list(rank("harbour", pooled(pool, unwanted="first"), params))

    assert [hit.id for hit in some] == ["fact", "second"]
    assert all(hit == whole[hit.id] for hit in some)
    assert whole["second"].parts["previous"] > 0


@pytest.mark.parametrize(
    ("query", "speaker"),
    [
        ("What did Ann say?", "Ann"),
        ("what did ann's dog do", "Ann"),
        ("What did Ann tell Tom?", None),
        ("What did Annabel say?", None),
        ("Where does Mary Jane live?", "Mary Jane"),
        ("Where does Mary live?", None),
        ("", None),
    ],
)
def test_a_speaker_counts_when_nobody_else_is_named(query: str, speaker: str | None) -> None:
    assert named(query, ["Ann", "Tom", "Mary Jane", "..."]) == speaker


def test_turns_of_the_named_speaker_gain() -> None:
    pool = [
        Candidate("a", 0.5, 0.0, spoken(speaker="Ann")),
        Candidate("t", 0.5, 0.0, spoken(speaker="Tom", number=2)),
        Candidate("fact", 0.5, 0.0),
    ]

    assert scores(pool, "What did Tom say?", speaker_weight=1.0) == {
        "t": 1.0,
        "a": 0.0,
        "fact": 0.0,
    }


@pytest.mark.parametrize(
    ("query", "months", "years", "days"),
    [
        ("What happened on 8 May 2023?", {5}, {2023}, {8}),
        ("in may", {5}, set(), set()),
        ("May 21st", {5}, set(), {21}),
        ("Where may I find it on the 3rd?", set(), set(), set()),
        ("before June or in December 1999", {6, 12}, {1999}, set()),
        ("in 2022", set(), {2022}, set()),
        ("What happened on March 32, 12345?", {3}, set(), set()),
        ("What did he do?", set(), set(), set()),
    ],
)
def test_dates_are_read_from_a_query(
    query: str, months: set[int], years: set[int], days: set[int]
) -> None:
    assert dates_of(query) == Dates(frozenset(months), frozenset(years), frozenset(days))


@pytest.mark.parametrize(
    ("query", "gain"),
    [
        ("in May", 1.0),
        ("in May 2023", 1.0),
        ("in May 2022", 0.0),
        ("in June", 0.0),
        ("on 8 May", 1.0),
        ("on 4 May", 0.5),
        ("on 16 May 2023", 0.25),
        ("in 2023", 0.3),
        ("in 2022", 0.0),
        ("when", 0.0),
    ],
)
def test_a_turn_of_a_named_date_gains(query: str, gain: float) -> None:
    pool = [Candidate("a", 0.5, 0.0, spoken()), Candidate("fact", 0.5, 0.0)]

    found = scores(pool, query, date_weight=1.0, year_weight=0.3)

    assert found == pytest.approx({"a": gain, "fact": 0.0})


def test_a_turn_that_only_asks_comes_behind_one_that_tells() -> None:
    pool = [
        Candidate("asks", 0.5, 0.0, spoken("Did the harbour freeze? ")),
        Candidate("fact?", 0.5, 0.0),
    ]

    assert scores(pool, question_penalty=0.7) == {"fact?": 0.0, "asks": -0.7}


def test_a_long_turn_gains_over_a_short_one_and_a_fact_does_neither() -> None:
    pool = [
        Candidate("long", 0.5, 0.0, spoken("word " * 60)),
        Candidate("short", 0.5, 0.0, spoken("word", 2)),
        Candidate("fact", 0.5, 0.0),
    ]

    found = scores(pool, length_weight=0.3)

    assert list(found) == ["long", "fact", "short"]
    assert found["long"] == pytest.approx(0.3 * (math.log(61) - 3.050) / 0.532)
    assert lengthy("") < lengthy("a") < lengthy("a b")


@st.composite
def pools(draw: st.DrawFn) -> list[Candidate]:
    ids = draw(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=8))
    return [
        Candidate(
            id,
            draw(st.none() | st.floats(-1, 1)),
            draw(st.floats(0, 20)),
            draw(
                st.none()
                | st.builds(
                    spoken,
                    st.sampled_from(["Yes.", "Why?", ""]),
                    st.none() | st.integers(1, 5),
                    st.sampled_from(["c1", "c2"]),
                    st.sampled_from(["Ann", "Tom", ""]),
                )
            ),
        )
        for id in ids
    ]


@given(pools(), st.sampled_from(["Ann in May 2023", "8 May", "", "what"]))
def test_the_parts_add_up_and_the_order_does_not_depend_on_that_of_the_pool(
    pool: list[Candidate], query: str
) -> None:
    params = RetrievalParams()

    found = list(rank(query, pooled(pool), params))

    def fused(hit: Scored) -> float:
        return hit.score - sum(hit.parts.values())

    assert sorted(hit.id for hit in found) == sorted(one.id for one in pool)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert all(math.isfinite(fused(hit)) for hit in found)
    again = list(rank(query, pooled(pool[::-1]), params))
    assert [hit.score for hit in again] == pytest.approx([hit.score for hit in found])
