"""Lore: which entries of a book enter a prompt."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.cards.fields import Book
from persona_mcp.state.lore import Lore, lore_of


def book(*entries: dict[str, Any], **more: Any) -> Book:
    return Book.model_validate({"entries": list(entries), **more})


def entry(content: str, *keys: str, **more: Any) -> dict[str, Any]:
    return {"content": content, "keys": list(keys), **more}


def words(text: str) -> int:
    return len(text.split())


def texts(one: Book, *heard: str) -> list[str]:
    return [lore.text for lore in lore_of(one, heard, words)]


def test_an_entry_enters_when_one_of_its_keys_was_heard() -> None:
    one = book(entry("A", "boat", "ship"), entry("B", "wolf"), entry("C", "boat", enabled=False))

    assert texts(one, "The SHIP sank.") == ["A"]
    assert texts(one, "Nothing.") == []


def test_case_counts_where_the_entry_says_so() -> None:
    one = book(entry("A", "Rose", case_sensitive=True))

    assert texts(one, "a rose") == []
    assert texts(one, "Rose came") == ["A"]


def test_only_the_last_messages_are_looked_at() -> None:
    one = entry("A", "boat")

    assert texts(book(one, scan_depth=2), "boat", "x", "y") == []
    assert texts(book(one, scan_depth=3), "boat", "x", "y") == ["A"]
    assert texts(book(one, scan_depth=0), "boat") == []


def test_a_selective_entry_needs_both_kinds_of_keys() -> None:
    one = book(entry("A", "sea", selective=True, secondary_keys=["storm"]))

    assert texts(one, "the sea") == []
    assert texts(one, "the sea in a storm") == ["A"]


def test_second_keys_are_nothing_to_an_entry_with_expressions() -> None:
    one = book(entry("A", r"s.a", use_regex=True, selective=True, secondary_keys=["storm"]))

    assert texts(one, "the sea") == ["A"]


def test_an_expression_may_be_written_with_its_flags() -> None:
    one = book(entry("A", "/^SEA/im", use_regex=True))

    assert texts(one, "land\nsea") == ["A"]


def test_an_expression_that_is_wrong_or_takes_for_ever_finds_nothing() -> None:
    wrong = book(entry("A", "(", use_regex=True))
    slow = book(entry("B", r"(a|a)*$", use_regex=True), entry("C", "a"))

    assert texts(wrong, "(") == []
    assert texts(slow, "a" * 5000 + "b") == ["C"]
    assert texts(book(entry("A", "|".join(["x"] * 999), use_regex=True)), "x") == []


def test_a_constant_entry_is_always_there_and_an_empty_one_never() -> None:
    one = book(entry("A", constant=True), entry(" ", "x", constant=True), entry("", "x"))

    assert texts(one, "x") == ["A"]


def test_entries_stand_in_their_order_at_their_place_and_once() -> None:
    one = book(
        entry("late", "x", insertion_order=9, position="after_char"),
        entry("soon", "x", insertion_order=1),
        entry("soon", "x", insertion_order=2),
    )

    assert lore_of(one, ["x"], words) == [Lore("before", "soon", 1), Lore("after", "late", 9)]


def test_what_is_too_much_is_left_out_by_priority_and_then_by_order() -> None:
    by_priority = book(
        entry("one two", "x", priority=1, insertion_order=9),
        entry("three four", "x", priority=5, insertion_order=1),
        token_budget=3,
    )
    by_order = book(
        entry("one two", "x", insertion_order=1),
        entry("three four", "x", insertion_order=2),
        token_budget=2,
    )

    assert texts(by_priority, "x") == ["three four"]
    assert texts(by_order, "x") == ["three four"]


def test_lore_asks_for_more_lore_only_in_a_recursive_book_and_so_deep() -> None:
    chain = [entry(f"k{n + 1}", f"k{n}", insertion_order=n) for n in range(9)]

    assert texts(book(*chain), "k0") == ["k1"]
    assert texts(book(*chain, recursive_scanning=True), "k0") == [f"k{n}" for n in range(1, 7)]


def test_decorators_are_not_told() -> None:
    one = book(entry("@@depth 4\n@@@role system\nThe tower.\n@@kept inside", "x"))

    assert texts(one, "x") == ["The tower.\n@@kept inside"]


def test_a_huge_book_enters_in_part_only() -> None:
    constant = book(*(entry(f"c{n}", constant=True, insertion_order=n) for n in range(20_000)))
    keyed = book(*(entry(f"k{n}", "sea", insertion_order=n) for n in range(300)))

    assert texts(constant, "x") == [f"c{n}" for n in range(4800, 5000)]
    assert len(texts(keyed, "the sea")) == 200
    assert texts(book(entry("word " * 3000, constant=True)), "") == []


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "content": st.text("ab @\n", max_size=12),
            "keys": st.lists(st.text("ab(", max_size=3), max_size=3),
            "insertion_order": st.integers(-3, 3),
            "use_regex": st.booleans(),
            "constant": st.none() | st.booleans(),
            "priority": st.none() | st.integers(-3, 3),
        }
    ),
    max_size=8,
)


@given(ENTRIES, st.lists(st.text("ab (", max_size=12), max_size=4), st.integers(0, 12))
def test_a_budget_is_kept_and_only_takes_away(
    entries: list[dict[str, Any]], heard: list[str], budget: int
) -> None:
    all_of_it = lore_of(book(*entries), heard, words)
    within = lore_of(book(*entries, token_budget=budget), heard, words)

    assert sum(words(lore.text) for lore in within) <= budget
    assert {lore[:2] for lore in within} <= {lore[:2] for lore in all_of_it}
    assert len({(lore.place, lore.text) for lore in all_of_it}) == len(all_of_it)
    assert all(lore.text for lore in all_of_it)
