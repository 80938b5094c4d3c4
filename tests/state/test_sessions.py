import re

import pytest

from persona_mcp.state.database import Database
from persona_mcp.state.errors import NotFound
from persona_mcp.state.fields import SESSION_PATTERN
from persona_mcp.state.ids import ID_LENGTH
from persona_mcp.state.sessions import NOTED_SHARE, SessionStore
from persona_mcp.state.tables import Session
from tests.state.rows import NOW, rows_of

pytestmark = pytest.mark.anyio

KEPT_S = 3600.0
NOTED_S = KEPT_S * NOTED_SHARE


@pytest.fixture
def store(database: Database, world: str) -> SessionStore:
    return SessionStore(database, KEPT_S)


async def used_at(database: Database) -> list[float]:
    return [row.used_at for row in await rows_of(database, Session, Session.created_at)]


async def test_a_handle_is_long_random_and_found_again(store: SessionStore) -> None:
    made = [await store.create("main", "mara", NOW) for _ in range(20)]

    assert len({session.id for session in made}) == 20
    assert all(re.fullmatch(SESSION_PATTERN, session.id) for session in made)
    assert all(40 <= len(session.id) <= ID_LENGTH for session in made)
    assert await store.use(made[3].id, NOW) == made[3]


async def test_a_handle_reserves_a_conversation_of_its_own_at_each_switch(
    store: SessionStore,
) -> None:
    first, other = [await store.create("main", "mara", NOW) for _ in range(2)]

    second = await store.switch(first.id, "tobin", NOW)
    third = await store.switch(first.id, "tobin", NOW)

    assert (second.persona_id, third.persona_id) == ("tobin", "tobin")
    reserved = [s.conversation_id for s in (first, other, second, third)]
    assert len(set(reserved)) == 4 and None not in reserved
    assert await store.use(first.id, NOW) == third
    assert await store.use(other.id, NOW) == other


async def test_a_handle_may_be_made_before_a_persona_is_chosen(store: SessionStore) -> None:
    made = await store.create("main", None, NOW)

    assert (made.persona_id, made.conversation_id) == (None, None)
    assert (await store.switch(made.id, "mara", NOW)).persona_id == "mara"


async def test_a_handle_goes_on_in_another_conversation(store: SessionStore) -> None:
    made = await store.create("main", "mara", NOW)

    await store.go_on(made, "c7")

    assert (await store.use(made.id, NOW)).conversation_id == "c7"


async def test_a_switch_meanwhile_is_not_undone_by_going_on(store: SessionStore) -> None:
    before = await store.create("main", "mara", NOW)
    switched = await store.switch(before.id, "mara", NOW)

    await store.go_on(before, "c7")

    assert await store.use(before.id, NOW) == switched


async def test_an_unknown_handle_says_how_to_get_one(store: SessionStore) -> None:
    for call in (store.use("x" * 43, NOW), store.switch("x" * 43, "mara", NOW)):
        with pytest.raises(NotFound, match="persona_switch without session_id") as refused:
            await call

        assert refused.value.data == {"kind": "session", "id": "x" * 43, "suggestions": []}


async def test_an_unused_handle_ends_and_a_used_one_does_not(store: SessionStore) -> None:
    unused, used = [await store.create("main", "mara", NOW) for _ in range(2)]
    await store.use(used.id, NOW + KEPT_S / 2)

    later = NOW + KEPT_S + NOTED_S + 1

    with pytest.raises(NotFound):
        await store.use(unused.id, later)
    with pytest.raises(NotFound):
        await store.switch(unused.id, "tobin", later)
    assert (await store.use(used.id, later)).persona_id == "mara"


@pytest.mark.parametrize("since_noted_s", [0.0, NOTED_S])
async def test_a_handle_never_ends_early_though_not_each_use_is_noted(
    store: SessionStore, since_noted_s: float
) -> None:
    made = await store.create("main", "mara", NOW)
    last_use = NOW + since_noted_s
    await store.use(made.id, last_use)

    assert (await store.use(made.id, last_use + KEPT_S)).id == made.id


async def test_a_use_is_noted_seldom(database: Database, store: SessionStore) -> None:
    made = await store.create("main", "mara", NOW)

    await store.use(made.id, NOW + NOTED_S)
    assert await used_at(database) == [NOW]

    await store.use(made.id, NOW + NOTED_S + 1)
    assert await used_at(database) == [NOW + NOTED_S + 1]


async def test_ended_handles_are_deleted_when_one_is_made(
    database: Database, store: SessionStore
) -> None:
    ended = await store.create("main", "mara", NOW)
    later = NOW + 2 * KEPT_S

    alive = await store.create("main", "tobin", later)

    assert [row.id for row in await rows_of(database, Session)] == [alive.id]
    with pytest.raises(NotFound):
        await store.use(ended.id, NOW)
