"""Whether the dialogues of a specification can be held: who is named, and who is there when.

Each fault names the field where the wrong value stands; `Field` says where the fields of a talk
come from, since a wave says only what is different from `dialogue`.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from persona_mcp.state.batch.faults import change_faults, known
from persona_mcp.state.batch.sound import SoundTalks
from persona_mcp.state.dialogue import Condition
from persona_mcp.state.dialogue_spec import (
    PARTICIPANTS_MAX,
    CastEntry,
    DialogueSpec,
    TalkSpec,
    Tie,
    WaveSpec,
)
from persona_mcp.state.errors import Fault
from persona_mcp.state.ids import name_key

CAST = "one of the cast"
AT_LEAST = 2
NAMES = ("first_speaker", "witnesses", "joins", "leaves", "whispers", "interventions", "ends_when")
"""Fields of a talk that name somebody, or may."""
TAKEN = ("narrator",)
"""Ids that speak in a dialogue and are no personas."""
WITH_ADDRESS = ("ollama:", "openai:")
Field = Callable[[str], str]
"""Gives the path of a field of a talk."""


def cast_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what is wrong with the cast and with how they see each other."""
    names = dict[str, str]()
    for id, entry in spec.personas.items():
        yield from persona_faults(id, entry)
        yield from name_faults(id, entry, names)
    for number, tie in enumerate(spec.relationships):
        yield from tie_faults(number, tie, spec.personas)


def persona_faults(id: str, entry: CastEntry | None) -> Iterator[Fault]:
    """Find what is wrong with one of the cast by itself."""
    if id in TAKEN:
        yield fault(f"personas.{id}", "another id: this one is the narrator's", id)
    yield from entry_faults(f"personas.{id}", entry or CastEntry())


def name_faults(
    id: str, entry: CastEntry | None, names: MutableMapping[str, str]
) -> Iterator[Fault]:
    """Tell of a name that somebody else has; `names` has whose they are, and gets this one."""
    name = name_in(entry)
    first = names.setdefault(name_key(name), id) if name else id
    if entry is not None and first != id:
        allowed = f"a name that no other persona has: personas.{first} has it, too"
        where = "changes" if "name" in entry.changes else "persona"
        yield fault(f"personas.{id}.{where}.name", allowed, name)


def tie_faults(number: int, tie: Tie, cast: Collection[str]) -> Iterator[Fault]:
    """Find what is wrong with how one sees another."""
    for part, id in (("of", tie.of), ("to", tie.to)):
        yield from unknown(f"relationships.{number}.{part}", id, cast)
    if tie.of == tie.to:
        yield fault(f"relationships.{number}.to", f"somebody else than {tie.of}", tie.to)


def name_in(entry: CastEntry | None) -> str:
    """Return the name of a persona, as far as the specification says it."""
    if entry is None:
        return ""
    name = entry.changes.get("name", entry.persona.name if entry.persona else "")
    return name if isinstance(name, str) else ""


def entry_faults(path: str, entry: CastEntry) -> Iterator[Fault]:
    """Find what is wrong with one entry of the cast."""
    said = [name for name in ("persona", "card", "source") if getattr(entry, name) is not None]
    if len(said) > 1:
        yield fault(f"{path}.{said[1]}", "one of persona, card and source", ", ".join(said))
    yield from change_faults(f"{path}.changes", entry.changes)


