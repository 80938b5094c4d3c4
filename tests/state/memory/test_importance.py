import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.memory.importance import (
    Interests,
    Occasion,
    importance,
    interests_of,
    load_words,
    substance,
)
from persona_mcp.state.memory.importance_params import ImportanceParams

P = ImportanceParams()
NOBODY = Interests()
PLAIN = Occasion()
quick = settings(max_examples=50)


def terms_of(
    text: str,
    speaker: Interests = NOBODY,
    listener: Interests | None = None,
    occasion: Occasion = PLAIN,
) -> dict[str, float]:
    return dict(importance(text, speaker, listener, occasion, P).terms)


@given(
    st.text(max_size=200),
    st.sampled_from(["trauma", "routine", "conversation"]),
    st.none() | st.floats(0, 100),
    st.booleans(),
)
@quick
def test_importance_and_its_terms_stay_in_range(
    text: str, kind: str, continue_score: float | None, heard: bool
) -> None:
    occasion = Occasion(kind, "secret", continue_score, 0.9, -0.9)
    listener = Interests({"tea": 80}) if heard else None

    found = importance(text, NOBODY, listener, occasion, P)

    assert 0.1 <= found.value <= 1
    assert all(0 <= value <= 1 for name, value in found.terms.items() if name != "type_factor")


def test_importance_is_the_weighted_sum_of_its_terms() -> None:
    speaker, listener = Interests({"tea": 80}), Interests({"war": 100}, social=True)

    found = importance("I love tea.", speaker, listener, PLAIN, P)

    assert found.terms == {
        "emotion": 0.9,
        "significance": 0.0,
        "speaker_interest": 0.8,
        "listener_interest": 0.5,
        "engagement": 0.0,
        "relationship": 0.5,
        "type_factor": 1.0,
    }
    assert found.value == pytest.approx(0.35 + 0.225 + 0.08 + 0.025 + 0.05)


def test_without_a_listener_only_the_speaker_counts() -> None:
    terms = terms_of("Tea.", occasion=Occasion(affinity=0.9, trust=0.9))

    assert (terms["listener_interest"], terms["relationship"]) == (0, 0)


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("She loves him.", 0.9),
        ("LOVED, once", 0.9),
        ("a glove", 0.0),
        ("clover and lovage", 0.0),
        ("He worried all night", 0.6),
        ("stunning contents", 0.0),
        ("so content", 0.4),
        ("quite bored", 0.2),
        ("I am tired and furious", 0.9),
        ("no!", 0.4),
        ("no! no!", 0.6),
        ("no!!!", 0.8),
        ("GET OUT OF HERE", 0.7),
        ("GET out of here", 0.4),
        ("GET OUT", 0.0),
        ("", 0.0),
    ],
)
def test_emotion_is_that_of_the_strongest_word_or_sign(text: str, emotion: float) -> None:
    assert terms_of(text)["emotion"] == emotion


@pytest.mark.parametrize(
    ("text", "significance"),
    [
        ("an emergency at sea", 0.9),
        ("two emergencies", 0.9),
        ("he betrayed us", 0.85),
        ("I discovered it", 0.85),
        ("for the first time", 0.8),
        ("the first, and this time", 0.0),
        ("they are arguing", 0.65),
        ("her brother", 0.6),
        ("a reason", 0.0),
        ("he bought bread", 0.55),
        ("a planned thing", 0.5),
        ("do you remember", 0.45),
    ],
)
def test_significance_is_that_of_the_strongest_group(text: str, significance: float) -> None:
    assert terms_of(text)["significance"] == significance


@pytest.mark.parametrize(
    ("occasion", "significance"),
    [
        (Occasion(topic="Family matters"), 0.6),
        (Occasion(topic="the secret door"), 0.8),
        (Occasion(topic="tea"), 0.0),
        (Occasion(continue_score=80), 0.7),
        (Occasion(continue_score=79.9), 0.5),
        (Occasion(continue_score=59), 0.0),
    ],
)
def test_the_moment_gives_significance_too(occasion: Occasion, significance: float) -> None:
    assert terms_of("Hm.", occasion=occasion)["significance"] == significance


