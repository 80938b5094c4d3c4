"""Summaries in SQL: of one line of exchanges, of what the persona heard, known to who heard all."""

import pytest
from sqlalchemy import update

from persona_mcp.state import tables
from persona_mcp.state.commit import NewTurn, commit_exchange
from persona_mcp.state.database import Database
from persona_mcp.state.memory.importance import Importance
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.summaries import Outgrown, add_summary, recent, unsummed
from persona_mcp.state.summarising import SummaryParams
from tests.state.rows import NOW, PARAMS, begin, commit_of

pytestmark = pytest.mark.anyio

P = SummaryParams(every=2, shown=2)
WINDOW = 2


async def exchange(
    database: Database,
    number: int,
    follows: int | None = None,
    heard: tuple[str, ...] = ("ann", "mara"),
) -> None:
    """Say and answer something in exchange `x<number>`, behind another one."""
    persona = await PersonaStore(database).resolve("main", "mara")
    lease = await begin(database, number, NOW + number)
    turns = (
        NewTurn(f"t{number}a", "ann", None, f"Question {number}.", heard),
        NewTurn(f"t{number}b", "mara", 1, f"Answer {number}.", ("ann", "mara")),
    )
    await commit_exchange(
        database, commit_of(lease, persona, NOW + number, turns=turns, memories=()), PARAMS
    )
    with database.writing() as connection:
        line = update(tables.Exchange).where(tables.Exchange.id == f"x{number}")
        connection.execute(line.values(follows_id=f"x{follows}" if follows else None))


def of(head: int) -> Outgrown:
    return Outgrown("main", "c1", "mara", f"x{head}")


def due(database: Database, head: int) -> list[list[str]]:
    with database.reading() as connection:
        spans = unsummed(connection, of(head), WINDOW, P)
    return [[turn.id for turn in span.turns] for span in spans]


def sum_up(database: Database, head: int) -> None:
    with database.writing() as connection:
        for span in unsummed(connection, of(head), WINDOW, P):
            text = " ".join(turn.id for turn in span.turns)
            assert add_summary(
                connection, of(head), span, text, "extractive", Importance(0.5, {}), NOW
            )
            assert not add_summary(
                connection, of(head), span, text, "extractive", Importance(0.5, {}), NOW
            )


def shown(database: Database, head: int, before: int = 99) -> list[str]:
    with database.reading() as connection:
        return [one.text for one in recent(connection, of(head), WINDOW, before, P)]


async def test_each_turn_behind_the_window_is_summed_up_once(
    database: Database, world: str
) -> None:
    for number in range(1, 4):
        await exchange(database, number, number - 1 or None)

    assert due(database, 1) == []
    assert due(database, 3) == [["t1a", "t1b"], ["t2a", "t2b"]]
    sum_up(database, 3)
    assert due(database, 3) == []
    assert shown(database, 3) == ["t1a t1b", "t2a t2b"]
    assert shown(database, 3, before=3) == ["t1a t1b"]


async def test_only_the_newest_summaries_are_shown(database: Database, world: str) -> None:
    for number in range(1, 6):
        await exchange(database, number, number - 1 or None)
    sum_up(database, 5)

    assert shown(database, 5) == ["t3a t3b", "t4a t4b"]


async def test_another_branch_does_not_see_what_was_summed_up_of_this_one(
    database: Database, world: str
) -> None:
    for number, follows in ((1, None), (2, 1), (3, 2), (4, 1), (5, 4)):
        await exchange(database, number, follows)
    sum_up(database, 3)

    assert shown(database, 5) == ["t1a t1b"]
    assert due(database, 5) == [["t4a", "t4b"]]


async def test_what_was_switched_off_is_shown_no_more(database: Database, world: str) -> None:
    for number in range(1, 4):
        await exchange(database, number, number - 1 or None)
    sum_up(database, 3)
    with database.writing() as connection:
        gone = update(tables.Memory).where(tables.Memory.exchange_id == "x2")
        connection.execute(gone.values(active=False))

    assert shown(database, 3) == ["t1a t1b"]


async def test_a_whisper_narrows_who_may_know_the_summary_of_it(
    database: Database, world: str
) -> None:
    await exchange(database, 1, heard=("ann", "mara", "tobin"))
    await exchange(database, 2, 1)

    with database.reading() as connection:
        (span,) = unsummed(connection, of(2), WINDOW, P)

    assert span.witnesses == ("ann", "mara")


async def test_what_the_persona_did_not_hear_is_not_summed_up_for_it(
    database: Database, world: str
) -> None:
    await exchange(database, 1, heard=("ann",))
    await exchange(database, 2, 1)
    await exchange(database, 3, 2)

    assert due(database, 3) == [["t1b", "t2a"]]
