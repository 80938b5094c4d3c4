"""Memories changed, deleted, imported and exported from outside."""

import asyncio
import base64
import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from persona_mcp.state.memory.documents import DOCUMENT_BYTES
from tests.calls import call, rows
from tests.doubles import ScriptedModel, WordEmbedder
from tests.http_server import API, served

pytestmark = pytest.mark.anyio

LOGBOOK = """\
# The Logbook

Tom's boat is red.

## Winter

The harbour froze in January. Nobody sailed.

## Spring

The ice went, and Tom sailed to Oslo.
"""


async def told(service: Service, content: str, **more: object) -> str:
    stored = await call(
        service, "memory_store", **{"persona_id": "aria", "content": content, **more}
    )
    return str(stored["memory_id"])


async def get(service: Service, memory_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await call(service, "memory_get", memory_id=memory_id))["memory"]
    return found


async def contents(service: Service, query: str, persona_id: str = "aria") -> list[str]:
    found = await call(service, "memory_search", persona_id=persona_id, query=query)
    return [memory["content"] for memory in found["memories"]]


async def imported(service: Service, **more: object) -> dict[str, Any]:
    given = {"persona_id": "aria", "text": LOGBOOK, **more}
    return await call(service, "memory_import", **{k: v for k, v in given.items() if v is not None})


async def indexed(service: Service) -> None:
    async with asyncio.timeout(20):
        while await service.indexer.pending():
            await asyncio.sleep(0.01)


async def until(condition: Callable[[], Any], wanted: object) -> None:
    async with asyncio.timeout(20):
        while await condition() != wanted:
            await asyncio.sleep(0.01)


async def test_a_memory_is_changed_and_shows_what_it_was(service: Service) -> None:
    id = await told(service, "Tom's boat is red.", importance=0.4)
    await indexed(service)

    done = await call(
        service,
        "memory_update",
        memory_id=id,
        content=" Tom's boat is blue. ",
        importance=0.4,
        metadata={"seen": True},
        visibility="shared",
        related_personas=["Kira", "kira"],
        expected_version=1.0,
    )

    assert done == {
        "memory_id": id,
        "version": 2,
        "changed": ["content", "visibility", "related_personas", "metadata"],
    }
    found = await get(service, id)
    assert (found["content"], found["indexed_text"]) == ("Tom's boat is blue.",) * 2
    assert (found["version"], found["related_personas"]) == (2, ["kira"])
    (revision,) = found["revisions"]
    assert revision["version"] == 1
    assert revision["replaced_at"] == found["updated_at"]
    assert revision["before"]["content"] == "Tom's boat is red."
    assert await contents(service, "blue boat") == await contents(service, "blue boat", "kira")
    await indexed(service)
    assert [row["version"] for row in await rows(service.database, tables.MemoryVector)] == [2]
    same = await call(service, "memory_update", memory_id=id, importance=0.4)
    assert (same["version"], same["changed"]) == (2, [])


async def test_of_two_clients_that_change_one_version_the_second_is_told(service: Service) -> None:
    id = await told(service, "Tom's boat is red.")

    done = await asyncio.gather(
        *(
            call(service, "memory_update", memory_id=id, content=text, expected_version=1)
            for text in ("It is blue.", "It is green.")
        ),
        return_exceptions=True,
    )

    (refused,) = [one for one in done if isinstance(one, Conflict)]
    assert refused.data["version"] == 2
    assert "version 2, not 1" in refused.message
    with pytest.raises(NotFound, match="nobody"):
        await call(service, "memory_update", memory_id=id, related_personas=["nobody"])
    with pytest.raises(NotFound, match="nowhere"):
        await call(service, "memory_update", memory_id="nowhere", pinned=True)


async def test_what_is_deleted_can_be_restored(service: Service) -> None:
    id = await told(service, "Tom's boat is red.")

    done = await call(service, "memory_delete", ids=[id, "nowhere", id])

    assert done == {
        "deleted": 1,
        "memory_ids": [id],
        "archived_already": [],
        "not_found": ["nowhere"],
        "purged": False,
        "restored": [],
        "dry_run": False,
    }
    assert await contents(service, "boat") == []
    assert (await call(service, "memory_delete", memory_id=id))["archived_already"] == [id]
    await call(service, "memory_update", memory_id=id, archived=False)
    assert await contents(service, "boat") == ["Tom's boat is red."]


async def test_a_purge_must_be_confirmed_and_is_final(service: Service) -> None:
    id = await told(service, "Tom's boat is red.")
    with pytest.raises(InvalidParams, match="confirm: allowed is true"):
        await call(service, "memory_delete", memory_id=id, purge=True)
    would = await call(service, "memory_delete", memory_id=id, purge=True, dry_run=True)
    assert (would["memory_ids"], would["purged"]) == ([id], False)
    assert await contents(service, "boat") != []

    done = await call(service, "memory_delete", memory_id=id, purge=True, confirm=True)

    assert (done["deleted"], done["purged"]) == (1, True)
    with pytest.raises(NotFound):
        await get(service, id)
    for table in (tables.Memory, tables.MemoryWitness, tables.MemoryVector):
        assert await rows(service.database, table) == []


