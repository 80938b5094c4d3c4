import time
import uuid

from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.fields import ID_PATTERN
from persona_mcp.state.ids import (
    NAMESPACE,
    derived_id,
    id_from_name,
    id_within,
    new_id,
    thread_id,
    timed_id,
)

parts = st.lists(st.text(alphabet="abc-_", min_size=1) | st.integers(), min_size=1, max_size=4)


def test_a_new_id_is_another_each_time() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert len(new_id()) == 32


def test_a_timed_id_is_a_uuid_of_version_7_that_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = [timed_id() for _ in range(100)]
    after = time.time_ns() // 1_000_000

    assert len(set(made)) == 100
    assert {(uuid.UUID(id).version, uuid.UUID(id).variant) for id in made} == {(7, uuid.RFC_4122)}
    assert all(before <= int(id[:12], 16) <= after for id in made)


@given(parts)
def test_what_is_made_within_a_timed_exchange_lies_beside_it_and_else_anywhere(
    some: list[str | int],
) -> None:
    exchange_id = timed_id()

    id = id_within("main", exchange_id, *some)

    assert id == id_within("main", exchange_id, *some) != id_within("main", exchange_id, *some, 0)
    assert id[:12] == exchange_id[:12]
    assert id[12:] == derived_id("main", exchange_id, *some)[12:]
    assert id_within("main", "x1", *some) == derived_id("main", "x1", *some)


@given(parts, parts)
def test_the_same_parts_make_the_same_id_and_others_another(
    first: list[str | int], second: list[str | int]
) -> None:
    assert derived_id(*first) == derived_id(*first)
    same = [str(p) for p in first] == [str(p) for p in second]
    assert (derived_id(*first) == derived_id(*second)) == same


@given(st.text(st.characters(codec="utf-8")))
def test_a_derived_id_is_a_uuid_of_its_parts(part: str) -> None:
    assert derived_id(part) == uuid.uuid5(NAMESPACE, part).hex


def test_parts_do_not_run_together() -> None:
    assert derived_id("ab", "c") != derived_id("a", "bc")


def test_a_thread_is_a_uuid_of_its_conversation() -> None:
    thread = thread_id("main", "c1")

    assert str(uuid.UUID(thread)) == thread
    assert thread == thread_id("main", "c1") != thread_id("main", "c2")
    assert thread_id("a", "b") != derived_id("a", "b")


@given(st.text())
def test_every_name_makes_an_id(name: str) -> None:
    import re

    assert re.fullmatch(ID_PATTERN, id_from_name(name))
