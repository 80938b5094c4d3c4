"""Batches in SQL: one process at a time holds one, and each goes on where its process ended."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, delete

from persona_mcp.state import tables
from persona_mcp.state.batch.kept_batch import AskedBatch, KeptBatch, Progress
from persona_mcp.state.batch.kept_batches import BatchLost, BatchRows
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, LimitExceeded, NotFound
from tests.state.rows import NOW

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

MOST = 10
LEASE_S = 60.0


class Processes:
    """Several processes on one database, of which some are gone."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.gone: set[str] = set()

    def __call__(self, name: str) -> BatchRows:
        return BatchRows(self.database, name, self.gone.__contains__, LEASE_S)


@pytest.fixture
def of(database: Database, world: str) -> Processes:
    return Processes(database)


def asked(id: str, **more: Any) -> AskedBatch:
    values = {"name": "quarrel", "spec": {"seed": 1}, "keep": True, "dialogues": 2}
    return AskedBatch(**{"world_id": "main", "id": id, "turns_max": 8, **values, **more})


async def ids(rows: BatchRows, **which: Any) -> list[str]:
    found, _ = await rows.page("main", **{"status": None, "limit": 100, **which})
    return [one.id for one in found]


async def claimed(rows: BatchRows, now: float = NOW) -> KeptBatch:
    found = await rows.claim(now)
    assert found is not None
    return found


async def test_a_batch_waits_as_it_was_asked_for(of: Processes) -> None:
    accepted = await of("a").accept(asked("b1"), MOST, NOW)

    assert accepted == await of("b").get("main", "b1")
    assert (accepted.status, accepted.owner, accepted.created_at) == ("queued", None, NOW)
    assert (accepted.spec, accepted.keep) == ({"seed": 1}, True)
    assert accepted.progress == Progress(dialogues=2, turns_max=8)
    assert not accepted.is_over


async def test_a_batch_of_the_same_id_is_accepted_once(of: Processes) -> None:
    first = await of("a").accept(asked("b1"), MOST, NOW)

    again = await of("a").accept(asked("b1", spec={"seed": 2}), MOST, NOW + 1)

    assert again == first
    assert await ids(of("a")) == ["b1"]


async def test_more_than_are_allowed_at_once_are_refused(of: Processes) -> None:
    rows = of("a")
    await rows.accept(asked("b1"), 1, NOW)

    with pytest.raises(LimitExceeded, match="1 dialogues wait or are held already, and 1 are"):
        await rows.accept(asked("b2"), 1, NOW)
    await rows.cancel("main", "b1", "", NOW)
    await rows.accept(asked("b2"), 1, NOW)

    assert await ids(rows) == ["b1", "b2"]


async def test_what_is_in_another_world_is_not_found(of: Processes) -> None:
    await of("a").accept(asked("b1"), MOST, NOW)

    with pytest.raises(NotFound, match="dialogue 'b1' not found"):
        await of("a").get("elsewhere", "b1")
    with pytest.raises(NotFound, match="dialogue 'b1' not found"):
        await of("a").cancel("elsewhere", "b1", "", NOW)


async def test_the_batch_that_waits_longest_is_claimed_first_and_by_one_process(
    of: Processes,
) -> None:
    for number in range(4):
        await of("a").accept(asked(f"b{number}"), MOST, NOW + number)

    found = await asyncio.gather(*(of(name).claim(NOW + 9) for name in "abcd"))

    assert sorted(one.id for one in found if one) == ["b0", "b1", "b2", "b3"]
    assert {one.owner for one in found if one} == set("abcd")
    assert {one.started_at for one in found if one} == {NOW + 9}
    assert await of("e").claim(NOW + 9) is None


async def test_a_batch_of_a_process_that_is_gone_or_silent_is_claimed_by_another(
    of: Processes,
) -> None:
    await of("a").accept(asked("b1"), MOST, NOW)
    batch = await claimed(of("a"))
    await of("a").note(batch, replace(batch.progress, turns_done=3), NOW + 10)

    assert await of("b").claim(NOW + 10 + LEASE_S) is None
    silent = await claimed(of("b"), NOW + 11 + LEASE_S)
    of.gone.add("b")
    left = await claimed(of("c"), NOW + 12 + LEASE_S)

    assert (silent.owner, left.owner) == ("b", "c")
    assert left.progress.turns_done == 3
    assert left.started_at == NOW


async def test_who_has_lost_a_batch_changes_nothing_of_it(of: Processes) -> None:
    rows = of("a")
    await rows.accept(asked("b1"), MOST, NOW)
    batch = await claimed(rows)
    of.gone.add("a")
    held = await claimed(of("b"))
    written: list[str] = []

    for change in (
        rows.note(batch, batch.progress, NOW),
        rows.end(batch, "completed", batch.progress, None, NOW),
        rows.mark_kept(batch, NOW),
        rows.hold(batch, lambda _: written.append("written")),
    ):
        with pytest.raises(BatchLost):
            await change
    await rows.let_go(batch)

    assert await rows.get("main", "b1") == held
    assert written == []


