from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from persona_mcp.state import effect_statements, happening
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict
from persona_mcp.state.happening import Happening, event_id, write_happening
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import NOW, PARAMS, counts, feeling_change, lease_of, relationship_change

pytestmark = pytest.mark.anyio

KEYS = {"world": "main", "who": "mara", "whom": "ann", "persona": "mara", "key": "k", "ids": ["k"]}
READ_TO_APPEND = {
    "the arrow": effect_statements.BEFORE_EVENT,
    "the feelings": effect_statements.FEELINGS,
    "the last impulse": effect_statements.BEFORE_IMPULSE,
    "what is known of it": happening.KNOWN,
}


@pytest.fixture
async def mara(database: Database, world: str) -> Persona:
    return await PersonaStore(database).resolve(world, "mara")


def betrayal(mara: Persona, id: str = "h1") -> Happening:
    change = relationship_change(lease_of(), NOW)
    return Happening(
        id=id,
        pair=("ann", "mara"),
        relationships=(replace(change, id=event_id("main", id, "backward")),),
        feelings=(feeling_change(mara),),
        at=NOW,
    )


async def test_what_happens_is_written_whole_or_not_at_all(
    database: Database, mara: Persona
) -> None:
    before, other = await counts(database), feeling_change(replace(mara, id="nobody"))
    broken = replace(betrayal(mara), feelings=(feeling_change(mara), other))

    with pytest.raises(Exception, match="constraint"), database.writing() as connection:
        write_happening(connection, "main", broken, PARAMS)

    assert await counts(database) == before


async def test_what_happens_is_written_once(database: Database, mara: Persona) -> None:
    with database.writing() as connection:
        first = write_happening(connection, "main", betrayal(mara), PARAMS)
    once = await counts(database)
    with database.writing() as connection:
        again = write_happening(connection, "main", betrayal(mara), PARAMS)

    assert again == first
    assert await counts(database) == once
    with pytest.raises(Conflict, match="request_id"), database.writing() as connection:
        write_happening(connection, "main", replace(betrayal(mara), relationships=()), PARAMS)


async def test_the_same_act_under_another_name_counts_again(
    database: Database, mara: Persona
) -> None:
    with database.writing() as connection:
        first = write_happening(connection, "main", betrayal(mara), PARAMS)
        second = write_happening(connection, "main", betrayal(mara, "h2"), PARAMS)

    assert first.backward is not None and second.backward is not None
    assert second.backward.interactions == first.backward.interactions + 1


@pytest.mark.sqlite
@pytest.mark.parametrize("what", list(READ_TO_APPEND))
async def test_what_is_read_to_append_is_read_by_key(database: Database, what: str) -> None:
    run: list[tuple[str, Any]] = []
    event.listen(
        database.engine,
        "before_cursor_execute",
        lambda c, cursor, sql, given, *_: run.append((sql, given)),
    )
    with database.reading() as connection:
        READ_TO_APPEND[what].all(connection, **KEYS)
        sql, given = run[-1]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given).all()

    steps = [str(step.detail) for step in plan]
    by_key = [step for step in steps if step.startswith("SEARCH")]
    assert by_key
    assert all("AND" in step for step in by_key)
    gone_through = {step for step in steps if step.startswith("SCAN")}
    assert gone_through <= {"SCAN CONSTANT ROW", "SCAN anon_1 VIRTUAL TABLE INDEX 1:"}  # the ids
