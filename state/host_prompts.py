"""Prompts that a host's own model is to answer: one that is open a conversation, kept in SQL.

A prompt is open for ten minutes, until a newer one of its conversation is made or another exchange
of it is done; what is true of it is looked at when its reply comes, so nobody else has to know. Its
words are kept no longer than that: they hold memories, which somebody may delete.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Float,
    String,
    and_,
    bindparam,
    null,
    or_,
    select,
    update,
)

from persona_mcp.state.errors import Conflict, NotFound
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchange_statements import HELD_TURNS, KEY, WORLD, C, T
from persona_mcp.state.fields import WHOLE, Text
from persona_mcp.state.ids import new_id
from persona_mcp.state.meeting import GivenAppraisal
from persona_mcp.state.prepared import Prepared

if TYPE_CHECKING:
    from persona_mcp.state.exchanges import Lease

OPEN_S = 600.0
"""How long a prompt waits for its reply, in seconds."""
REPLY = "reply"
"""Under this name stands the sign of the reply that was taken."""


class HostReply(BaseModel):
    """A reply that the host's own model wrote, and what the host says of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    response: Annotated[Text, Field(min_length=1, max_length=20000)] = Field(
        description="The persona's reply, as your model wrote it"
    )
    tokens_used: Annotated[int, Field(ge=0, le=32768), WHOLE] | None = Field(
        None, description="Tokens of the reply; left out: estimated"
    )
    model: Annotated[Text, Field(max_length=120)] = Field(
        "", description="Name of the model that wrote it"
    )
    appraisal: GivenAppraisal | None = Field(
        None, description="How the persona takes the message; left out: appraised here"
    )


HEAD = Prepared(select(C.head_exchange_id).where(C.world_id == WORLD, C.id == KEY))
BY_PROMPT = Prepared(select(T).where(T.world_id == WORLD, T.prompt_id == KEY))
PROMPT_OF = Prepared(select(T.prompt_id).where(T.world_id == WORLD, T.id == KEY))
SUPERSEDE = Prepared(
    update(T)
    .where(
        T.world_id == WORLD,
        T.conversation_id == bindparam("conversation", type_=String),
        T.status == "waiting",
        T.id != KEY,
    )
    .values(status="cancelled", prompt=null(), finished_at=bindparam("now", type_=Float))
)
OFFER = Prepared(
    update(T)
    .where(T.world_id == WORLD, T.id == KEY)
    .values(
        status="waiting",
        prompt_id=bindparam("its_id", type_=String),
        prompt_until=bindparam("until", type_=Float),
        prompt=bindparam("its_prompt", type_=JSON),
    )
)
WITHDRAW = Prepared(
    update(T)
    .where(T.world_id == WORLD, T.id == KEY)
    .values(prompt_id=None, prompt_until=None, prompt=null())
)


def offer(connection: Connection, lease: "Lease", prompt: Mapping[str, Any], now: float) -> None:
    """Keep a prompt with its exchange, which waits from now on; older ones are superseded.

    An exchange that has an open one already keeps it.

    Args:
        connection: Inside a transaction that writes.
        lease: Of the run that made it.
        prompt: What the host is given, and what is needed when its reply comes.
        now: Seconds since the epoch, UTC.

    Raises:
        Conflict: Another run took the conversation; nothing was written.
    """
    talk = {"world": lease.world_id, "key": lease.conversation_id, "holder": lease.owner}
    if HELD_TURNS.scalar(connection, **talk) is None:
        raise Conflict(
            "this run lost its conversation to another one; send it again", retryable=True
        )
    its = {"world": lease.world_id, "key": lease.exchange_id}
    if PROMPT_OF.scalar(connection, **its) is None:
        SUPERSEDE.run(connection, {**its, "conversation": lease.conversation_id, "now": now})
        made = {"its_id": new_id(), "its_prompt": dict(prompt), "until": now + OPEN_S}
        OFFER.run(connection, {**its, **made})


def fault_of(connection: Connection, world_id: str, exchange: Exchange, now: float) -> str | None:
    """Say why the exchange's prompt is no longer taken; None while it is open."""
    if exchange.prompt_until is None or exchange.prompt_until < now:
        return f"it has expired, {OPEN_S / 60:g} minutes after it was made"
    head = HEAD.scalar(connection, world=world_id, key=exchange.conversation_id)
    if exchange.status == "cancelled" or head != exchange.follows_id:
        return "it was superseded: the conversation has a newer prompt, or went on without it"
    return None


def taken(reply: str) -> dict[str, Any]:
    """Return what is kept of a prompt that has its reply: a sign of the words, as they came."""
    return {REPLY: hashlib.sha256(reply.encode()).hexdigest()}


def check_open(
    connection: Connection, world_id: str, exchange: Exchange, prompt_id: str, now: float
) -> None:
    """Make sure that a prompt may still be answered.

    Raises:
        NotFound: It was superseded, or has expired.
    """
    replaced = "it was superseded: the same call made a newer one"
    same = exchange.prompt_id == prompt_id
    fault = fault_of(connection, world_id, exchange, now) if same else replaced
    if fault is not None:
        raise no_prompt(prompt_id, fault)


def no_prompt(prompt_id: str, why: str = "") -> NotFound:
    """Say that a prompt is not there, why, and what to do."""
    reason = f" any more: {why}" if why else ""
    return NotFound(
        f"prompt '{prompt_id}' not found{reason}; persona_prompt makes a new one",
        kind="prompt",
        id=prompt_id,
        suggestions=[],
    )


def lapsed(now: float) -> ColumnElement[bool]:
    """Return the condition of exchanges (joined to their conversations) that wait for nothing."""
    gone_on = T.follows_id.is_distinct_from(C.head_exchange_id)
    return and_(T.status == "waiting", or_(T.prompt_until < now, gone_on))