def run_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what is wrong with repeats, seeds, and who writes the replies."""
    name = spec.model.name
    if spec.model.endpoints and name is not None and not name.startswith(WITH_ADDRESS):
        yield fault("model.name", "ollama:MODEL or openai:MODEL where endpoints are named", name)
    if spec.model.endpoints and spec.model.slots is not None:
        allowed = "slots of each endpoint, where endpoints are named"
        yield fault("model.slots", allowed, str(spec.model.slots))
    urls = [end.url.rstrip("/") for end in spec.model.endpoints]
    for number, url in enumerate(urls):
        if url in urls[:number]:
            yield fault(f"model.endpoints.{number}.url", "each server once", url)
    for name in ("repeats", "seed"):
        if spec.seeds is not None and name in spec.model_fields_set:
            given = str(getattr(spec, name))
            yield fault(name, "either seeds, or repeats and seed", f"{given} beside seeds")
    first = dict[int, int]()
    for number, seed in enumerate(spec.seeds or ()):
        if first.setdefault(seed, number) != number:
            yield fault(f"seeds.{number}", f"another seed than seeds.{first[seed]}", str(seed))


def wave_faults(spec: DialogueSpec, sound: SoundTalks | None = None) -> Iterator[Fault]:
    """Find what is wrong with the dialogues of all waves.

    Args:
        spec: The specification, without a grid.
        sound: Talks that were looked at before, in other arms of it.
    """
    known = (SoundTalks() if sound is None else sound).of(spec.personas)
    for number, wave in enumerate(spec.waves):
        path = f"waves.{number}"
        if wave.pairs is not None:
            yield from pair_faults(spec, wave, path)
            continue
        for which, own in enumerate(wave.dialogues or (TalkSpec(),)):
            if known.has(spec.dialogue, own):
                continue
            where = from_either(own, f"{path}.dialogues.{which}")
            found = list(talk_faults(spec, merged(spec.dialogue, own), where))
            yield from found
            if not found:
                known.add(spec.dialogue, own)


def from_either(own: TalkSpec, path: str) -> Field:
    """Say where the fields of a talk come from that is said in part."""

    def where(name: str) -> str:
        stands = name.split(".")[0] in own.model_fields_set
        return f"{path}.{name}" if stands else f"dialogue.{name}"

    return where


def merged(base: TalkSpec, own: TalkSpec) -> TalkSpec:
    """Return a talk with what is said of it in place of what holds for all."""
    return base.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def pair_faults(spec: DialogueSpec, wave: WaveSpec, path: str) -> Iterator[Fault]:
    """Find what is wrong with a wave that is held by pairs: its talks can name nobody."""
    if wave.dialogues:
        yield fault(f"{path}.pairs", "either pairs or dialogues", f"{wave.pairs} and dialogues")
    for name in NAMES:
        if names_of(getattr(spec.dialogue, name)):
            allowed = f"nobody by name, since {path} is held by pairs; or dialogues in that wave"
            yield fault(f"dialogue.{name}", allowed, ", ".join(names_of_all(spec.dialogue, name)))
    yield from repeated("dialogue.participants", paired(spec), spec.personas)


def paired(spec: DialogueSpec) -> Sequence[str]:
    """Return of whom the pairs of a wave are made: the participants, else the cast."""
    return spec.dialogue.participants or list(spec.personas)


def names_of_all(talk: TalkSpec, name: str) -> list[str]:
    """Return who is named by a field of a talk, each once."""
    return list(dict.fromkeys(names_of(getattr(talk, name))))


def names_of(value: Any) -> list[str]:
    """Return the ids of personas that a field of a talk has."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [name for one in value for name in names_of(one)]
    given = (getattr(value, part, None) for part in ("persona", "to", "by", "of", "when"))
    return [name for one in given if one is not None for name in names_of(one)]


@dataclass
class Attendance:
    """Who is there when, in one talk.

    Attributes:
        participants: Who talks.
        witnesses: Who only hears.
        comes: Before which turn, of those who come later.
        goes: Before which turn, of those who go.
    """

    participants: Sequence[str]
    witnesses: Sequence[str]
    comes: Mapping[str, int] = field(default_factory=dict)
    goes: Mapping[str, int] = field(default_factory=dict)

    @property
    def everybody(self) -> list[str]:
        """Return all who are there at any time."""
        return [*self.participants, *self.witnesses]

    def there(self, turn: int, of: Sequence[str]) -> list[str]:
        """Return who of these is there in a turn."""
        return [
            id for id in of if self.comes.get(id, 1) <= turn and turn < self.goes.get(id, math.inf)
        ]


