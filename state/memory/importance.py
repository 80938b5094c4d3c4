"""How much a new memory matters, from its words and whom it concerns."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from types import MappingProxyType
from typing import Any

from persona_mcp.state.language_files import read_language_file
from persona_mcp.state.memory.full_text import STOP_WORDS
from persona_mcp.state.memory.importance_params import ImportanceParams as ImportanceParams
from persona_mcp.state.traits import FULL_SCALE, Traits

Phrase = tuple[str, ...]


class Values(dict[Phrase, float]):
    """Values by phrase."""

    @cached_property
    def lengths(self) -> frozenset[int]:
        """Return how many words its phrases have."""
        return frozenset(len(phrase) for phrase in self) - {0}

    @cached_property
    def firsts(self) -> frozenset[str]:
        """Return the words that its phrases begin with."""
        return frozenset(phrase[0] for phrase in self if phrase)


WORDS_KEPT = 10_000
TEXTS_KEPT = 512
"""A turn is weighed for each of those who remember it, once more when it is summed up, and looked
at while it stands in the window of a talk on some topic."""
PERSONAS_KEPT = 1024
NEUTRAL = 0.5
PLAIN = 1.0
TYPE_FACTORS: Mapping[str, float] = MappingProxyType(
    {
        "observation": 0.8,
        "reflection": 1.2,
        "relationship": 1.3,
        "goal": 1.4,
        "secret": 1.5,
        "trauma": 1.6,
        "achievement": 1.3,
        "learning": 1.1,
        "routine": 0.6,
    }
)
"""By memory type; 1 for every other. Source: after the original Persona MCP server."""

EXCLAMATIONS = ((3, 0.8), (2, 0.6), (1, 0.4))
CAPITALS = ((0.3, 0.7), (0.1, 0.4))
CAPITALS_MIN_LETTERS = 10
SIGNIFICANT_SCORES = ((80, 0.7), (60, 0.5))
ENGAGED_SCORES = ((70, 0.2), (50, 0.1))
LENGTHS = ((50, 0.3), (20, 0.2), (10, 0.1))
QUESTION_MARK, EXCLAMATION_MARK, QUESTION_WORD, OPINION_WORD = 0.1, 0.05, 0.15, 0.1
CURIOUS_INTEREST, SOCIAL_INTEREST, PLAIN_INTEREST = 0.6, 0.5, 0.4
MIDDLE_TRAIT = 50.0
STRONG_TIES = ((0.6, 0.9), (0.2, 0.7))

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, eq=False)
class Words:
    """One language's lists: phrases in every form, lower case, with their values.

    Attributes:
        emotion: Value by phrase, [0, 1].
        significance: Likewise.
        topics: Value by phrase of a topic's name.
        questions: Question words.
        opinions: Opinion words.
        curious: Trait words.
        social: Trait words.
        plurals: Patterns of plural words with their singulars, the first that fits is used.
    """

    emotion: Values
    significance: Values
    topics: Values
    questions: Values
    opinions: Values
    curious: Values
    social: Values
    plurals: Sequence[tuple[re.Pattern[str], str]]


@dataclass(frozen=True)
class Interests:
    """What a persona cares about.

    Attributes:
        preferences: 0..100 by topic.
        curious: It has a curious trait.
        social: It has a social trait.
    """

    preferences: Mapping[str, float] = field(default_factory=dict)
    curious: bool = False
    social: bool = False


@dataclass(frozen=True)
class Occasion:
    """What is known of the moment beside the text.

    Attributes:
        memory_type: Any name; some have a factor.
        topic: Of the conversation, or empty.
        continue_score: 0..100; None outside of conversations.
        affinity: Speaker's for the listener, (-1, 1); None if they never met.
        trust: Likewise.
    """

    memory_type: str = "conversation"
    topic: str = ""
    continue_score: float | None = None
    affinity: float | None = None
    trust: float | None = None


@dataclass(frozen=True)
class Importance:
    """A memory's importance, [0.1, 1], and the terms that it came from, each in [0, 1]."""

    value: float
    terms: Mapping[str, float]


@dataclass(frozen=True)
class Spoken:
    """What the words of a text are, and what they weigh whoever remembers them.

    Attributes:
        singulars: In lower case, and in the singular.
        emotion: How much feeling is in it, [0, 1].
        significance: What its weightiest words are worth, [0, 1].
        engagement: What questions, opinions and marks are worth, 0 or more.
    """

    singulars: Sequence[str]
    emotion: float
    significance: float
    engagement: float


