"""Documents in parts: laws that hold for any text, and what a reader would do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.memory.documents import WORD, Part, split

LINES = st.sampled_from(
    [
        *("", " ", "# One", "## Two ##", "### Three", "#", "Title", "=====", "---", "```", "~~~"),
        *(
            "It froze. Nobody sailed!",
            "- a\tlist",
            "no end",
            '"Why?" he said.',
            "港が凍った。船は出ない。",
        ),
        *("x" * 150, "word " * 50, "One sentence. " * 20),
    ]
)
DOCUMENTS = st.one_of(
    st.lists(LINES, max_size=30).map("\n".join),
    st.text(st.sampled_from("ab.#`=- \n\t漢"), max_size=400),
)
MOST = st.integers(1, 60)
quick = settings(max_examples=100)


def bare(text: str) -> str:
    return "".join(text.split())


@quick
@given(DOCUMENTS, MOST)
def test_no_word_is_lost_and_none_moves(text: str, most: int) -> None:
    parts = split(text, most)

    assert bare("".join(part.text for part in parts)) == bare(text)
    where = 0
    for part in parts:
        where = text.index(part.text, where) + len(part.text)


@quick
@given(DOCUMENTS, MOST)
def test_no_part_is_empty_or_longer_than_allowed(text: str, most: int) -> None:
    for part in split(text, most):
        assert 1 <= len(WORD.findall(part.text)) <= most
        assert part.text == part.text.strip()


@quick
@given(st.lists(st.text("ab.!", min_size=1, max_size=12), min_size=1, max_size=200), MOST)
def test_words_stay_whole(words: list[str], most: int) -> None:
    parts = split(" ".join(words), most)

    assert [word for part in parts for word in part.text.split()] == words


@quick
@given(DOCUMENTS, MOST)
def test_the_same_text_gives_the_same_parts(text: str, most: int) -> None:
    assert split(text, most) == split(text, most)


@quick
@given(DOCUMENTS)
def test_a_part_begins_with_its_headings_or_continues_what_is_under_them(text: str) -> None:
    for part in split(text, 40):
        assert len(part.headings) <= 6
        assert all(len(heading) <= 60 for heading in part.headings)


def test_headings_begin_parts_and_paragraphs_under_one_stay_together() -> None:
    text = (
        "Before all.\n\n# The *Harbour* ##\nIt froze.\n\nNobody sailed.\n## Boats\n\n### Red\n"
        "Tom's.\n\n## Ice\n\nThick.\n\nThe end\n===\n\nAll.\n\nA part\n---\nLast."
    )

    assert split(text, 40) == [
        Part("Before all.", ()),
        Part("# The *Harbour* ##\nIt froze.\n\nNobody sailed.", ("The *Harbour*",)),
        Part("## Boats\n\n### Red\nTom's.", ("The *Harbour*", "Boats", "Red")),
        Part("## Ice\n\nThick.", ("The *Harbour*", "Ice")),
        Part("The end\n===\n\nAll.", ("The end",)),
        Part("A part\n---\nLast.", ("The end", "A part")),
    ]


def test_what_is_too_long_is_cut_at_paragraphs_then_sentences_then_words() -> None:
    paragraph = "One two three. Four five six."
    text = f"{paragraph}\n\n{paragraph}\n\na b c d e f g h i j"

    assert [part.text for part in split(text, 6)] == [
        paragraph,
        paragraph,
        "a b c d e f",
        "g h i j",
    ]
    assert [part.text for part in split(text, 4)] == [
        *("One two three.", "Four five six.") * 2,
        "a b c d",
        "e f g h",
        "i j",
    ]


def test_text_without_spaces_is_cut_too() -> None:
    assert [len(part.text) for part in split("x" * 200, 2)] == [128, 72]
    assert [part.text for part in split("港が凍った。船は出ない。", 4)] == [
        "港が凍った。",
        "船は出ない。",
    ]


def test_between_fences_there_are_no_headings() -> None:
    text = "# Shell\n\n```sh\n# a comment\n~~~\n\n# another\n```\n\n# Next\n"

    assert [part.headings for part in split(text, 40)] == [("Shell",), ("Next",)]


@pytest.mark.parametrize("text", ["", " \n\n ", "\n" * 1000])
def test_a_blank_text_has_no_parts(text: str) -> None:
    assert split(text, 40) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", [".", "#", "`", " #", "# ", "a. ", "=\n", "漢", "\n", '."'])
def test_the_work_grows_with_the_length_alone(unit: str) -> None:
    """What backtracks or looks back takes minutes for these."""
    text = unit * (200_000 // len(unit)) + "x"

    assert split(text, 40)
