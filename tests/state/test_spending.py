"""Tokens by caller and day, in SQL."""

import pytest

from persona_mcp.state.database import Database
from persona_mcp.state.spending import SpendingStore, day_ends_in, day_of

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

NOON = 1_700_006_400.0 - 1_700_006_400.0 % 86400 + 43200


async def test_tokens_add_up_by_caller_and_day(database: Database) -> None:
    store, today, tomorrow = SpendingStore(database), day_of(NOON), day_of(NOON + 86400)

    await store.add({("ann", today): 5, ("bob", today): 7})
    await store.add({("ann", today): 10, ("ann", tomorrow): 1})

    assert await store.used("ann", today) == 15
    assert await store.used("ann", tomorrow) == 1
    assert await store.used("cleo", today) == 0
    assert await store.of_day(today) == {"ann": 15, "bob": 7}


def test_a_day_is_of_utc_and_ends_at_midnight() -> None:
    assert (day_of(NOON), day_of(NOON + 43199), day_of(NOON + 43200)) == (
        "2023-11-15",
        "2023-11-15",
        "2023-11-16",
    )
    assert (day_ends_in(NOON), day_ends_in(NOON + 43199.5)) == (43200, 0.5)
