"""What `--set` says is different in a fork: fields of the talk, of personas, the temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from persona_mcp.server.batch.run_dialogue import Swap
from persona_mcp.state.batch.checks import wave_faults
from persona_mcp.state.batch.grid import CannotVary, changed
from persona_mcp.state.batch.values import Cast, Job
from persona_mcp.state.batch.waves import SEEDS
from persona_mcp.state.dialogue_spec import DialogueSpec, ModelSpec, TalkSpec, WaveSpec
from persona_mcp.state.drawing import draw
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.persona import PersonaSpec

AT_THE_BEGINNING = frozenset(
    {"participants", "witnesses", "joins", "first_speaker", "ignore_availability"}
)
"""Fields of a talk that count when it begins, and never again."""
PATHS = "dialogue.FIELD, personas.ID.FIELD or model.temperature"
WITHIN = ("persona", "changes")
"""What may stand before a persona's field, as in a specification."""


@dataclass(frozen=True)
class Changes:
    """What is different in a fork.

    Attributes:
        values: As they were given, by path.
        talk: The talk with them.
        topic: What it is about.
        personas: Fields of personas that are different, as JSON, by id.
        temperature: Of every reply; None for by the continue score.
    """

    values: Mapping[str, Any]
    talk: TalkSpec
    topic: str
    personas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    temperature: float | None = None

    def swap(self, job: Job, repeat: int) -> Swap:
        """Return what is different from a turn on.

        Args:
            job: The dialogue as it was.
            repeat: 0 draws by the same lot as it did; 1, 2, ... by others.
        """
        seed = job.seed if repeat == 0 else int(SEEDS * draw(job.seed, "fork", "", repeat))
        new = replace(
            job, seed=seed, talk=self.talk, topic=self.topic, temperature=self.temperature
        )
        return Swap(new, self.personas)


def read_changes(given: Sequence[str]) -> dict[str, Any]:
    """Read `path=value` each, the value as YAML.

    Raises:
        InvalidParams: One is something else, or given twice.
    """
    found: dict[str, Any] = {}
    for one in given:
        path, equals, text = one.partition("=")
        path = path.strip()
        if not equals or not path:
            raise InvalidParams.one("--set", "PATH=VALUE, e.g. dialogue.max_turns=30", one)
        if path in found:
            raise InvalidParams.one(f"--set {path}", "a path once", one)
        try:
            found[path] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InvalidParams.one(f"--set {path}", "a value in YAML", text) from None
    return found


def changes_of(
    values: Mapping[str, Any], job: Job, cast: Cast, spec: DialogueSpec, kept: int
) -> Changes:
    """Check what is to be different in a dialogue.

    Args:
        values: By path.
        job: The dialogue as it was.
        cast: Of its arm.
        spec: Of its arm.
        kept: How many turns stay as they were.

    Raises:
        InvalidParams: A path or a value is not allowed.
    """
    talk, temperature = job.talk, job.temperature
    personas: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        parts = tuple(path.split("."))
        try:
            if parts[0] == "dialogue" and len(parts) > 1:
                talk = with_field(talk, parts[1:], value, kept)
            elif parts[0] == "personas" and len(parts) > len(("personas", "id")):
                id, fields = of_persona(parts[1:], value, job, cast, personas)
                personas[id] = fields
            elif parts == ("model", "temperature"):
                temperature = changed(ModelSpec(), parts[1:], parts[:1], value).temperature
            else:
                raise CannotVary(PATHS, path)
        except CannotVary as error:
            raise InvalidParams.one(f"--set {path}", error.allowed, error.given) from None
    check_talk(talk, spec)
    return Changes(values, talk, topic_of(talk, job), personas, temperature)


def with_field(talk: TalkSpec, parts: tuple[str, ...], value: Any, kept: int) -> TalkSpec:
    """Put a value into a talk.

    Raises:
        CannotVary: The field is none, the value is not allowed, or it is too late for it.
    """
    if kept and parts[0] in AT_THE_BEGINNING:
        raise CannotVary(f"{parts[0]} with --turn 0 alone: it counts at the beginning", parts[0])
    if isinstance(value, int) and not isinstance(value, bool) and parts == ("minutes",):
        value = float(value)
    made = changed(talk, parts, ("dialogue",), value)
    if parts[0] == "topics" and len(made.topics) > 1:
        raise CannotVary("one topic", ", ".join(made.topics))
    check_time(talk, made, kept)
    return made


def check_time(before: TalkSpec, after: TalkSpec, kept: int) -> None:
    """See to it that what is different comes after the turns that stay.

    Raises:
        CannotVary: It would have happened by then.
    """
    if after.max_turns <= kept and after.max_turns != before.max_turns:
        raise CannotVary(f"more turns than the {kept} that stay", str(after.max_turns))
    for one in after.interventions:
        if one.turn is not None and one.turn <= kept and one not in before.interventions:
            raise CannotVary(f"turns after the {kept} that stay", f"turn {one.turn}")


def of_persona(
    parts: tuple[str, ...],
    value: Any,
    job: Job,
    cast: Cast,
    others: Mapping[str, Mapping[str, Any]],
) -> tuple[str, dict[str, Any]]:
    """Return whom a change is of, and all fields of that one that are different.

    Raises:
        CannotVary: Nobody of this id is there, the field is none, or the value is not allowed.
    """
    id, inner = parts[0], parts[1:]
    if len(inner) > 1 and inner[0] in WITHIN:
        inner = inner[1:]
    talk = job.talk
    there = [*(talk.participants or ()), *talk.witnesses, *(one.persona for one in talk.joins)]
    if id not in there:
        raise CannotVary(f"one who is there: {', '.join(sorted(set(there)))}", id)
    if inner[0] == "name":
        raise CannotVary("another field: who it is stays the same", ".".join(parts))
    member = next(member for member in cast.members if member.id == id)
    fields = dict(others.get(id, {}))
    before = PersonaSpec.model_validate({**member.spec.model_dump(mode="json"), **fields})
    after = changed(before, inner, ("personas", id), value).model_dump(mode="json")
    return id, {**fields, inner[0]: after[inner[0]]}


def check_talk(talk: TalkSpec, spec: DialogueSpec) -> None:
    """Refuse a talk that cannot be held, as a specification with it is refused.

    Raises:
        InvalidParams: It cannot.
    """
    alone = spec.model_copy(update={"dialogue": talk, "waves": [WaveSpec()]})
    if faults := list(wave_faults(alone)):
        raise InvalidParams.of([{**one, "field": f"--set {one['field']}"} for one in faults])


def topic_of(talk: TalkSpec, job: Job) -> str:
    """Return what a talk is about: as it was, unless its topics are others."""
    return job.topic if talk.topics == job.talk.topics else talk.topics[0]
