"""Servers on one PostgreSQL, each with a data folder of its own: as on two machines."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import get_args

import pytest

from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.embedding import Vector
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.index.vector_index import Kind
from tests.calls import call, say
from tests.dialogues import LINES, QUICK, ended, result, said, start, status
from tests.doubles import Hangs, ScriptedModel, WordEmbedder
from tests.http_server import soon
from tests.postgres import on_postgres, stored

pytestmark = pytest.mark.anyio

FACTS = ("The harbour froze.", "Tom has a red boat.", "Ann sells bread.")
MANY = 60


class CountingEmbedder(WordEmbedder):
    """Counts how often each text was embedded as a document."""

    def __init__(self) -> None:
        self.texts: Counter[str] = Counter()

    async def embed_documents(self, texts: Sequence[str]) -> Vector:
        self.texts.update(texts)
        await asyncio.sleep(0)
        return await super().embed_documents(texts)


@pytest.fixture
def chosen(settings: Settings, migrated_url: str) -> Settings:
    """Settings whose workers look only when they are woken."""
    index = IndexSettings(kind="exact", poll_s=3600.0, batch=5)
    upkeep = settings.upkeep.model_copy(update={"poll_s": 3600.0})
    changed = settings.model_copy(update={"index": index, "upkeep": upkeep})
    return on_postgres(changed, migrated_url, gone_s=3600.0)


@asynccontextmanager
async def server(
    chosen: Settings,
    folder: str,
    model: ScriptedModel | None = None,
    embedder: WordEmbedder | None = None,
) -> AsyncIterator[Service]:
    settings = chosen.model_copy(update={"data_dir": chosen.data_dir / folder})
    opened = open_service(settings, model or ScriptedModel(), embedder or WordEmbedder())
    async with opened as service:
        yield service


async def nothing_waits(service: Service) -> bool:
    return not await service.indexer.pending()


async def best(service: Service, query: str) -> tuple[str, float]:
    answer = await call(service, "memory_search", persona_id="aria", query=query)
    assert answer["degraded"] is None
    first = answer["memories"][0]
    return first["content"], first["similarity"]


@pytest.mark.parametrize("kind", get_args(Kind))
async def test_what_one_embedded_the_other_finds_by_meaning_and_what_it_deleted_not(
    chosen: Settings, kind: Kind
) -> None:
    its = chosen.model_copy(update={"index": IndexSettings(kind=kind)})
    async with server(its, "a") as one, server(its, "b") as two:
        assert (one.index.kind, two.index.kind) == (kind, kind)
        ids = {}
        for fact in FACTS:
            stored_one = await call(one, "memory_store", persona_id="aria", content=fact)
            ids[fact] = stored_one["memory_id"]
        await soon(lambda: nothing_waits(two), "the memories to be embedded")

        for service in (one, two):
            found, similarity = await best(service, "a red boat that Tom has")
            assert found == FACTS[1]
            assert similarity > 0.5

        await call(two, "memory_delete", memory_id=ids[FACTS[1]])
        assert (await best(one, "a red boat that Tom has"))[0] != FACTS[1]


async def test_two_that_work_off_one_outbox_embed_each_memory_once(
    chosen: Settings, migrated_url: str
) -> None:
    embedder = CountingEmbedder()
    async with (
        server(chosen, "a", embedder=embedder) as one,
        server(chosen, "b", embedder=embedder) as two,
    ):
        texts = [f"The {number}. boat is blue." for number in range(MANY)]
        doors = [one, two] * (MANY // 2)
        await asyncio.gather(
            *(
                call(door, "memory_store", persona_id="aria", content=text)
                for door, text in zip(doors, texts, strict=True)
            )
        )
        one.wake()
        two.wake()
        await soon(lambda: nothing_waits(one), "the memories to be embedded")

    assert len(embedder.texts) == MANY
    assert set(embedder.texts.values()) == {1}
    assert stored(migrated_url, "SELECT count(*) FROM memory_vectors") == [(MANY,)]


async def test_what_a_server_that_ended_had_claimed_is_embedded_by_another(
    chosen: Settings, migrated_url: str
) -> None:
    heard = on_postgres(chosen, migrated_url, gone_s=5.0)
    async with server(heard, "b") as two:
        async with server(heard, "a") as one:
            await call(two, "memory_store", persona_id="aria", content=FACTS[0])
            await soon(lambda: nothing_waits(two), "the memory to be embedded")
            stored(
                migrated_url,
                "INSERT INTO outbox (world_id, memory_id, operation, version, attempts, "
                "claimed_by, claimed_until, created_at) SELECT world_id, id, 'upsert', version, 0, "
                "%s, 1e12, 0 FROM memories RETURNING 1",
                one.process,
            )
            assert await two.indexer.work_off() == 0

        async def worked_off() -> bool:
            return await two.indexer.work_off() == 1

        await soon(worked_off, "the end of the other to be heard of")


async def test_upkeep_that_is_due_is_done_by_one_of_two(
    chosen: Settings, migrated_url: str
) -> None:
    async with server(chosen, "a") as one, server(chosen, "b") as two:
        await call(one, "memory_store", persona_id="aria", content=FACTS[0])
        await call(one, "memory_decay_start")

        async def done() -> bool:
            return stored(migrated_url, "SELECT cycles FROM upkeep") == [(1,)]

        await asyncio.gather(one.upkeep.do_due(), two.upkeep.do_due())
        await soon(done, "the upkeep")
        await asyncio.gather(one.upkeep.do_due(), two.upkeep.do_due())

    assert stored(migrated_url, "SELECT cycles, lease_owner FROM upkeep") == [(1, None)]


async def test_a_conversation_goes_on_at_another_server_once_the_first_lets_go(
    chosen: Settings, migrated_url: str
) -> None:
    hanging = Hangs(after="One moment.")
    async with (
        server(chosen, "a", ScriptedModel(hanging)) as one,
        server(chosen, "b", ScriptedModel("And two.")) as two,
    ):
        begun = asyncio.create_task(say(one, "Say one.", request_id="r1"))
        await hanging.reached.wait()
        [(where,)] = stored(migrated_url, "SELECT id FROM conversations")
        following = asyncio.create_task(say(two, "Say two.", conversation_id=where))
        hanging.release.set()

        first, second = await begun, await following

    assert (first["turn_number"], second["turn_number"]) == (2, 4)
    assert second["response"] == "And two."


async def test_what_came_of_a_dialogue_is_told_by_the_server_that_held_it(
    chosen: Settings,
) -> None:
    its = chosen.model_copy(update={"dialogues": QUICK})
    async with server(its, "a", ScriptedModel(*LINES[:4])) as one:
        id = await start(one)
        assert (await ended(one, id))["status"] == "completed"
        async with server(its, "b") as two:
            with pytest.raises(StorageUnavailable, match="not in this server's data folder"):
                await result(two, id)

        assert len((await result(one, id))["results"]) == 1


async def test_a_dialogue_that_was_begun_elsewhere_waits_for_that_server(
    chosen: Settings,
) -> None:
    its = chosen.model_copy(update={"dialogues": QUICK})
    hanging = Hangs(after=LINES[1])
    async with server(its, "a", ScriptedModel(LINES[0], hanging)) as one:
        id = await start(one)
        await hanging.reached.wait()
        one.batches.stop()
        hanging.release.set()

    async with server(its, "b", ScriptedModel()) as two:

        async def put_off() -> bool:
            return (await status(two, id))["error"] is not None

        await soon(put_off, "the dialogue to be put off")
        waits = await status(two, id)
    async with server(its, "a", ScriptedModel(*LINES[2:4])) as again:
        over = await ended(again, id)
        told = await said(again, id)

    assert waits["status"] == "queued"
    assert "another data folder" in waits["error"]["message"]
    assert over["status"] == "completed"
    assert told == list(LINES[:4])
