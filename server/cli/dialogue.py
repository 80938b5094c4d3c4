"""The command that lets two personas talk."""

import contextlib
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import Shown, in_options, world_named
from persona_mcp.server.cli.run import llm, run
from persona_mcp.server.cli.talk import DIM, show
from persona_mcp.server.dialogues import Advance, advance
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.continuation import reason_in_words
from persona_mcp.state.errors import InvalidParams, PersonaError
from persona_mcp.state.ids import new_id


class Stop:
    """Whether the user wants the talk to end after the turn that is being made.

    Attributes:
        wished: Set by the first Ctrl-C; a second one stops at once, as in other commands.
    """

    def __init__(self) -> None:
        """Wish for nothing yet."""
        self.wished = False

    @contextlib.contextmanager
    def listening(self, terminal: Terminal) -> Iterator[None]:
        """Take the first Ctrl-C as a wish."""
        usual = signal.getsignal(signal.SIGINT)

        def wish(*_: object) -> None:
            self.wished = True
            signal.signal(signal.SIGINT, usual)
            terminal.err.print("(the talk ends after this turn)", style=DIM)

        signal.signal(signal.SIGINT, wish)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)


def talk(begin: Mapping[str, Any], model: str | None, world: str | None, as_json: bool) -> None:
    """Let two personas talk to the end, and print what they say.

    Args:
        begin: Arguments of conversation_start; None is left out.
        model: In place of the one of the settings.
        world: Where; None for the default.
        as_json: Print one JSON object at the end instead.
    """

    async def work(settings: Settings, terminal: Terminal) -> None:
        given = {name: value for name, value in begin.items() if value is not None}
        async with open_service(settings, holds_batches=False) as service:
            given["world_id"] = await world_named(service, world)
            try:
                begun = await call_operation(service, "conversation_start", given)
            except InvalidParams as error:
                raise in_options(error) from error
            found = await play(service, terminal, given["world_id"], begun, quiet=as_json)
        if as_json:
            terminal.print_json(found)
        else:
            about = f"{found['turn_count']} turns, {reason_in_words(found['exit_reason'])}"
            terminal.out.print(f"({about}; conversation {found['id']})", style=DIM)

    run(work, as_json=as_json, llm=llm(model))


async def play(
    service: Service, terminal: Terminal, world_id: str, begun: Shown, quiet: bool
) -> Shown:
    """Make turns until the talk ends or the user wishes so; a talk that fails is ended, too.

    Returns:
        The talk as conversation_status shows it, with its turns and its seed.
    """
    where = {"world_id": world_id, "conversation_id": begun["conversation_id"]}
    names = await service.personas.names(world_id)
    turns: list[Shown] = []
    speaker: str | None = begun["first_speaker"]
    stop = Stop()
    try:
        with stop.listening(terminal):
            while speaker is not None and not stop.wished:
                asked = Advance(world_id, begun["conversation_id"], new_id())
                made = await one_turn(service, terminal, asked, names[speaker], quiet)
                turns += made["turns"]
                speaker = made["next_speaker"]
    finally:
        with contextlib.suppress(PersonaError):  # it has ended by itself
            await call_operation(service, "conversation_end", where)
    status = await call_operation(service, "conversation_status", where)
    return {**status, "seed": begun["seed"], "turns": turns}


async def one_turn(
    service: Service, terminal: Terminal, asked: Advance, name: str, quiet: bool
) -> Shown:
    """Make a turn, show it as it comes, and return what conversation_advance says of it."""
    made = await advance(service, asked)
    async with made.joined():
        if quiet:
            await made.outcome()
        else:
            await show(terminal, name, made)
    again = {
        "world_id": asked.world_id,
        "conversation_id": asked.conversation_id,
        "request_id": asked.request_id,
    }
    return await call_operation(service, "conversation_advance", again)
