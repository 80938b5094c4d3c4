"""Talks between personas in SQL: which one a persona is in, and that one ends once."""

import pytest

from persona_mcp.state.conversation_list import WantedTalks, list_conversations
from persona_mcp.state.conversations import get
from persona_mcp.state.database import Database
from persona_mcp.state.dialogue import Plan
from persona_mcp.state.dialogues import (
    active_dialogues,
    begin_dialogue,
    end_conversation,
    read_standing,
)
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import NOW, PARAMS, spec

pytestmark = pytest.mark.anyio

PLAN = Plan(token_budget=1000, max_duration=600.0, max_turns=100, seed=7, first_speaker="mara")


@pytest.fixture
async def two(database: Database, world: str) -> Database:
    """A database with Mara and Ulf in it."""
    await PersonaStore(database).create(world, spec("Ulf"), NOW)
    return database


async def test_a_persona_is_in_the_talks_that_go_on_the_oldest_first(two: Database) -> None:
    with two.writing() as connection:
        for number, other in enumerate(["ulf", "tom", "ulf"]):
            pair = ["mara", other]
            begin_dialogue(connection, "main", f"c{number}", pair, "general", PLAN, NOW - number)
        end_conversation(connection, "main", "c0", "enough", NOW, PARAMS)

        assert active_dialogues(connection, "main", "mara") == ["c2", "c1"]
        assert active_dialogues(connection, "main", "ulf") == ["c2"]
        assert active_dialogues(connection, "main", "noor") == []


async def test_a_talk_ends_once_and_keeps_why(two: Database) -> None:
    with two.writing() as connection:
        begin_dialogue(connection, "main", "c1", ["mara", "ulf"], "general", PLAN, NOW)
        ending = end_conversation(connection, "main", "c1", "enough", NOW + 5, PARAMS)
        with pytest.raises(Conflict, match="conversation 'c1' has ended"):
            end_conversation(connection, "main", "c1", "again", NOW + 6, PARAMS)
        found = get(connection, "main", "c1")

    assert (ending.turns, ending.cooldowns) == (0, {"mara": 0.0, "ulf": 0.0})
    assert (found.status, found.exit_reason, found.ended_at) == ("ended", "enough", NOW + 5)


async def test_one_that_is_gone_is_not_taken_for_another_who_is_called_so(two: Database) -> None:
    with two.writing() as connection:
        talk = begin_dialogue(connection, "main", "c1", ["mara", "tom"], "general", PLAN, NOW)
    await PersonaStore(two).create("main", spec("tom "), NOW, {"tom"})

    with two.reading() as connection, pytest.raises(NotFound, match="persona 'tom' not found"):
        read_standing(connection, "main", talk, NOW, 20, PARAMS)


async def test_talks_that_began_at_once_are_paged_by_their_ids(two: Database) -> None:
    with two.writing() as connection:
        for id in ("c2", "c3", "c1"):
            begin_dialogue(connection, "main", id, ["mara", "ulf"], "general", PLAN, NOW)

        pages = [
            [one.id for one in list_conversations(connection, "main", WantedTalks(), 2, after)[0]]
            for after in (None, "c2", "c3")
        ]
        with pytest.raises(InvalidParams, match="cursor: allowed is next_cursor"):
            list_conversations(connection, "main", WantedTalks(), 2, "gone")

    assert pages == [["c1", "c2"], ["c3"], []]
