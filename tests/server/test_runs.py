"""A run as a task: what followers see of it, and how it ends."""

import asyncio
from typing import Any

import pytest

from persona_mcp.server.runs import Run, Runs, guarded
from persona_mcp.state.errors import Cancelled, Conflict, ModelError
from tests.processes import LIMIT_S

pytestmark = pytest.mark.anyio


async def nothing() -> dict[str, Any]:
    return {"exchange": "e"}


def nobody() -> None:
    pass


async def forever(begun: asyncio.Event, stopped: asyncio.Event) -> None:
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        stopped.set()


async def test_every_follower_sees_every_event_in_order() -> None:
    run, go = Run("e1", "main"), asyncio.Event()

    async def work() -> dict[str, Any]:
        run.emit("started")
        await go.wait()
        run.emit("token", text="One")
        run.emit("token", text=" two.")
        return {"exchange": "e"}

    async def kinds() -> list[str]:
        return [event.kind async for event in run.follow()]

    early = asyncio.create_task(kinds())
    run.start(work(), nobody)
    go.set()

    expected = ["started", "token", "token", "done"]
    assert await early == expected
    assert await kinds() == expected
    assert run.partial == "One two."


async def test_a_follower_may_begin_behind_an_event() -> None:
    run = Run("e1", "main")
    run.emit("started")
    run.emit("token", text="One")
    run.emit("done")

    assert [event.seq async for event in run.follow(after=0)] == [1, 2]


async def test_a_restart_drops_what_was_said() -> None:
    run = Run("e1", "main")

    run.emit("prompt", messages=[{"role": "user", "content": "Hello"}])
    run.emit("token", text="As an AI")
    run.emit("restart", reason="it falls out of character")
    run.emit("token", text="Good evening.")

    assert run.partial == "Good evening."
    assert run.prompt == [{"role": "user", "content": "Hello"}]


async def test_the_end_of_a_run_is_told_to_whoever_began_it() -> None:
    run, ended = Run("e1", "main"), asyncio.Event()

    run.start(nothing(), ended.set)

    assert await run.outcome() == {"exchange": "e"}
    await ended.wait()


async def test_a_run_that_fails_raises_its_error_for_everybody() -> None:
    run = Run("e1", "main")

    async def work() -> dict[str, Any]:
        raise ModelError("down")

    run.start(work(), nobody)

    for _ in range(2):
        with pytest.raises(ModelError, match="down"):
            await run.outcome()


async def test_giving_up_the_wait_does_not_stop_the_run() -> None:
    run, go = Run("e1", "main"), asyncio.Event()

    async def work() -> dict[str, Any]:
        await go.wait()
        return {"exchange": "e"}

    run.start(work(), nobody)
    waiting = asyncio.create_task(run.outcome())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    go.set()

    assert await run.outcome() == {"exchange": "e"}


async def test_cancelling_a_run_that_has_ended_or_not_begun_changes_nothing() -> None:
    run = Run("e1", "main")
    await run.cancel()
    run.start(nothing(), nobody)
    await run.outcome()

    await run.cancel()

    assert await run.outcome() == {"exchange": "e"}


async def test_cancelling_a_run_at_once_ends_it_for_its_followers() -> None:
    run, begun, stopped = Run("e1", "main"), asyncio.Event(), asyncio.Event()

    async def work() -> dict[str, Any]:
        await forever(begun, stopped)
        return {}

    run.start(work(), nobody)
    await run.cancel()

    assert stopped.is_set()
    with pytest.raises(Cancelled):
        await run.outcome()


async def test_work_that_is_done_ends_its_guard() -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await begun.wait()
        return "done"

    assert await guarded(work(), forever(begun, stopped)) == "done"
    assert stopped.is_set()


async def test_work_goes_on_when_its_guard_has_ended() -> None:
    ended = asyncio.Event()

    async def guard() -> None:
        ended.set()

    async def work() -> str:
        await ended.wait()
        await asyncio.sleep(0)
        return "done"

    assert await guarded(work(), guard()) == "done"


@pytest.mark.parametrize("status", ["done", "failed"])
async def test_a_stop_waits_until_those_who_follow_were_told_how_it_ended(status: str) -> None:
    runs, go = Runs(60.0, 8), asyncio.Event()

    async def work(run: Run) -> dict[str, Any]:
        await (asyncio.Event() if status == "failed" else go).wait()
        return await nothing()

    run = runs.start("main", "e1", work)
    run.join()
    stopping = asyncio.create_task(runs.stop(0.0 if status == "failed" else LIMIT_S, LIMIT_S))
    go.set()
    *_, last = [event async for event in run.follow()]
    for _ in range(10):
        await asyncio.sleep(0)

    assert last.kind == status
    assert not stopping.done()
    run.leave()
    await stopping


async def test_a_stop_does_not_wait_longer_for_who_is_told_than_it_is_to() -> None:
    runs = Runs(60.0, 8)
    run = runs.start("main", "e1", lambda run: nothing())
    run.join()

    await runs.stop(LIMIT_S, 0.01)

    assert run.ended and run.waiting == 1


async def test_a_guard_that_fails_stops_the_work() -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def guard() -> None:
        await begun.wait()
        raise Conflict("taken")

    with pytest.raises(Conflict, match="taken"):
        await guarded(forever(begun, stopped), guard())

    assert stopped.is_set()


async def test_work_that_fails_raises_its_own_error() -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await begun.wait()
        raise ModelError("down")

    with pytest.raises(ModelError, match="down"):
        await guarded(work(), forever(begun, stopped))

    assert stopped.is_set()
