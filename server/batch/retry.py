"""What failed in a batch is forgotten, with all that came after it, so that it is held again."""

from collections.abc import Mapping
from typing import Any

from persona_mcp.server.batch.store import BatchStore
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.values import RecordedCall

REFUSED = "validate"
"""The stage that an error is of where the replies to one turn were refused."""


async def retry_failed(plan: BatchPlan, store: BatchStore, attempts: int) -> int:
    """Forget what failed, and what came after it in the same run: that world has changed.

    Of a dialogue that failed, the calls before the failing one are kept and played.

    Args:
        plan: What was to be held.
        store: Where it is forgotten.
        attempts: Calls that are made for one turn before it is given up, >= 1.

    Returns:
        How many dialogues had failed.
    """
    forgotten, after = 0, -1
    while failed := await store.places_failed(after):
        for index in failed:
            after = index
            if await store.finished(index, index):  # not forgotten with one before it
                forgotten += 1
                await forget_from(plan, store, index, attempts)
    return forgotten


async def forget_from(plan: BatchPlan, store: BatchStore, index: int, attempts: int) -> None:
    """Forget a dialogue that failed, and all of its run that came in later waves."""
    failed = plan.place(index)
    at = index
    while places := await store.places_after(at):
        later = [plan.place(at := other) for other in places]
        ours = [place for place in later if place.run == failed.run]
        await store.forget({place.index: 0 for place in ours if place.wave > failed.wave})
        if len(ours) < len(later):
            break
    outcome = await store.outcome(index)
    error = None if outcome is None else outcome.error
    await store.forget({index: failing_call(await store.calls(index), error, attempts)})


def failing_call(
    calls: tuple[RecordedCall, ...], error: Mapping[str, Any] | None, attempts: int
) -> int:
    """Return the number of the call that a dialogue failed with; calls from it on are forgotten.

    It is the last one, if that ended in an error. If the replies of the last turn were refused, it
    is the first of these. What failed in another way has none: all its calls are kept.
    """
    if calls and calls[-1].error is not None:
        return calls[-1].number
    if ((error or {}).get("data") or {}).get("stage") != REFUSED:
        return len(calls)
    replies = [call.number for call in calls if call.purpose == "reply"]
    return min(replies[-attempts:], default=0)
