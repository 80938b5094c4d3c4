"""Archiving memories in SQL: planned, carried out in one transaction a run, audited, undone."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, Float, String, bindparam, func, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.errors import NotFound
from persona_mcp.state.ids import new_id
from persona_mcp.state.index.work import hide, reveal
from persona_mcp.state.memory.columns import ITS, read_columns
from persona_mcp.state.memory.params import PruningParams, RetentionParams
from persona_mcp.state.memory.pruning import (
    Columns,
    Demand,
    Numbers,
    Picked,
    Weighed,
    asked,
    pick,
    share_of,
    upkeep,
    weigh,
)
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.turns import short_turns

M = tables.Memory
R = tables.PruneRun
WORLD, RUN = bindparam("world", type_=String), bindparam("run", type_=String)
IDS = listed("ids")
Origin = Literal["asked", "all", "upkeep", "share"]

COUNT = Prepared(select(func.count()).where(*ITS))
LAST_RUN = Prepared(
    select(func.max(R.at)).where(
        R.world_id == WORLD,
        R.persona_id == bindparam("persona"),
        R.undone_at.is_(None),
        R.at <= bindparam("now", type_=Float),
    )
)
ARCHIVE = Prepared(
    update(M)
    .where(M.world_id == WORLD, M.id.in_(IDS))
    .values(archived_at=bindparam("now", type_=Float), prune_id=RUN)
)
VERSIONS = Prepared(select(M.id, M.version).where(M.world_id == WORLD, M.id.in_(IDS)))
RESTORABLE = Prepared(
    select(M.id).where(
        M.world_id == WORLD,
        M.id.in_(IDS),
        M.prune_id == RUN,
        M.archived_at == bindparam("at", type_=Float),
    )
)
RESTORE = Prepared(
    update(M).where(M.world_id == WORLD, M.id.in_(IDS)).values(archived_at=None, prune_id=None)
)
WRITE_RUN = Prepared(insert(R))
READ_RUN = Prepared(select(R).where(R.world_id == WORLD, R.id == RUN))
MARK = Prepared(
    update(R)
    .where(R.world_id == WORLD, R.id == RUN)
    .values(undone_at=bindparam("now", type_=Float), restored=bindparam("count"))
)
TOTALS = Prepared(
    select(
        func.count().label("runs"),
        func.coalesce(func.sum(R.archived), 0).label("archived"),
        func.count(R.persona_id.distinct()).label("personas"),
        func.coalesce(func.avg(R.took_s), 0.0).label("average_s"),
        func.max(R.at).filter(R.origin == "all").label("last_of_all"),
        func.count(R.undone_at).label("undone"),
        func.coalesce(func.sum(R.faded).filter(R.origin == "upkeep"), 0).label("faded"),
        func.count().filter(R.origin == "upkeep", R.archived > R.faded).label("upkeep_runs"),
    ).where(R.world_id == WORLD)
)
LAST_RUNS = Prepared(
    select(R.persona_id, func.max(R.at)).where(R.world_id == WORLD).group_by(R.persona_id)
)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run would archive; a run archives exactly this.

    Attributes:
        weighed: All memories of the persona that are not archived.
        picked: Those that go.
        wanted: How many should; fewer go where too many are protected.
        paused_s: Seconds until the persona may be pruned again; 0 if it may.
    """

    weighed: Weighed
    picked: Picked
    wanted: int
    paused_s: float

    @property
    def before(self) -> int:
        """Return how many memories there are."""
        return len(self.weighed.columns)

    @property
    def archived(self) -> int:
        """Return how many go."""
        return len(self.picked.rows)

    @property
    def ids(self) -> list[str]:
        """Return the ids of those that go, in their order."""
        found: list[str] = self.weighed.columns.ids[self.picked.rows].astype(str).tolist()
        return found

    @property
    def importance(self) -> Numbers:
        """Return the importance of those that go, in their order: shape (k,)."""
        return self.weighed.columns.importance[self.picked.rows]

    def means(self) -> tuple[float, float]:
        """Return the mean importance of what goes and of what stays; 0 of nothing."""
        stays = np.ones(self.before, dtype=bool)
        stays[self.picked.rows] = False
        gone, left = self.importance, self.weighed.columns.importance[stays]
        return float(gone.mean()) if len(gone) else 0.0, float(left.mean()) if len(left) else 0.0


