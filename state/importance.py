"""How much a new memory matters, from its words and whom it concerns."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.state.full_text import STOP_WORDS
from persona_mcp.state.traits import FULL_SCALE, Traits

Share = Annotated[float, Field(ge=0, le=1)]
Phrase = tuple[str, ...]


class Values(dict[Phrase, float]):
    """Values by phrase."""

    @cached_property
    def lengths(self) -> frozenset[int]:
        """Return how many words its phrases have."""
        return frozenset(len(phrase) for phrase in self) - {0}


WORDS_KEPT = 10_000
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


class ImportanceParams(BaseModel):
    """Weights of importance. Source: after the original Persona MCP server, to be calibrated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Share = Field(0.35, description="Importance of a memory without any term, 0..1")
    emotion: Share = Field(0.25, description="Weight of emotion, 0..1")
    significance: Share = Field(0.2, description="Weight of significance, 0..1")
    speaker_interest: Share = Field(0.1, description="Weight of the speaker's interest, 0..1")
    listener_interest: Share = Field(0.05, description="Weight of the listener's interest, 0..1")
    engagement: Share = Field(0.1, description="Weight of engagement, 0..1")
    relationship: Share = Field(0.1, description="Weight of the relationship, 0..1")
    floor: Share = Field(0.1, description="Least importance, 0..1")
    full_words: int = Field(
        20, ge=1, le=1000, description="Distinct words, stop words aside, of a turn that says a lot"
    )
    terse_factor: float = Field(
        0.5, ge=0, le=10, description="Factor of a turn that says nothing: a greeting, a cheer"
    )
    full_factor: float = Field(1.2, ge=0, le=10, description="Factor of a turn that says a lot")
    type_factors: dict[str, Annotated[float, Field(ge=0, le=10)]] = Field(
        default_factory=dict,
        description="Factors by memory type, beside the built-in ones or in place of them, 0..10",
    )


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
    lists = load_words(language)
    spoken = _words(text)
    terms = {
        "emotion": _emotion(text, spoken, lists),
        "significance": _significance(spoken, occasion, lists),
        "speaker_interest": _interest(spoken, speaker, lists),
        "listener_interest": _interest(spoken, listener, lists) if listener else 0.0,
        "engagement": _engagement(text, spoken, occasion.continue_score, lists),
        "relationship": _relationship(occasion) if listener else 0.0,
    }
    weights = params.model_dump(include=set(terms))
    raw = params.base + sum(weights[name] * value for name, value in terms.items())
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
    spoken = ([_singular(word, lists) for word in _words(text)] for text in texts)
    return [{topics[int(place)] for place in _hits(words, phrases)} for words in spoken]


@cache
def load_words(language: str = "en") -> Words:
    """Read a language's lists from the package, once.

    Raises:
        FileNotFoundError: There are none for this language.
    """
    source = files("persona_mcp.state").joinpath("words", f"importance.{language}.yaml")
    data: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
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
    for length in values.lengths:
        for start in range(len(spoken) - length + 1):
            value = values.get(tuple(spoken[start : start + length]))
            if value is not None:
                yield value


def _strongest(spoken: Sequence[str], values: Values) -> float:
    return max(_hits(spoken, values), default=0.0)


def _stair(value: float, steps: Sequence[tuple[float, float]]) -> float:
    """Give the value of the first step that is reached, 0 if none is."""
    return next((gain for least, gain in steps if value >= least), 0.0)


def _emotion(text: str, spoken: Sequence[str], lists: Words) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    loud = 0.0
    if len(letters) >= CAPITALS_MIN_LETTERS:
        share = sum(letter.isupper() for letter in letters) / len(letters)
        loud = next((gain for above, gain in CAPITALS if share > above), 0.0)
    return max(_strongest(spoken, lists.emotion), _stair(text.count("!"), EXCLAMATIONS), loud)


def _significance(spoken: Sequence[str], occasion: Occasion, lists: Words) -> float:
    return max(
        _strongest(spoken, lists.significance),
        _strongest(_words(occasion.topic), lists.topics),
        _stair(occasion.continue_score or 0.0, SIGNIFICANT_SCORES),
    )


def _interest(spoken: Sequence[str], persona: Interests, lists: Words) -> float:
    if not persona.preferences:
        return NEUTRAL
    topics = Values(
        (tuple(_singular(word, lists) for word in _words(name)), value)
        for name, value in persona.preferences.items()
    )
    named = list(_hits([_singular(word, lists) for word in spoken], topics))
    if named:
        return min(1.0, max(0.0, max(named) / FULL_SCALE))
    if persona.curious:
        return CURIOUS_INTEREST
    return SOCIAL_INTEREST if persona.social else PLAIN_INTEREST


@lru_cache(WORDS_KEPT)
def _singular(word: str, lists: Words) -> str:
    return next((m.expand(one) for many, one in lists.plurals if (m := many.match(word))), word)


def _engagement(
    text: str, spoken: Sequence[str], continue_score: float | None, lists: Words
) -> float:
    marks = Counter(text)
    asked = sum(1 for _ in _hits(spoken, lists.questions))
    meant = sum(1 for _ in _hits(spoken, lists.opinions))
    total = (
        QUESTION_MARK * marks["?"]
        + EXCLAMATION_MARK * marks["!"]
        + QUESTION_WORD * asked
        + OPINION_WORD * meant
        + _stair(len(spoken), LENGTHS)
        + _stair(continue_score or 0.0, ENGAGED_SCORES)
    )
    return min(1.0, total)


def _relationship(occasion: Occasion) -> float:
    """Give .9 for strong feelings of either sign, .7 for clear ones, .5 else or if never met.

    Strong: |(affinity + trust) / 2| >= .6; clear: >= .2.
    """
    if occasion.affinity is None or occasion.trust is None:
        return NEUTRAL
    feeling = abs(occasion.affinity + occasion.trust) / 2
    return _stair(feeling, STRONG_TIES) or NEUTRAL