@pytest.mark.parametrize("given", [{}, {"memory_id": "m1", "ids": ["m1"]}, {"ids": []}])
async def test_which_memories_to_delete_is_said_once(
    service: Service, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParams, match=r"memory_id|ids"):
        await call(service, "memory_delete", **given)


async def test_a_purge_reaches_the_folder_of_chroma_while_the_program_runs(
    settings: Settings, model: ScriptedModel
) -> None:
    chosen = settings.model_copy(update={"index": IndexSettings(kind="chroma")})
    folder: Path = settings.data_dir / "chroma"
    async with open_service(chosen, model, WordEmbedder()) as service:
        one = await told(service, "Tom's boat is red.")
        other = await told(service, "Tom's boat is new.", visibility="public")
        await indexed(service)
        assert len(await contents(service, "boat")) == 2
        index = service.index._index
        await until(lambda: index.versions("main"), {one: 1, other: 1})
        assert any(path.is_dir() for path in folder.iterdir())

        await call(service, "memory_delete", memory_id=one)
        await until(lambda: index.versions("main"), {other: 1})
        await call(service, "memory_update", memory_id=one, archived=False)
        await indexed(service)
        assert len(await contents(service, "boat")) == 2
        await call(service, "memory_delete", ids=[one, other], purge=True, confirm=True)
        await until(lambda: rows(service.database, tables.OutboxEntry), [])

        assert await index.worlds() == set()
        assert not any(path.is_dir() for path in folder.iterdir())


async def test_a_document_of_one_part_is_told_as_one(service: Service) -> None:
    done = await call(service, "memory_import", persona_id="aria", text="The boat is red.")

    assert done["message"] == "1 part was stored"


async def test_a_document_becomes_memories_that_know_where_they_stand(service: Service) -> None:
    done = await imported(service, title="Logbook of 1963")

    assert (done["count"], done["stored"], done["already_there"]) == (3, 3, 0)
    assert (done["title"], done["message"]) == ("Logbook of 1963", "3 parts were stored")
    second = await get(service, done["memory_ids"][1])
    assert second["content"] == "## Winter\n\nThe harbour froze in January. Nobody sailed."
    assert second["metadata"] == {
        "title": "Logbook of 1963",
        "headings": ["The Logbook", "Winter"],
        "part": 2,
        "parts": 3,
        "chunk_words": 120,
    }
    assert second["indexed_text"].startswith("Logbook of 1963 > The Logbook > Winter: ## Winter")
    assert (second["memory_type"], second["visibility"]) == ("fact", "private")
    assert (second["witnesses"], second["importance"] > 0) == (["aria"], True)
    found = await call(service, "memory_search", persona_id="aria", query="harbour January 1963")
    assert found["memories"][0]["id"] == second["id"]
    assert set(found["memories"][0]["score_parts"]) == {"dense", "lexical", "session"}
    assert await contents(service, "harbour", "kira") == []


async def test_the_same_document_stores_nothing_twice_and_says_so(service: Service) -> None:
    would = await imported(service, dry_run=True)
    assert (would["stored"], would["message"]) == (3, "3 parts would be stored")
    assert await rows(service.database, tables.Memory) == []
    first, at_once = await asyncio.gather(imported(service), imported(service))
    await call(service, "memory_delete", memory_id=first["memory_ids"][0])

    data = base64.b64encode(b"\xef\xbb\xbf" + LOGBOOK.replace("\n", "\r\n").encode()).decode()
    again = await imported(service, text=None, data=data)

    assert sorted((first["stored"], at_once["stored"])) == [0, 3]
    assert first["memory_ids"] == again["memory_ids"] == would["memory_ids"]
    assert (again["title"], again["stored"], again["archived"]) == ("The Logbook", 0, 1)
    assert again["message"] == (
        "0 parts were stored; 3 were there already and stay as they are, 1 of them archived"
    )
    with pytest.raises(Conflict, match="chunk_words"):
        await imported(service, chunk_words=40)
    assert len(await rows(service.database, tables.Memory)) == 3
    for other in ({"persona_id": "kira"}, {"title": "Another"}, {"text": LOGBOOK + "\nMore."}):
        assert (await imported(service, **other))["stored"] == 3


