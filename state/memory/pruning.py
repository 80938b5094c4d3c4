"""Which memories are archived, and which never: pure functions over columns of numbers.

`state/memory/prune_store.py` reads the columns and archives what is picked. What a recommendation
names and what a run then takes come from the same functions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persona_mcp.state.memory.params import PruningParams, RetentionParams
from persona_mcp.state.memory.retention import effective, retention
from persona_mcp.state.moments import DAY_S

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of the memories of a persona that are not archived; each of shape (n,).

    Attributes:
        ids: ASCII, as bytes of fixed length.
        importance: As it is stored, 0..1.
        accesses: Conversations that used it.
        created_at: Seconds since the epoch, UTC.
        used_at: The last use; 0 where it never was.
        pinned: It never fades.
    """

    ids: NDArray[np.bytes_]
    importance: Numbers
    accesses: Numbers
    created_at: Numbers
    used_at: Numbers
    pinned: Flags

    def __len__(self) -> int:
        """Return how many memories there are."""
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Weighed:
    """Memories weighed at one moment; each of shape (n,), rows as in the columns.

    Attributes:
        columns: The memories.
        left: Share that has not faded, (0, 1].
        effective: What is left of the importance, 0..1.
        scores: What the strategy goes by; the lowest goes first.
        kept: It is never archived.
    """

    columns: Columns
    left: Numbers
    effective: Numbers
    scores: Numbers
    kept: Flags


@dataclass(frozen=True)
class Demand:
    """What a run is asked to take.

    Attributes:
        wanted: How many should go, the lowest scores first.
        most: How many may go.
        faded: What has faded goes, wanted or not.
    """

    wanted: int
    most: int
    faded: bool = False


@dataclass(frozen=True, eq=False)
class Picked:
    """What goes.

    Attributes:
        rows: Of the columns, shape (k,); what has faded first, then the lowest scores first.
        faded: How many of them go because they have faded.
    """

    rows: Rows
    faded: int


def weigh(columns: Columns, now: float, fading: RetentionParams, params: PruningParams) -> Weighed:
    """Compute all that a run goes by."""
    made = days_since(columns.created_at, now)
    unused = np.where(columns.accesses > 0, days_since(columns.used_at, now), made)
    left = retention(unused, columns.importance, columns.accesses, columns.pinned, fading)
    weight = effective(columns.importance, left)
    match params.strategy:
        case "lru":
            scores = -unused
        case "fifo":
            scores = -made
        case _:
            scores = score(weight, columns.accesses, unused, params)
    return Weighed(columns, left, weight, scores, kept(columns, now, params))


def score(weight: Numbers, accesses: Numbers, age_days: Numbers, params: PruningParams) -> Numbers:
    """Return .6 effective + .3 min(accesses / 10, 1) + .1 age_score.

    age_score is 1 up to 7 days, .1 from 90 days, and linear between. The strategies with fewer
    words in their names leave the later terms out.
    """
    found = params.importance_weight * weight
    if params.strategy != "importance_only":
        found = found + params.access_weight * np.minimum(accesses / params.full_accesses, 1.0)
    if params.strategy == "importance_access_age":
        span = params.old_days - params.fresh_days
        aged = np.clip((age_days - params.fresh_days) / span, 0.0, 1.0)
        found = found + params.age_weight * (1.0 - (1.0 - params.old_score) * aged)
    return found


def kept(columns: Columns, now: float, params: PruningParams) -> Flags:
    """Say what is never archived.

    What is important or often used; what was never used and is young; what was used of late; what
    is pinned.
    """
    used = columns.accesses > 0
    young = ~used & (days_since(columns.created_at, now) < params.kept_unread_days)
    of_late = used & (days_since(columns.used_at, now) <= params.kept_read_days)
    important = columns.importance >= params.kept_importance
    often = columns.accesses >= params.kept_accesses
    found: Flags = important | often | young | of_late | columns.pinned
    return found


def days_since(at: Numbers, now: float) -> Numbers:
    """Return days up to now; 0 for a time to come."""
    return np.maximum(now - at, 0.0) / DAY_S


def asked(count: int, params: PruningParams, *, forced: bool = False) -> Demand:
    """Return what a run takes that somebody asks for; a forced one needs no `start`."""
    due = forced or count >= params.start
    return Demand(max(0, count - params.target) if due else 0, most_of(count, params))


def upkeep(weighed: Weighed, params: PruningParams, *, pruning: bool) -> Demand:
    """Return what a run of the upkeep takes: what has faded, and where it is due what is too much.

    It is due at the hard limit, or where many memories are weak.

    Args:
        weighed: The memories.
        params: The limits.
        pruning: Also take what is too much.
    """
    count = len(weighed.columns)
    weak = int(np.count_nonzero(weighed.effective <= params.weak))
    due = pruning and (count >= params.hard_limit or weak > params.weak_memories)
    wanted = max(0, count - params.target) if due else 0
    return Demand(wanted, most_of(count, params), faded=True)


def share_of(count: int, share: float) -> Demand:
    """Return what a run takes whose limits are lifted: a share of the memories, 0..1."""
    wanted = round(share * count)
    return Demand(wanted, wanted)


def most_of(count: int, params: PruningParams) -> int:
    """Return how many memories may go at once."""
    return max(0, min(int(params.most_share * count), count - params.least))


def pick(weighed: Weighed, demand: Demand, params: PruningParams) -> Picked:
    """Pick the memories that go, lowest score first, ties older and then by id.

    At most `demand.most`; fewer than wanted where too few may go.
    """
    columns = weighed.columns
    free = np.flatnonzero(~weighed.kept)
    keys = (columns.ids[free], columns.created_at[free], weighed.scores[free])
    order = free[np.lexsort(keys)]
    gone = (weighed.left[order] < params.faded) & demand.faded
    first, rest = order[gone], order[~gone]
    rows = np.concatenate([first, rest[: max(0, demand.wanted - len(first))]])[: demand.most]
    return Picked(rows, min(len(first), len(rows)))
