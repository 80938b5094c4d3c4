"""Turns of phrase that tell how an utterance is taken: thanks, threats, promises kept, broken."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from persona_mcp.state.appraisal import Bias
from persona_mcp.state.appraiser import TurningPoint
from persona_mcp.state.language_files import read_language_file
from persona_mcp.state.prefilter import Expression, Prefilter, expression

AXES = ("warmth", "reliability", "competence", "disclosure")
"""In the order of every vector of axes here."""
READ_CHARS = 1000
"""Of a longer text the rest is not read: what it is about is said by then."""
TURNED_ROUND = -0.7
"""`I am not proud of you` is less cold than `I am proud of you` is warm."""
QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


@dataclass(frozen=True)
class Group:
    """Phrases that are taken alike.

    Attributes:
        adds: (4,), to each axis.
        turning_point: What an utterance with one of them is, if it is one.
        negatable: A negation before it turns it round.
        to_hearer: It counts only in a text that names its hearer.
        patterns: Any of them is enough.
    """

    adds: tuple[float, ...]
    turning_point: TurningPoint | None
    negatable: bool
    to_hearer: bool
    patterns: tuple[Expression, ...]


@dataclass(frozen=True)
class Cues:
    """What a language's file says.

    Attributes:
        ridge: Strength that keeps the fit over the anchors small, > 0.
        steepness: How steeply the likeness of two sentences falls with their angle, > 0.
        sentiment: Weight of the general sentiment of a text in its warmth.
        aside: Share of a value that is left where the text does not name whom it would concern.
        doubt: Size of a value of its meaning alone that counts half, > 0.
        bias: What the appraiser says of neutral lines on average, before it is taken off.
        noise: Its standard deviation on them.
        written_out: Contractions, and what they stand for.
        hearer: Finds that a text concerns its hearer.
        speaker: Finds that it concerns its speaker.
        negation: Finds a negation at the end of what stands before a phrase.
        groups: By name; the first with a turning point names it.
        phrases: Those of all groups.
    """

    ridge: float
    steepness: float
    sentiment: float
    aside: float
    doubt: float
    bias: Bias
    noise: Bias
    written_out: Sequence[tuple[Expression, str]]
    hearer: re.Pattern[str]
    speaker: re.Pattern[str]
    negation: re.Pattern[str]
    groups: Mapping[str, Group]
    phrases: Prefilter


@dataclass(frozen=True)
class Found:
    """What the phrases of a text tell.

    Attributes:
        adds: (4,), to each axis.
        turning_point: Which one it is, if it is one.
        to_hearer: It names its hearer.
        by_speaker: It names its speaker.
    """

    adds: tuple[float, ...]
    turning_point: TurningPoint | None
    to_hearer: bool
    by_speaker: bool


def find_cues(text: str, cues: Cues) -> Found:
    """Look for the phrases of every group in the beginning of a text."""
    read = written_out(text, cues)
    to_hearer = bool(cues.hearer.search(read))
    sums = [0.0] * len(AXES)
    turning_point: TurningPoint | None = None
    for name, phrases in cues.phrases.possible(read).items():
        group = cues.groups[name]
        if group.to_hearer and not to_hearer:
            continue
        if not (factor := _factor(read, phrases, group.negatable, cues)):
            continue
        sums = [total + factor * added for total, added in zip(sums, group.adds, strict=True)]
        if factor > 0:
            turning_point = turning_point or group.turning_point
    return Found(tuple(sums), turning_point, to_hearer, bool(cues.speaker.search(read)))


def written_out(text: str, cues: Cues) -> str:
    """Return the beginning of a text in lower case, with plain quotes and no contractions."""
    read = text[:READ_CHARS].casefold().translate(QUOTES)
    for short, full in cues.written_out:
        read = short.sub(full, read)
    return " ".join(read.split())


def _factor(read: str, phrases: Sequence[Expression], negatable: bool, cues: Cues) -> float:
    """Return 1 for a phrase of a group, `TURNED_ROUND` for a negated one, 0 for none."""
    found = next((match for p in phrases if (match := p.search(read))), None)
    if found is None:
        return 0.0
    negated = negatable and cues.negation.search(read[: found.start()])
    return TURNED_ROUND if negated else 1.0


@cache
def load_cues(language: str) -> Cues:
    """Read a language's phrases from the package, once.

    Raises:
        FileNotFoundError: There are none for this language.
    """
    data: dict[str, Any] = read_language_file("cues", language)
    groups = {name: _group(given) for name, given in data["groups"].items()}
    return Cues(
        ridge=data["ridge"],
        steepness=data["steepness"],
        sentiment=data["sentiment"],
        aside=data["aside"],
        doubt=data["doubt"],
        bias=Bias(**data["bias"]),
        noise=Bias(**data["noise"]),
        written_out=[(expression(short), full) for short, full in data["written_out"]],
        hearer=re.compile(data["hearer"]),
        speaker=re.compile(data["speaker"]),
        negation=re.compile(data["negation"]),
        groups=groups,
        phrases=Prefilter({name: group.patterns for name, group in groups.items()}),
    )


def _group(given: Mapping[str, Any]) -> Group:
    return Group(
        adds=tuple(given["adds"].get(axis, 0.0) for axis in AXES),
        turning_point=given.get("turning_point"),
        negatable=given.get("negatable", False),
        to_hearer=given.get("to_hearer", False),
        patterns=tuple(map(expression, given["any"])),
    )
