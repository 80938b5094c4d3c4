import uuid

from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.fields import ID_PATTERN
from persona_mcp.state.ids import NAMESPACE, derived_id, id_from_name, new_id, thread_id

parts = st.lists(st.text(alphabet="abc-_", min_size=1) | st.integers(), min_size=1, max_size=4)


def test_a_new_id_is_another_each_time() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert len(new_id()) == 32


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