def talk_faults(spec: DialogueSpec, talk: TalkSpec, where: Field) -> Iterator[Fault]:
    """Find what is wrong with one talk.

    Args:
        spec: Whose cast it is of.
        talk: With everything that is said of it.
        where: Gives the path of a field.
    """
    witnesses = talk.witnesses
    participants = talk.participants or [id for id in spec.personas if id not in witnesses]
    if len(participants) > PARTICIPANTS_MAX:
        allowed = f"at most {PARTICIPANTS_MAX} personas, or {where('participants')} to choose"
        yield fault("personas", allowed, f"{len(participants)} who would all talk")
        return
    yield from repeated(where("participants"), participants, spec.personas)
    yield from repeated(where("witnesses"), witnesses, spec.personas)
    for number, id in enumerate(witnesses):
        if id in participants:
            allowed = "who does not talk: a persona stands once"
            yield fault(f"{where('witnesses')}.{number}", allowed, id)
    comes = {one.persona: one.turn for one in talk.joins}
    goes = {one.persona: one.turn for one in talk.leaves}
    who = Attendance(participants, witnesses, comes, goes)
    yield from presence_faults(talk, who, spec.personas, where)
    if talk.first_speaker is not None:
        path = where("first_speaker")
        yield from absent(path, talk.first_speaker, 1, who, participants, spec.personas)
    yield from whisper_faults(talk, who, spec.personas, where)
    yield from intervention_faults(talk, who, spec.personas, where)
    if talk.ends_when is not None:
        yield from condition_faults(where("ends_when"), talk.ends_when, who, spec.personas)


def presence_faults(
    talk: TalkSpec, who: Attendance, cast: Collection[str], where: Field
) -> Iterator[Fault]:
    """Find what is wrong with who comes and goes."""
    for name, presences in (("joins", talk.joins), ("leaves", talk.leaves)):
        seen = set[str]()
        for number, one in enumerate(presences):
            path = f"{where(name)}.{number}"
            yield from late(f"{path}.turn", one.turn, talk)
            yield from stranger(f"{path}.persona", one.persona, who, cast)
            if one.persona in seen:
                yield fault(f"{path}.persona", f"each persona once in {name}", one.persona)
            seen.add(one.persona)
            came = who.comes.get(one.persona, 1)
            if name == "leaves" and one.turn <= came:
                allowed = f"a turn after turn {came}, in which {one.persona} is there first"
                yield fault(f"{path}.turn", allowed, str(one.turn))
    yield from few_faults(talk, who, where)


def few_faults(talk: TalkSpec, who: Attendance, where: Field) -> Iterator[Fault]:
    """Find turns in which nobody could talk to anybody."""
    if len(who.there(1, who.participants)) < AT_LEAST:
        name = "joins" if talk.joins else "leaves" if talk.leaves else "participants"
        given = f"{len(who.there(1, who.participants))} of {len(who.participants)}"
        yield fault(where(name), "two who talk from turn 1 on, at least", given)
        return
    for number, one in enumerate(talk.leaves):
        left = who.there(one.turn, who.participants)
        if one.turn <= talk.max_turns and len(left) < AT_LEAST:
            given = f"{one.persona}, which leaves {', '.join(left) or 'nobody'}"
            allowed = f"who leaves two who talk, at least, in turn {one.turn}"
            yield fault(f"{where('leaves')}.{number}.persona", allowed, given)
            return


def whisper_faults(
    talk: TalkSpec, who: Attendance, cast: Collection[str], where: Field
) -> Iterator[Fault]:
    """Find what is wrong with whispers."""
    seen = set[int]()
    for number, one in enumerate(talk.whispers):
        path = f"{where('whispers')}.{number}"
        yield from late(f"{path}.turn", one.turn, talk)
        if one.turn in seen:
            yield fault(f"{path}.turn", "each turn once in whispers", str(one.turn))
        seen.add(one.turn)
        if one.by is not None:
            yield from absent(f"{path}.by", one.by, one.turn, who, who.participants, cast)
        yield from all_there(f"{path}.to", one.to, one.turn, who, cast)
        if one.by in one.to:
            at = f"{path}.to.{one.to.index(one.by)}"
            yield fault(at, f"somebody else than {one.by}, who whispers", one.by)