@dataclass(frozen=True)
class Pruned:
    """A run that archived something."""

    id: str
    persona_id: str
    before: int
    archived: int
    faded: int
    importance_archived: float
    importance_kept: float
    took_s: float


@dataclass(frozen=True)
class Undone:
    """What undoing a run brought back.

    Attributes:
        archived: How many it had archived.
        restored: How many came back; of the others somebody else has disposed since.
        again: It was undone before.
        memories: How many the persona has now.
    """

    persona_id: str
    archived: int
    restored: int
    again: bool
    memories: int


@dataclass(frozen=True)
class PruneStats:
    """What all runs of a world did."""

    runs: int
    archived: int
    personas: int
    average_s: float
    last_of_all: float | None
    undone: int
    faded: int
    upkeep_runs: int
    last_runs: dict[str, float]


class PruneStore:
    """Plans, carries out and undoes runs."""

    def __init__(self, database: Database, fading: RetentionParams, params: PruningParams) -> None:
        """Work on this database, by these laws."""
        self._database = database
        self._laws = Laws(fading, params)

    async def plan(self, world_id: str, persona_id: str, now: float, *, forced: bool) -> Plan:
        """Return what `prune` would archive at this moment."""
        return await self._database.read(plan_asked, self._laws, world_id, persona_id, now, forced)

    async def prune(
        self, world_id: str, persona_id: str, now: float, *, forced: bool, origin: Origin = "asked"
    ) -> tuple[Plan, Pruned | None]:
        """Archive the lowest scores of a persona; None if nothing is to go.

        Args:
            world_id: Where.
            persona_id: Whose memories.
            now: The time.
            forced: Without the threshold and the pause between two runs.
            origin: What wants it.
        """
        run = Run(world_id, persona_id, now, origin, time.perf_counter())

        def planned(connection: Connection) -> Plan:
            return plan_asked(connection, self._laws, world_id, persona_id, now, forced)

        return await self._carry_out(run, planned)

    async def prune_share(
        self, world_id: str, persona_id: str, share: float, now: float
    ) -> Pruned | None:
        """Archive a share of a persona's memories, 0..1: no limit of a run, every protection."""
        run = Run(world_id, persona_id, now, "share", time.perf_counter())

        def planned(connection: Connection) -> Plan:
            weighed = self._laws.weighed(connection, world_id, persona_id, now)
            return self._laws.planned(weighed, share_of(len(weighed.columns), share))

        return (await self._carry_out(run, planned))[1]

    async def _carry_out(
        self, run: "Run", planned: Callable[[Connection], Plan]
    ) -> tuple[Plan, Pruned | None]:
        """Plan while others write, then archive; what changed meanwhile is planned anew."""
        plan = await self._database.read(planned)
        if not plan.archived:
            return plan, None

        def write(connection: Connection) -> tuple[Plan, Pruned | None]:
            sure = plan if still_so(connection, run, plan) else planned(connection)
            return sure, archive(connection, self._laws, run, sure)

        return await self._database.write(write)

    async def undo(self, world_id: str, prune_id: str, now: float) -> Undone:
        """Bring back what a run archived, but for what was restored or archived anew since.

        Raises:
            NotFound: There is no such run.
        """
        return await self._database.write(undo, world_id, prune_id, now)

    async def stats(self, world_id: str) -> PruneStats:
        """Sum up all runs of a world."""

        def read(connection: Connection) -> PruneStats:
            totals = TOTALS.first(connection, world=world_id)
            last = {row[0]: row[1] for row in LAST_RUNS.all(connection, world=world_id)}
            return PruneStats(**totals._mapping, last_runs=last)

        return await self._database.read(read)


@dataclass(frozen=True)
class Laws:
    """How memories fade and which are archived."""

    fading: RetentionParams
    params: PruningParams

    @short_turns()
    def weighed(
        self, connection: Connection, world_id: str, persona_id: str, now: float
    ) -> Weighed:
        """Read and weigh the memories of a persona."""
        columns = read_columns(connection, world_id, persona_id)
        return weigh(columns, now, self.fading, self.params)

    @short_turns()
    def planned(self, weighed: Weighed, demand: Demand, paused_s: float = 0.0) -> Plan:
        """Pick what a demand takes; nothing in a pause."""
        held = Demand(0, 0) if paused_s else demand
        return Plan(weighed, pick(weighed, held, self.params), demand.wanted, paused_s)


@dataclass(frozen=True)
class Run:
    """A run that begins: whose memories, when, what wants it, and the clock that times it."""

    world_id: str
    persona_id: str
    now: float
    origin: Origin
    began: float