async def test_a_document_without_a_heading_is_called_by_its_first_words(service: Service) -> None:
    done = await imported(service, text="x" * 100 + "\nand more", visibility="public")

    assert done["title"] == "x" * 80
    assert (await contents(service, "and more", "kira")) == ["x" * 100 + "\nand more"]


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "text: allowed is one of text and data, given was neither"),
        ({"text": "x", "data": "eA=="}, "given was both"),
        ({"text": " \n "}, "text: allowed is text of 1"),
        ({"text": "x" * 1_000_001}, "text: allowed is text of 1..1000000"),
        ({"data": "no base64!"}, "data: allowed is base64"),
        ({"data": "eA="}, "data: allowed is base64"),
        ({"data": "gr\u00f6\u00dfe"}, "data: allowed is base64"),
        ({"data": encoded(b"gr\xf6sse")}, "text in UTF-8, given was another byte at 2"),
        ({"data": encoded(b"\x89PNG\r\n\x1a\n\0\0")}, "text in UTF-8"),
        ({"data": encoded(b"PK\x03\x04\0\0")}, "control characters .*, given was binary data"),
        ({"data": encoded(b" \r\n\t ")}, "data: allowed is text that is not blank"),
        ({"data": encoded(b"x" * (DOCUMENT_BYTES + 1))}, "4194304 bytes, given was 4194305"),
        ({"data": encoded(b"x" * (DOCUMENT_BYTES + 9))}, "data: allowed is text of 1..5592408"),
        ({"text": "a " * 420_000, "chunk_words": 40}, "chunk_words: .* gives 10500"),
        ({"text": "x", "title": "  "}, "title"),
        ({"text": "x", "chunk_words": 39}, "chunk_words: allowed is whole number 40..400"),
    ],
)
async def test_what_is_no_document_is_refused_and_stores_nothing(
    service: Service, given: dict[str, Any], fault: str
) -> None:
    with pytest.raises(InvalidParams, match=fault):
        await call(service, "memory_import", persona_id="aria", **given)

    assert await rows(service.database, tables.Memory) == []


async def test_a_large_document_comes_through_rest_and_the_loop_goes_on(service: Service) -> None:
    text = "".join(f"# Chapter {n}\n\n{'The harbour froze. ' * 300}\n\n" for n in range(120))
    async with served(service) as running, running.client() as client:
        body = {"persona_id": "aria", "data": encoded(text.encode())}
        answer = asyncio.create_task(client.post(f"{API}/memory/import", json=body, timeout=60))
        ticks = 0
        while not answer.done():
            await asyncio.sleep(0.01)
            ticks += 1

        done = (await answer).json()

    assert done["stored"] == done["count"] == 120 * 8
    assert ticks > 5
    assert len(await rows(service.database, tables.Memory)) == done["count"]


async def test_memories_are_exported_whole_in_each_form(service: Service) -> None:
    first = await told(
        service, '=HYPERLINK("evil")', metadata={"deep": [1]}, importance=0.123456789
    )
    gone = await told(service, "Archived.")
    await told(service, "Of another.", persona_id="kira")
    await call(service, "memory_delete", memory_id=gone)

    forms = {
        form: await call(service, "memory_export", persona_id="aria", format=form)
        for form in ("jsonl", "json", "csv")
    }

    for form, found in forms.items():
        assert (found["format"], found["count"], found["total_count"]) == (form, 1, 1)
        assert found["sha256"] == hashlib.sha256(found["data"].encode()).hexdigest()
        assert (found["truncated"], found["next_cursor"]) == (False, None)
    record = json.loads(forms["jsonl"]["data"])
    assert [record] == json.loads(forms["json"]["data"])
    assert (record["id"], record["importance"]) == (first, 0.123456789)
    assert (record["metadata"], record["content"]) == ({"deep": [1]}, '=HYPERLINK("evil")')
    assert "vector" not in record
    (row,) = csv.DictReader(io.StringIO(forms["csv"]["data"]))
    assert row["content"] == '\'=HYPERLINK("evil")'
    every = await call(service, "memory_export", persona_id="aria", include_archived=True)
    assert every["count"] == 2


async def test_an_export_of_many_memories_comes_in_pages(service: Service) -> None:
    await imported(service)

    data, cursor = "", None
    for _ in range(2):
        found = await call(
            service, "memory_export", persona_id="aria", limit=2, cursor=cursor, format="csv"
        )
        data, cursor = data + found["data"], found["next_cursor"]

    assert (found["total_count"], found["truncated"], cursor) == (3, False, None)
    assert len(list(csv.DictReader(io.StringIO(data)))) == 3
    empty = await call(service, "memory_export", persona_id="kira")
    assert (empty["data"], empty["count"]) == ("", 0)


async def test_an_export_that_is_large_ends_a_page_early(service: Service) -> None:
    for number in range(3):
        await told(service, f"{number} " + "\U0001f6a2" * 19_000, importance=0.5)
    await call(service, "memory_import", persona_id="aria", text="\U0001f6a2 " * 490_000)

    found = await call(service, "memory_export", persona_id="aria", limit=10_000)

    assert found["truncated"]
    rest = await call(
        service, "memory_export", persona_id="aria", limit=10_000, cursor=found["next_cursor"]
    )
    assert found["count"] + rest["count"] == found["total_count"]
    assert not rest["truncated"]
