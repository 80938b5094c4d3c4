"""The operation that tells what came of dialogues."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from persona_mcp.server.batch.casts import casts_of_text
from persona_mcp.server.batch.folder import CAST, MANIFEST, batch_path
from persona_mcp.server.batch.manifest import read_manifest
from persona_mcp.server.batch.rows import NAME
from persona_mcp.server.batch.store import open_batch_store
from persona_mcp.server.operations.dialogues import STARTED_ID
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.batch import kept_batches
from persona_mcp.state.batch.kept_batch import BatchStatus, KeptBatch
from persona_mcp.state.batch.naming import as_in_world
from persona_mcp.state.batch.reading import Kind, SaidTurn, participants_of, said
from persona_mcp.state.batch.values import CastMember, Outcome
from persona_mcp.state.errors import Conflict, Forbidden, StorageUnavailable
from persona_mcp.state.fields import WHOLE, Id, Text
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.snapshots.file import canonical

Part = Literal["transcript", "scores", "relationships", "memories"]
PARTS: tuple[Part, ...] = ("scores", "relationships")
"""What is told unless it is said."""


class DialogueResultArguments(Arguments):
    """Arguments of dialogue_result."""

    dialogue_id: Id = Field(description=STARTED_ID)
    include: Annotated[list[Part], Field(max_length=4)] = Field(
        default_factory=lambda: list(PARTS), description="What to tell of each"
    )
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(
        50, description="Conversations a page"
    )
    cursor: Annotated[Text, Field(pattern=r"^\d{1,7}$")] | None = Field(
        None, description="next_cursor of the page before"
    )


class ToldTurn(Result):
    """A turn of a conversation."""

    turn_number: int
    speaker: str
    content: str
    heard_by: list[str] = Field(description="Who heard it, beside who said it")
    kind: Kind
    continue_score: float | None = Field(description="Of the speaker, 0..100")
    tokens_used: int
    at: str = Field(description="Simulated time")


class RelationshipMove(Result):
    """How one saw another before and after a conversation."""

    persona_id: str = Field(description="Who sees")
    other_persona_id: str = Field(description="Who is seen")
    before: dict[str, float] | None = Field(description="null: they had not met")
    after: dict[str, float] | None
    change: dict[str, float]


class NewMemory(Result):
    """What a persona remembers of a conversation."""

    memory_id: str
    persona_id: str
    content: str
    memory_type: str
    importance: float


class ConversationResult(Result):
    """What came of one conversation."""

    conversation_id: str
    participants: list[str]
    topic: str
    status: Literal["done", "failed"]
    exit_reason: str | None = Field(description="Why it ended; null if it failed")
    error: dict[str, Any] | None = Field(description="What it failed with")
    turns: int
    tokens_used: int
    started_at: str = Field(description="Simulated time")
    ended_at: str
    arm: int = Field(description="Which combination of the variations, from 0")
    repeat: int
    wave: int
    score_history: list[float | None] | None = Field(description="Continue score of each turn")
    relationship_changes: list[RelationshipMove] | None
    transcript: list[ToldTurn] | None
    memories: list[NewMemory] | None


class DialogueManifest(Result):
    """What the conversations depended on, and the check sum of all that came of them."""

    seed: int
    model: str | None = Field(description="That wrote the replies; null if none was asked")
    prompt_version: str
    persona_versions: dict[str, str] = Field(description="Check sum of who each persona was")
    sha256: str


class DialogueResult(Result):
    """Result of dialogue_result."""

    dialogue_id: str
    status: BatchStatus
    results: list[ConversationResult]
    total_count: int
    next_cursor: str | None
    manifest: DialogueManifest | None = Field(description="null unless all were held to their end")


@operation("Read what came of dialogues", "dialogue", "read")
async def dialogue_result(call: Call, arguments: DialogueResultArguments) -> DialogueResult:
    """Return what came of dialogues that are over: how each ended and what it changed.

    Wait for that with dialogue_status. Of cancelled dialogues there are those that had ended.
    """
    if "memories" in arguments.include and not call.sees_private:
        raise Forbidden(
            "include: memories need the scope 'manage', since they are the personas' own; leave "
            "them out, or ask for a token that has it",
            scope="manage",
        )
    found = await call.store.database.read(kept_batches.get, call.world_id, arguments.dialogue_id)
    if not found.is_over:
        raise Conflict(
            f"dialogue '{found.id}' is {found.status}: it is not over; wait for it with "
            "dialogue_status and wait_ms",
            status=found.status,
        )
    path = batch_path(call.store.settings.data_dir, call.world_id, found.id)
    check_here(path, found)
    outcomes, total = await read(path, int(arguments.cursor or 0), arguments.limit + 1)
    page = outcomes[: arguments.limit]
    more = len(outcomes) > len(page)
    return DialogueResult(
        dialogue_id=found.id,
        status=found.status,
        results=[shown(found.id, outcome, frozenset(arguments.include)) for outcome in page],
        total_count=total,
        next_cursor=str(outcomes[-1].job.place.index) if more else None,
        manifest=await asyncio.to_thread(manifest_in, path),
    )


def check_here(path: Path, found: KeptBatch) -> None:
    """See to it that the files of a batch that was begun are in this data folder.

    Raises:
        StorageUnavailable: They are not.
    """
    if found.progress.turns_done and not (path / NAME).exists():
        raise StorageUnavailable(
            f"the files of dialogue '{found.id}' are not in this server's data folder: ask the "
            "server that held it, or let all servers share the folder `dialogues`"
        )


async def read(path: Path, first: int, most: int) -> tuple[list[Outcome], int]:
    """Return what came of the first dialogues from an index on, and of how many it is known.

    Raises:
        StorageUnavailable: It cannot be read.
    """
    if not (path / NAME).exists():  # cancelled before anything was held
        return [], 0
    async with open_batch_store(path / NAME) as store:

        def page() -> list[Outcome]:
            with closing(store.outcomes(first)) as found:
                return list(islice(found, most))

        counts = await store.counts()
        return await asyncio.to_thread(page), counts.done + counts.failed


def manifest_in(path: Path) -> DialogueManifest | None:
    """Read what is told of a batch's manifest; None if it has none. Blocks.

    Raises:
        BadSnapshot: A file of it is damaged.
    """
    if not (path / MANIFEST).exists():
        return None
    told = read_manifest(path)
    members = casts_of_text((path / CAST).read_bytes()).of(0).members
    return DialogueManifest(
        seed=told["seeds"]["seed"],
        model=", ".join(told["models"]) or None,
        prompt_version=told["prompts"],
        persona_versions={one.id: version_of(one) for one in members},
        sha256=told["sha256"],
    )


def version_of(member: CastMember) -> str:
    """Return the check sum of who a persona was."""
    return hashlib.sha256(canonical(member.spec.model_dump(mode="json"))).hexdigest()


def shown(batch_id: str, made: Outcome, parts: frozenset[Part]) -> ConversationResult:
    """Show what came of a conversation, with its ids as they are in the world."""
    outcome = as_in_world(made, batch_id)
    turns, job = said(outcome), outcome.job
    return ConversationResult(
        conversation_id=job.id,
        participants=list(participants_of(job)),
        topic=job.topic,
        status=outcome.status,
        exit_reason=outcome.exit_reason or None,
        error=None if outcome.error is None else dict(outcome.error),
        turns=len(turns),
        tokens_used=sum(turn.tokens for turn in turns),
        started_at=rfc3339(job.starts_at),
        ended_at=rfc3339(outcome.ended_at),
        arm=job.place.arm,
        repeat=job.place.repeat,
        wave=job.place.wave,
        score_history=[turn.score for turn in turns] if "scores" in parts else None,
        relationship_changes=list(moves(outcome)) if "relationships" in parts else None,
        transcript=[told_turn(turn) for turn in turns] if "transcript" in parts else None,
        memories=list(memories_of(outcome)) if "memories" in parts else None,
    )


def told_turn(turn: SaidTurn) -> ToldTurn:
    """Show a turn."""
    return ToldTurn(
        turn_number=turn.number,
        speaker=turn.speaker,
        content=turn.text,
        heard_by=list(turn.heard_by),
        kind=turn.kind,
        continue_score=turn.score,
        tokens_used=turn.tokens,
        at=rfc3339(turn.at),
    )


def moves(outcome: Outcome) -> Iterator[RelationshipMove]:
    """Show how those who were there saw each other before and after, where that has changed."""
    for who, whom in sorted({*outcome.before, *outcome.after}):
        before, after = outcome.before.get((who, whom)), outcome.after.get((who, whom))
        if before == after:
            continue
        names = (after or before or {}).keys()
        yield RelationshipMove(
            persona_id=who,
            other_persona_id=whom,
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
            change={n: (after or {}).get(n, 0.0) - (before or {}).get(n, 0.0) for n in names},
        )


def memories_of(outcome: Outcome) -> Iterator[NewMemory]:
    """Show what was remembered."""
    for row in outcome.rows.get("memories", ()):
        yield NewMemory(
            memory_id=row["id"],
            persona_id=row["persona_id"],
            content=row["content"],
            memory_type=row["memory_type"],
            importance=row["importance"],
        )
