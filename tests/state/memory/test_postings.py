import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.memory.lexical import Statistics, bm25, stem, words_of
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.memory.postings import MOST_COUNTED, Postings

PARAMS = RetrievalParams()
WORDS = st.sampled_from(["harbour", "Harbours", "froze", "ice", "the", "Zoë's", "1½", "?"])
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)


def postings_of(texts: list[tuple[str, bool]]) -> Postings:
    found = Postings()
    for text, is_counted in texts:
        found.add(text, is_counted)
    return found


@given(st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=12), TEXTS)
def test_texts_score_as_they_do_one_by_one(texts: list[tuple[str, bool]], query: str) -> None:
    counted = [set(map(stem, words_of(text))) for text, is_counted in texts if is_counted]
    having = {
        term: sum(set(map(stem, words_of(term))) <= one for one in counted)
        for term in ("harbour", "Harbours", "froze", "ice", "Zoë", "1½")
    }
    known = Statistics(len(counted), having)

    found = postings_of(texts).scores(query, PARAMS)

    assert found.shape == (len(texts),)
    assert found.tolist() == pytest.approx(
        bm25(query, [text for text, _ in texts], known, PARAMS), rel=1e-9
    )


@pytest.mark.parametrize("query", ["", "the", "?!", "nothing of it"])
def test_a_query_without_a_word_that_is_there_scores_nothing(query: str) -> None:
    assert postings_of([("The harbour froze.", True)]).scores(query, PARAMS).tolist() == [0.0]


def test_a_word_that_is_repeated_without_end_is_counted_no_further() -> None:
    few, many = postings_of([("ice " * 10, True), ("ice " * (MOST_COUNTED + 5), True)]).scores(
        "ice", RetrievalParams(lexical_b=0)
    )

    assert 0 < few < many < 2 * few
