import math

import pytest

from persona_mcp.state.memory.lexical import Statistics, bm25, stem, words_of
from persona_mcp.state.memory.params import RetrievalParams

PARAMS = RetrievalParams(lexical_k1=0.9, lexical_b=0.4)
KNOWN = Statistics(100, {"harbour": 10, "froze": 1, "boats": 60})


def test_a_score_is_that_of_the_formula() -> None:
    text = "The harbour froze, and the harbour thawed"
    rare = math.log(1 + (100 - 1 + 0.5) / (1 + 0.5))
    common = math.log(1 + (100 - 10 + 0.5) / (10 + 0.5))
    mean = (len(text) + len("a dog")) / 2
    held_back = 0.9 * (1 - 0.4 + 0.4 * len(text) / mean)

    found, _ = bm25("the harbour froze", [text, "a dog"], KNOWN, PARAMS)

    assert found == pytest.approx(rare * 1.9 / (1 + held_back) + common * 2 * 1.9 / (2 + held_back))


def test_rare_words_count_more_and_words_in_any_form() -> None:
    froze, harbour, boat, nothing = bm25(
        "froze harbour boats", ["froze", "Harbour's", "the boat", "a dog"], KNOWN, PARAMS
    )

    assert froze > harbour > boat > nothing == 0.0


@pytest.mark.parametrize("query", ["", "the", "?!", '" OR *'])
def test_a_query_without_a_word_scores_nothing(query: str) -> None:
    assert bm25(query, ["the harbour"], KNOWN, PARAMS) == [0.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Zoë's BOAT", ["zoe", "s", "boat"]),
        ("Straße", ["strasse"]),
        ("snake_case", ["snake", "case"]),
    ],
)
def test_words_are_those_of_the_full_text_index(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_forms_of_a_word_have_one_stem() -> None:
    assert {stem(word) for word in ("sail", "sails", "sailing", "sailed")} == {"sail"}
