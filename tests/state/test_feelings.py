"""Feelings and arrows as their logs say, whatever happens to them in between."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, update

from persona_mcp.config.database import database_path, open_database
from persona_mcp.config.settings import Settings
from persona_mcp.state import tables
from persona_mcp.state.effects import (
    add_relationship_change,
    read_arrow,
    refold_arrow,
)
from persona_mcp.state.emotion import EmotionalState, Impulses
from persona_mcp.state.feelings import (
    Feelings,
    add_feeling_change,
    at_rest,
    emotion_after,
    fold_feelings,
    read_feelings,
    refold_feelings,
    set_feelings,
    stored_feelings,
)
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import add
from persona_mcp.state.relationship import Deltas
from persona_mcp.state.relationship_store import read_log
from tests.state.rows import NOW, PARAMS, feeling_change, lease_of, relationship_change, spec

VALUES = ("energy_level", "stress_level", "curiosity", "social_battery")
PUSH = st.floats(-1, 1)
GAP_S = st.one_of(st.just(0.0), st.floats(-60, 60), st.floats(0, 3e6))
TALK = st.lists(st.tuples(st.floats(5, 120), st.sampled_from([1.0, 0.5])), max_size=3)
SET = st.fixed_dictionaries({}, optional={"mood": PUSH, **dict.fromkeys(VALUES, st.floats(0, 1))})
STEPS = st.one_of(
    st.tuples(st.just("happens"), GAP_S, st.tuples(*[PUSH] * 5), TALK, SET),
    st.tuples(st.just("happens"), GAP_S, st.tuples(*[PUSH] * 5), TALK, st.just({})),
    st.tuples(st.just("switched"), st.integers(0, 20), st.booleans()),
    st.tuples(st.just("restarted")),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Settings]:
    """A data folder with a database."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("feelings"), _env_file=None)
    shutil.copy(migrated, database_path(settings))
    yield settings


class History:
    """A world of its own, in which things happen to Mara and to how she sees Ann."""

    def __init__(self, settings: Settings, world_id: str) -> None:
        self._settings, self.world_id, self.now = settings, world_id, NOW
        self.database = open_database(settings)
        self.happened: list[str] = []
        with self.database.writing() as connection:
            values = {"id": world_id, "name": world_id, "created_at": NOW}
            connection.execute(insert(tables.World).values(values))
            self.mara: Persona = add(connection, world_id, spec("Mara"), NOW)

    def happens(self, gap_s: float, push: Any, talk: Any, absolute: Any) -> None:
        """Both at once, as an exchange or an operation writes it."""
        self.now += gap_s
        exchange = f"x{len(self.happened)}"
        change = feeling_change(self.mara, Impulses(*push), tuple(talk))
        ids = tuple(f"{exchange}-{n}" for n in range(1 + len(talk)))
        deltas = Deltas(push[0], push[1], push[2], abs(push[3]), 0.1)
        arrow = relationship_change(lease_of(exchange), self.now, change=deltas)
        with self.database.writing() as connection:
            its = (connection, self.world_id, exchange)
            changed = replace(change, absolute=absolute)
            add_feeling_change(*its, changed, ids, self.now, PARAMS)
            add_relationship_change(*its, arrow, PARAMS.relationships)
        self.happened.append(exchange)

    def switched(self, number: int, active: bool) -> None:
        """One that happened is switched off, or on again."""
        if not self.happened:
            return
        exchange = self.happened[number % len(self.happened)]
        with self.database.writing() as connection:
            for table in (tables.MoodImpulse, tables.EnergySpent, tables.RelationshipEvent):
                its = (table.world_id == self.world_id, table.exchange_id == exchange)
                connection.execute(update(table).where(*its).values(active=active))
            refold_feelings(connection, self.world_id, self.mara, PARAMS)
            refold_arrow(connection, self.world_id, "mara", "ann", PARAMS.relationships)

    def restarted(self) -> None:
        """The process ends, and another one opens the file."""
        self.database.close()
        self.database = open_database(self._settings)

    def check(self, connection: Connection) -> None:
        """Compare the caches with the logs."""
        its = (connection, self.world_id)
        assert stored_feelings(*its, "mara") == fold_feelings(*its, self.mara, PARAMS)
        log = read_log(*its, "mara", "ann")
        assert read_arrow(*its, "mara", "ann") == log.fold(PARAMS.relationships)


