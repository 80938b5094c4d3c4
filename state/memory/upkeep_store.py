"""The background upkeep of a world in SQL: its switch, its lease, its cycles."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy import Connection, String, bindparam, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.memory.merging import Merging, merge, plan_merges
from persona_mcp.state.memory.prune_store import (
    Laws,
    Plan,
    Pruned,
    Run,
    archive,
    plan_upkeep,
    still_so,
)
from persona_mcp.state.memory.removal import remove_long_gone
from persona_mcp.state.moments import HOUR_S
from persona_mcp.state.prepared import Prepared

T = tables.Upkeep
WORLD = bindparam("world", type_=String)
READ = Prepared(select(T).where(T.world_id == WORLD))
ON = Prepared(select(T).where(T.switched_on).order_by(T.world_id))
ADD = Prepared(insert(T))
TAKE = Prepared(
    update(T)
    .where(T.world_id == WORLD)
    .values(lease_owner=bindparam("process"), lease_until=bindparam("until"))
)


@dataclass(frozen=True)
class Switch:
    """How a world's upkeep is set, and what it has done.

    Attributes:
        on: It is switched on.
        interval_hours: From the beginning of a cycle to that of the next.
        auto_pruning: It also prunes what is too much, beside archiving what has faded.
        last_run: When the last whole cycle began; None if there was none.
        cycles: Whole ones so far.
        errors: Personas whose upkeep failed, over all of them.
        recent: What the last whole cycle did.
    """

    on: bool
    interval_hours: int
    auto_pruning: bool
    last_run: float | None
    cycles: int
    errors: int
    recent: dict[str, Any]

    def due(self, now: float) -> float:
        """Return when the next cycle is due; the first one is at once.

        So is the one after a cycle of a time to come: the clock was set back since, perhaps far.
        """
        if self.last_run is None or self.last_run > now:
            return 0.0
        return self.last_run + self.interval_hours * HOUR_S


@dataclass(frozen=True)
class Cared:
    """What the upkeep of a persona did.

    Attributes:
        pruned: What it archived; None if nothing was to go.
        merged: How many memories it merged into others.
        removed: How many it deleted for good, archived long ago.
    """

    pruned: Pruned | None
    merged: int
    removed: int


class UpkeepStore:
    """Sets the switch, gives one process at a time the lease, and keeps count."""

    def __init__(
        self,
        database: Database,
        laws: Laws,
        merging: Merging,
        process: str,
        is_gone: Callable[[str], bool],
    ) -> None:
        """Work in the name of this process; the lease of a process that `is_gone` is free."""
        self._database = database
        self._laws = laws
        self._merging = merging
        self._process = process
        self._is_gone = is_gone

    async def worlds(self, now: float) -> list[str]:
        """Return the worlds whose upkeep is due and that nobody is at."""

        def read(connection: Connection) -> list[str]:
            return [row.world_id for row in ON.all(connection) if self._is_free(row, now)]

        return await self._database.read(read)

    async def claim(self, world_id: str, now: float, lease_s: float) -> Switch | None:
        """Take the lease of a world that is due; None if it is not, or somebody holds it."""

        def write(connection: Connection) -> Switch | None:
            row = READ.first(connection, world=world_id)
            if row is None or not row.switched_on or not self._is_free(row, now):
                return None
            until = now + lease_s
            TAKE.run(connection, {"world": world_id, "process": self._process, "until": until})
            return to_switch(row)

        return await self._database.write(write)

    async def care(
        self, world_id: str, persona_id: str, began: float, now: float, lease_s: float
    ) -> Cared:
        """Do the upkeep of one persona, in one transaction that also renews the lease.

        What is to be done is found before, while others write; what has changed since is left out.

        Args:
            world_id: Where.
            persona_id: Whose memories.
            began: When the cycle began.
            now: The time.
            lease_s: How long the lease is kept from others.

        Raises:
            LeaseLost: Another process has taken it, or upkeep was switched off.
        """
        run = Run(world_id, persona_id, began, "upkeep", perf_counter())

        def planned(connection: Connection) -> Plan:
            row = self._held(connection, world_id)
            return plan_upkeep(
                connection, self._laws, world_id, persona_id, began, row.auto_pruning
            )

        plan = await self._database.read(planned)
        merges = await self._database.read(plan_merges, world_id, persona_id, self._merging)

        def write(connection: Connection) -> Cared:
            self._held(connection, world_id)
            until = now + lease_s
            TAKE.run(connection, {"world": world_id, "process": self._process, "until": until})
            sure = plan if still_so(connection, run, plan) else planned(connection)
            pruned = archive(connection, self._laws, run, sure)
            merged = merge(connection, world_id, merges, now)  # not what was archived just now
            removed = remove_long_gone(connection, world_id, persona_id, now, self._laws.params)
            return Cared(pruned, sum(len(one.sources) for one in merged), removed)

        return await self._database.write(write)

    def _held(self, connection: Connection, world_id: str) -> Any:
        row = READ.first(connection, world=world_id)
        if row is None or row.lease_owner != self._process or not row.switched_on:
            raise LeaseLost
        return row

    async def finish(self, world_id: str, began: float | None, recent: dict[str, Any]) -> None:
        """Let go of the lease; a whole cycle is counted, of one cut short `began` is None."""
        done: dict[str, Any] = {"lease_owner": None, "lease_until": 0.0}
        if began is not None:
            done |= {"last_run": began, "cycles": T.cycles + 1, "recent": recent}
            done |= {"errors": T.errors + recent["errors"]}

        def write(connection: Connection) -> None:
            mine = update(T).where(T.world_id == world_id, T.lease_owner == self._process)
            connection.execute(mine.values(done))

        await self._database.write(write)

    def _is_free(self, row: Any, now: float) -> bool:
        if to_switch(row).due(now) > now:
            return False
        owner = row.lease_owner
        return owner is None or row.lease_until < now or self._is_gone(owner)


class LeaseLost(Exception):
    """Rolls back the upkeep of a persona that is not ours to do any more."""


class UpkeepSwitch:
    """Switches a world's upkeep on and off; needs only the database."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def read(self, world_id: str) -> Switch | None:
        """Return how it is set; None if it never was."""
        row = await self._database.read(READ.first, world=world_id)
        return None if row is None else to_switch(row)

    async def turn_on(
        self, world_id: str, interval_hours: int, auto_pruning: bool
    ) -> tuple[Switch, bool]:
        """Switch it on, or change how it is set; say whether it was on before."""

        def write(connection: Connection) -> tuple[Switch, bool]:
            before = READ.first(connection, world=world_id)
            values = {
                "switched_on": True,
                "interval_hours": interval_hours,
                "auto_pruning": auto_pruning,
            }
            if before is None:
                ADD.run(connection, {"world_id": world_id, **values, "recent": {}})
            else:
                connection.execute(update(T).where(T.world_id == world_id).values(values))
            after = to_switch(READ.first(connection, world=world_id))
            return after, before is not None and before.switched_on

        return await self._database.write(write)

    async def turn_off(self, world_id: str) -> bool:
        """Switch it off; a cycle that runs ends after its persona. Say whether it was on."""

        def write(connection: Connection) -> bool:
            off = update(T).where(T.world_id == world_id, T.switched_on)
            return connection.execute(off.values(switched_on=False)).rowcount == 1

        return await self._database.write(write)


def to_switch(row: Any) -> Switch:
    """Read a row."""
    return Switch(
        row.switched_on,
        row.interval_hours,
        row.auto_pruning,
        row.last_run,
        row.cycles,
        row.errors,
        row.recent,
    )
