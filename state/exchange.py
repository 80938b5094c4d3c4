"""An exchange, a turn and a conversation, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from persona_mcp.state.callers import LOCAL

ExchangeStatus = Literal[
    "pending", "running", "waiting", "done", "failed", "cancelled", "interrupted"
]
ConversationKind = Literal["chat", "dialogue"]
ConversationStatus = Literal["active", "ended"]
UNFINISHED: tuple[ExchangeStatus, ...] = ("pending", "running")
MESSAGE_AND_REPLY = 2
"""Turns that an exchange of a chat has."""


@dataclass(frozen=True)
class Turn:
    """One utterance.

    Attributes:
        id: Its key in the world.
        number: 1, 2, ... in the conversation.
        speaker_id: Persona or user.
        content: What was said.
        created_at: Seconds since the epoch, UTC.
        exchange_id: The exchange that it belongs to.
        witnesses: Parties that said or heard it, in order of their ids.
    """

    id: str
    number: int
    speaker_id: str
    content: str
    created_at: float
    exchange_id: str
    witnesses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """A thread between parties.

    Attributes:
        id: Its key in the world.
        persona_id: Who answers in a chat; empty in a talk between personas.
        user_id: Who talks to it; empty likewise.
        participants: All parties, in order.
        topic: What it is about; "general" when nobody said.
        status: active or ended.
        head_exchange_id: The last exchange that is done; None at the start.
        turn_count: Turns so far.
        started_at: Seconds since the epoch, UTC.
        updated_at: Seconds since the epoch, UTC.
        scene: Where it takes place; None where nobody said.
        kind: chat between a user and a persona, or dialogue between personas.
        plan: Of a dialogue, see `Plan`; once ended, of any: whom it lets rest, and until when.
        ended_at: Seconds since the epoch, UTC; None while it is active.
        exit_reason: Why it ended.
    """

    id: str
    persona_id: str
    user_id: str
    participants: tuple[str, ...]
    topic: str
    status: ConversationStatus
    head_exchange_id: str | None
    turn_count: int
    started_at: float
    updated_at: float
    scene: str | None = None
    kind: ConversationKind = "chat"
    plan: Mapping[str, Any] | None = None
    ended_at: float | None = None
    exit_reason: str | None = None

    @property
    def turns_each(self) -> int:
        """How many turns an exchange of it has at least: a chat's the message and the reply."""
        return MESSAGE_AND_REPLY if self.kind == "chat" else 1


@dataclass(frozen=True)
class Exchange:
    """A message and what became of it.

    Attributes:
        id: Its key in the world.
        conversation_id: Where it was said.
        request_id: What the caller calls it.
        number: 1, 2, ... in the conversation.
        status: Where it stands.
        message: What was said to the persona.
        response: The reply, once it is done.
        partial: What had been said when it failed or was stopped.
        error: `{code, message, ...}` when it failed.
        prompt_id: Of the prompt that a host's own model is to answer; None for others.
        prompt_until: When that prompt is no longer taken, seconds since the epoch, UTC.
        prompt: What is kept with it.
        caller_id: Who asked for it.
        outcome: What a done one is reported with (score, tokens, memories, ...).
    """

    id: str
    conversation_id: str
    request_id: str
    request_hash: str
    number: int
    follows_id: str | None
    status: ExchangeStatus
    persona_id: str
    user_id: str
    message: str
    response: str | None
    partial: str | None
    error: dict[str, Any] | None
    created_at: float
    finished_at: float | None
    owner: str
    attempts: int
    correlation_id: str | None
    prompt_id: str | None = None
    prompt_until: float | None = None
    prompt: dict[str, Any] | None = None
    caller_id: str = LOCAL.id
    outcome: dict[str, Any] = field(default_factory=dict)
