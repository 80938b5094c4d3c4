"""What dialogue_start asks for, as a specification: who is meant, what is refused, what is kept."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from persona_mcp.server.operations.registry import Call
from persona_mcp.state import availability, feelings, personas
from persona_mcp.state.batch.faults import spec_of
from persona_mcp.state.batch.grid import Arms, only
from persona_mcp.state.batch.naming import id_in_world
from persona_mcp.state.batch.plan import BatchPlan, plan_batch
from persona_mcp.state.batch.waves import SEEDS
from persona_mcp.state.dialogue_spec import CastEntry, DialogueSpec
from persona_mcp.state.dialogues import active_dialogues
from persona_mcp.state.errors import Fault, InvalidParams
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import Persona
from persona_mcp.state.validation import shorten

SPEC = "spec"
"""The argument that a whole specification comes in."""
IDS_LISTED = 100
"""Ids of conversations that are told at the start."""
Raw = dict[str, Any]


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


async def raw_of_talk(call: Call, talk: Talk, now: float) -> Raw:
    """Write what is asked for without a specification as one, as a file would have it.

    Raises:
        NotFound: Somebody is not there.
        InvalidParams: Somebody is named twice.
    """
    there: dict[str, None] = {}
    people = await people_of(call, "participants", talk.participants, there)
    witnesses = await people_of(call, "witnesses", talk.witnesses, there)
    return {
        "personas": there,
        "dialogue": {
            "participants": [one.id for one in people],
            "witnesses": [one.id for one in witnesses],
            "topics": [talk.topic],
            "token_budget": talk.token_budget,
            "max_turns": talk.max_turns,
            "ignore_availability": talk.ignore_availability,
        },
        "repeats": talk.repeat,
        "seed": secrets.randbelow(SEEDS) if talk.seed is None else talk.seed,
        "starts_at": rfc3339(now),
        "outputs": [],
    }


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
            allowed = "a persona that is not named before"
            raise InvalidParams.one(f"{field}.{number}", allowed, shorten(reference))
        there[one.id] = None
        found.append(one)
    return found


async def check_available(call: Call, spec: DialogueSpec, now: float) -> None:
    """Refuse a dialogue of people who cannot talk now.

    Raises:
        NotFound: One of them is not there any more.
        PersonaUnavailable: One of them cannot talk.
    """
    world_id, laws = call.world_id, call.store.laws.effects

    def check(connection: Connection) -> None:
        for id in spec.dialogue.participants or ():
            one = personas.find(connection, world_id, id)
            left = feelings.read_feelings(connection, world_id, one, now, laws).interaction
            talks = active_dialogues(connection, world_id, id)
            availability.check_available(one, left, laws.interaction, talks)

    await call.store.database.read(check)


def plan_of(raw: Mapping[str, Any], largest: int) -> BatchPlan:
    """Plan a specification; blocks.

    Args:
        raw: As a file would have it.
        largest: Dialogues that are allowed.

    Raises:
        InvalidParams: It is wrong, cannot be held, or asks for what only a file may.
        LimitExceeded: It is larger than allowed.
    """
    try:
        plan = plan_batch(spec_of(raw), largest)
    except InvalidParams as error:
        faults: list[Fault] = [{**one, "field": inside(one["field"])} for one in error.faults]
        raise InvalidParams.of(faults) from None
    if found := list(islice(beyond(plan), 1)):
        raise InvalidParams.of(found)
    return plan


def inside(path: str) -> str:
    """Return the path of a field of the specification among the arguments."""
    return f"{SPEC}.{path}" if path else SPEC


def beyond(plan: BatchPlan) -> Iterator[Fault]:
    """Find what only the command line may ask for: files of the server, and other models."""
    for name in ("name", "endpoints", "slots"):
        if name in plan.spec.model.model_fields_set:
            given = plan.spec.model.model_dump(mode="json")[name]
            yield fault(f"model.{name}", "left out: the server's own model talks", given)
    for arm in Arms(only(plan.spec, bears_on_cards)):
        for id, entry in arm.spec.personas.items():
            if entry is not None and entry.card is not None:
                allowed = (
                    "left out, since no file of the server is read: give the persona itself, or "
                    "bring the card in with persona_import"
                )
                yield fault(f"personas.{id}.card", allowed, entry.card)


def bears_on_cards(path: str) -> bool:
    """Tell whether a path of a grid bears on which cards are read."""
    where, *inner = path.split(".")
    return where == "personas" and (len(inner) <= 1 or inner[1] == "card")


def fault(field: str, allowed: str, given: Any) -> Fault:
    """Write a fault of a specification."""
    return {"field": inside(field), "allowed": allowed, "given": shorten(given)}


async def check_people(call: Call, spec: DialogueSpec, *, keep: bool) -> None:
    """Check that everybody who is to be of this world is, and that what is kept can be.

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
            allowed = f"the id '{found.id}' as its name here, or keep: false"
            raise InvalidParams.of([fault(f"personas.{id}", allowed, reference)])


def cannot_be_kept(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what makes the world of a batch another one than this world."""
    allowed = "left out, since what happens becomes part of this world; or keep: false"
    for id, entry in spec.personas.items():
        for name, given in own_of(entry).items():
            yield fault(f"personas.{id}.{name}", allowed, given)
    for name in ("relationships", "variations"):
        if given := spec.model_dump(mode="json", include={name})[name]:
            yield fault(name, allowed, given)
    for number, wave in enumerate(spec.waves):
        if wave.gap_hours and (number or wave.times > 1):
            passing = "0, since the time of this world passes by itself; or keep: false"
            yield fault(f"waves.{number}.gap_hours", passing, wave.gap_hours)


def own_of(entry: CastEntry | None) -> dict[str, Any]:
    """Return what is said of somebody beside which persona of the world it is."""
    if entry is None:
        return {}
    return entry.model_dump(mode="json", exclude_defaults=True, exclude={"source"})


def first_ids(plan: BatchPlan, batch_id: str, most: int = IDS_LISTED) -> list[str]:
    """Return the ids that a batch's first conversations will have."""

    def ids() -> Iterator[str]:
        for arm, repeat in plan.runs():
            for wave in range(plan.amount(arm).waves):
                for job in plan.jobs(arm, repeat, wave, plan.spec.starts_at):
                    yield id_in_world(batch_id, job.id)

    return list(islice(ids(), most))
