"""What is kept of a batch: each thing once, in order, whatever is cut off."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from persona_mcp.server.batch.rows import NAME, read_progress
from persona_mcp.server.batch.store import BatchStore, open_batch_store
from persona_mcp.state.batch.codec import call_json
from persona_mcp.state.batch.values import Finished, RecordedCall
from persona_mcp.state.errors import StorageUnavailable
from tests.outcomes import Line, job_of, outcome_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BatchStore]:
    async with open_batch_store(tmp_path / NAME) as opened:
        yield opened


def call(index: int, number: int, text: str = "Well.", model: str = "openai:m") -> RecordedCall:
    return RecordedCall(index, number, "reply", f"asked {number}", model, text, 2, "stop")


def finished(index: int, *calls: RecordedCall, failed: bool = False) -> Finished:
    error = {"code": -1, "message": "the model is gone", "data": {}} if failed else None
    outcome = outcome_of(job_of(index), [Line("ada", f"Line {index}.")], error=error)
    return Finished(replace(outcome, calls=len(calls)), calls)


async def test_what_was_kept_is_read_in_order_of_places(store: BatchStore) -> None:
    held = [finished(index, call(index, 0)) for index in (3, 0, 2)]

    await asyncio.gather(*(store.keep(one) for one in held))

    read = list(store.outcomes())
    assert [one.job.place.index for one in read] == [0, 2, 3]
    assert read[0] == held[1].outcome
    assert read[0].measured == held[1].outcome.measured
    assert [one.job.place.index for one in store.outcomes(1, 2)] == [2]
    assert list(store.recording()) == [call_json(call(index, 0)) for index in (0, 2, 3)]
    assert [index for index, _ in store.timings()] == [0, 2, 3]
    assert await store.finished(0, 2) == {0, 2}
    assert await store.count(1, 3) == 2
    assert await store.outcome(1) is None
    assert await store.outcome(3) == held[0].outcome


async def test_a_write_that_is_repeated_changes_nothing(store: BatchStore) -> None:
    held = finished(0, call(0, 0), call(0, 1))

    for _ in range(2):
        await store.keep_call(call(0, 0))
        await store.keep(held)

    counts = await store.counts()
    assert (counts.done, counts.failed, counts.turns, counts.calls) == (1, 0, 1, 2)
    assert len(list(store.recording())) == 2


async def test_calls_of_a_dialogue_that_is_not_done_are_kept_up_to_a_gap(
    store: BatchStore,
) -> None:
    for number in (1, 0, 3):
        await store.keep_call(call(5, number))

    assert await store.calls(5) == (call(5, 0), call(5, 1))
    assert await store.calls(4) == ()


async def test_calls_that_a_dialogue_did_not_make_in_the_end_are_gone(store: BatchStore) -> None:
    for number in range(4):
        await store.keep_call(call(0, number, "Before."))

    await store.keep(finished(0, call(0, 0, "After."), call(0, 1, "After.")))

    assert [one.text for one in await store.calls(0)] == ["After.", "After."]


async def test_calls_that_were_kept_as_they_came_are_not_written_again_with_the_outcome(
    tmp_path: Path, store: BatchStore
) -> None:
    kept, changed, new = call(0, 0), call(0, 1, "Before."), call(0, 2)
    for one in (kept, changed):
        await store.keep_call(one)
    with closing(sqlite3.connect(tmp_path / NAME)) as other:
        other.execute("UPDATE calls SET call = 'as it was' WHERE number < 2")
        other.commit()

    await store.keep(finished(0, kept, call(0, 1, "After."), new))

    assert list(store.recording()) == ["as it was", *map(call_json, (call(0, 1, "After."), new))]


async def test_what_comes_while_a_write_is_made_is_written_too(store: BatchStore) -> None:
    many = [call(0, number) for number in range(50)]

    await asyncio.gather(*(store.keep_call(one) for one in many), store.keep(finished(1)))

    assert await store.calls(0) == tuple(many)
    assert await store.finished(0, 9) == {1}


async def test_what_was_acknowledged_is_there_though_nobody_closed_the_file(
    tmp_path: Path, store: BatchStore
) -> None:
    await store.keep(finished(0, call(0, 0)))
    await store.keep_call(call(1, 0))

    for suffix in ("", "-wal"):
        (tmp_path / f"copy.db{suffix}").write_bytes((tmp_path / f"{NAME}{suffix}").read_bytes())

    async with open_batch_store(tmp_path / "copy.db") as other:
        assert [one.job.place.index for one in other.outcomes()] == [0]
        assert await other.calls(1) == (call(1, 0),)


async def test_failures_are_found_and_forgotten_with_the_calls_from_a_number_on(
    tmp_path: Path, store: BatchStore
) -> None:
    await store.keep(finished(0, call(0, 0)))
    await store.keep(finished(2, call(2, 0), call(2, 1), failed=True))
    await store.keep_call(call(3, 0))

    counts, failures = read_progress(tmp_path)
    assert (counts.done, counts.failed) == (1, 1)
    assert failures == [(2, "the model is gone")]
    assert await store.places_failed() == [2]
    assert await store.places_failed(2) == []
    assert await store.places_after(0) == [2, 3]

    await store.forget({2: 1, 3: 0})

    assert await store.places_failed() == []
    assert await store.calls(2) == (call(2, 0),)
    assert await store.calls(3) == ()
    assert await store.places_after(0) == [2]


async def test_what_holds_for_the_whole_batch_is_noted(store: BatchStore) -> None:
    await store.keep_call(call(0, 0, model="openai:b"))
    await store.keep_call(call(0, 1, model="openai:a"))
    await store.keep_call(replace(call(0, 2), model="", purpose="info"))
    for value in ({"a": 1}, {"a": [1, "é"]}):
        await store.note_fact("begun", value)

    assert await store.fact("begun") == {"a": [1, "é"]}
    assert await store.fact("nothing") is None
    assert await store.models() == ["openai:a", "openai:b"]


async def test_a_store_that_takes_nothing_is_told(tmp_path: Path, store: BatchStore) -> None:
    with sqlite3.connect(tmp_path / NAME) as beside:
        beside.execute("DROP TABLE outcomes")
    beside.close()

    with pytest.raises(StorageUnavailable, match=NAME):
        await store.keep(finished(0, call(0, 0)))

    assert await store.calls(0) == ()


async def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"x" * 8192)

    with pytest.raises(StorageUnavailable):
        async with open_batch_store(tmp_path / NAME):
            pass
    with pytest.raises(StorageUnavailable):
        read_progress(tmp_path)


def test_where_nothing_was_held_nothing_is_counted(tmp_path: Path) -> None:
    counts, failures = read_progress(tmp_path)

    assert (counts.done, counts.failed, failures) == (0, 0, [])
    assert list(tmp_path.iterdir()) == []
