"""What the second run of a statement does, which SQLAlchemy is not asked for."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    String,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from persona_mcp.state.plans import is_direct
from persona_mcp.state.prepared import Prepared, listed


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[str] = mapped_column(String, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, default=3)
    is_good: Mapped[bool] = mapped_column(default=True)
    parts: Mapped[list[str] | None] = mapped_column(JSON)
    blob: Mapped[bytes | None] = mapped_column(LargeBinary)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection


def filled(connection: Connection) -> None:
    add = Prepared(insert(Thing))
    for id in ("a", "b", "c"):
        add.run(connection, {"id": id, "parts": [id, "é"], "blob": id.encode()})


def test_every_run_reads_the_same_types_and_names(connection: Connection) -> None:
    filled(connection)
    query = Prepared(
        select(Thing, func.count().over()).where(Thing.id.in_(listed("ids"))).order_by(Thing.id)
    )
    first, second, third = (query.all(connection, ids=["a", "c"]) for _ in range(3))
    assert first == second == third
    assert [(row.id, row.parts, row.is_good, row.blob, row.number) for row in third] == [
        ("a", ["a", "é"], True, b"a", 3),
        ("c", ["c", "é"], True, b"c", 3),
    ]
    assert third[0][-1] == 2
    assert third[0].is_good is True
    names = ("id", "number", "is_good", "parts", "blob")
    assert [{name: row._mapping[name] for name in names} for row in (first[0], third[0])] == 2 * [
        dict(zip(names, ("a", 3, True, ["a", "é"], b"a"), strict=True))
    ]


def test_no_row_is_none_and_a_row_can_be_unpacked(connection: Connection) -> None:
    filled(connection)
    query = Prepared(
        select(Thing.id, literal(7) + Thing.number).where(Thing.id == bindparam("key"))
    )
    assert [query.first(connection, key=key) for key in ("x", "x", "b", "x")] == [
        None,
        None,
        ("b", 10),
        None,
    ]
    assert [query.scalar(connection, key=key) for key in ("b", "x")] == ["b", None]


def test_a_query_can_be_read_row_by_row(connection: Connection) -> None:
    filled(connection)
    query = Prepared(select(Thing.id).order_by(Thing.id))
    for _ in range(2):
        rows = query.each(connection)
        assert next(rows).id == "a"
        assert [id for (id,) in rows] == ["b", "c"]


def test_defaults_are_written_by_one_run_and_by_many(connection: Connection) -> None:
    add = Prepared(insert(Thing))
    for ids in (["a"], ["b"], ["c", "d"], ["e", "f"]):
        add.run(connection, [{"id": id, "parts": None} for id in ids])
    add.run(connection, {"id": "g", "parts": [], "number": 5})
    add.run(connection, {"id": "h", "parts": [], "number": 6})
    rows = connection.execute(select(Thing.id, Thing.number, Thing.is_good, Thing.parts)).all()
    assert rows == [
        *((id, 3, True, None) for id in "abcdef"),
        ("g", 5, True, []),
        ("h", 6, True, []),
    ]


def test_a_change_has_its_fixed_values_each_time(connection: Connection) -> None:
    filled(connection)
    change = Prepared(
        update(Thing).where(Thing.id == bindparam("key")).values(number=Thing.number + 1, parts=[])
    )
    for key in ("a", "a", "b"):
        change.run(connection, {"key": key})
    query = select(Thing.number, Thing.parts).order_by(Thing.id)
    assert connection.execute(query).all() == [(5, []), (4, []), (3, ["c", "é"])]


def test_what_the_driver_refuses_is_sqlalchemys_error_and_tells_no_values(
    connection: Connection,
) -> None:
    filled(connection)
    add = Prepared(insert(Thing))
    for id in ("d", "e"):
        add.run(connection, {"id": id})
    with pytest.raises(IntegrityError, match="UNIQUE") as caught:
        add.run(connection, {"id": "d"})
    assert "hide_parameters" in str(caught.value)
    query = Prepared(select(Thing.id))
    query.all(connection)
    query.all(connection)
    connection.exec_driver_sql("DROP TABLE things")
    with pytest.raises(OperationalError, match="no such table"):
        query.all(connection)


def test_a_statement_belongs_to_the_transaction_it_is_run_in(engine: Engine) -> None:
    add = Prepared(insert(Thing))
    for id in ("a", "b"):
        with engine.begin() as connection:
            add.run(connection, {"id": id})
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        add.run(connection, {"id": "c"})
        raise ZeroDivisionError
    with engine.connect() as connection:  # none is open: SQLAlchemy opens it
        add.run(connection, {"id": "d"})
        connection.rollback()
        assert Prepared(select(func.count()).select_from(Thing)).scalar(connection) == 2


def test_who_listens_to_an_engine_is_told_of_every_run(engine: Engine) -> None:
    query, told = Prepared(select(Thing.id)), list[str]()
    with engine.begin() as connection:
        query.all(connection)
        query.all(connection)
    event.listen(engine, "before_cursor_execute", lambda *given: told.append(given[2]))
    with engine.begin() as connection:
        query.all(connection)
        query.all(connection)
    assert len(told) == 2


def test_another_engine_is_asked_in_the_same_way(engine: Engine) -> None:
    query = Prepared(select(Thing.parts))
    with engine.begin() as connection:
        filled(connection)
        query.all(connection)
    other = create_engine("sqlite://")
    Base.metadata.create_all(other)
    with other.begin() as connection:
        connection.execute(insert(Thing).values(id="z", parts={"z": 1}))
        assert query.all(connection) == [({"z": 1},)]
    other.dispose()


def test_what_is_made_of_a_row_is_made_anew_only_after_a_change(engine: Engine) -> None:
    made = list[str]()

    def make(row: Any) -> tuple[str, ...]:
        made.append(row.id)
        return row.id, *row.parts

    query = Prepared(select(Thing).order_by(Thing.id), made=make)
    with engine.begin() as connection:
        filled(connection)
        wanted = [("a", "a", "é"), ("b", "b", "é"), ("c", "c", "é")]
        assert [query.all(connection) for _ in range(3)] == [wanted] * 3
        assert query.first(connection) == wanted[0]
        assert len(made) == 6  # by SQLAlchemy's row, then by the driver's
        connection.execute(update(Thing).where(Thing.id == "b").values(parts=["new"]))
        assert query.all(connection) == [wanted[0], ("b", "new"), wanted[2]]
        assert made[6:] == ["b"]


def test_a_statement_goes_straight_to_the_driver_only_inside_a_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        assert not is_direct(connection)
        connection.begin()
        assert is_direct(connection)
