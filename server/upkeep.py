"""The background upkeep: archives what has faded, prunes what is too much, merges duplicates.

Each server process looks for worlds that are due; the lease in SQL lets one of them do a world.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from persona_mcp.state.memory.params import UpkeepParams
from persona_mcp.state.memory.upkeep_store import LeaseLost, UpkeepStore
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.worker import Worker

log = structlog.get_logger(__name__)


def unheard(outcome: str, seconds: float) -> None:
    """Tell nobody."""


class Upkeep(Worker):
    """Does what is due, until it is stopped."""

    def __init__(
        self,
        store: UpkeepStore,
        personas: PersonaStore,
        settings: UpkeepParams,
        now: Callable[[], float],
        done: Callable[[str, float], None] = unheard,
    ) -> None:
        """Work on these stores, by this clock.

        Args:
            store: Where it is due, and what it has done.
            personas: Who is there.
            settings: How often it looks.
            now: Seconds since the epoch.
            done: Told of each world: whole, faulty or partial, and how long it took in seconds.
        """
        self._done = done
        super().__init__("upkeep", settings.poll_s)
        self._store = store
        self._personas = personas
        self._lease_s = settings.lease_s
        self._now = now

    async def turn(self) -> None:
        """Do what is due."""
        await self.do_due()

    async def do_due(self) -> int:
        """Do the upkeep of every world that is due; return how many whole cycles that were."""
        cycles = 0
        for world_id in await self._store.worlds(self._now()):
            if not self._stopping:
                cycles += await self._cycle(world_id)
        return cycles

    async def _cycle(self, world_id: str) -> bool:
        """Do one world, persona by persona; return whether it was done whole."""
        began = self._now()
        if await self._store.claim(world_id, began, self._lease_s) is None:
            return False
        counted = ("personas", "archived", "faded", "prunes", "merged", "removed", "errors")
        recent: dict[str, Any] = {"began": began, **dict.fromkeys(counted, 0)}
        whole = False
        try:
            whole = await self._all(world_id, began, recent)
        except LeaseLost:
            log.info("upkeep left to others", world=world_id)
        finally:
            recent["took_s"] = max(0.0, self._now() - began)  # the clock may be set back meanwhile
            await self._store.finish(world_id, began if whole else None, recent)
            outcome = "faulty" if recent["errors"] else "whole" if whole else "partial"
            self._done(outcome, recent["took_s"])
        return whole

    async def _all(self, world_id: str, began: float, recent: dict[str, Any]) -> bool:
        """Do every persona; one that fails does not stop the others."""
        for persona_id in await self._personas.names(world_id):
            if self._stopping:
                return False
            try:
                cared = await self._store.care(
                    world_id, persona_id, began, self._now(), self._lease_s
                )
            except LeaseLost:
                raise
            except Exception:
                recent["errors"] += 1
                log.exception("upkeep of a persona failed", world=world_id, persona=persona_id)
            else:
                recent["personas"] += 1
                recent["merged"] += cared.merged
                recent["removed"] += cared.removed
                run = cared.pruned
                if run is not None:
                    recent["archived"] += run.archived
                    recent["faded"] += run.faded
                    recent["prunes"] += run.archived > run.faded
            await asyncio.sleep(0)  # others' turn
        return True
