"""The command that shows in a minute what the product is about."""

import tempfile
from pathlib import Path
from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.nodes.parts import ChatContext
from persona_mcp.nodes.relationship import first_impression
from persona_mcp.server.cli.run import llm, run
from persona_mcp.server.cli.talk import DIM, YOU, finish, relationship_table, show
from persona_mcp.server.explanation import explain
from persona_mcp.server.operations.chat import reply_of
from persona_mcp.server.operations.registry import rounded
from persona_mcp.server.operations.relationships import shown
from persona_mcp.server.runs import ChatRequest
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.terminal import Terminal
from persona_mcp.state import relationship

STEADY = ChatContext(temperature=0.0)
"""A first impression is not left to chance: the small model is at its surest."""
PERSONA = "aria"
USER = "Sam"
FIRST = (
    "Good evening, Aria! I'm Sam, and my cat is called Biscuit.",
    "You sing beautifully. I am so glad that I met you!",
    "What do you like best about travelling?",
)
SECOND = ("I am back! Tell me, do you remember what my cat is called?",)


def demo(model: str | None, as_json: bool) -> None:
    """Play the talk in a folder of its own."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        with tempfile.TemporaryDirectory(prefix="persona-demo-") as folder:
            apart = settings.model_copy(update={"data_dir": Path(folder)})
            async with open_service(apart) as service:
                told = await play(service, terminal, quiet=as_json)
        if as_json:
            terminal.print_json(told)

    run(work, as_json=as_json, llm=llm(model))


async def play(service: Service, terminal: Terminal, quiet: bool) -> dict[str, Any]:
    """Hold two conversations; the second one's window holds nothing of the first."""
    info = await service.model.info()
    before = await impression(service)
    turns: list[dict[str, str]] = []
    if not quiet:
        weak = " (small: it wanders, but it is real)" if info.small else ""
        terminal.out.print(f"Model: {info.id}{weak}", style=DIM)
        terminal.out.print("A first conversation.", style=DIM)
    await converse(service, terminal, FIRST, turns, quiet)
    if not quiet:
        terminal.out.print("\nAnother conversation; its window is empty.", style=DIM)
    found = await converse(service, terminal, SECOND, turns, quiet)
    after = found["relationship"]
    if not quiet:
        close(terminal, found, before, after)
    return {
        "turns": turns,
        "memories_used": [memory["text"] for memory in found["memories"]],
        "relationship_before": before,
        "relationship_after": after,
        "mood": found["mood"],
        "model": info.id,
    }


async def impression(service: Service) -> dict[str, Any]:
    """Return how the persona sees somebody whom it has never met."""
    world_id, laws = service.settings.world, service.laws.effects.relationships
    persona = await service.personas.resolve(world_id, PERSONA)
    arrow = relationship.begin(first_impression(persona, None, service.parts), service.started_at)
    view: dict[str, Any] = rounded(
        shown(persona.id, USER, arrow, None, laws).model_dump(mode="json")
    )
    return view


async def converse(
    service: Service,
    terminal: Terminal,
    lines: tuple[str, ...],
    turns: list[dict[str, str]],
    quiet: bool,
) -> dict[str, Any]:
    """Say the lines in one new conversation, and return what was behind the last reply."""
    world_id, conversation = service.settings.world, None
    found: dict[str, Any] = {}
    for line in lines:
        if not quiet:
            terminal.out.print(f"{USER}: ", style=YOU, end="")
            terminal.out.print(line)
        run, accepted = await service.chat(
            ChatRequest(world_id, PERSONA, USER, line, conversation, context=STEADY)
        )
        conversation = accepted.conversation_id
        if not quiet:
            await show(terminal, "Aria", run)
        exchange = await finish(run)
        reply = await reply_of(service, world_id, exchange)
        turns += [
            {"speaker": USER, "text": line, "conversation_id": exchange.conversation_id},
            {
                "speaker": "Aria",
                "text": reply.response or "",
                "conversation_id": exchange.conversation_id,
            },
        ]
        found = await explain(service, world_id, exchange, run)
    return found


def close(
    terminal: Terminal, found: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Show what was remembered and felt."""
    out = terminal.out
    out.print("\nRecalled for this reply:", style="bold")
    for memory in found["memories"]:
        out.print(f"  {memory['text']}")
    out.print(f"\nHow Aria sees {USER} (mood: {found['mood']}):", style="bold")
    out.print(relationship_table({"at first sight": before, "now": after}))
    out.print("Now yours: persona chat Aria", style=DIM)
