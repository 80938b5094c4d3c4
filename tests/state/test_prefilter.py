"""Expressions that are looked for only where they may be."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.cues import load_cues
from persona_mcp.state.prefilter import expression

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
