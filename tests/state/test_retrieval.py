import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.retrieval import RetrievalParams, fuse, standardise

values = st.lists(st.none() | st.floats(-1, 1), max_size=20)


@given(values)
def test_scores_have_mean_zero_and_missing_ones_are_at_the_mean(scores: list[float | None]) -> None:
    found = standardise(scores)

    there = [z for z, score in zip(found, scores, strict=True) if score is not None]
    assert len(found) == len(scores)
    assert all(z == 0.0 for z, score in zip(found, scores, strict=True) if score is None)
    assert sum(there) == pytest.approx(0.0, abs=1e-6)
    assert not there or float(np.std(there)) <= 1.0 + 1e-9


def test_scores_that_are_all_alike_say_nothing() -> None:
    assert standardise([0.3, 0.3]).tolist() == [0.0, 0.0]
    assert standardise([None]).tolist() == [0.0]
    assert standardise([]).tolist() == []


def test_meaning_and_words_add_up_by_their_weights() -> None:
    params = RetrievalParams(dense_weight=2.0, lexical_weight=1.0)

    scores = fuse([1.0, 0.0, None], [0.0, 3.0, 0.0], [False] * 3, params)

    expected = 2.0 * standardise([1.0, 0.0, None]) + standardise([0.0, 3.0, 0.0])
    assert scores.tolist() == expected.tolist()
    assert fuse([], [], [], params).tolist() == []


def test_a_memory_that_only_asks_comes_behind_one_that_tells() -> None:
    params = RetrievalParams(question_penalty=0.7)

    scores = fuse([0.5, 0.5], [1.0, 1.0], [True, False], params)

    assert scores.tolist() == [-0.7, 0.0]
