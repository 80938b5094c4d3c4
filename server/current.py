"""What a call means when it names no persona or no conversation: those of its session handle."""

from sqlalchemy import Connection

from persona_mcp.server.operations.registry import Call
from persona_mcp.state.errors import NoCurrentPersona, NotFound
from persona_mcp.state.exchange import Conversation
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import find
from persona_mcp.state.sessions import Session


async def current_persona(call: Call, reference: str | None) -> Persona:
    """Find the persona that is named, else the one that the call's handle is bound to.

    Raises:
        NoCurrentPersona: None is named and none is bound.
        NotFound: It is not there, or not any more.
    """
    return await call.store.database.read(find_current, call, reference)


def find_current(connection: Connection, call: Call, reference: str | None) -> Persona:
    """Do what `current_persona` does, inside a transaction that reads more."""
    if reference is not None:
        return find(connection, call.world_id, reference)
    bound = call.session.persona_id if call.session else None
    if bound is None:
        raise NoCurrentPersona(
            "persona_id: give one, from persona_list; or call persona_switch, and send the "
            "session_id that it returns with each call",
            field="persona_id",
        )
    found = find(connection, call.world_id, bound)
    if found.id != bound:  # another one that is called as the deleted one's id
        raise NotFound.of("persona", bound)
    return found


def session_with(call: Call, persona_id: str) -> Session | None:
    """Return the call's handle if it is bound to this persona; a guest's talk leaves it alone."""
    session = call.session
    return session if session is not None and session.persona_id == persona_id else None


async def current_conversation(call: Call, conversation_id: str | None) -> Conversation:
    """Find the conversation that is named, else the one that the call's handle is in.

    Raises:
        NoCurrentPersona: None is named, and the handle has begun none.
        NotFound: The named one is not there.
    """
    reserved = call.session.conversation_id if call.session else None
    if conversation_id is None and reserved is None:
        raise NoCurrentPersona(
            "conversation_id: give one, from a reply of persona_chat; or call persona_switch, and "
            "send the session_id that it returns with each call",
            field="conversation_id",
        )
    try:
        return await call.store.conversations.get(call.world_id, conversation_id or reserved or "")
    except NotFound as error:
        if conversation_id is not None:
            raise
        raise NoCurrentPersona(
            "conversation_id: nothing has been said in this session's conversation yet; "
            "persona_chat begins it",
            field="conversation_id",
        ) from error