def importance(
    text: str,
    speaker: Interests,
    listener: Interests | None,
    occasion: Occasion,
    params: ImportanceParams,
    language: str = "en",
) -> Importance:
    """Weigh a new memory.

    .35 + .25 emotion + .2 significance + .1 speaker_interest + .05 listener_interest
    + .1 engagement + .1 relationship, times the factor of the memory's type, limited to [.1, 1].
    The listener's two terms are 0 without a listener.

    Args:
        text: What would be remembered.
        speaker: Whose memory it is.
        listener: The other one, if there is one.
        occasion: The moment.
        params: Weights.
        language: Of the word lists; "en" is there.
    """
    lists, spoken = load_words(language), _spoken(text, language)
    terms = {
        "emotion": spoken.emotion,
        "significance": _significance(spoken, occasion, lists),
        "speaker_interest": _interest(spoken.singulars, speaker, lists),
        "listener_interest": _interest(spoken.singulars, listener, lists) if listener else 0.0,
        "engagement": _engagement(spoken, occasion.continue_score),
        "relationship": _relationship(occasion) if listener else 0.0,
    }
    weights = (
        *(params.emotion, params.significance, params.speaker_interest),
        *(params.listener_interest, params.engagement, params.relationship),
    )
    raw = params.base + sum(w * value for w, value in zip(weights, terms.values(), strict=True))
    kind = occasion.memory_type.casefold()
    factor = params.type_factors.get(kind, TYPE_FACTORS.get(kind, PLAIN))
    terms["type_factor"] = factor
    return Importance(min(1.0, max(params.floor, raw * factor)), terms)


def substance(text: str, params: ImportanceParams) -> float:
    """Return the factor of how much a turn says, .5 to 1.2: .5 + .7 min(1, words / 20).

    Words are distinct ones that are no stop words. Most turns of a talk are answers like "Wow,
    that's great!": full of feeling, and nothing to remember. What was told on purpose has none.
    Source: chosen here, and rounded, by looking at what is asked for later of the dialogues of
    LoCoMo's first conversations.
    """
    words = {word for word in _words(text) if word not in STOP_WORDS}
    said = min(1.0, len(words) / params.full_words)
    return params.terse_factor + (params.full_factor - params.terse_factor) * said


def interests_of(
    topic_preferences: Mapping[str, float], personality_traits: Traits, language: str = "en"
) -> Interests:
    """Read interests from a persona's card.

    A trait word counts if its number is above 50 (of 100), or if it comes with or in a text.
    """
    lists = load_words(language)
    names, texts = set[Phrase](), list[str]()
    for name, value in personality_traits.items():
        if isinstance(value, str):
            texts += _words(value)
        if isinstance(value, str) or value > MIDDLE_TRAIT:
            names.add(tuple(_words(name)))
    return Interests(
        topic_preferences,
        curious=bool(names & lists.curious.keys()) or _strongest(texts, lists.curious) > 0,
        social=bool(names & lists.social.keys()) or _strongest(texts, lists.social) > 0,
    )


def topics_named(
    texts: Iterable[str], topics: Sequence[str], language: str = "en"
) -> list[set[str]]:
    """Return which of some topics each text names, whatever the case and the number."""
    lists = load_words(language)
    phrases = Values(
        (tuple(_singular(word, lists) for word in _words(name)), place)
        for place, name in enumerate(topics)
    )
    spoken = (_singulars(text, lists) for text in texts)
    return [{topics[int(place)] for place in _hits(words, phrases)} for words in spoken]


@cache
def load_words(language: str = "en") -> Words:
    """Read a language's lists from the package, once.

    Raises:
        FileNotFoundError: There are none for this language.
    """
    data: dict[str, Any] = read_language_file("importance", language)
    endings = [(re.compile(pattern), forms) for pattern, forms in data["endings"]]

    def valued(name: str) -> Values:
        found = Values()
        for value, entries in data[name].items():
            for phrase in _forms(entries, endings):
                found[phrase] = max(value, found.get(phrase, 0.0))
        return found

    def plain(name: str) -> Values:
        return Values(dict.fromkeys(_forms(data[name], endings), 1.0))

    return Words(
        emotion=valued("emotion"),
        significance=valued("significance"),
        topics=valued("topics"),
        questions=plain("questions"),
        opinions=plain("opinions"),
        curious=plain("curious"),
        social=plain("social"),
        plurals=tuple((re.compile(pattern), single) for pattern, single in data["plurals"]),
    )


