from dataclasses import replace

import pytest
from sqlalchemy import update

from persona_mcp.state import tables
from persona_mcp.state.commit import NewTurn, commit_exchange
from persona_mcp.state.conversations import ConversationStore, Trace, window
from persona_mcp.state.database import Database
from persona_mcp.state.errors import NotFound
from persona_mcp.state.exchanges import ExchangeStore
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import (
    NOW,
    PARAMS,
    PROCESS,
    begin,
    commit_of,
    nobody_is_gone,
    relationship_change,
    request,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mara(database: Database, world: str) -> Persona:
    return await PersonaStore(database).resolve(world, "mara")


@pytest.fixture
def store(database: Database) -> ConversationStore:
    return ConversationStore(database)


async def talk(
    database: Database, persona: Persona, number: int, conversation_id: str = "c1"
) -> None:
    lease = await begin(database, number, NOW + number, conversation_id)
    await commit_exchange(database, commit_of(lease, persona, NOW + number), PARAMS)


async def test_a_conversation_that_is_not_there_is_not_found(
    store: ConversationStore, world: str
) -> None:
    with pytest.raises(NotFound, match="conversation 'c9' not found"):
        await store.get("main", "c9")


async def test_the_chat_that_was_used_last_is_the_latest(
    database: Database, store: ConversationStore, mara: Persona
) -> None:
    assert await store.latest("main", "mara", "ann") is None
    exchanges = ExchangeStore(database, nobody_is_gone)
    for number, conversation in enumerate(["c1", "c2"], start=1):
        asked = request(f"q{number}", conversation_id=conversation)
        await exchanges.accept(asked, f"y{number}", PROCESS, None, NOW + number)
    other = request("q3", conversation_id="c3", user_id="bob")
    await exchanges.accept(other, "y3", PROCESS, None, NOW + 3)

    latest = await store.latest("main", "mara", "ann")

    assert latest is not None
    assert latest.id == "c2"
    assert await store.count_active("main") == 3
    with database.writing() as connection:
        ended = update(tables.Conversation).where(tables.Conversation.id == "c2")
        connection.execute(ended.values(status="ended"))
    latest = await store.latest("main", "mara", "ann")
    assert latest is not None
    assert latest.id == "c1"
    assert await store.count_active("main") == 2


async def test_who_has_talked_is_known(
    database: Database, store: ConversationStore, mara: Persona
) -> None:
    await begin(database)

    assert await store.knows_user("main", "ann")
    assert not await store.knows_user("main", "mara")
    assert not await store.knows_user("other", "ann")


async def test_a_transcript_is_read_page_by_page(
    database: Database, store: ConversationStore, mara: Persona
) -> None:
    for number in (1, 2, 3):
        await talk(database, mara, number)

    first, exchanges = await store.transcript("main", "c1", 3)
    rest, more = await store.transcript("main", "c1", 10, after=3)

    assert [(t.number, t.speaker_id, t.witnesses) for t in first] == [
        (1, "ann", ("ann", "mara")),
        (2, "mara", ("ann", "mara")),
        (3, "ann", ("ann", "mara")),
    ]
    assert [e.id for e in exchanges] == ["x1", "x2"]
    assert [t.number for t in rest] == [4, 5, 6]
    assert [e.id for e in more] == ["x2", "x3"]


async def test_exchanges_that_are_not_done_are_told_but_to_no_viewer(
    database: Database, store: ConversationStore, mara: Persona
) -> None:
    await talk(database, mara, 1)
    await begin(database, 2, NOW + 2)

    _, everything = await store.transcript("main", "c1", 10)
    turns, seen = await store.transcript("main", "c1", 10, viewer="mara")

    assert [(e.id, e.status) for e in everything] == [("x1", "done"), ("x2", "running")]
    assert [e.id for e in seen] == ["x1"]
    assert len(turns) == 2


async def test_a_viewer_is_shown_only_what_it_said_or_heard(
    database: Database, store: ConversationStore, mara: Persona
) -> None:
    lease = await begin(database)
    whispered = (
        NewTurn("t0", "ann", None, "Hello, both.", ("ann", "mara", "tobin")),
        NewTurn("t1", "mara", 1, "Tobin must not hear this.", ("ann", "mara")),
    )
    commit = replace(commit_of(lease, mara), turns=whispered)
    await commit_exchange(database, commit, PARAMS)

    turns, _ = await store.transcript("main", "c1", 10, viewer="tobin")

    assert [t.content for t in turns] == ["Hello, both."]
    assert await store.transcript("main", "c1", 10, viewer="zoe") == ([], [])
    with database.reading() as connection:
        shown = window(connection, "main", "c1", "tobin", "x1", 10)
    assert [t.content for t in shown] == ["Hello, both."]


async def test_turns_that_are_switched_off_are_left_out(
    database: Database, store: ConversationStore, mara: Persona
) -> None:
    for number in (1, 2):
        await talk(database, mara, number)
    with database.writing() as connection:
        off = update(tables.Turn).where(tables.Turn.exchange_id == "x1").values(active=False)
        connection.execute(off)

    turns, _ = await store.transcript("main", "c1", 10)

    assert [t.number for t in turns] == [3, 4]
    with database.reading() as connection:
        assert [t.number for t in window(connection, "main", "c1", "mara", "x2", 9)] == [3, 4]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9])
async def test_the_window_is_the_same_where_it_is_known_that_each_exchange_has_two_turns(
    database: Database, mara: Persona, limit: int
) -> None:
    for number in (1, 2, 3):
        await talk(database, mara, number)

    with database.reading() as connection:
        plainly = window(connection, "main", "c1", "mara", "x3", limit)
        assert window(connection, "main", "c1", "mara", "x3", limit, 2) == plainly

    assert [turn.number for turn in plainly] == [1, 2, 3, 4, 5, 6][-limit:]


@pytest.mark.parametrize(
    ("head", "limit", "numbers"),
    [("x3", 3, [4, 5, 6]), ("x2", 3, [2, 3, 4]), ("x1", 9, [1, 2]), (None, 9, []), ("x3", 0, [])],
)
async def test_the_window_ends_with_the_exchange_that_is_followed(
    database: Database, mara: Persona, head: str | None, limit: int, numbers: list[int]
) -> None:
    for number in (1, 2, 3):
        await talk(database, mara, number)

    with database.reading() as connection:
        turns = window(connection, "main", "c1", "mara", head, limit)

    assert [t.number for t in turns] == numbers


async def test_a_trace_names_what_an_exchange_left_behind(
    database: Database, store: ConversationStore, mara: Persona
) -> None:
    await talk(database, mara, 1)
    lease = await begin(database, 2, NOW + 2)
    change = relationship_change(lease, NOW + 2)
    await commit_exchange(
        database,
        commit_of(lease, mara, NOW + 2, used_memories=("m-x1",), relationships=(change,)),
        PARAMS,
    )

    traces = await store.traces("main", ["x2", "x9"])

    assert traces == {
        "x2": Trace(4, {"x2-0": ["m-x2"]}, ("m-x1",), (change.id,)),
        "x9": Trace(None, {}, (), ()),
    }
