"""Expressions that are looked for only where they may be."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.cues import load_cues
from persona_mcp.state.prefilter import Prefilter, expression

SHIPPED = [one for group in load_cues("en").groups.values() for one in group.patterns]
PATTERNS = (
    *("harbour", "harbours?", "(harbour|port)s", "har(bou)?r", "(?:a|b|c)", "[ab]c", ".*", ""),
    *(
        "(harbour)+ side",
        "(harbour)* side",
        "x(harbour){2,3}?",
        "(?i:harbour)",
        "(?i:harbour)s",
        "(?i)harbour",
    ),
    *("(?=harbour)h", "(?!harbour)port", "(?<=the )port", "^port$", r"(\w+) \1", "a|b|", "(?>ab)c"),
    *("(?P<name>port)(?(name)x|y)", "(a|bb)(ccc|d)", "ab.cd", "(?s:a.b)", "a++b", r"\bport\b"),
)


@pytest.mark.parametrize(
    ("pattern", "needs"),
    [
        ("harbours?", ("harbour",)),
        ("(the |a )(harbour|port)", ("harbour", "port")),
        ("(harbour|[a-z]+) side", (" side",)),
        ("har(bou)?r wall", ("r wall",)),
        ("(ice|snow){2,}", ("ice", "snow")),
        ("(ice)*", ()),
        ("(?i)ice", ()),
        ("(?i:iceberg) cold", (" cold",)),
        ("(?!never )ice", ("ice",)),
    ],
)
def test_what_an_expression_needs_is_read_off_it(pattern: str, needs: tuple[str, ...]) -> None:
    assert expression(pattern).needs == needs


def test_every_phrase_that_is_shipped_needs_some_words() -> None:
    assert min(len(literal) for one in SHIPPED for literal in one.needs) > 2
    assert all(one.needs for one in SHIPPED)


@given(st.data())
def test_an_expression_is_found_where_it_would_be_without_the_look_for_literals(
    data: st.DataObject,
) -> None:
    given_ = data.draw(st.sampled_from([*PATTERNS, *(one.pattern.pattern for one in SHIPPED)]))
    one, plain = expression(given_), re.compile(given_)
    text = data.draw(st.from_regex(plain) | st.from_regex(plain).map(str.upper) | st.text())

    found, wanted = one.search(text), plain.search(text)

    assert (found and found.span()) == (wanted and wanted.span())


@given(st.data())
def test_of_many_expressions_all_that_are_in_a_text_are_possible_in_their_order(
    data: st.DataObject,
) -> None:
    groups = load_cues("en").groups
    named = {
        "short": [*map(expression, PATTERNS)],
        **{name: group.patterns for name, group in groups.items()},
    }
    said = st.sampled_from(SHIPPED).flatmap(lambda one: st.from_regex(one.pattern))
    text = " ".join(data.draw(st.lists(said | st.text(), max_size=3)))

    possible = Prefilter(named).possible(text)

    assert list(possible) == [name for name in named if name in possible]
    for name, its in named.items():
        found = [one for one in its if one.pattern.search(text)]
        may_be = possible.get(name, [])
        assert [one for one in may_be if one.pattern.search(text)] == found
        assert may_be == [one for one in its if one in may_be]


def test_few_of_many_expressions_are_possible_in_a_text_that_has_none() -> None:
    named = {name: group.patterns for name, group in load_cues("en").groups.items()}

    possible = Prefilter(named).possible("the lighthouse keeper paints a window on the island")

    assert sum(map(len, possible.values())) < len(SHIPPED) / 10


def test_something_else_is_put_only_where_an_expression_is() -> None:
    one = expression(r"\bgonna\b")

    assert one.sub("going to", "we are gonna see, gonna go") == "we are going to see, going to go"
    assert one.sub("going to", "gonnae") == "gonnae"
    assert one.sub("going to", "we go") == "we go"
