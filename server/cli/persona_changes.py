"""Commands that change a persona: update, delete."""

import asyncio
from pathlib import Path
from typing import Any

import yaml

from persona_mcp.config.persona_files import UNREADABLE, StrictLoader, read_fields
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import (
    Arguments,
    Ask,
    Shown,
    answered,
    call,
    carry_out,
    confirm,
    counted,
)
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.validation import known_names, schema_of

NOUNS = {
    "conversations_ended": ("open conversation ends", "open conversations end"),
    "replies_stopped": ("reply is stopped", "replies are stopped"),
    "memories": ("memory", "memories"),
    "relationships": ("relationship", "relationships"),
    "relationship_events": ("event of these", "events of these"),
    "mood_impulses": ("move of its mood", "moves of its mood"),
    "persona_cards": ("character card", "character cards"),
}
"""What is said of a deletion; the other counts are in the JSON."""


def update(
    name: str,
    file: Path | None,
    settings: list[str],
    version: int | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Change fields of a persona, from a file, from `--set`, or both; the latter go first."""
    fields: Arguments = {}

    def read(_: Settings, __: Terminal, runner: asyncio.Runner) -> None:
        fields.update(read_fields(file) if file else {})
        fields.update(pair_of(text) for text in settings)
        if not fields:
            raise InvalidParams.one("--set", "FIELD=VALUE, or a FILE with fields", "nothing")
        for field in fields:
            if field not in PersonaSpec.model_fields:  # the operation has others, too
                raise InvalidParams.one(
                    field, known_names(schema_of(PersonaSpec), field), str(fields[field])
                )

    async def work(ask: Ask, given: Arguments) -> Shown:
        return await ask("persona_update", {**fields, **given})

    def show(terminal: Terminal, found: Shown) -> None:
        what = ", ".join(found["changed"])
        done = f"changed {what}" if what else "nothing is different"
        terminal.out.print(f"{done}; version {found['version']}", soft_wrap=True)

    arguments = {"persona_id": name, "expected_version": version, "world_id": world}
    carry_out(work, arguments, show, as_json, first=read)


def pair_of(text: str) -> tuple[str, Any]:
    """Read what `--set` gives: a field, and its value as YAML.

    Raises:
        InvalidParams: It is not of that form.
    """
    field, found, value = text.partition("=")
    if not found or not field.strip():
        raise InvalidParams.one("--set", "FIELD=VALUE, such as charisma=12", text)
    try:
        return field.strip(), yaml.load(value, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except UNREADABLE:
        raise InvalidParams.one("--set", f"a value for {field} that is YAML", value) from None


def delete(
    name: str, purge: bool, yes: bool, dry_run: bool, world: str | None, as_json: bool
) -> None:
    """Delete a persona after asking; or only show what would go."""
    asked: Arguments = {"persona_id": name, "purge": purge, "world_id": world}

    async def plan(ask: Ask, given: Arguments) -> Shown:
        return await ask("persona_delete", {**asked, "dry_run": True})

    def ask_first(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        if not (yes or dry_run):
            confirm(terminal, as_json, lambda: question(settings, terminal, runner))

    def question(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> str:
        found = runner.run(answered(settings, plan, {}))
        terminal.err.print(in_words(found), soft_wrap=True)
        how = "for good? Nothing brings it back." if purge else "?"
        return f"Delete {found['name']}{' ' if purge else ''}{how}"

    def show(terminal: Terminal, found: Shown) -> None:
        terminal.out.print(in_words(found), soft_wrap=True)

    arguments = {**asked, "confirm": not dry_run, "dry_run": dry_run}
    call("persona_delete", arguments, show, as_json, first=ask_first)


def in_words(found: Shown) -> str:
    """Say what was deleted, or would be."""
    counts = found["counts"]
    told = [counted(counts[what], *nouns) for what, nouns in NOUNS.items() if counts.get(what)]
    return f"{found['message']}: {', '.join(told)}" if told else str(found["message"])