@pytest.mark.parametrize(
    ("persona", "interest"),
    [
        (NOBODY, 0.5),
        (Interests({"tea": 90, "war": 20}), 0.9),
        (Interests({"stories": 70}), 0.7),
        (Interests({"local_news": 85}), 0.85),
        (Interests({"wishes": 65}), 0.65),
        (Interests({"art": 90}), 0.4),
        (Interests({"art": 90}, curious=True, social=True), 0.6),
        (Interests({"art": 90}, social=True), 0.5),
        (Interests({"!": 90}), 0.4),
    ],
)
def test_interest_is_that_in_the_best_liked_topic_that_is_named(
    persona: Interests, interest: float
) -> None:
    text = "A story of tea, a wish, and the local news."

    assert terms_of(text, persona)["speaker_interest"] == pytest.approx(interest)


@pytest.mark.parametrize(
    ("text", "score", "engagement"),
    [
        ("Tea", None, 0.0),
        ("Tea?!", None, 0.15),
        ("Why tea", None, 0.15),
        ("I think so", None, 0.1),
        ("word " * 10, None, 0.1),
        ("word " * 20, None, 0.2),
        ("word " * 50, None, 0.3),
        ("Tea", 70, 0.2),
        ("Tea", 50, 0.1),
        ("???????????????", None, 1.0),
    ],
)
def test_engagement_sums_up_to_one(text: str, score: float | None, engagement: float) -> None:
    terms = terms_of(text, occasion=Occasion(continue_score=score))

    assert terms["engagement"] == pytest.approx(engagement)


@pytest.mark.parametrize(
    ("affinity", "trust", "relationship"),
    [(None, None, 0.5), (0, 0, 0.5), (0.6, 0.6, 0.9), (-0.7, -0.6, 0.9), (0.3, 0.2, 0.7)],
)
def test_strong_feelings_of_either_sign_make_a_memory_matter(
    affinity: float | None, trust: float | None, relationship: float
) -> None:
    terms = terms_of("Tea", NOBODY, NOBODY, Occasion(affinity=affinity, trust=trust))

    assert terms["relationship"] == relationship


@pytest.mark.parametrize(
    ("kind", "value"), [("trauma", 0.64), ("Routine", 0.24), ("conversation", 0.4), ("odd", 0.4)]
)
def test_the_type_of_a_memory_multiplies(kind: str, value: float) -> None:
    found = importance("Tea", NOBODY, None, Occasion(memory_type=kind), P)

    assert found.value == pytest.approx(value)


def test_a_world_may_add_types_and_replace_built_in_ones() -> None:
    params = ImportanceParams(type_factors={"routine": 1.0, "dream": 0.5}, floor=0.3)

    values = [
        importance("Tea", NOBODY, None, Occasion(memory_type=kind), params).value
        for kind in ("routine", "dream")
    ]

    assert values == pytest.approx([0.4, 0.3])


def test_interests_are_read_from_trait_words_with_a_high_number_or_a_text() -> None:
    kira = interests_of({"magic": 90}, {"analytical": 95, "extroverted": 10})
    aria = interests_of({}, {"temper": "friendly to all", "curious": 40})
    odd = interests_of({}, {"curious": "very", "social_class": "low"})

    assert kira == Interests({"magic": 90}, curious=True, social=False)
    assert aria == Interests({}, curious=False, social=True)
    assert odd == Interests({}, curious=True, social=False)


def test_the_words_are_read_once_and_an_unknown_language_is_an_error() -> None:
    assert load_words("en") is load_words("en")
    with pytest.raises(FileNotFoundError):
        load_words("xx")


def test_every_word_list_has_values_between_zero_and_one() -> None:
    words = load_words("en")

    for values in (words.emotion, words.significance, words.topics):
        assert values
        assert all(0 < value <= 1 for value in values.values())


@given(st.text(max_size=300), st.text(max_size=100))
@quick
def test_what_says_more_has_more_substance_within_its_range(text: str, more: str) -> None:
    assert 0.5 <= substance(text, P) <= substance(f"{text} {more}", P) <= 1.2


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("", 0.5),
        ("It is what it is, and that is that!", 0.5),
        ("Wow, wow, WOW!", 0.5 + 0.7 / 20),
        ("My brother Tom sold his red boat in Oslo.", 0.5 + 0.7 * 6 / 20),
        (" ".join(f"word{n}" for n in range(40)), 1.2),
    ],
)
def test_substance_counts_distinct_words_that_carry_meaning(text: str, factor: float) -> None:
    assert substance(text, P) == pytest.approx(factor)
