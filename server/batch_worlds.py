"""The worlds of a batch's runs: how one begins, what time it is in it, how it goes on."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from persona_mcp.server.batch_store import BatchStore
from persona_mcp.server.dialogue_host import DialogueHost
from persona_mcp.state import folding, small_world
from persona_mcp.state.batch import Cast, Job


@dataclass(frozen=True)
class Worlds:
    """Makes frozen worlds, away from the loop.

    Attributes:
        host: What dialogues are held with, the embedder of what is known at the beginning too.
    """

    host: DialogueHost

    async def begin(self, cast: Cast, starts_at: float) -> bytes:
        """Make the world that a run begins in.

        Raises:
            InvalidParams: The cast does not fit into one world.
            ModelError: The embedder did not answer.
        """
        return await self.host.begin_world(cast, starts_at)

    async def time_in(self, frozen: bytes) -> float:
        """Return when the last thing in a world happened, in seconds since the epoch, UTC."""
        return await asyncio.to_thread(small_world.latest, frozen)

    async def fold(self, frozen: bytes, store: BatchStore, jobs: Sequence[Job]) -> bytes:
        """Make the dialogues of a wave, which are all kept, part of the world they began in."""
        first, last = jobs[0].place.index, jobs[-1].place.index

        def work() -> bytes:
            with closing(store.outcomes(first, last)) as outcomes:
                return folding.fold(frozen, outcomes, self.host.laws.effects)

        return await asyncio.to_thread(work)
