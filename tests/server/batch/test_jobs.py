"""Who holds a batch: one process at a time, and the next one goes on where it was left."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, update

from persona_mcp.config.settings import Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.model import ModelInfo
from tests.calls import call, remembered
from tests.dialogues import LINES, QUICK, ended, folder_of, result, said, start, status
from tests.doubles import Hangs, ScriptedModel, WordEmbedder
from tests.processes import LIMIT_S, end, eventually, model_server, serving, stop

pytestmark = pytest.mark.anyio

ANOTHER = ModelInfo("scripted", "another", 8192, small=False)

STRANGERS = {
    "personas": {"mara": {"persona": {"name": "Mara"}}, "tom": {"persona": {"name": "Tom"}}},
    "dialogue": {"max_turns": 3, "stagnation": 0},
    "waves": [{}, {}],
    "seed": 5,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"dialogues": QUICK})


def changed(settings: Settings, **fields: Any) -> Settings:
    dialogues = settings.dialogues.model_copy(update=fields)
    return settings.model_copy(update={"dialogues": dialogues})


@asynccontextmanager
async def process(
    settings: Settings, model: ScriptedModel, *, holds_batches: bool = True
) -> AsyncIterator[Service]:
    """Open a service as another process would."""
    opened = open_service(settings, model, WordEmbedder(), holds_batches=holds_batches)
    async with opened as service:
        yield service


async def test_a_process_that_stops_lets_the_turn_be_said_and_the_next_goes_on_after_it(
    settings: Settings,
) -> None:
    hanging = Hangs(after=LINES[1])
    first, second = ScriptedModel(LINES[0], hanging), ScriptedModel(*LINES[2:4])

    async with process(settings, first) as service:
        id = await start(service)
        await hanging.reached.wait()
        service.batches.stop()
        hanging.release.set()
    async with process(settings, second, holds_batches=False) as service:
        left = await status(service, id)
    async with process(settings, second) as service:
        over = await ended(service, id)
        told = await said(service, id)

    assert (left["status"], left["turns_done"]) == ("queued", 2)
    assert over["status"] == "completed"
    assert told == list(LINES[:4])
    assert (len(first.history), len(second.history)) == (2, 2)


async def test_a_turn_that_takes_too_long_is_cut_off_and_said_again_by_the_next_process(
    settings: Settings,
) -> None:
    hanging = Hangs("The harbour")
    first, second = ScriptedModel(LINES[0], hanging), ScriptedModel(*LINES[1:4])

    async with process(changed(settings, stop_s=0.05), first) as service:
        id = await start(service)
        await hanging.reached.wait()
    async with process(settings, second) as service:
        over = await ended(service, id)
        told = await said(service, id)

    assert hanging.cancelled.is_set()
    assert over["status"] == "completed"
    assert told == list(LINES[:4])


async def test_a_batch_that_goes_on_comes_to_the_same_as_one_that_was_never_stopped(
    settings: Settings, tmp_path: Path
) -> None:
    hanging = Hangs(LINES[2])
    spec = {**STRANGERS, "dialogue": {"max_turns": 4}}
    apart = settings.model_copy(update={"data_dir": tmp_path / "apart"})

    async with process(changed(settings, stop_s=0.05), ScriptedModel(*LINES[:2], hanging)) as first:
        id = (await call(first, "dialogue_start", spec=spec))["dialogue_id"]
        await hanging.reached.wait()
    async with process(settings, ScriptedModel(*LINES[2:])) as second:
        await ended(second, id)
        stopped = sums(settings.data_dir, id)
    async with process(apart, ScriptedModel(*LINES)) as service:
        other = (await call(service, "dialogue_start", spec=spec))["dialogue_id"]
        await ended(service, other)
        at_once = sums(apart.data_dir, other)

    assert stopped == at_once
    assert "recording.jsonl" in stopped


async def test_two_processes_on_one_folder_hold_a_batch_once(settings: Settings) -> None:
    model = ScriptedModel(*LINES)
    async with process(settings, model) as one, process(settings, model) as two:
        ids = await asyncio.gather(
            start(one, ignore_availability=True), start(two, ignore_availability=True)
        )
        overs = [await ended(two, ids[0]), await ended(one, ids[1])]
        told = await said(one, ids[0]) + await said(two, ids[1])
        listed = await call(one, "conversation_list")

    assert [over["status"] for over in overs] == ["completed"] * 2
    assert sorted(told) == sorted(LINES)
    assert len(model.history) == 8
    assert listed["total_count"] == 2


async def test_another_process_is_asked_to_stop_what_it_holds(settings: Settings) -> None:
    hanging = Hangs(after=LINES[0])
    model = ScriptedModel(hanging, *LINES[1:4])
    async with (
        process(settings, model) as one,
        process(settings, model, holds_batches=False) as two,
    ):
        id = await start(one)
        await hanging.reached.wait()
        await call(two, "dialogue_cancel", dialogue_id=id, reason="Not now.")
        while not one.batches.asked_to_stop:
            await asyncio.sleep(0)
        hanging.release.set()
        over = await ended(two, id)

    assert (over["status"], over["reason"], over["turns_done"]) == ("cancelled", "Not now.", 1)


async def test_a_process_that_does_one_thing_and_ends_holds_nothing(settings: Settings) -> None:
    model = ScriptedModel(*LINES[:4])
    async with process(settings, model, holds_batches=False) as service:
        id = await start(service)
        waited = await status(service, id, wait_ms=300)
    async with process(settings, model) as service:
        over = await ended(service, id)

    assert waited["status"] == "queued"
    assert over["status"] == "completed"


async def test_what_became_part_of_the_world_before_a_crash_does_not_become_so_again(
    settings: Settings,
) -> None:
    async with process(settings, ScriptedModel(*LINES)) as service:
        id = await start(service, repeat=2)
        await ended(service, id)
        once = await remembered(service.database)

        def crashed(connection: Connection) -> None:
            before = {"status": "running", "owner": "gone", "kept_at": None, "finished_at": None}
            batch = tables.Batch
            connection.execute(update(batch).where(batch.id == id).values(before))

        await service.database.write(crashed)
    model = ScriptedModel()
    async with process(changed(settings, lease_s=0.001), model) as service:
        over = await ended(service, id)
        twice = await remembered(service.database)

    assert (over["status"], over["kept_at"] is not None) == ("completed", True)
    assert model.history == []
    assert twice == once


async def test_a_batch_waits_for_the_model_that_began_it(settings: Settings) -> None:
    hanging = Hangs(LINES[1])
    async with process(changed(settings, stop_s=0.05), ScriptedModel(LINES[0], hanging)) as service:
        id = await start(service)
        await hanging.reached.wait()
    other = ScriptedModel(*LINES[:4], info=ANOTHER)
    async with process(settings, other) as service:
        while (waits := await status(service, id))["error"] is None:
            await asyncio.sleep(0)
        later = await start(service, participants=["kira", "noor"])
        over = await ended(service, later)
    async with process(settings, ScriptedModel(*LINES[1:4])) as service:
        mine = await ended(service, id)
        told = await said(service, id)

    assert waits["status"] == "queued"
    assert waits["error"]["message"].startswith(
        "it was begun with the model scripted:large, and now scripted:another is set"
    )
    assert over["status"] == mine["status"] == "completed"
    assert told == list(LINES[:4])


async def test_a_persona_that_is_gone_at_the_end_is_told_and_nothing_is_kept(
    settings: Settings,
) -> None:
    hanging = Hangs(after=LINES[3])
    async with process(settings, ScriptedModel(*LINES[:3], hanging)) as service:
        id = await start(service)
        await hanging.reached.wait()
        await call(service, "persona_delete", persona_id="kira", confirm=True)
        before = await remembered(service.database)
        hanging.release.set()
        over = await ended(service, id)
        found = await result(service, id)
        after = await remembered(service.database)

    assert (over["status"], over["kept_at"]) == ("failed", None)
    assert over["error"]["message"] == "persona 'kira' not found"
    assert [one["status"] for one in found["results"]] == ["done"]
    assert after == before


async def test_a_batch_that_was_over_long_ago_goes_with_its_files(settings: Settings) -> None:
    async with process(settings, ScriptedModel(*LINES[:4])) as service:
        id = await start(service, keep=False)
        await ended(service, id)
        folder = folder_of(service, id)
        there = (folder / "manifest.json").exists()

        def long_ago(connection: Connection) -> None:
            connection.execute(update(tables.Batch).values(finished_at=time.time() - 3 * 86_400))

        await service.database.write(long_ago)
    async with process(changed(settings, kept_days=2), ScriptedModel()) as service:
        while (await call(service, "dialogue_list"))["total_count"]:
            await asyncio.sleep(0)

    assert there
    assert not folder.exists()


def test_a_dialogue_outlives_sigterm_and_kill_9_and_comes_to_the_same(tmp_path: Path) -> None:
    with model_server("hashed") as models, model_server(dimension=64) as words:
        given = {
            "PERSONA_EMBEDDER__MODEL": "openai:words",
            "PERSONA_EMBEDDER__OPENAI_URL": words.openai_url,
            "PERSONA_DIALOGUES__STOP_S": "0.2",
        }

        def asked(count: int) -> None:
            eventually(lambda: len(models.requests) >= count, f"{count} calls of the model")

        with serving(tmp_path / "data", models.openai_url, **given) as (process, url):
            models.script("hashed", "hang")
            id = post(url, "start", spec=STRANGERS)["dialogue_id"]
            asked(2)
            code, _ = stop(process)
        with serving(tmp_path / "data", models.openai_url, **given) as (process, url):
            models.script("hashed", "hashed", "hang")
            asked(5)
            process.kill()
            end(process)
        with serving(tmp_path / "data", models.openai_url, **given) as (process, url):
            over = post(url, "status", dialogue_id=id, wait_ms=20_000)
            stop(process)
        with serving(tmp_path / "apart", models.openai_url, **given) as (process, url):
            other = post(url, "start", spec=STRANGERS)["dialogue_id"]
            at_once = post(url, "status", dialogue_id=other, wait_ms=20_000)
            stop(process)

    assert code == 0
    assert (over["status"], at_once["status"]) == ("completed", "completed")
    assert over["turns_done"] == at_once["turns_done"] == 6
    assert over["tokens_used"] == at_once["tokens_used"]
    assert sums(tmp_path / "data", id) == sums(tmp_path / "apart", other)
    assert len(models.requests) == (6 + 2) + 6


def post(url: str, name: str, **arguments: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/api/v1/dialogue/{name}", json=arguments, timeout=LIMIT_S)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def sums(data_dir: Path, id: str) -> dict[str, str]:
    """Return the check sums of all files of a finished batch."""
    manifest = json.loads((data_dir / "dialogues" / "main" / id / "manifest.json").read_text())
    return {name: file["sha256"] for name, file in manifest["files"].items()}