async def test_a_batch_whose_world_is_gone_is_lost(database: Database, of: Processes) -> None:
    rows = of("a")
    await rows.accept(asked("b1"), MOST, NOW)
    batch = await claimed(rows)

    def write(connection: Connection) -> None:
        connection.execute(delete(tables.World))

    await database.write(write)

    with pytest.raises(BatchLost):
        await rows.note(batch, batch.progress, NOW)


async def test_a_batch_that_is_let_go_waits_with_its_reason_and_others_may_go_first(
    of: Processes,
) -> None:
    rows = of("a")
    await rows.accept(asked("b1"), MOST, NOW)
    await rows.accept(asked("b2"), MOST, NOW + 1)
    batch = await claimed(rows)
    problem = {"code": -32013, "message": "another model is set"}

    await rows.let_go(batch, problem)

    waiting = await rows.get("main", "b1")
    assert (waiting.status, waiting.owner, waiting.error) == ("queued", None, problem)
    other = await rows.claim(NOW, [batch.key])
    assert other is not None and other.id == "b2"
    again = await claimed(of("b"))
    assert (again.id, again.error) == ("b1", None)


async def test_how_a_batch_ended_is_kept_and_nobody_claims_it(of: Processes) -> None:
    rows = of("a")
    await rows.accept(asked("b1"), MOST, NOW)
    batch = await claimed(rows)
    done = replace(batch.progress, dialogues_done=2, turns_done=8, left_s=3.0, current_speaker="m")

    await rows.mark_kept(batch, NOW + 1)
    await rows.end(batch, "completed", done, None, NOW + 2)

    over = await rows.get("main", "b1")
    assert (over.status, over.owner, over.kept_at, over.finished_at) == (
        *("completed", None),
        *(NOW + 1, NOW + 2),
    )
    assert (over.progress.turns_done, over.progress.left_s) == (8, None)
    assert over.progress.current_speaker is None
    assert over.is_over
    assert await of("b").claim(NOW + 1000) is None


async def test_a_batch_that_nobody_holds_is_cancelled_at_once(of: Processes) -> None:
    await of("a").accept(asked("b1"), MOST, NOW)
    await of("a").accept(asked("b2"), MOST, NOW + 1)
    await claimed(of("a"))
    of.gone.add("a")

    left = await of("b").cancel("main", "b1", "wrong topic", NOW + 2)
    waiting = await of("b").cancel("main", "b2", "", NOW + 2)

    assert (left.status, left.reason, left.finished_at) == ("cancelled", "wrong topic", NOW + 2)
    assert (waiting.status, waiting.reason) == ("cancelled", "")
    assert await of("b").claim(NOW + 3) is None


async def test_who_holds_a_batch_is_told_to_stop_and_writes_that_it_did(of: Processes) -> None:
    await of("a").accept(asked("b1"), MOST, NOW)
    batch = await claimed(of("a"))
    before = await of("a").note(batch, batch.progress, NOW)

    told = await of("b").cancel("main", "b1", "enough", NOW + 1)
    twice = await of("b").cancel("main", "b1", "enough of it", NOW + 1)
    after = await of("a").note(batch, batch.progress, NOW + 2)
    await of("a").end(batch, "cancelled", batch.progress, None, NOW + 3)

    assert (told.status, told.reason, twice.reason) == ("running", "enough", "enough")
    assert (before, after) == (None, "enough")
    with pytest.raises(Conflict, match="dialogue 'b1' is cancelled already") as over:
        await of("b").cancel("main", "b1", "", NOW + 4)
    assert over.value.data["status"] == "cancelled"


async def test_pages_list_the_last_one_first_and_by_status(of: Processes) -> None:
    rows = of("a")
    for number in range(5):
        await rows.accept(asked(f"b{number}"), MOST, NOW + number // 2)
    await rows.cancel("main", "b3", "", NOW)

    first, total = await rows.page("main", None, 2)
    rest = await ids(rows, limit=10, after=first[-1].id)

    assert ([one.id for one in first], total) == (["b4", "b2"], 5)
    assert rest == ["b3", "b0", "b1"]
    assert await ids(rows, status="cancelled") == ["b3"]
    assert await rows.page("elsewhere", None, 10) == ([], 0)


async def test_only_what_was_over_long_ago_is_old_and_can_be_forgotten(of: Processes) -> None:
    rows = of("a")
    for number in range(3):
        await rows.accept(asked(f"b{number}"), MOST, NOW + number)
    await rows.cancel("main", "b0", "", NOW)
    await rows.cancel("main", "b1", "", NOW + 100)

    assert await rows.old(NOW + 50) == [("main", "b0")]
    for id in ("b0", "b2"):
        await rows.forget("main", id)
    assert await ids(rows) == ["b2", "b1"]
