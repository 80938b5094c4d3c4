"""Hearsay: its chain is kept, and each telling takes some of its weight."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.hearsay import Hearsay, Hop, hearsay_of, pass_on
from persona_mcp.state.relationship_params import RelationshipParams

P = RelationshipParams()
parties = st.sampled_from(["aria", "kira", "noor", "user"])
trust = st.floats(0, 1)
hops = st.builds(Hop, parties, parties, trust)
chains = st.lists(hops, min_size=1, max_size=12)


def passed_on(chain: list[Hop]) -> list[Hearsay]:
    """Tell something hop by hop, through what is stored; return what each listener knows."""
    known: list[Hearsay] = []
    for number, hop in enumerate(chain):
        origin = json.loads(json.dumps(known[-1].as_origin(P))) if known else None
        known.append(pass_on(hearsay_of(origin), hop, f"m{number}"))
    return known


@given(chains)
def test_the_chain_is_kept_in_order_and_is_as_long_as_it_was_told_often(chain: list[Hop]) -> None:
    known = passed_on(chain)

    assert list(known[-1].chain) == chain
    assert [one.length for one in known] == list(range(1, len(chain) + 1))
    assert known[-1].source_memory_id == f"m{len(chain) - 1}"


@given(chains, st.floats(0, 1))
def test_the_weight_is_bounded_and_falls_with_each_telling(
    chain: list[Hop], importance: float
) -> None:
    known = passed_on(chain)

    weights = [1.0, *(one.weight(P) for one in known)]
    left = [importance, *(one.weighed(importance, P) for one in known)]
    for before, after in pairwise(weights):
        assert 0 <= after <= P.hearsay_weight * before
    for before, after in pairwise(left):
        assert min(0.1, importance) <= after <= before


@given(chains, st.integers(1, 5))
def test_what_goes_round_in_circles_weighs_no_more_for_it(chain: list[Hop], rounds: int) -> None:
    once, often = passed_on(chain)[-1], passed_on(chain * rounds)[-1]

    assert often.weight(P) <= once.weight(P)
    assert often.length == rounds * once.length


@given(chains, trust, trust)
def test_a_teller_who_is_trusted_more_weighs_no_less(
    chain: list[Hop], one: float, other: float
) -> None:
    less, more = (
        pass_on(passed_on(chain)[-1], Hop("aria", "kira", value), None).weight(P)
        for value in sorted((one, other))
    )

    assert less <= more


@pytest.mark.parametrize(("trust", "weight"), [(0.0, 0.0), (0.5, 0.15), (1.0, 0.6)])
def test_one_telling_weighs_as_it_weighs_in_relationships(trust: float, weight: float) -> None:
    assert Hearsay((Hop("aria", "kira", trust),)).weight(P) == pytest.approx(weight)


@pytest.mark.parametrize("origin", [None, {}, {"sources": ["m1"]}])
def test_what_nobody_told_has_no_chain(origin: dict[str, object] | None) -> None:
    assert hearsay_of(origin) is None
