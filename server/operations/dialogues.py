"""Operations on dialogues that are held in the background: start, look at, stop, list."""

import asyncio
import time
from typing import Annotated, Any

from pydantic import Field

from persona_mcp.server.operations.dialogue_requests import (
    SPEC,
    Raw,
    Talk,
    check_available,
    check_people,
    first_ids,
    plan_of,
    raw_of_talk,
)
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.batch import kept_batches
from persona_mcp.state.batch.kept_batch import AskedBatch, BatchStatus, KeptBatch
from persona_mcp.state.dialogue_spec import PARTICIPANTS_MAX, Seed
from persona_mcp.state.errors import Conflict, InvalidParams
from persona_mcp.state.fields import WHOLE, Id, Reference, Text
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.request import GENERAL
from persona_mcp.state.validation import shorten

LOOK_S, LONGEST_LOOK_S = 0.05, 0.5
"""How often a dialogue that is waited for is looked at, at first and at last, in seconds."""
MILLISECONDS = 1000
STARTED_ID = "From dialogue_start"
OWN = ("keep", "request_id", "world_id", "session_id", SPEC)
"""Arguments of dialogue_start that may stand beside a specification."""


class DialogueStartArguments(Arguments):
    """Arguments of dialogue_start."""

    participants: (
        Annotated[list[Reference], Field(min_length=2, max_length=PARTICIPANTS_MAX)] | None
    ) = Field(None, description="2..12 ids or names, from persona_list; or give spec")
    topic: Annotated[Text, Field(min_length=1, max_length=200)] = Field(
        GENERAL, description="What they talk about; general: anything"
    )
    token_budget: Annotated[int, Field(ge=51, le=32768), WHOLE] = Field(
        1000, description="Tokens for the whole talk"
    )
    max_turns: Annotated[int, Field(ge=1, le=500), WHOLE] = Field(
        20, description="Most turns of all together"
    )
    repeat: Annotated[int, Field(ge=1, le=1000), WHOLE] = Field(
        1, description="So often, each time from the world as it stands"
    )
    seed: Seed | None = Field(None, description="Of what is drawn by lot; left out: a random one")
    witnesses: Annotated[list[Reference], Field(max_length=PARTICIPANTS_MAX)] = Field(
        default_factory=list, description="Who overhears it: ids or names"
    )
    ignore_availability: bool = Field(False, description="Tired or busy personas talk, too")
    keep: bool | None = Field(
        None,
        description="It becomes part of this world at its end; left out: yes, for a spec no",
    )
    spec: dict[str, Any] | None = Field(
        None,
        description="In place of all but keep: a specification, as `persona dialogue run` takes",
    )


class DialogueStart(Result):
    """Result of dialogue_start."""

    dialogue_id: str = Field(description="For dialogue_status and the others")
    status: BatchStatus
    conversation_ids: list[str] = Field(description="Of the first 100 conversations")
    dialogues: int = Field(description="How many conversations are held")
    turns_max: int
    seed: int
    keep: bool


@operation("Hold dialogues in the background", "dialogue", "chat", open_world=True)
async def dialogue_start(call: Call, arguments: DialogueStartArguments) -> DialogueStart:
    """Have 2..12 personas talk with each other to the end, in the background.

    dialogue_status waits for it, dialogue_result has what came of it. For turns one by one, use
    conversation_start.
    """
    now, limits = time.time(), call.store.settings.dialogues
    raw, keep, id = await raw_of(call, arguments, now), keeps(arguments), call.made_id("dialogue")
    known = await call.store.database.read(kept_batches.find, call.world_id, id)
    if known is not None:  # started before, and the answer was not kept
        raw = same_as_before(known, raw, arguments)
    plan = await asyncio.to_thread(plan_of, raw, limits.largest)
    if known is None:
        await check_people(call, plan.spec, keep=keep)
        if arguments.spec is None and not arguments.ignore_availability:
            await check_available(call, plan.spec, now)
    asked = AskedBatch(
        world_id=call.world_id,
        id=id,
        name=plan.spec.name,
        spec=raw,
        keep=keep,
        dialogues=plan.total,
        turns_max=plan.turns_max,
        caller_id=call.caller.identity.id,
    )
    batches = call.service.batches
    found = await batches.rows.accept(asked, limits.open, now)
    batches.wake()
    return DialogueStart(
        dialogue_id=found.id,
        status=found.status,
        conversation_ids=await asyncio.to_thread(first_ids, plan, found.id),
        dialogues=plan.total,
        turns_max=plan.turns_max,
        seed=plan.spec.seed,
        keep=found.keep,
    )


