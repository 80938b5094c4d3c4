"""A run as the events of a stream: start, chunks, restarts, and one end.

Every door that streams sends these, in this order: `stream_start`, then `stream_chunk` and
`stream_restart`, then one of `stream_complete`, `stream_cancelled` and `stream_error`. Events have
numbers from 0, the same for everyone who follows the run, so that a stream can be taken up again.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from persona_mcp.server.operations.chat import reply_of
from persona_mcp.server.operations.registry import rounded
from persona_mcp.server.runs import Event, Run
from persona_mcp.server.service import Service
from persona_mcp.server.wire import problem_of
from persona_mcp.state import conversations, exchanges, personas
from persona_mcp.state.callers import current_caller
from persona_mcp.state.errors import Cancelled, NotFound, PersonaError
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.moments import rfc3339

REPEATED = ("persona_id", "chunk", "full_response", "tokens_used", "processing_time")
"""These stand beside `data` too, where the original server had them."""
ENDS = ("stream_complete", "stream_cancelled", "stream_error")


@dataclass(frozen=True)
class Begun:
    """What a stream tells at its start.

    Attributes:
        exchange: As it was accepted.
        persona_name: Who answers.
        token_budget: Longest reply, in tokens; None where the stream is taken up without it.
        turn_number: Of the reply in the conversation, if the messages before it succeed.
    """

    exchange: Exchange
    persona_name: str
    token_budget: int | None
    turn_number: int


class Telling:
    """Turns the events of a run into those of a stream, one after the other."""

    def __init__(self, service: Service, run: Run, begun: Begun) -> None:
        """Begin at the run's start."""
        self._service = service
        self._run = run
        self._begun = begun
        self._seq = 0
        self._chunks = 0
        self._said = ""

    async def tell(self, event: Event) -> list[dict[str, Any]]:
        """Return what a stream tells of an event; nothing of most."""
        data = event.data
        match event.kind:
            case "started":
                return [self._event(event, "stream_start", self._start())]
            case "token":
                return [self._chunk(event, data["text"])]
            case "restart":
                return [self._restart(event, data["reason"])]
            case "done":
                try:
                    return await self._end(event, data["exchange"])
                except PersonaError as error:  # the reply is kept, but could not be read
                    return [self._failure(event, error)]
            case "failed":
                return [self._failure(event, data["error"])]
        return []

    def _start(self) -> dict[str, Any]:
        exchange = self._begun.exchange
        return {
            "persona_id": exchange.persona_id,
            "persona_name": self._begun.persona_name,
            "message": exchange.message,
            "token_budget": self._begun.token_budget,
            "conversation_id": exchange.conversation_id,
            "turn_number": self._begun.turn_number,
            "exchange_id": exchange.id,
            "request_id": exchange.request_id,
        }

    def _chunk(self, event: Event, text: str) -> dict[str, Any]:
        self._chunks += 1
        self._said += text
        counted = {"chunk_number": self._chunks, "total_length": len(self._said)}
        return self._event(event, "stream_chunk", {"chunk": text, **counted})

    def _restart(self, event: Event, reason: str) -> dict[str, Any]:
        self._chunks, self._said = 0, ""
        return self._event(event, "stream_restart", {"reason": reason})

    async def _end(self, event: Event, exchange: Exchange) -> list[dict[str, Any]]:
        """Tell the committed reply; the chunks before make it up, whatever was streamed."""
        service, told = self._service, []
        reply = rounded((await reply_of(service, self._run.world_id, exchange)).model_dump())
        whole = reply.pop("response")
        if self._said and self._said != whole:
            told.append(self._restart(event, "tidied"))
        if self._said != whole:
            told.append(self._chunk(event, whole))
        data = {
            "full_response": whole,
            "chunk_count": self._chunks,
            "response_length": len(whole),
            "persona_name": self._begun.persona_name,
            **{key: value for key, value in reply.items() if key != "status"},
        }
        return [*told, self._event(event, "stream_complete", data)]

    def _failure(self, event: Event, error: PersonaError) -> dict[str, Any]:
        so_far = {"partial": self._said, "partial_length": len(self._said)}
        if isinstance(error, Cancelled):
            reason = error.data.get("reason", "client")
            return self._event(event, "stream_cancelled", {"reason": reason, **so_far})
        problem = problem_of(error)
        problem["data"] |= so_far
        return {**self._event(event, "stream_error", so_far), "error": problem}

    def _event(self, event: Event, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        seq, self._seq = self._seq, self._seq + 1
        exchange = self._begun.exchange
        repeated = {key: data[key] for key in REPEATED if key in data}
        return {
            "event_type": kind,
            "stream_id": self._run.stream_id,
            "seq": seq,
            "timestamp": rfc3339(event.at),
            "persona_id": exchange.persona_id,
            **repeated,
            "data": data,
        }


async def begun_of(service: Service, run: Run, token_budget: int | None) -> Begun:
    """Find out what a stream tells at its start: the same for all who follow the run."""
    world_id = run.world_id

    def read(connection: Connection) -> Begun:
        exchange = exchanges.get(connection, world_id, run.exchange_id)
        persona = personas.find(connection, world_id, exchange.persona_id)
        number = conversations.reply_number(connection, world_id, exchange)
        return Begun(exchange, persona.name, token_budget, number)

    if run.start_told is None:
        begun = await service.database.read(read)
        run.start_told = run.start_told or begun
    told: Begun = run.start_told
    return told


def stream_named(service: Service, stream_id: str) -> Run:
    """Return the run of a stream.

    Raises:
        NotFound: It is not there, is another caller's or in a world that is closed to this one, or
            has ended too long ago.
    """
    run, caller = service.runs.find(stream_id), current_caller()
    if run is None or run.caller_id != caller.id or not caller.opens(run.world_id):
        raise NotFound(
            f"stream '{stream_id[:64]}' not found: ended streams are kept for "
            f"{service.settings.server.streams_kept_s:g} s; send the message again with the same "
            "request_id to get the reply",
            kind="stream",
            id=stream_id[:64],
        )
    return run


async def stream_events(
    service: Service, run: Run, begun: Begun, after: int = -1
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events of a stream behind number `after`, as they come, to its end."""
    telling = Telling(service, run, begun)
    async with aclosing(run.follow()) as events:
        async for event in events:
            for told in await telling.tell(event):
                if told["seq"] > after:
                    yield told
