"""Who speaks next, and to whom."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.continuation import ContinuationParams
from persona_mcp.state.dialogue import Plan, Presence, Speakers, Standing, Whisper
from persona_mcp.state.speaking import addressee, named_in, next_speaker
from tests.scenes import NOW, turn
from tests.state.test_dialogue import member, standing

LAWS = ContinuationParams()
NAMES = ("Ann", "Ben", "Cleo", "Dora", "Emil", "Finn")
IDS = tuple(name.lower() for name in NAMES)
KINDS: tuple[Speakers, ...] = ("round_robin", "random", "initiative", "addressed", "wants")


def company(count: int = 4, said: str = "", last: str | None = "ann", **plan: Any) -> Standing:
    """Make a talk of so many, in which `last` has said something."""
    values = {"token_budget": 9000, "max_duration": 600.0, "max_turns": 99, "seed": 7}
    asked = Plan(**{**values, "first_speaker": "ben", **plan})
    found = standing(*(member(name) for name in NAMES[:count]), plan=asked, last_speaker=last)
    window = (turn(1, last, said),) if last else ()
    return replace(found, window=window, past=window, said=len(window), now=NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_says_who_begins(kind: Speakers) -> None:
    assert next_speaker(company(last=None, speakers=kind), LAWS) == "ben"


def test_who_is_not_there_yet_does_not_begin() -> None:
    late = (Presence(persona="ben", turn=3),)

    assert next_speaker(company(last=None, joins=late), LAWS) == "ann"


@pytest.mark.parametrize("last", IDS[:4])
def test_in_turn_the_one_behind_who_spoke_last_is_next(last: str) -> None:
    order = {"ann": "ben", "ben": "cleo", "cleo": "dora", "dora": "ann"}

    assert next_speaker(company(last=last), LAWS) == order[last]


@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(2, 6),
    seed=st.integers(0, 2**31 - 1),
    said=st.integers(1, 40),
    last=st.sampled_from(IDS),
    gone=st.sets(st.sampled_from(IDS[2:])),
    text=st.sampled_from(["", "Well, Ben?", "Cleo and Ann.", "finn knows, Dora."]),
)
def test_whoever_speaks_is_there_and_is_drawn_the_same_again(
    kind: Speakers, count: int, seed: int, said: int, last: str, gone: set[str], text: str
) -> None:
    last = last if last in IDS[:count] else "ann"
    leaves = tuple(Presence(persona=one, turn=said) for one in sorted(gone))
    talk = replace(company(count, text, last, speakers=kind, seed=seed, leaves=leaves), said=said)

    found = next_speaker(talk, LAWS)

    assert found in set(IDS[:count]) - gone
    assert found == next_speaker(talk, LAWS)
    if kind != "initiative":
        assert found != last


def test_by_lot_all_others_speak_about_as_often() -> None:
    lots = [company(speakers="random", seed=seed) for seed in range(600)]

    drawn = Counter(next_speaker(one, LAWS) for one in lots)

    assert set(drawn) == {"ben", "cleo", "dora"}
    assert all(150 < often < 250 for often in drawn.values())


def test_by_initiative_who_was_named_speaks_more_often_and_who_spoke_last_less() -> None:
    def drawn(said: str) -> Counter[str]:
        lots = (company(said=said, speakers="initiative", seed=seed) for seed in range(400))
        return Counter(next_speaker(one, LAWS) for one in lots)

    nobody, named = drawn("Who knows?"), drawn("What about you, Cleo?")

    assert named["cleo"] > 1.3 * nobody["cleo"]
    assert nobody["ann"] < min(nobody[one] for one in ("ben", "cleo", "dora"))


def test_who_is_addressed_speaks_next_else_it_goes_in_turn() -> None:
    asked: Any = {"speakers": "addressed"}

    assert next_speaker(company(said="And you, Dora, or Cleo?", **asked), LAWS) == "dora"
    assert next_speaker(company(said="I am Ann, not Annabel.", **asked), LAWS) == "ben"
    assert next_speaker(company(said="Doras are rare.", **asked), LAWS) == "ben"


def test_who_wants_to_most_speaks_next() -> None:
    talk = company(speakers="wants")
    keen = member("Dora", charisma=20, topic_preferences={"music": 100})
    members = tuple(keen if m.persona.id == "dora" else m for m in talk.members)

    assert next_speaker(replace(talk, members=members), LAWS) == "dora"
    assert next_speaker(talk, LAWS) == "ben", "ties by id"


def test_who_is_to_whisper_speaks_if_it_is_there() -> None:
    whispers = (Whisper(turn=2, to=["ann"], by="dora"),)
    gone = (Presence(persona="dora", turn=2),)

    assert next_speaker(company(whispers=whispers), LAWS) == "dora"
    assert next_speaker(company(whispers=whispers, leaves=gone), LAWS) == "ben"


def test_names_are_found_as_whole_words_in_their_order() -> None:
    two = [member("Ann Marie"), member("Ben")]

    assert named_in("ben, where is ANN?", two) == ["ben", "ann marie"]
    assert named_in("Annabel and Benno", two) == []


@pytest.mark.parametrize(
    ("text", "hearers", "to"),
    [
        ("Nice.", IDS[:4], "ann"),
        ("Nice, Dora.", IDS[:4], "dora"),
        ("Nice, Dora.", ("ben", "cleo"), "cleo"),
        ("Nice, Ben.", IDS[:4], "ann"),
    ],
)
def test_a_turn_is_said_to_who_is_named_and_hears_it_else_to_who_spoke_last(
    text: str, hearers: tuple[str, ...], to: str
) -> None:
    assert addressee(company(), "ben", text, hearers) == to
