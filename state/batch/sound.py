"""Talks that nothing is wrong with, so that one that is said a million times is looked at once."""

from collections.abc import Iterable
from typing import Any

from persona_mcp.state.dialogue_spec import TalkSpec

CHECKED = (
    "participants",
    "witnesses",
    "first_speaker",
    "joins",
    "leaves",
    "whispers",
    "interventions",
    "ends_when",
)
"""Fields of a talk that its check depends on, beside how many turns it has."""
TURNS = "max_turns"
SAME_AS_BASE = frozenset({*CHECKED, TURNS})
KEPT = 10_000
Values = tuple[Any, ...]


def said_in(base: TalkSpec, own: TalkSpec, name: str) -> Any:
    """Return a field of a talk that is said in part; the rest is as in all."""
    return getattr(own if name in own.model_fields_set else base, name)


class SoundTalks:
    """Those of a batch, by who is cast; talks of all its arms."""

    def __init__(self) -> None:
        """Know none."""
        self._by_cast: dict[tuple[str, ...], SoundIn] = {}

    def of(self, cast: Iterable[str]) -> "SoundIn":
        """Return those of one cast."""
        return self._by_cast.setdefault(tuple(cast), SoundIn())


class SoundIn:
    """Those of one cast."""

    def __init__(self) -> None:
        """Know none."""
        self._known: dict[Values, Values] = {}
        self._last: dict[Values, tuple[Values, int]] = {}
        self._base: TalkSpec | None = None

    def has(self, base: TalkSpec, own: TalkSpec) -> bool:
        """Tell whether such a talk was found to be sound."""
        if self._base is base and own.model_fields_set.isdisjoint(SAME_AS_BASE):
            return True
        return self._key(base, own)[0] in self._known

    def add(self, base: TalkSpec, own: TalkSpec) -> None:
        """Remember a talk that is sound."""
        if own.model_fields_set.isdisjoint(SAME_AS_BASE):
            self._base = base
        if len(self._known) >= KEPT:
            self._known.clear()
        key, values = self._key(base, own)
        self._known[key] = values

    def _key(self, base: TalkSpec, own: TalkSpec) -> tuple[Values, Values]:
        """Return what tells a talk apart, and the values that must live on for it to do so."""
        values = tuple(said_in(base, own, name) for name in CHECKED)
        turns = min(said_in(base, own, TURNS), self._last_named(values))
        return (*map(identity, values), turns), values

    def _last_named(self, values: Values) -> int:
        """Return the last turn that a talk names; how many more there are makes no difference."""
        lists = values[3:7]
        key = tuple(map(id, lists))
        if key not in self._last:
            if len(self._last) >= KEPT:
                self._last.clear()
            named = (one.turn or 0 for several in lists for one in several)
            self._last[key] = lists, max(named, default=0)
        return self._last[key][1]


def identity(value: Any) -> Any:
    """Return what tells a value apart cheaply: names by themselves, what is large by its id."""
    if isinstance(value, list) and (not value or isinstance(value[0], str)):
        return tuple(value)
    return value if value is None or isinstance(value, str) else id(value)