def _forms(
    entries: Iterable[str], endings: Sequence[tuple[re.Pattern[str], Sequence[str]]]
) -> Iterator[Phrase]:
    for entry in entries:
        phrase = tuple(_words(entry))
        yield phrase
        if entry.startswith("=") or len(phrase) > 1:
            continue
        match, forms = next((m, f) for p, f in endings if (m := p.match(phrase[0])))
        yield from ((match.expand(form),) for form in forms)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _hits(spoken: Sequence[str], values: Values) -> Iterator[float]:
    for start, word in enumerate(spoken):
        if word not in values.firsts:
            continue
        for length in values.lengths:
            phrase = tuple(spoken[start : start + length])
            if len(phrase) == length and (value := values.get(phrase)) is not None:
                yield value


def _strongest(spoken: Sequence[str], values: Values) -> float:
    return max(_hits(spoken, values), default=0.0)


def _stair(value: float, steps: Sequence[tuple[float, float]]) -> float:
    """Give the value of the first step that is reached, 0 if none is."""
    return next((gain for least, gain in steps if value >= least), 0.0)


@lru_cache(TEXTS_KEPT)
def _spoken(text: str, language: str) -> Spoken:
    lists, words = load_words(language), _words(text)
    return Spoken(
        _singulars(text, lists),
        _emotion(text, words, lists),
        _strongest(words, lists.significance),
        _liveliness(text, words, lists),
    )


def _emotion(text: str, spoken: Sequence[str], lists: Words) -> float:
    letters = "".join(filter(str.isalpha, text))
    loud = 0.0
    if len(letters) >= CAPITALS_MIN_LETTERS:
        share = sum(map(str.isupper, letters)) / len(letters)
        loud = next((gain for above, gain in CAPITALS if share > above), 0.0)
    return max(_strongest(spoken, lists.emotion), _stair(text.count("!"), EXCLAMATIONS), loud)


def _significance(spoken: Spoken, occasion: Occasion, lists: Words) -> float:
    return max(
        spoken.significance,
        _strongest(_words(occasion.topic), lists.topics),
        _stair(occasion.continue_score or 0.0, SIGNIFICANT_SCORES),
    )


def _interest(singulars: Sequence[str], persona: Interests, lists: Words) -> float:
    if not persona.preferences:
        return NEUTRAL
    topics = _topics(tuple(persona.preferences.items()), lists)
    named = list(_hits(singulars, topics))
    if named:
        return min(1.0, max(0.0, max(named) / FULL_SCALE))
    if persona.curious:
        return CURIOUS_INTEREST
    return SOCIAL_INTEREST if persona.social else PLAIN_INTEREST


@lru_cache(PERSONAS_KEPT)
def _topics(preferences: tuple[tuple[str, float], ...], lists: Words) -> Values:
    return Values(
        (tuple(_singular(word, lists) for word in _words(name)), value)
        for name, value in preferences
    )


@lru_cache(WORDS_KEPT)
def _singular(word: str, lists: Words) -> str:
    return next((m.expand(one) for many, one in lists.plurals if (m := many.match(word))), word)


@lru_cache(TEXTS_KEPT)
def _singulars(text: str, lists: Words) -> Sequence[str]:
    return tuple(_singular(word, lists) for word in _words(text))


def _liveliness(text: str, spoken: Sequence[str], lists: Words) -> float:
    asked = sum(1 for _ in _hits(spoken, lists.questions))
    meant = sum(1 for _ in _hits(spoken, lists.opinions))
    return (
        QUESTION_MARK * text.count("?")
        + EXCLAMATION_MARK * text.count("!")
        + QUESTION_WORD * asked
        + OPINION_WORD * meant
        + _stair(len(spoken), LENGTHS)
    )


def _engagement(spoken: Spoken, continue_score: float | None) -> float:
    return min(1.0, spoken.engagement + _stair(continue_score or 0.0, ENGAGED_SCORES))


def _relationship(occasion: Occasion) -> float:
    """Give .9 for strong feelings of either sign, .7 for clear ones, .5 else or if never met.

    Strong: |(affinity + trust) / 2| >= .6; clear: >= .2.
    """
    if occasion.affinity is None or occasion.trust is None:
        return NEUTRAL
    feeling = abs(occasion.affinity + occasion.trust) / 2
    return _stair(feeling, STRONG_TIES) or NEUTRAL
