from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.batch.controls import (
    begins_neutral,
    drifts,
    neutral_drifts,
    repetition,
    warmths,
)
from persona_mcp.state.batch.reading import moved, said
from persona_mcp.state.speaker_classifier import Sample, tell_apart
from tests.outcomes import LAWS, NARRATOR, Line, job_of, outcome_of


def test_a_turn_that_says_the_same_again_repeats() -> None:
    found = repetition(
        [
            "I like the sea in the morning.",
            "I like the sea in the morning, you know.",
            "The harbour master has gone to bed early tonight.",
            "Yes.",
        ]
    )

    assert (found.repeats, found.turns) == (1, 3)


def test_distinct_bigrams_are_counted_once() -> None:
    found = repetition(["we go, we go, we go"])

    assert (found.distinct, found.bigrams) == (2, 5)


@given(st.lists(st.text(max_size=60), max_size=12))
def test_repetition_stays_within_what_there_is(texts: list[str]) -> None:
    found = repetition(texts)

    assert 0 <= found.repeats <= max(0, found.turns - 1)
    assert 0 <= found.distinct <= found.bigrams


def test_a_dialogue_among_strangers_is_neutral_unless_something_happens() -> None:
    plain = outcome_of(job_of(), [Line("ada", "Hello.", 0.9)])
    rain = outcome_of(job_of(), [Line(NARRATOR, "It rains.")])
    enemies = {("ada", "ben"): {"affinity": -0.6}}

    assert begins_neutral(plain.before, said(plain))
    assert not begins_neutral(rain.before, said(rain))
    assert not begins_neutral(enemies, said(plain))


def test_drift_is_what_a_turn_does_to_affinity() -> None:
    outcome = outcome_of(
        job_of(), [Line("ada", "You dear.", 0.9), Line("ben", "It is noon.", 0.05)]
    )
    moves = moved(outcome, LAWS)

    assert drifts(moves)[0] > 0.01
    assert warmths(moves) == [0.9, 0.05]
    assert neutral_drifts(moves) == [0.0]


def test_speakers_who_talk_alike_are_not_told_apart() -> None:
    line = "The weather is fine and the sea is calm today."
    samples = [Sample(n // 4, ("ada", "ben")[n % 2], line) for n in range(80)]

    found = tell_apart(samples)

    assert found.turns == 80 and found.right == found.chance == 40 and found.by_dialogue


def test_speakers_with_words_of_their_own_are_told_apart() -> None:
    lines = {"ada": "Aye, the tide is turning, sailor.", "ben": "Ledgers and coins, my lord."}
    samples = [
        Sample(n // 4, who, f"{lines[who]} {n}")
        for n in range(80)
        for who in [("ada", "ben")[n % 2]]
    ]

    assert tell_apart(samples).right == 80


def test_what_is_tried_was_not_learned_from() -> None:
    """Each dialogue has words of its own, by which a speaker of another one is not known."""
    samples = [
        Sample(d, who, f"{who if d == 0 else 'word'}{d} alpha{d}")
        for d in range(10)
        for who in ("ada", "ben")
    ]

    assert tell_apart(samples).right <= 14


def test_of_one_dialogue_parts_are_tried_in_turn() -> None:
    samples = [Sample(0, ("ada", "ben")[n % 2], ("red sea", "blue sky")[n % 2]) for n in range(40)]

    found = tell_apart(samples)

    assert not found.by_dialogue and found.right == 40


def test_one_speaker_or_few_turns_tell_nothing() -> None:
    assert tell_apart([]).turns == 0
    assert tell_apart([Sample(n, "ada", "word") for n in range(30)]).turns == 0
    assert tell_apart([Sample(n, "ab"[n % 2], "word") for n in range(6)]).turns == 0


def test_of_many_speakers_those_count_who_speak_most() -> None:
    samples = [Sample(n % 7, f"p{n % 20}", f"word{n % 20}") for n in range(200)]
    samples += [Sample(n % 7, f"p{n % 12}", f"word{n % 12}") for n in range(60)]

    assert tell_apart(samples).speakers == 12