def intervention_faults(
    talk: TalkSpec, who: Attendance, cast: Collection[str], where: Field
) -> Iterator[Fault]:
    """Find what is wrong with interventions."""
    for number, one in enumerate(talk.interventions):
        path = f"{where('interventions')}.{number}"
        if one.turn is not None:
            yield from late(f"{path}.turn", one.turn, talk)
        if one.when is not None:
            yield from condition_faults(f"{path}.when", one.when, who, cast)
        yield from all_there(f"{path}.to", one.to or (), one.turn, who, cast)


def condition_faults(
    path: str, condition: Condition, who: Attendance, cast: Collection[str]
) -> Iterator[Fault]:
    """Find whom a condition names who never is there."""
    for part in ("by", "of", "to"):
        id = getattr(condition, part)
        if id is not None:
            yield from stranger(f"{path}.{part}", id, who, cast)
    if condition.by in who.witnesses:
        yield fault(f"{path}.by", "somebody who talks", f"{condition.by}, a witness")
    if condition.of is not None and condition.of == condition.to:
        yield fault(f"{path}.to", f"somebody else than {condition.of}", condition.of)


def all_there(
    path: str, ids: Sequence[str], turn: int | None, who: Attendance, cast: Collection[str]
) -> Iterator[Fault]:
    """Find who of a list is not there, or stands in it twice; without a turn: at any time."""
    for number, id in enumerate(ids):
        at = f"{path}.{number}"
        if id in ids[:number]:
            yield fault(at, "each persona once", id)
        elif turn is None:
            yield from stranger(at, id, who, cast)
        else:
            yield from absent(at, id, turn, who, who.everybody, cast)


def absent(
    path: str, id: str, turn: int, who: Attendance, of: Sequence[str], cast: Collection[str]
) -> Iterator[Fault]:
    """Tell of one who is not there in a turn, and why."""
    if id not in cast:
        yield from unknown(path, id, cast)
        return
    there = [one for one in who.there(turn, of) if one in cast]
    if id in there:
        return
    if id not in who.everybody:
        why = "is no part of this dialogue"
    elif id not in of:
        why = "only witnesses it"
    elif turn < who.comes.get(id, 1):
        why = f"comes before turn {who.comes[id]}"
    else:
        why = f"has gone before turn {who.goes[id]}"
    does = "who talks and is there" if of is who.participants else "who is there"
    yield fault(path, known(id, there, f"one {does} in turn {turn}"), f"{id}, who {why}")


def stranger(path: str, id: str, who: Attendance, cast: Collection[str]) -> Iterator[Fault]:
    """Tell of one who is at no time there."""
    if id not in cast:
        yield from unknown(path, id, cast)
    elif id not in who.everybody:
        allowed = known(id, who.everybody, "a participant or witness of the dialogue")
        yield fault(path, allowed, f"{id}, who is no part of it")


def unknown(path: str, id: str, cast: Collection[str]) -> Iterator[Fault]:
    """Tell of one who is not in the cast."""
    if id not in cast:
        yield fault(path, known(id, cast, CAST), id)


def repeated(path: str, ids: Sequence[str], cast: Collection[str]) -> Iterator[Fault]:
    """Tell of those in a list who are not in the cast, or stand there twice."""
    for number, id in enumerate(ids):
        yield from unknown(f"{path}.{number}", id, cast)
        if id in ids[:number]:
            yield fault(f"{path}.{number}", "each persona once", id)


def late(path: str, turn: int, talk: TalkSpec) -> Iterator[Fault]:
    """Tell of a turn that there cannot be."""
    if turn > talk.max_turns:
        yield fault(path, f"a turn of at most max_turns, {talk.max_turns}", str(turn))


def fault(path: str, allowed: str, given: str) -> Fault:
    """Make a fault."""
    return {"field": path, "allowed": allowed, "given": given}
