"""What is archived first and what never: laws that hold for any memories."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from persona_mcp.state.memory.params import PruningParams, RetentionParams, Strategy
from persona_mcp.state.memory.pruning import (
    Columns,
    Demand,
    asked,
    pick,
    share_of,
    upkeep,
    weigh,
)
from persona_mcp.state.moments import DAY_S

NOW = 1_700_000_000.0
FADING = RetentionParams()
PARAMS = PruningParams()
SMALL = PruningParams(target=20, start=25, hard_limit=30)
STRATEGIES = get_args(Strategy)

one = st.fixed_dictionaries(
    {
        "importance": st.sampled_from([0.0, 0.1, 0.3, 0.3, 0.5, 0.69, 0.7, 1.0]) | st.floats(0, 1),
        "accesses": st.integers(0, 12),
        "made": st.sampled_from([0.0, 40.0, 40.0, 400.0]) | st.floats(0, 2000),
        "used": st.floats(0, 1),
        "pinned": st.booleans(),
    }
)
many = st.lists(one, max_size=80)


def columns(memories: list[dict[str, Any]]) -> Columns:
    """Make columns; days ago that each was made, and the share of them since its last use."""
    accesses = np.array([m["accesses"] for m in memories], dtype=float)
    made = np.array([m["made"] for m in memories], dtype=float)
    used = np.array([m.get("used", 1.0) for m in memories], dtype=float)
    return Columns(
        ids=np.array([f"m{(n * 7) % 101:03}" for n in range(len(memories))], dtype="S64"),
        importance=np.array([m["importance"] for m in memories], dtype=float),
        accesses=accesses,
        created_at=NOW - made * DAY_S,
        used_at=np.where(accesses > 0, NOW - made * used * DAY_S, 0.0),
        pinned=np.array([m["pinned"] for m in memories], dtype=bool),
    )


def memory(**more: Any) -> dict[str, Any]:
    """Make one that nothing protects."""
    return {"importance": 0.3, "accesses": 0, "made": 100.0, "pinned": False, **more}


def picked(memories: list[dict[str, Any]], demand: Demand, params: PruningParams) -> list[int]:
    found = weigh(columns(memories), NOW, FADING, params)
    rows: list[int] = pick(found, demand, params).rows.tolist()
    return rows


def score_of(one: dict[str, Any]) -> float:
    return float(weigh(columns([one]), NOW, FADING, PARAMS).scores[0])


def test_the_score_is_that_of_the_law() -> None:
    assert score_of(memory(made=7.0, importance=0.1)) == pytest.approx(0.06 + 0.1)
    assert score_of(memory(made=90.0, importance=0.1)) == pytest.approx(0.06 + 0.01)
    assert score_of(memory(made=48.5, importance=0.1)) == pytest.approx(0.06 + 0.055)
    assert score_of(memory(made=0.0, importance=0.5, accesses=4)) == pytest.approx(0.3 + 0.12 + 0.1)
    assert score_of(memory(made=0.0, importance=1.0, accesses=99)) == pytest.approx(1.0)


@given(one, st.floats(0, 1), st.integers(0, 5), st.floats(0, 500))
def test_a_score_never_falls_with_importance_and_use_nor_rises_with_age(
    given_one: dict[str, Any], importance: float, uses: int, days: float
) -> None:
    base = {**given_one, "used": 1.0}
    weightier = {**base, "importance": max(importance, base["importance"])}
    older = {**base, "made": base["made"] + days}

    assert score_of(weightier) >= score_of(base) - 1e-12
    assert score_of({**base, "accesses": base["accesses"] + uses}) >= score_of(base) - 1e-12
    assert score_of(older) <= score_of(base) + 1e-12


@pytest.mark.parametrize(
    ("more", "stays"),
    [
        ({}, False),
        ({"importance": 0.7}, True),
        ({"importance": 0.69}, False),
        ({"accesses": 5}, True),
        ({"accesses": 4}, False),
        ({"made": 29.9}, True),
        ({"made": 30.1}, False),
        ({"pinned": True}, True),
        ({"accesses": 1, "used": 0.069}, True),
        ({"accesses": 1, "used": 0.071}, False),
        ({"accesses": 1, "made": 8.0, "used": 1.0}, False),
    ],
)
def test_what_is_protected_never_goes(more: dict[str, Any], stays: bool) -> None:
    for strategy in STRATEGIES:
        params = PruningParams(strategy=strategy)
        assert (picked([memory(**more)], share_of(1, 1.0), params) == []) is stays


@given(many, st.sampled_from(STRATEGIES), st.booleans(), st.booleans())
def test_a_run_takes_only_what_it_may(
    memories: list[dict[str, Any]], strategy: Strategy, forced: bool, by_upkeep: bool
) -> None:
    params = SMALL.model_copy(update={"strategy": strategy})
    found = weigh(columns(memories), NOW, FADING, params)
    count = len(memories)
    demand = (
        upkeep(found, params, pruning=forced) if by_upkeep else asked(count, params, forced=forced)
    )

    taken = pick(found, demand, params)

    rows = taken.rows.tolist()
    assert len(set(rows)) == len(rows) <= int(0.25 * count)
    assert not rows or count - len(rows) >= params.least
    assert not found.kept[rows].any()
    assert all(found.left[row] < params.faded for row in rows[: taken.faded])
    if not by_upkeep:
        assert len(rows) <= max(0, count - params.target)
        assert not rows or forced or count >= params.start


@given(many, st.sampled_from(STRATEGIES), st.floats(0, 1))
def test_the_lowest_goes_first_ties_older_and_then_by_id(
    memories: list[dict[str, Any]], strategy: Strategy, share: float
) -> None:
    params = PruningParams(strategy=strategy)
    found = weigh(columns(memories), NOW, FADING, params)

    rows = pick(found, share_of(len(memories), share), params).rows.tolist()

    keys = list(
        zip(
            found.scores.tolist(),
            found.columns.created_at.tolist(),
            found.columns.ids.tolist(),
            strict=True,
        )
    )
    free = sorted(keys[row] for row in range(len(memories)) if not found.kept[row])
    assert [keys[row] for row in rows] == free[: round(share * len(memories))]


def test_strategies_differ_in_what_they_let_go_first() -> None:
    old_but_used_of_late = memory(made=300.0, accesses=2, used=0.1)
    young = memory(made=100.0, importance=0.31)
    two = [old_but_used_of_late, young]

    first = {s: picked(two, Demand(1, 1), PruningParams(strategy=s))[0] for s in STRATEGIES}

    assert first["fifo"] == 0
    assert first["lru"] == first["importance_only"] == 1
    assert first["importance_access"] == first["importance_access_age"] == 1


def test_repeated_runs_reach_the_target_and_stop_there() -> None:
    left = [memory(importance=0.1 + n / 10_000) for n in range(1500)]
    sizes = []
    while rows := picked(left, asked(len(left), PARAMS), PARAMS):
        left = [m for n, m in enumerate(left) if n not in set(rows)]
        sizes.append(len(left))

    assert sizes == [1125, 844]
    assert len(picked(left, asked(len(left), PARAMS, forced=True), PARAMS)) == 44


def test_fewer_go_where_too_few_may() -> None:
    mostly = [memory(pinned=n > 5) for n in range(1000)]

    assert len(picked(mostly, asked(1000, PARAMS), PARAMS)) == 6


def test_upkeep_takes_what_has_faded_and_prunes_at_the_hard_limit_or_where_many_are_weak() -> None:
    faded = [memory(importance=0.1, made=400.0) for _ in range(12)]
    strong = [memory(importance=0.6, made=40.0) for _ in range(988)]

    def taken(memories: list[dict[str, Any]], *, pruning: bool) -> tuple[int, int]:
        found = weigh(columns(memories), NOW, FADING, PARAMS)
        of_it = pick(found, upkeep(found, PARAMS, pruning=pruning), PARAMS)
        return len(of_it.rows), of_it.faded

    assert taken(faded + strong, pruning=False) == (12, 12)
    assert taken(faded + strong, pruning=True) == (200, 12)
    assert taken(faded + strong[:880], pruning=True) == (12, 12)
    weak = [memory(importance=0.3, made=100.0) for _ in range(51)]
    assert taken(weak + strong[:800], pruning=True) == (51, 0)
    assert taken(weak[:50] + strong[:801], pruning=True) == (0, 0)
    assert taken(faded, pruning=True) == (2, 2)


@pytest.mark.parametrize(
    "wrong", [{"target": 950}, {"start": 1001}, {"fresh_days": 90.0}, {"most_share": 0.0}]
)
def test_limits_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruningParams(**wrong)


def test_nothing_is_taken_of_nothing() -> None:
    assert picked([], share_of(0, 0.5), PARAMS) == []
