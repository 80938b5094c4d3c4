"""What LangGraph Studio (`langgraph dev`) loads: the product's graphs, checkpoints and app.

In Studio a run is started with a message alone. Its exchange is accepted and leased by the first
step, as a door would do, so what is said in Studio is remembered like anything else.

The server opens the checkpoints, then begins the lifespan of `app`, then takes runs; it stops in
the order app, runs, checkpoints. App and runs share the service of `OPENED`, which whoever comes
first opens, and which is closed with the checkpoints, since runs outlive the app.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

from fastapi import FastAPI
from langgraph.graph import START, StateGraph
from langgraph_sdk.runtime import ServerRuntime
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from persona_mcp.config import checkpoints
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.saver import PersonaSaver
from persona_mcp.config.settings import Settings
from persona_mcp.graphs.conversation import build_conversation
from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.graphs.watching import watched
from persona_mcp.nodes.parts import ChatContext, ChatIds
from persona_mcp.server.admission import check_world
from persona_mcp.server.app import create_app
from persona_mcp.server.dialogues import Advance, accept, check, standing_of
from persona_mcp.server.graph_runs import keep_lease
from persona_mcp.server.pictures import compiled
from persona_mcp.server.runs import ChatRequest
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.errors import Conflict, InvalidParams, PersonaError
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.fields import Id, Reference, Text
from persona_mcp.state.host_prompts import HostReply
from persona_mcp.state.ids import new_id
from persona_mcp.state.validation import refusal, validate
from persona_mcp.state.watching import Unwatched

STUDIO = "https://smith.langchain.com"
"""The page of Studio is served from there, and calls this server from the reader's browser."""
HOST_WAITS = "wait"
"""The node of a conversation that goes on when a reply was written; others begin at their first."""


class Opened:
    """The service of a Studio server: opened when first needed, closed with the checkpoints."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._service: Service | None = None

    async def service(self) -> Service:
        """Return the service, opening it first."""
        async with self._opening:
            if self._service is None:
                settings = await asyncio.to_thread(read_settings)
                self._service = await self._stack.enter_async_context(open_service(settings))
            return self._service

    async def close(self) -> None:
        """Close what was opened; it may be opened again."""
        self._service = None
        await self._stack.aclose()


OPENED = Opened()


def readable(error: PersonaError) -> RuntimeError:
    """Return an error of ours, by its name, as one whose message Studio's server tells."""
    made: RuntimeError = type(type(error).__name__, (RuntimeError,), {})(error.message)
    return made


class Shown(Unwatched):
    """One run as Studio sees it: it begins where a run may begin, and its errors can be read.

    Studio's server tells messages of a few types alone.
    """

    def __init__(self, begins: Collection[str]) -> None:
        """Begin at one of these nodes: checkpoints lack what the others need."""
        self._begins = begins
        self._begun = False

    @contextmanager
    def node(self, graph: str, node: str) -> Iterator[None]:
        """Watch a node.

        Raises:
            RuntimeError: For an error of ours, by its name, and for a reply that is none.
        """
        try:
            if not self._begun and node not in self._begins:
                raise Conflict(
                    f"a run cannot be taken up in the middle, at {node}: begin one with an input, "
                    "from a checkpoint that has no next step"
                )
            self._begun = True
            yield
        except PersonaError as error:
            raise readable(error) from error
        except ValidationError as error:
            if error.title != HostReply.__name__:
                raise
            raise readable(refusal(HostReply, error)) from None


