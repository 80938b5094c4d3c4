"""What a group is like as a whole."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.relationship_graph import Metrics, balance, metrics
from persona_mcp.state.relationship_store import Party

IDS = ("a", "b", "c", "d", "e")
PERSONAS = [Party(id, id, "persona") for id in IDS]
ends = st.tuples(st.sampled_from(IDS), st.sampled_from(IDS)).filter(lambda e: e[0] != e[1])
graphs = st.dictionaries(ends, st.sampled_from([-0.5, -0.25, 0.0, 0.25, 0.5]))


def test_a_graph_without_arrows_has_no_numbers_to_divide() -> None:
    assert metrics([], {}) == Metrics(None, None, None)
    assert metrics(PERSONAS[:1], {}) == Metrics(None, None, None)
    assert metrics(PERSONAS[:2], {}) == Metrics(None, None, 0.0)


def test_reciprocity_is_the_share_of_arrows_that_come_back() -> None:
    found = metrics(PERSONAS[:3], {("a", "b"): 0.1, ("b", "a"): -0.1, ("a", "c"): 0.1})

    assert found.reciprocity == pytest.approx(2 / 3)
    assert found.density == pytest.approx(3 / 6)


def test_users_have_no_arrows_of_their_own_to_be_missed() -> None:
    parties = [*PERSONAS[:2], Party("u", "u", "user")]

    found = metrics(parties, {("a", "b"): 0.1, ("b", "a"): 0.1, ("a", "u"): 0.1, ("b", "u"): 0.1})

    assert (found.reciprocity, found.density) == (1.0, 1.0)
    assert metrics(parties, {("a", "u"): 0.1}).reciprocity is None


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ((1, 1, 1), 1.0),
        ((1, -1, -1), 1.0),
        ((1, 1, -1), 0.0),
        ((-1, -1, -1), 0.0),
        ((1, 1, 0), None),
    ],
)
def test_a_triad_is_balanced_when_its_bonds_multiply_to_plus(
    signs: tuple[int, int, int], expected: float | None
) -> None:
    bonds = dict(zip([("a", "b"), ("b", "c"), ("c", "a")], map(float, signs), strict=True))

    assert balance(IDS[:3], bonds) == expected


@given(graphs)
@settings(max_examples=50)
def test_balance_is_the_share_of_balanced_triads(arrows: dict[tuple[str, str], float]) -> None:
    def bond(one: str, other: str) -> float:
        return arrows.get((one, other), 0.0) + arrows.get((other, one), 0.0)

    products = [bond(a, b) * bond(b, c) * bond(a, c) for a, b, c in combinations(IDS, 3)]
    whole = [product for product in products if product]
    expected = sum(p > 0 for p in whole) / len(whole) if whole else None

    assert balance(IDS, arrows) == (None if expected is None else pytest.approx(expected))
