"""Near duplicates: found greedily and in order, never across kinds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.memory.consolidation import Mergeable, groups_of
from persona_mcp.state.memory.params import ConsolidationParams

SIMILARITY = ConsolidationParams().similarity
angles = st.integers(0, 40)
memories = st.lists(
    st.builds(
        lambda kind, importance, at, angle: (kind, importance, at, angle),
        st.sampled_from(["here", "there"]),
        st.sampled_from([0.2, 0.5, 0.9]),
        st.floats(0, 10),
        angles,
    ),
    max_size=12,
).map(lambda rows: [memory(f"m{n}", *row) for n, row in enumerate(rows)])


def memory(id: str, kind: str, importance: float, at: float, degrees: float) -> Mergeable:
    turn = np.radians(degrees)
    vector = np.array([np.cos(turn), np.sin(turn)], dtype=np.float32)
    return Mergeable(id, kind, importance, at, vector)


@given(memories)
def test_a_group_is_of_one_kind_and_near_its_first_which_weighs_most(
    pool: list[Mergeable],
) -> None:
    by_id = {one.id: one for one in pool}

    for first, *others in groups_of(pool, SIMILARITY):
        assert others
        for other in others:
            assert by_id[other].kind == by_id[first].kind
            assert by_id[other].vector @ by_id[first].vector >= SIMILARITY - 1e-6
            assert by_id[other].importance <= by_id[first].importance


@given(memories)
def test_a_memory_is_in_one_group_at_most_and_what_is_left_has_nothing_to_merge(
    pool: list[Mergeable],
) -> None:
    groups = groups_of(pool, SIMILARITY)
    grouped = [id for group in groups for id in group]
    merged = {id for group in groups for id in group[1:]}

    assert len(grouped) == len(set(grouped))
    assert groups_of([one for one in pool if one.id not in merged], SIMILARITY) == []


@given(memories)
def test_the_order_in_which_they_are_read_does_not_matter(
    pool: list[Mergeable],
) -> None:
    assert groups_of(pool[::-1], SIMILARITY) == groups_of(pool, SIMILARITY)


def test_the_newest_of_equals_is_kept_and_others_are_left_alone() -> None:
    pool = [memory("old", "k", 0.5, 1, 0), memory("new", "k", 0.5, 2, 1)]
    pool += [memory("far", "k", 0.9, 1, 60), memory("other", "l", 0.5, 3, 0)]

    assert groups_of(pool, SIMILARITY) == [("new", "old")]
    assert groups_of([], SIMILARITY) == []