class Knobs(ChatContext):
    """The knobs as Studio gives them; wrong ones are told in our words."""

    def __init__(self, **given: Any) -> None:
        """Take them; null counts as left out.

        Raises:
            RuntimeError: One is wrong.
        """
        try:
            super().__init__(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise readable(refusal(ChatContext, error)) from None


class Message(BaseModel):
    """What is said in Studio; its form does not check it."""

    message: Annotated[Text, Field(min_length=1, max_length=20000)]
    world_id: Id | None = None


class Further(BaseModel):
    """Which talk goes on in Studio, and how; its form neither asks for it nor checks it."""

    conversation_id: str
    asked_speaker: Reference | None = None
    direction: Annotated[Text, Field(max_length=20000)] = ""
    turns: Annotated[int, Field(ge=1)] = 1
    world_id: Id | None = None


class Visit:
    """One run in Studio: its lease is kept while it lasts."""

    def __init__(self, service: Service) -> None:
        """Hold nothing yet."""
        self._service = service
        self._lease: Lease | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def accept(self, state: Mapping[str, Any], context: ChatContext) -> ChatIds:
        """Accept the run's message: in the thread's conversation, or in a new one.

        A conversation goes on between the two whose it is, whichever persona the form names.

        Raises:
            InvalidParams: Nothing is said, or too much.
            NotFound: The world, the persona or the conversation is not there.
            Conflict: Another run of the conversation does not end.
        """
        service = self._service
        if state.get("answer") is not None:
            return await self._go_on(state)
        where = state.get("world_id") or None
        said = validate(Message, {"message": state.get("message"), "world_id": where})
        world_id = said.world_id or service.settings.world
        await check_world(service, world_id)
        conversation_id = state.get("conversation_id")
        persona, user_id = context.persona_id, service.settings.user
        if conversation_id:
            begun = await service.conversations.get(world_id, conversation_id)
            persona, user_id = begun.persona_id, begun.user_id
        exchange = await service.accept(
            ChatRequest(
                world_id=world_id,
                persona=persona,
                user_id=user_id,
                message=said.message,
                conversation_id=conversation_id,
                context=context,
            )
        )
        return await self._take(world_id, exchange)

    async def _go_on(self, state: Mapping[str, Any]) -> ChatIds:
        """Take the exchange up again whose reply somebody wrote in Studio.

        Raises:
            NotFound: Its prompt is not open any more.
        """
        world_id = state["world_id"]
        exchange = await self._service.exchanges.get(world_id, state["exchange_id"])
        return await self._take(world_id, exchange, exchange.prompt_id)

    async def accept_turn(self, state: Mapping[str, Any], context: ChatContext) -> ChatIds:
        """Accept a turn of a talk between personas, which is to be there.

        Raises:
            InvalidParams: No talk is named, or who is to speak has no part in it.
            NotFound: There is no such world or talk.
            Conflict: It has ended, another run goes on with it, or it is a chat with a user.
        """
        service = self._service
        there = (name for name in Further.model_fields if state.get(name) not in (None, ""))
        given = {name: state[name] for name in there}
        further = validate(Further, given)
        asked = Advance(
            world_id=further.world_id or service.settings.world,
            conversation_id=further.conversation_id,
            request_id=new_id(),
            speaker=further.asked_speaker,
            direction=further.direction,
        )
        await check_world(service, asked.world_id)
        if self._lease is None:  # else this run has made a turn of it already
            await check(service, asked)
        talk = await service.conversations.get(asked.world_id, asked.conversation_id)
        if asked.speaker is not None and asked.speaker not in talk.participants:
            allowed = f"one of {', '.join(talk.participants)}, who talk there"
            raise InvalidParams.one("asked_speaker", allowed, asked.speaker)
        standing = await standing_of(service, asked.world_id, talk)
        exchange = await accept(service, asked, asked.request_ids[0], standing)
        return await self._take(asked.world_id, exchange)

    async def _take(
        self, world_id: str, exchange: Exchange, prompt_id: str | None = None
    ) -> ChatIds:
        service = self._service
        lease = Lease(world_id, exchange.conversation_id, exchange.id, service.process)
        before, self._lease = self._lease, lease
        await self._stop_keeping()
        await service.claim(lease, prompt_id, after=before)
        self._keeper = asyncio.create_task(keep_lease(service, lease), name=f"lease {exchange.id}")
        return ChatIds(
            world_id=world_id,
            conversation_id=exchange.conversation_id,
            exchange_id=exchange.id,
        )

    async def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def close(self) -> None:
        """Let go of the lease; an exchange that was not done is kept as interrupted."""
        await self._stop_keeping()
        if self._lease is not None:
            await self._service.exchanges.end(self._lease, "interrupted", time.time())


def shown(builder: StateGraph[Any, Any, Any, Any], name: str) -> Any:
    """Compile a graph whose errors can be read in Studio."""
    if builder.context_schema is ChatContext:
        builder.context_schema = Knobs
    begins = {end for start, end in builder.edges if start == START} | {HOST_WAITS}
    return watched(builder, name, Shown(begins)).compile(name=name)


def read_settings() -> Settings:
    """Read the settings and set up logging; blocks, so it runs in a thread."""
    settings = load_settings()
    configure_logging(settings.log)
    return settings


@asynccontextmanager
async def checkpointer() -> AsyncIterator[PersonaSaver]:
    """Give Studio the product's checkpoints, for as long as its server runs."""
    settings = await asyncio.to_thread(read_settings)
    async with checkpoints.open_checkpointer(settings) as saver:
        try:
            yield saver
        finally:
            await OPENED.close()


@asynccontextmanager
async def conversation(runtime: ServerRuntime[ChatContext]) -> AsyncIterator[Any]:
    """Give Studio the conversation's graph: live for a run, empty for pictures and forms."""
    if runtime.execution_runtime is None:
        yield compiled("conversation")
        return
    visit = Visit(await OPENED.service())
    parts = replace((await OPENED.service()).parts, accept=visit.accept)
    try:
        yield shown(build_conversation(parts), "conversation")
    finally:
        await visit.close()


@asynccontextmanager
async def dialogue(runtime: ServerRuntime[ChatContext]) -> AsyncIterator[Any]:
    """Give Studio the dialogue's graph: live for a run, empty for pictures and forms."""
    if runtime.execution_runtime is None:
        yield compiled("dialogue")
        return
    visit = Visit(await OPENED.service())
    parts = replace((await OPENED.service()).parts, accept=visit.accept_turn)
    try:
        yield shown(build_dialogue(parts), "dialogue")
    finally:
        await visit.close()


@asynccontextmanager
async def relationship(runtime: ServerRuntime[None]) -> AsyncIterator[Any]:
    """Give Studio the relationship's graph: live for a run, empty for pictures and forms."""
    if runtime.execution_runtime is None:
        yield compiled("relationship")
        return
    service = await OPENED.service()
    yield shown(build_relationship(service.parts), "relationship")


@asynccontextmanager
async def shared() -> AsyncIterator[Service]:
    """Give the app the service of the runs, and leave it open for them."""
    yield await OPENED.service()


@cache
def product_app() -> FastAPI:
    """Make the app that the Studio server adds its own routes to.

    Its guard stands before those too: the page of Studio passes, other sites' pages do not.
    """
    settings = read_settings()
    origins = [*settings.server.allowed_origins, STUDIO]
    server = settings.server.model_copy(update={"allowed_origins": origins})
    chosen = settings.model_copy(update={"server": server})
    made = create_app(chosen, opening=shared, pages=False)  # the server answers Studio's page
    del made.exception_handlers[HTTPException]  # or ours would answer for the server's routes
    return made


def __getattr__(name: str) -> FastAPI:
    """Make `app` when the server asks for it: its limits are settings, which no import reads."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return product_app()
