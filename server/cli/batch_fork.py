"""The command that goes on with a dialogue of a batch otherwise, and compares."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.changes import read_changes
from persona_mcp.server.batch.comparison import SHOWN, Compared
from persona_mcp.server.batch.fork import Fork, Forked, fork_dialogue, new_folder, write_fork
from persona_mcp.server.batch.model_pool import ModelPool, open_pool
from persona_mcp.server.cli.run import llm, run
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.batch.values import TurnTold
from persona_mcp.state.continuation import reason_in_words
from persona_mcp.state.dialogue_spec import ModelSpec

SIGNED = "+.3f"


def fork(
    folder: Path,
    dialogue: int,
    turn: int,
    changes: Sequence[str],
    out: Path | None,
    repeats: int,
    model: str | None,
    as_json: bool,
) -> None:
    """Hold the rest of a dialogue otherwise, and show it beside what it was."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        asked = Fork(dialogue, turn, read_changes(changes), repeats)
        target = await asyncio.to_thread(new_folder, folder, asked, out)

        def open_model(spec: ModelSpec) -> ModelPool:
            chosen = spec if model is None else spec.model_copy(update={"name": model})
            return open_pool(settings.llm, chosen)

        def told(number: int, said: TurnTold) -> None:
            if not as_json and said.turn > turn:
                terminal.err.print(f"fork {number}, turn {said.turn}: {said.speaker}", style="dim")

        forked = await fork_dialogue(folder, asked, settings, open_model, told)
        await asyncio.to_thread(write_fork, target, forked)
        if as_json:
            terminal.print_json({**forked.as_json(), "folder": str(target)})
        else:
            show(terminal, forked, target)

    run(work, as_json=as_json, llm=llm(model))


def show(terminal: Terminal, forked: Forked, target: Path) -> None:
    """Lay the arms out side by side."""
    arms = forked.arms
    table = Table("", *(arm["name"] for arm in arms))
    table.add_row("parts at turn", *(at_turn(arm) for arm in arms))
    table.add_row("turns", *(str(arm["turns"]) for arm in arms))
    table.add_row("tokens", *(str(arm["tokens"]) for arm in arms))
    table.add_row("ended by", *(ended_by(arm) for arm in arms))
    for of, to in pairs_of(arms):
        for name in SHOWN:
            values = [of_pair(arm, of, to, name) for arm in arms]
            table.add_row(f"{of} -> {to}: {name}", *values)
    terminal.out.print(table)
    terminal.out.print(f"transcripts: {target}")


def at_turn(arm: Compared) -> str:
    """Write where an arm parts from the original one."""
    return "-" if arm["parts_at"] is None else str(arm["parts_at"])


def ended_by(arm: Compared) -> str:
    """Write why an arm ended."""
    error: dict[str, Any] | None = arm["error"]
    return f"failed: {error.get('message', '')}" if error else reason_in_words(arm["exit_reason"])


def pairs_of(arms: Sequence[Compared]) -> list[tuple[str, str]]:
    """Return who sees whom in any of the arms."""
    return sorted({(one["of"], one["to"]) for arm in arms for one in arm["relationships"]})


def of_pair(arm: Compared, of: str, to: str, name: str) -> str:
    """Write one dimension of a relationship at the end of an arm."""
    for one in arm["relationships"]:
        if (one["of"], one["to"]) == (of, to):
            return format(one[name], SIGNED)
    return "-"