def plan_asked(
    connection: Connection, laws: Laws, world_id: str, persona_id: str, now: float, forced: bool
) -> Plan:
    """Plan a run that somebody asks for, inside a transaction."""
    weighed = laws.weighed(connection, world_id, persona_id, now)
    paused_s = 0.0 if forced else pause(connection, laws, world_id, persona_id, now)
    return laws.planned(weighed, asked(len(weighed.columns), laws.params, forced=forced), paused_s)


def plan_upkeep(
    connection: Connection, laws: Laws, world_id: str, persona_id: str, now: float, pruning: bool
) -> Plan:
    """Plan a run of the upkeep, inside a transaction."""
    weighed = laws.weighed(connection, world_id, persona_id, now)
    paused_s = pause(connection, laws, world_id, persona_id, now)
    return laws.planned(weighed, upkeep(weighed, laws.params, pruning=pruning), paused_s)


def pause(connection: Connection, laws: Laws, world_id: str, persona_id: str, now: float) -> float:
    """Return the seconds until a persona may be pruned again; a run that was undone is none.

    Nor is one of a time to come: the clock was set back since, perhaps by days.
    """
    last = LAST_RUN.scalar(connection, world=world_id, persona=persona_id, now=now)
    return 0.0 if last is None else max(0.0, last + laws.params.pause_s - now)


def still_so(connection: Connection, run: Run, plan: Plan) -> bool:
    """Say whether a plan still holds: what goes is as it was, and no fewer memories are there.

    That is far quicker than planning, for which all memories are read.
    """
    its = run.world_id, run.persona_id
    if COUNT.scalar(connection, world=its[0], persona=its[1]) < plan.before:
        return False
    then, now = plan.weighed.columns, read_columns(connection, *its, plan.ids)
    rows = plan.picked.rows[np.argsort(then.ids[plan.picked.rows])]
    order = np.argsort(now.ids)
    return all(
        np.array_equal(getattr(then, one.name)[rows], getattr(now, one.name)[order])
        for one in fields(Columns)
    )


def archive(connection: Connection, laws: Laws, run: Run, plan: Plan) -> Pruned | None:
    """Archive what a plan names and write the audit, inside its transaction."""
    if not plan.archived:
        return None
    prune_id, ids, (gone, left) = new_id(), plan.ids, plan.means()
    its = {"world": run.world_id, "ids": ids}
    ARCHIVE.run(connection, {**its, "run": prune_id, "now": run.now})
    versions = {row.id: row.version for row in VERSIONS.all(connection, **its)}
    hide(connection, run.world_id, versions, run.now)
    took_s = time.perf_counter() - run.began
    WRITE_RUN.run(
        connection,
        {
            "world_id": run.world_id,
            "id": prune_id,
            "persona_id": run.persona_id,
            "origin": run.origin,
            "strategy": laws.params.strategy,
            "params": {"pruning": laws.params.model_dump(), "fading": laws.fading.model_dump()},
            "memory_ids": ids,
            "scores": plan.weighed.scores[plan.picked.rows].tolist(),
            "before": plan.before,
            "archived": plan.archived,
            "faded": plan.picked.faded,
            "importance_archived": gone,
            "importance_kept": left,
            "at": run.now,
            "took_s": took_s,
        },
    )
    counts = plan.before, plan.archived, plan.picked.faded
    return Pruned(prune_id, run.persona_id, *counts, gone, left, took_s)


def undo(connection: Connection, world_id: str, prune_id: str, now: float) -> Undone:
    """Bring back what a run archived, inside a transaction.

    Raises:
        NotFound: There is no such run.
    """
    run = READ_RUN.first(connection, world=world_id, run=prune_id)
    if run is None:
        raise NotFound.of("prune run", prune_id)
    its: dict[str, Any] = {"world": world_id, "ids": run.memory_ids}
    ids = [id for (id,) in RESTORABLE.all(connection, **its, run=prune_id, at=run.at)]
    RESTORE.run(connection, {"world": world_id, "ids": ids})
    reveal(connection, world_id, ids, now)
    restored = len(ids)
    again = run.undone_at is not None
    if not again:
        MARK.run(connection, {"world": world_id, "run": prune_id, "now": now, "count": restored})
    memories = COUNT.scalar(connection, world=world_id, persona=run.persona_id)
    return Undone(run.persona_id, run.archived, restored, again, memories)
