"""Commands that talk: chat and ask."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import world_named
from persona_mcp.server.cli.line_editing import read_edited
from persona_mcp.server.cli.run import STDIN, llm, read_stdin, run_loop
from persona_mcp.server.explanation import explain
from persona_mcp.server.operations.chat import PersonaChatArguments, reply_of
from persona_mcp.server.operations.registry import rounded
from persona_mcp.server.runs import ChatRequest, Run
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.terminal import Terminal, printable
from persona_mcp.state.cards.card import filled_in
from persona_mcp.state.cards.store import card_use
from persona_mcp.state.errors import InvalidParams, PersonaError
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.validation import validate

COMMANDS = (
    ("/why", "what was behind the last reply: memories, feelings, relationship"),
    ("/new", "start another conversation"),
    ("/help", "this list"),
    ("/quit", "end; so do Ctrl-D, and Ctrl-C at the prompt"),
)
SHOWN_DECIMALS = 3
DIM = "dim"
SPEAKER = "bold magenta"
YOU = "bold cyan"


@dataclass
class Talk:
    """An interactive talk.

    Attributes:
        service: The live parts.
        world_id: Where.
        persona_id: Who answers.
        persona_name: What it is called.
        user_id: Who talks.
        conversation_id: Where it goes on; None starts a new conversation.
        opening: How its card has it open a new conversation; empty without one.
        last: The last done exchange, and its run.
    """

    service: Service
    world_id: str
    persona_id: str
    persona_name: str
    user_id: str
    conversation_id: str | None
    opening: str = ""
    last: tuple[Exchange, Run] | None = None


def ask(
    name: str,
    message: str,
    user: str | None,
    model: str | None,
    new: bool,
    conversation: str | None,
    request_id: str | None,
    explained: bool,
    world: str | None,
    as_json: bool,
) -> None:
    """Say one thing and print the reply."""

    async def work(settings: Settings, terminal: Terminal, said: str) -> None:
        if new and conversation is not None:
            raise InvalidParams.one("--new", "without --conversation", conversation)
        async with open_service(settings, holds_batches=False) as service:
            world_id = await world_named(service, world)
            user_id = settings.user if user is None else user
            asked = request_of(world_id, name, user_id, said, conversation, request_id)
            if conversation is None and not new:
                where = await last_conversation(service, world_id, name, user_id, request_id)
                asked = replace(asked, conversation_id=where)
            run, _ = await service.chat(asked)
            exchange = await finish(run)
            reply = await reply_of(service, world_id, exchange)
            answer: dict[str, Any] = rounded(reply.model_dump(mode="json"))
            if explained:
                answer["explanation"] = await explain(service, world_id, exchange, run)
            if as_json:
                terminal.print_json(answer)
                return
            terminal.out.print(answer["response"], soft_wrap=True)
            if explained:
                show_explanation(terminal, answer["explanation"])
                show_prompt(terminal, answer["explanation"]["prompt"])

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        said = read_stdin() if message == STDIN else message
        runner.run(work(settings, terminal, said))

    run_loop(loop, as_json=as_json, llm=llm(model))


def request_of(
    world_id: str,
    name: str,
    user_id: str,
    message: str,
    conversation_id: str | None,
    request_id: str | None = None,
) -> ChatRequest:
    """Check what is asked as the operation does, which other doors go through.

    Raises:
        InvalidParams: It is refused; nothing was changed.
    """
    given = {
        "persona_id": name,
        "user_id": user_id,
        "message": message,
        "conversation_id": conversation_id,
        "request_id": request_id,
    }
    checked = validate(PersonaChatArguments, {k: v for k, v in given.items() if v is not None})
    return ChatRequest(world_id, name, user_id, checked.message, conversation_id, request_id)


async def last_conversation(
    service: Service, world_id: str, name: str, user_id: str, request_id: str | None
) -> str | None:
    """Find where a talk goes on: where this request was made, else the last conversation."""
    if request_id and (known := await service.exchanges.find(world_id, request_id)):
        return known.conversation_id if known.number > 1 else None
    persona = await service.personas.resolve(world_id, name)
    found = await service.conversations.latest(world_id, persona.id, user_id)
    return found.id if found else None


async def finish(run: Run) -> Exchange:
    """Wait for a run; a caller that is stopped stops it."""
    async with run.joined():
        exchange: Exchange = (await run.outcome())["exchange"]
    return exchange


def chat(name: str, user: str | None, model: str | None, new: bool, world: str | None) -> None:
    """Talk until the user ends it."""

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        stack = AsyncExitStack()
        try:
            talk = runner.run(begin(settings, stack, name, user, new, world))
            greet(terminal, talk, runner)
            while (line := read_line(terminal)) not in (None, "/quit"):
                answer(terminal, talk, line, runner)
        finally:
            runner.run(stack.aclose())
        terminal.out.print("bye", style=DIM)

    run_loop(loop, llm=llm(model))


async def begin(
    settings: Settings,
    stack: AsyncExitStack,
    name: str,
    user: str | None,
    new: bool,
    world: str | None,
) -> Talk:
    """Open everything and find where the talk goes on."""
    service = await stack.enter_async_context(open_service(settings, holds_batches=False))
    world_id = await world_named(service, world)
    persona = await service.personas.resolve(world_id, name)
    user_id = settings.user if user is None else user
    where = None if new else await last_conversation(service, world_id, persona.id, user_id, None)
    card = await service.database.read(card_use, world_id, persona.id)
    first = next(iter(card.greetings if card else ()), "")
    opening = filled_in(first, (card.called if card else "") or persona.name, user_id)
    return Talk(service, world_id, persona.id, persona.name, user_id, where, opening)


def greet(terminal: Terminal, talk: Talk, runner: asyncio.Runner) -> None:
    """Say who is there, through which model, and what was said last."""
    info = runner.run(talk.service.model.info())
    weak = "; a small model, it wanders and forgets" if info.small else ""
    terminal.out.print(f"{talk.persona_name} by {info.id}{weak}. /help lists commands.", style=DIM)
    if talk.conversation_id is not None:
        found = runner.run(talk.service.conversations.get(talk.world_id, talk.conversation_id))
        terminal.out.print(
            f"You go on after {found.turn_count} turns; /new starts anew.", style=DIM
        )
    elif talk.opening:
        terminal.out.print(spoken(talk.persona_name, talk.opening))


def read_line(terminal: Terminal) -> str | None:
    """Read what the user says; None at the end of the talk."""
    try:
        return read_edited(terminal, Text.assemble(("you:", YOU), " ")).strip()
    except (EOFError, KeyboardInterrupt):
        terminal.out.print()
        return None


def answer(terminal: Terminal, talk: Talk, line: str, runner: asyncio.Runner) -> None:
    """Carry out a command, or send the message; an error leaves the talk going."""
    match line:
        case "":
            return
        case "/help":
            for command, meaning in COMMANDS:
                terminal.out.print(f"  {command:6} {meaning}")
        case "/new":
            talk.conversation_id = None
            terminal.out.print("A new conversation begins with your next message.", style=DIM)
            if talk.opening:
                terminal.out.print(spoken(talk.persona_name, talk.opening))
        case "/why":
            why(terminal, talk, runner)
        case _ if line.startswith("/"):
            terminal.out.print(f"There is no command {line}; /help lists them.", style=DIM)
        case _:
            try:
                runner.run(exchange(terminal, talk, line))
            except PersonaError as error:
                terminal.err.print(f"error: {error.message}", style="red")
            except KeyboardInterrupt:
                terminal.out.print("(stopped; nothing of it is remembered)", style=DIM)


async def exchange(terminal: Terminal, talk: Talk, line: str) -> None:
    """Send a message and show the reply while it is made."""
    request = request_of(talk.world_id, talk.persona_id, talk.user_id, line, talk.conversation_id)
    run, accepted = await talk.service.chat(request)
    talk.conversation_id = accepted.conversation_id
    async with run.joined():
        await show(terminal, talk.persona_name, run)
        talk.last = ((await run.outcome())["exchange"], run)


async def show(terminal: Terminal, name: str, run: Run) -> None:
    """Show a reply: as it comes on a terminal, at its end in a pipe."""
    if not terminal.out.is_terminal:
        said = (await run.outcome())["exchange"].response
        terminal.out.print(f"{name}: {said}")
        return
    with Live(console=terminal.out, auto_refresh=False, vertical_overflow="visible") as live:
        live.update(spoken(name, "…"), refresh=True)
        async for event in run.follow():
            if event.kind in ("token", "restart"):
                live.update(spoken(name, run.partial or "…"), refresh=True)
            elif event.kind == "done":  # it may have been trimmed, or made by another process
                live.update(spoken(name, event.data["exchange"].response), refresh=True)


def spoken(name: str, text: str) -> Text:
    """Write what a persona says."""
    return Text.assemble((f"{name}: ", SPEAKER), text)


def why(terminal: Terminal, talk: Talk, runner: asyncio.Runner) -> None:
    """Show what was behind the last reply."""
    if talk.last is None:
        terminal.out.print("There is no reply yet.", style=DIM)
        return
    found = runner.run(explain(talk.service, talk.world_id, *talk.last))
    show_explanation(terminal, found)


def show_explanation(terminal: Terminal, found: dict[str, Any]) -> None:
    """Print memories, relationship, what changed it, and the score."""
    out = terminal.out
    out.print("Memories in the prompt:", style="bold")
    for memory in found["memories"]:
        out.print(f"  {memory['text']}")
    if not found["memories"]:
        out.print("  none", style=DIM)
    if found["held_back"]:
        out.print("Held back, not being close enough:", style="bold")
    for memory in found["held_back"]:
        out.print(f"  {memory['id']} ({memory['memory_type']})")
    view = found["relationship"]
    if view:
        out.print(
            f"Relationship now ({view['relationship_type']}), mood {found['mood']}:", style="bold"
        )
        out.print(relationship_table({"now": view}))
    out.print("What this exchange changed:", style="bold")
    for change in found["relationship_changes"]:
        moved = ", ".join(
            f"{name} {signed(value)}" for name, value in change["changes"].items() if value
        )
        out.print(f"  {change['why']} ({moved or 'nothing'})")
    terms = ", ".join(f"{name} {value:.1f}" for name, value in found["score_terms"].items())
    out.print(f"Wish to go on: {terms}", style=DIM)


def show_prompt(terminal: Terminal, prompt: list[dict[str, Any]]) -> None:
    """Print what the model was given, message by message."""
    terminal.out.print("The prompt:", style="bold")
    for message in prompt:
        said = printable(message["content"])
        terminal.out.print(Text.assemble((f"{message['role']}: ", SPEAKER), said))
    if not prompt:
        unknown = "  not known: it is never stored, and the reply was made before"
        terminal.out.print(unknown, style=DIM)


def relationship_table(views: dict[str, dict[str, Any]]) -> Table:
    """Lay views of a relationship side by side."""
    table = Table("", *views)
    for field in ("affinity", "trust", "respect", "intimacy", "familiarity"):
        table.add_row(field, *(signed(view[field]) for view in views.values()))
    return table


def signed(value: float) -> str:
    """Write a number with its sign and three decimals; nothing is ever -0."""
    return f"{round(value, SHOWN_DECIMALS) + 0.0:+.{SHOWN_DECIMALS}f}"
