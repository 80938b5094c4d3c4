"""What is asked of a persona, and the conversation that it goes into: begun with it, or found."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from persona_mcp.state.callers import signed
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from persona_mcp.state.exchange import ConversationKind
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.tables import Conversation as C

GENERAL = "general"
"""The topic of a conversation when nobody said."""
PARTIES = Prepared(
    select(C.kind, C.status, C.persona_id, C.user_id, C.scene).where(
        C.world_id == bindparam("world"), C.id == bindparam("key")
    )
)


@dataclass(frozen=True)
class Request:
    """What is asked for: a message to a persona in a conversation.

    Attributes:
        world_id: Where.
        conversation_id: In which conversation.
        starts: If the conversation is not there yet, it is made together with the exchange.
        scene: Where the conversation takes place; None leaves it open, or as it is.
        persona_id: Who is to answer, or to speak in a talk between personas.
        user_id: Who says it; in such a talk, whom it is spoken to.
        request_id: What the caller calls it; unique in the world.
        message: What is said; in a talk between personas, the stage direction.
        parameters: The other arguments; the same request id with others is a clash.
        kind: Of the conversation.
        called: What the caller calls it, where the request id is made of that; empty where it is
            the caller's own.
    """

    world_id: str
    conversation_id: str
    persona_id: str
    user_id: str
    request_id: str
    message: str
    parameters: dict[str, Any]
    starts: bool = False
    scene: str | None = None
    kind: ConversationKind = "chat"
    called: str = ""

    @property
    def hash(self) -> str:
        """Return what two requests of a caller share when they ask for the same.

        Those of another caller never do: whoever finds a request id taken learns nothing of it. Who
        speaks in a talk between personas is not asked for, but found out.
        """
        parties = [self.persona_id, self.user_id] if self.kind == "chat" else []
        asked = [*parties, self.message, self.parameters, *signed()]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def check_same(request: Request, known_hash: str) -> None:
    """Refuse a request whose id was used for another one, of which this is the hash.

    Raises:
        Conflict: It asks for something else.
    """
    if known_hash != request.hash:
        name = request.called or request.request_id
        raise Conflict(
            f"request_id '{name}' was used for another call; "
            "use a new one, or repeat that call unchanged",
            field="request_id",
            given=name,
        )


def enter_conversation(connection: Connection, request: Request, now: float) -> None:
    """Make sure that the conversation is there and is of these two, inside a transaction.

    Several messages may name a conversation before it is there: the first one begins it.

    Raises:
        NotFound: It is not there, and the request does not start it.
        InvalidParams: It is the conversation of others, or takes place elsewhere.
        Conflict: It has ended, or it is of the other kind.
    """
    found = PARTIES.first(connection, world=request.world_id, key=request.conversation_id)
    if found is not None:
        check_open(request.conversation_id, found.kind, found.status, request.kind)
        if request.kind == "chat":
            check_parties(request, found.persona_id, found.user_id)
            check_scene(request, found.scene)
    elif request.starts:
        connection.execute(insert(C).values(new_conversation(request, now)))
    else:
        raise NotFound.of("conversation", request.conversation_id)


def check_open(
    conversation_id: str, kind: ConversationKind, status: str, wanted: ConversationKind
) -> None:
    """Refuse to go on with what is over, or in the way of the other kind.

    Raises:
        Conflict: It has ended, or it is of the other kind.
    """
    if kind != wanted:
        way = {"chat": "persona_chat", "dialogue": "conversation_advance"}[kind]
        what = {"chat": "with a user", "dialogue": "between personas"}[kind]
        raise Conflict(
            f"conversation '{conversation_id}' is a talk {what}; {way} goes on with it",
            conversation_id=conversation_id,
        )
    if status == "ended":
        raise ended(conversation_id)


def ended(conversation_id: str) -> Conflict:
    """Say that a conversation is over."""
    return Conflict(
        f"conversation '{conversation_id}' has ended; begin another one",
        conversation_id=conversation_id,
    )


def check_parties(request: Request, persona_id: str, user_id: str) -> None:
    """Refuse to talk into the conversation of others.

    Raises:
        InvalidParams: It is with another persona, or another user began it.
    """
    if request.persona_id != persona_id:
        allowed = f"{persona_id}, who this conversation is with"
        raise InvalidParams.one("persona_id", allowed, request.persona_id)
    if request.user_id != user_id:
        allowed = f"{user_id}, who began this conversation"
        raise InvalidParams.one("user_id", allowed, request.user_id)


def check_scene(request: Request, scene: str | None) -> None:
    """Refuse to move a conversation to another scene.

    Raises:
        InvalidParams: It takes place in another one, or in none.
    """
    if request.scene not in (None, scene):
        there = f"{scene}, where this conversation takes place, or " if scene else ""
        allowed = f"{there}left out: it has begun already"
        raise InvalidParams.one("scene", allowed, request.scene)


def new_conversation(request: Request, now: float) -> dict[str, Any]:
    """Return the row of a chat between a user and a persona."""
    return {
        "world_id": request.world_id,
        "id": request.conversation_id,
        "kind": "chat",
        "persona_id": request.persona_id,
        "user_id": request.user_id,
        "participants": [request.user_id, request.persona_id],
        "topic": GENERAL,
        "scene": request.scene,
        "status": "active",
        "turn_count": 0,
        "started_at": now,
        "updated_at": now,
    }
