"""The worlds of a batch's runs, as runs that begin at the same time ask for them."""

import asyncio
from collections.abc import Sequence

import pytest

from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.dialogue_spec import START
from persona_mcp.state.embedding import Vector
from tests.doubles import FickleEmbedder
from tests.small_worlds import cast, host

pytestmark = pytest.mark.anyio


class UnhurriedEmbedder(FickleEmbedder):
    """Lets others go on before it answers, as one that waits for a model does."""

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        await asyncio.sleep(0)
        return await super().embed_documents(texts)


async def test_runs_that_begin_at_once_share_one_world_whose_memories_are_embedded_once() -> None:
    embedder, people = UnhurriedEmbedder(), cast()
    worlds = Worlds(host(embedder))

    begun = await asyncio.gather(*(worlds.begin(people, START) for _ in range(5)))

    assert all(one is begun[0] for one in begun)
    assert sorted(embedder.embedded) == [
        f"{n} buried a silver spoon." for n in ("Ada", "Ben", "Cleo")
    ]


async def test_a_world_of_other_people_or_another_time_is_another_one() -> None:
    worlds, people = Worlds(host()), cast()

    first = await worlds.begin(people, START)
    later = await worlds.begin(people, START + 60.0)
    fewer = await worlds.begin(cast("ada", "ben"), START)

    assert len({first, later, fewer}) == 3
    assert await worlds.time_in(first) == START
    assert await worlds.time_in(later) == START + 60.0


async def test_what_every_world_is_a_copy_of_is_made_while_workers_start() -> None:
    worlds = Worlds(host())

    assert "empty world" in {task.get_name() for task in asyncio.all_tasks()}
    assert await worlds.begin(cast(), START)