def keeps(arguments: DialogueStartArguments) -> bool:
    """Tell whether what happens is to become part of the world."""
    return arguments.spec is None if arguments.keep is None else arguments.keep


async def raw_of(call: Call, arguments: DialogueStartArguments, now: float) -> Raw:
    """Return the specification that is asked for.

    Raises:
        InvalidParams: It is given in two ways, or in none.
    """
    if arguments.spec is not None:
        beside = sorted(arguments.model_fields_set - set(OWN))
        if beside:
            allowed = f"left out beside {SPEC}, which says it"
            raise InvalidParams.one(beside[0], allowed, "both")
        if not keeps(arguments):
            return arguments.spec
        if "starts_at" in arguments.spec:
            allowed = "left out, since it begins now where it becomes part of this world"
            given = shorten(arguments.spec["starts_at"])
            raise InvalidParams.one(f"{SPEC}.starts_at", allowed, given)
        return {**arguments.spec, "starts_at": rfc3339(now)}
    if arguments.participants is None:
        raise InvalidParams.one("participants", f"required, or {SPEC}", "neither")
    talk = Talk(
        participants=arguments.participants,
        witnesses=arguments.witnesses,
        topic=arguments.topic,
        token_budget=arguments.token_budget,
        max_turns=arguments.max_turns,
        repeat=arguments.repeat,
        seed=arguments.seed,
        ignore_availability=arguments.ignore_availability,
    )
    return await raw_of_talk(call, talk, now)


def same_as_before(known: KeptBatch, raw: Raw, arguments: DialogueStartArguments) -> Raw:
    """Return the specification of a batch that the same call has started before.

    Raises:
        Conflict: Another call did.
    """
    ours = {"starts_at"} if keeps(arguments) or arguments.spec is None else set[str]()
    if arguments.spec is None and arguments.seed is None:
        ours.add("seed")
    before, again = ({n: v for n, v in of.items() if n not in ours} for of in (known.spec, raw))
    if (before, known.keep) != (again, keeps(arguments)):
        raise Conflict(
            "the request_id was used for another call; use a new one, or repeat that one unchanged",
            field="request_id",
        )
    return known.spec


class DialogueCourse(Result):
    """How dialogues stand."""

    dialogue_id: str
    status: BatchStatus
    dialogues: int = Field(description="Conversations in all")
    dialogues_done: int = Field(description="Those that are over, failed ones too")
    dialogues_failed: int
    turns_done: int
    turns_max: int
    tokens_used: int
    keep: bool
    kept_at: str | None = Field(description="When it became part of this world; null before")


class DialogueStatusArguments(Arguments):
    """Arguments of dialogue_status."""

    dialogue_id: Id = Field(description=STARTED_ID)
    wait_ms: Annotated[int, Field(ge=0, le=20_000), WHOLE] = Field(
        0, description="Wait this long for the end, in milliseconds"
    )


class DialogueStatus(DialogueCourse):
    """Result of dialogue_status."""

    current_speaker: str | None = Field(description="Who spoke last, while it is held")
    eta_seconds: float | None = Field(description="Until its end; null where nobody can tell")
    reason: str | None = Field(description="Why it was asked to stop; null if it was not")
    error: dict[str, Any] | None = Field(description="Why it failed: code, message, data")


@operation("Look at dialogues", "dialogue", "read")
async def dialogue_status(call: Call, arguments: DialogueStatusArguments) -> DialogueStatus:
    """Tell how far dialogues are that dialogue_start began, or wait for their end.

    How far they are meanwhile arrives as progress messages.
    """
    found = await awaited(call, arguments.dialogue_id, arguments.wait_ms / MILLISECONDS)
    progress = found.progress
    left_s = None
    if progress.left_s is not None:
        left_s = max(0.0, progress.left_s - (time.time() - progress.seen_at))
    return DialogueStatus(
        **course_of(found),
        current_speaker=progress.current_speaker,
        eta_seconds=left_s,
        reason=found.reason,
        error=found.error,
    )


