"""What dialogue_start asks for, made a plan: who is meant, what is refused, what can be kept."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from persona_mcp.server.operations import Call
from persona_mcp.state import feelings
from persona_mcp.state.availability import check_available
from persona_mcp.state.batch import Job
from persona_mcp.state.batch_plan import BatchPlan, plan_batch
from persona_mcp.state.dialogue_spec import CastEntry, DialogueSpec, TalkSpec
from persona_mcp.state.dialogues import active_dialogues
from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.ids import derived_id
from persona_mcp.state.persona import Persona
from persona_mcp.state.validation import shorten, validate

SEEDS = 2**31
SPEC = "spec"
"""The argument that a whole specification comes in."""
Fault = dict[str, Any]


@dataclass(frozen=True)
class Talk:
    """Dialogues of one kind, as they are asked for without a specification.

    Attributes:
        participants: Who talks: ids or names.
        witnesses: Who overhears it.
        topic: What it is about.
        token_budget: Tokens for all that is said in one.
        max_turns: Of one.
        repeat: How often it is held, each time from the world as it stands, by another lot.
        seed: Of what is drawn by lot; None for a random one.
        ignore_availability: Tired or busy personas talk, too.
    """

    participants: Sequence[str]
    witnesses: Sequence[str]
    topic: str
    token_budget: int
    max_turns: int
    repeat: int
    seed: int | None
    ignore_availability: bool


class NamedPlan(BatchPlan):
    """A plan whose conversations have ids of their own: two of one seed can be in one world."""

    def __init__(self, spec: DialogueSpec, batch_id: str) -> None:
        """Plan a specification that `plan_batch` found nothing wrong with, for a batch."""
        super().__init__(spec)
        self._batch_id = batch_id

    def jobs(self, arm: int, repeat: int, wave: int, starts_at: float) -> Sequence[Job]:
        """Return the dialogues of a wave; see `BatchPlan`."""
        found = super().jobs(arm, repeat, wave, starts_at)
        return [replace(job, id=derived_id(self._batch_id, job.id)) for job in found]


def planned(spec: DialogueSpec, batch_id: str) -> NamedPlan:
    """Plan a specification for a batch of this id.

    Raises:
        InvalidParams: It cannot be held; `errors` has each fault with its path.
    """
    plan_batch(spec)
    return NamedPlan(spec, batch_id)


async def spec_of_talk(call: Call, talk: Talk, now: float) -> DialogueSpec:
    """Write what is asked for without a specification as one.

    Raises:
        NotFound: Somebody is not there.
        InvalidParams: Somebody is named twice.
        PersonaUnavailable: Somebody cannot talk now, and that is not to be ignored.
    """
    there: dict[str, None] = {}
    people = await people_of(call, "participants", talk.participants, there)
    witnesses = await people_of(call, "witnesses", talk.witnesses, there)
    if not talk.ignore_availability:
        await call.store.database.read(check_all_available, call, people, now)
    return DialogueSpec(
        personas=dict.fromkeys(there),
        dialogue=TalkSpec(
            participants=[one.id for one in people],
            witnesses=[one.id for one in witnesses],
            topics=[talk.topic],
            token_budget=talk.token_budget,
            max_turns=talk.max_turns,
            ignore_availability=talk.ignore_availability,
        ),
        repeats=talk.repeat,
        seed=secrets.randbelow(SEEDS) if talk.seed is None else talk.seed,
        starts_at=now,
        outputs=[],
    )


async def people_of(
    call: Call, field: str, references: Sequence[str], there: dict[str, None]
) -> list[Persona]:
    """Find those who are named; each may be named once in all.

    Raises:
        NotFound: One is not there.
        InvalidParams: One is named twice.
    """
    found = []
    for number, reference in enumerate(references):
        one = await call.store.personas.resolve(call.world_id, reference)
        if one.id in there:
            fault = {"field": f"{field}.{number}", "given": shorten(reference)}
            raise InvalidParams.of([{**fault, "allowed": "a persona that is not named before"}])
        there[one.id] = None
        found.append(one)
    return found


def check_all_available(
    connection: Connection, call: Call, people: Sequence[Persona], now: float
) -> None:
    """Refuse people who cannot talk now.

    Raises:
        PersonaUnavailable: The first of them.
    """
    laws = call.store.laws.effects
    for one in people:
        left = feelings.read_feelings(connection, call.world_id, one, now, laws).interaction
        talks = active_dialogues(connection, call.world_id, one.id)
        check_available(one, left, laws.interaction, talks)


def spec_of_file(raw: Mapping[str, Any]) -> DialogueSpec:
    """Read a whole specification, as a file has it; blocks.

    Raises:
        InvalidParams: It is wrong, cannot be held, or asks for what only a file may.
    """
    spec = validate(DialogueSpec, raw, SPEC)
    try:
        plan = plan_batch(spec)
    except InvalidParams as error:
        faults = error.data["errors"]
        told = [{**fault, "field": f"{SPEC}.{fault['field']}"} for fault in faults]
        raise InvalidParams.of(told) from None
    refused = list(beyond(plan))
    if refused:
        raise InvalidParams.of(refused)
    return spec


def beyond(plan: BatchPlan) -> Iterator[Fault]:
    """Find what only the command line may ask for: files of the server, and other models."""
    paths = [path.split(".")[0] for path in plan.spec.variations]
    arms = range(len(plan.arms)) if {"personas", "model"} & set(paths) else range(1)
    for arm in arms:
        spec = plan.arms[arm].spec
        for id, entry in spec.personas.items():
            if entry is not None and entry.card is not None:
                allowed = (
                    "left out, since no files of the server are read: give the persona itself, or "
                    "bring the card in with persona_import"
                )
                yield fault(f"personas.{id}.card", allowed, entry.card)
        for name in ("name", "endpoints", "slots"):
            if given := getattr(spec.model, name):
                yield fault(f"model.{name}", "left out, since the server's own model talks", given)


def fault(field: str, allowed: str, given: Any) -> Fault:
    """Write a fault of a specification."""
    if hasattr(given, "model_dump"):
        given = given.model_dump(mode="json")
    return {"field": f"{SPEC}.{field}", "allowed": allowed, "given": shorten(given)}


async def check_people(call: Call, spec: DialogueSpec, *, keep: bool) -> None:
    """Check that everybody who is said to be in this world is, and what is kept can be.

    Raises:
        NotFound: Somebody is not there.
        InvalidParams: It is to be kept, and could not be part of this world.
    """
    if keep and (faults := list(cannot_be_kept(spec))):
        raise InvalidParams.of(faults)
    for id, entry in spec.personas.items():
        if entry is not None and entry.persona is not None:
            continue
        reference = id if entry is None or entry.source is None else entry.source
        found = await call.store.personas.resolve(call.world_id, reference)
        if keep and found.id != id:
            raise NotFound.of("persona", id, [found.id])


def cannot_be_kept(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what makes the world of a batch another one than this one."""
    rest = "left out where keep is true, or keep: false"
    for id, entry in spec.personas.items():
        changed = {} if entry is None else entry.model_dump(exclude_defaults=True)
        changed.pop("source", None)
        for name in changed:
            yield fault(f"personas.{id}.{name}", rest, getattr(entry, name))
    for name in ("relationships", "variations"):
        if given := getattr(spec, name):
            yield fault(name, rest, f"{len(given)} entries")


def is_of_this_world(entry: CastEntry | None) -> bool:
    """Tell whether somebody is a persona of the world as it is."""
    return entry is None or not entry.model_dump(exclude_defaults=True, exclude={"source"})


async def in_thread_spec(raw: Mapping[str, Any]) -> DialogueSpec:
    """Do what `spec_of_file` does, off the loop: a large one takes its time."""
    return await asyncio.to_thread(spec_of_file, raw)
