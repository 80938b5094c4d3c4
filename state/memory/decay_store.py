"""Forced fading in SQL: importance is lowered for good, with an audit by which it can be undone."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Float, String, bindparam, func, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.errors import NotFound
from persona_mcp.state.memory.columns import ITS
from persona_mcp.state.prepared import Prepared

M = tables.Memory
D = tables.DecayRun
FLOOR = 0.1
"""Fading that is forced stops here."""
LASTING = 0.8
"""What is at least so important is left alone."""
WORLD, RUN = bindparam("world", type_=String), bindparam("run", type_=String)
FADING = Prepared(
    select(M.id, M.importance)
    .where(*ITS, M.pinned.is_(False), M.importance < LASTING, M.importance > FLOOR)
    .order_by(M.id)
)
COUNT = Prepared(select(func.count()).where(*ITS))
SET = Prepared(
    update(M)
    .where(M.world_id == WORLD, M.id == bindparam("memory", type_=String))
    .values(importance=bindparam("wanted", type_=Float))
)
UNCHANGED = Prepared(
    select(M.id, M.importance).where(
        M.world_id == WORLD, M.id.in_(bindparam("ids", expanding=True, type_=String))
    )
)
WRITE_RUN = Prepared(insert(D))
READ_RUNS = Prepared(select(D).where(D.world_id == WORLD, D.id == RUN).order_by(D.persona_id))
MARK = Prepared(
    update(D)
    .where(D.world_id == WORLD, D.id == RUN, D.persona_id == bindparam("persona"))
    .values(undone_at=bindparam("now", type_=Float), restored=bindparam("count"))
)
AT_ONCE = 500


@dataclass(frozen=True)
class Decayed:
    """What a forced fading changed, or would change.

    Attributes:
        id: Of the audit; None if nothing was changed.
        personas: How many it went through.
        processed: Memories that it looked at.
        decayed: Memories whose importance is lower now.
    """

    id: str | None
    personas: int
    processed: int
    decayed: int


@dataclass(frozen=True)
class DecayUndone:
    """What undoing it brought back; `again`: it was undone before."""

    personas: int
    decayed: int
    restored: int
    again: bool


class DecayStore:
    """Lowers importance and brings it back."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def force(
        self,
        world_id: str,
        decay_id: str,
        personas: Sequence[str],
        factor: float,
        now: float,
        *,
        dry: bool,
    ) -> Decayed:
        """Lower the importance of all memories of these personas, in one transaction.

        importance * (1 - factor), not below .1; what is pinned or at least .8 is left alone. What
        was done under this id before is not done again.

        Args:
            world_id: Where.
            decay_id: Of the audit.
            personas: Whose memories.
            factor: Share that is taken away, 0..1.
            now: The time.
            dry: Only say what it would change.
        """

        def work(connection: Connection) -> Decayed:
            known = READ_RUNS.all(connection, world=world_id, run=decay_id)
            processed = sum(run.processed for run in known)
            decayed = sum(run.decayed for run in known)
            for persona_id in () if known else personas:
                its = {"world": world_id, "persona": persona_id}
                before = {row.id: row.importance for row in FADING.all(connection, **its)}
                count = COUNT.scalar(connection, **its)
                processed, decayed = processed + count, decayed + len(before)
                if before and not dry:
                    lower(connection, world_id, before, factor)
                    WRITE_RUN.run(
                        connection,
                        {
                            "world_id": world_id,
                            "id": decay_id,
                            "persona_id": persona_id,
                            "factor": factor,
                            "processed": count,
                            "decayed": len(before),
                            "memory_ids": list(before),
                            "importance_before": list(before.values()),
                            "importance_after": [lowered(i, factor) for i in before.values()],
                            "at": now,
                        },
                    )
            wrote = decayed and not dry
            return Decayed(decay_id if wrote else None, len(personas), processed, decayed)

        run = self._database.read if dry else self._database.write
        return await run(work)

    async def undo(self, world_id: str, decay_id: str, now: float) -> DecayUndone:
        """Give memories the importance back that they had, but for those changed since.

        Raises:
            NotFound: There is no such run.
        """

        def write(connection: Connection) -> DecayUndone:
            runs = READ_RUNS.all(connection, world=world_id, run=decay_id)
            if not runs:
                raise NotFound.of("forced fading", decay_id)
            if runs[0].undone_at is not None:
                return DecayUndone(len(runs), sum(run.decayed for run in runs), 0, True)
            restored = 0
            for run in runs:
                mine = restore(connection, run)
                mark = {"world": world_id, "run": decay_id, "persona": run.persona_id}
                MARK.run(connection, {**mark, "now": now, "count": mine})
                restored += mine
            return DecayUndone(len(runs), sum(run.decayed for run in runs), restored, False)

        return await self._database.write(write)


def lowered(importance: float, factor: float) -> float:
    """Return importance * (1 - factor), not below .1; for an importance of .1 or more."""
    return max(FLOOR, importance * (1 - factor))


def lower(connection: Connection, world_id: str, before: dict[str, float], factor: float) -> None:
    """Write the lower importance of memories, inside a transaction."""
    values = [
        {"world": world_id, "memory": id, "wanted": lowered(importance, factor)}
        for id, importance in before.items()
    ]
    SET.run(connection, values)


def restore(connection: Connection, run: tables.DecayRun) -> int:
    """Give the memories of a run their importance back, inside a transaction; say of how many."""
    restored = 0
    audit = zip(run.memory_ids, run.importance_before, run.importance_after, strict=True)
    was = {id: (before, after) for id, before, after in audit}
    for start in range(0, len(run.memory_ids), AT_ONCE):
        ids = run.memory_ids[start : start + AT_ONCE]
        rows = UNCHANGED.all(connection, world=run.world_id, ids=ids)
        values = [
            {"world": run.world_id, "memory": row.id, "wanted": was[row.id][0]}
            for row in rows
            if row.importance == was[row.id][1]
        ]
        if values:
            SET.run(connection, values)
        restored += len(values)
    return restored