async def awaited(call: Call, id: str, wait_s: float) -> KeptBatch:
    """Return a batch as it is at its end, or after the wait.

    Raises:
        NotFound: It is not there.
    """
    read = call.store.database.read
    deadline, look_s, told = time.monotonic() + wait_s, LOOK_S, -1
    while True:
        found = await read(kept_batches.get, call.world_id, id)
        left_s = deadline - time.monotonic()
        if found.is_over or left_s <= 0:
            return found
        if (turns := found.progress.turns_done) != told:
            told = turns
            await call.caller.progress(f"{turns} of at most {found.progress.turns_max} turns\n")
        await asyncio.sleep(min(look_s, left_s))
        look_s = min(2 * look_s, LONGEST_LOOK_S)


def course_of(found: KeptBatch) -> dict[str, Any]:
    """Return the fields of a `DialogueCourse`."""
    progress = found.progress
    return {
        "dialogue_id": found.id,
        "status": found.status,
        "dialogues": progress.dialogues,
        "dialogues_done": progress.dialogues_done,
        "dialogues_failed": progress.dialogues_failed,
        "turns_done": progress.turns_done,
        "turns_max": progress.turns_max,
        "tokens_used": progress.tokens_used,
        "keep": found.keep,
        "kept_at": shown_time(found.kept_at),
    }


def shown_time(at: float | None) -> str | None:
    """Write a time that may not have come."""
    return None if at is None else rfc3339(at)


class DialogueCancelArguments(Arguments):
    """Arguments of dialogue_cancel."""

    dialogue_id: Id = Field(description=STARTED_ID)
    reason: Annotated[Text, Field(max_length=200)] = Field("", description="Why")


class DialogueCancel(Result):
    """Result of dialogue_cancel."""

    dialogue_id: str
    status: BatchStatus = Field(description="running: it stops after the running turn")
    turns_done: int


@operation("Stop dialogues", "dialogue", "chat", core=False)
async def dialogue_cancel(call: Call, arguments: DialogueCancelArguments) -> DialogueCancel:
    """Stop dialogues of dialogue_start after the turn that is being said; they do not go on.

    Nothing of them becomes part of this world; dialogue_result has those that were over.
    """
    batches = call.service.batches
    found = await batches.rows.cancel(
        call.world_id, arguments.dialogue_id, arguments.reason, time.time()
    )
    batches.wake()
    return DialogueCancel(
        dialogue_id=found.id, status=found.status, turns_done=found.progress.turns_done
    )


class DialogueListArguments(Arguments):
    """Arguments of dialogue_list."""

    status: BatchStatus | None = Field(None, description="Only these; left out: all")
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(50, description="Dialogues a page")
    cursor: Id | None = Field(None, description="next_cursor of the page before")


class ListedDialogue(DialogueCourse):
    """Dialogues in a list."""

    name: str
    created_at: str
    started_at: str | None
    finished_at: str | None


class DialogueList(Result):
    """Result of dialogue_list."""

    dialogues: list[ListedDialogue]
    total_count: int
    next_cursor: str | None


@operation("List dialogues", "dialogue", "read", core=False)
async def dialogue_list(call: Call, arguments: DialogueListArguments) -> DialogueList:
    """List the dialogues that dialogue_start began in this world, the last one first."""
    found, total = await call.store.database.read(
        kept_batches.list_batches,
        call.world_id,
        arguments.status,
        arguments.limit + 1,
        arguments.cursor,
    )
    page = found[: arguments.limit]
    return DialogueList(
        dialogues=[listed(one) for one in page],
        total_count=total,
        next_cursor=page[-1].id if len(found) > len(page) else None,
    )


def listed(found: KeptBatch) -> ListedDialogue:
    """Show a batch in a list."""
    return ListedDialogue(
        **course_of(found),
        name=found.name,
        created_at=rfc3339(found.created_at),
        started_at=shown_time(found.started_at),
        finished_at=shown_time(found.finished_at),
    )