WORLDS = itertools.count()


@examples(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=12))
def test_caches_equal_a_fold_of_the_log_to_the_last_bit(file: Settings, steps: Any) -> None:
    history = History(file, f"w{next(WORLDS)}")
    try:
        for what, *given in steps:
            getattr(history, what)(*given)
            with history.database.reading() as connection:
                history.check(connection)
    finally:
        history.database.close()


@pytest.fixture
def mara(file: Settings) -> Iterator[History]:
    history = History(file, f"w{next(WORLDS)}")
    yield history
    history.database.close()


def test_what_is_switched_off_and_on_again_is_as_it_was(mara: History) -> None:
    for gap_s in (0.0, 60.0, 3600.0):
        mara.happens(gap_s, (0.4, -0.2, 0.3, 0.1, -0.5), [(30.0, 1.0)], {})
    before = stored(mara)

    mara.switched(1, False)
    between = stored(mara)
    mara.switched(1, True)

    assert between != before
    assert stored(mara) == before


def test_without_anything_left_feelings_are_at_rest_and_begin_again(mara: History) -> None:
    mara.happens(0.0, (0.4, 0.0, 0.0, 0.0, 0.0), [(30.0, 1.0)], {})
    mara.switched(0, False)

    assert stored(mara) is None
    with mara.database.reading() as connection:
        felt = read_feelings(connection, mara.world_id, mara.mara, NOW + 60, PARAMS)
        assert felt == at_rest(mara.mara, NOW + 60, PARAMS)

    mara.happens(60.0, (0.4, 0.0, 0.0, 0.0, 0.0), [(30.0, 1.0)], {})
    with mara.database.reading() as connection:
        mara.check(connection)


def test_values_that_are_set_stand_as_they_were_given_and_fade(mara: History) -> None:
    mara.happens(0.0, (0.4, 0.1, 0.1, 0.1, 0.1), [], {"mood": -0.25, "curiosity": 1.0})

    felt = stored(mara)
    assert felt is not None
    assert (felt.emotion.mood, felt.emotion.curiosity) == (-0.25, 1.0)
    with mara.database.reading() as connection:
        later = read_feelings(connection, mara.world_id, mara.mara, NOW + 6 * 3600, PARAMS)
    rest = at_rest(mara.mara, NOW, PARAMS).emotion
    assert later.emotion.mood == pytest.approx((rest.mood - 0.25) / 2)


def test_emotions_are_told_as_they_stood_after_an_impulse(mara: History) -> None:
    seen = []
    for gap_s in (0.0, 0.0, 500.0):
        mara.happens(gap_s, (0.4, -0.2, 0.3, 0.1, -0.5), [(30.0, 1.0)], {})
        felt = stored(mara)
        seen.append(felt and felt.emotion)

    with mara.database.reading() as connection:
        its = (connection, mara.world_id, mara.mara)
        assert [emotion_after(*its, seq, PARAMS) for seq in (0, 1, 2, 3)] == [None, *seen]


def test_what_was_set_and_switched_off_is_answered_by_the_rest_and_not_set_again(
    mara: History,
) -> None:
    def set_mood(now: float) -> EmotionalState:
        its = (mara.world_id, mara.mara, {"mood": 0.9}, "a gift", "set-1", now, PARAMS)
        with mara.database.writing() as connection:
            return set_feelings(connection, *its)

    assert set_mood(NOW).mood == 0.9
    with mara.database.writing() as connection:
        its = (tables.MoodImpulse.world_id == mara.world_id, tables.MoodImpulse.id == "set-1")
        connection.execute(update(tables.MoodImpulse).where(*its).values(active=False))
        refold_feelings(connection, mara.world_id, mara.mara, PARAMS)

    assert set_mood(NOW + 60) == at_rest(mara.mara, NOW, PARAMS).emotion
    assert stored(mara) is None


def stored(history: History) -> Feelings | None:
    with history.database.reading() as connection:
        return stored_feelings(connection, history.world_id, "mara")
