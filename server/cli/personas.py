"""Commands on personas: list, show, create."""

from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from persona_mcp.config.persona_files import read_persona
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import world_named
from persona_mcp.server.cli.run import run
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.store import open_store
from persona_mcp.server.terminal import Terminal

ABOUT = 60
OWN = ("id", "version", "created_at", "updated_at", "greetings")
"""Fields of a stored persona that a file does not have."""
PAGE = 200
"""Personas that are asked for at once."""
EMPTY: tuple[Any, ...] = (None, "", [], {})
"""What a file need not say; 0 is a value."""


async def call(
    settings: Settings, world: str | None, operation: str, /, **arguments: Any
) -> dict[str, Any]:
    """Call an operation that needs neither model nor index."""
    async with open_store(settings) as store:
        world_id = await world_named(store, world)
        return await call_operation(store, operation, {**arguments, "world_id": world_id})


def list_personas(world: str | None, as_json: bool) -> None:
    """Print a table of all personas."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        found = await all_personas(settings, world)
        if as_json:
            terminal.print_json(found)
            return
        table = Table("id", "name", "energy", "busy with", "who it is")
        for persona in found["personas"]:
            about = persona["description"].split("\n")[0]
            short = about if len(about) <= ABOUT else about[: ABOUT - 1] + "…"
            energy = f"{persona['social_energy']:.0f}"
            table.add_row(
                persona["id"], persona["name"], energy, persona["current_priority"], short
            )
        terminal.out.print(table)

    run(work, as_json=as_json)


async def all_personas(settings: Settings, world: str | None) -> dict[str, Any]:
    """Return what persona_list returns, of all its pages."""
    async with open_store(settings) as store:
        asked = {"limit": PAGE, "world_id": await world_named(store, world)}
        found = await call_operation(store, "persona_list", asked)
        while cursor := found["next_cursor"]:
            more = await call_operation(store, "persona_list", {**asked, "cursor": cursor})
            found = {**more, "personas": found["personas"] + more["personas"]}
    return found


def show(name: str, world: str | None, as_json: bool) -> None:
    """Print a persona as a file that `persona create` takes."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        found = (await call(settings, world, "persona_get", persona_id=name))["persona"]
        if as_json:
            terminal.print_json(found)
            return
        fields = {k: v for k, v in found.items() if k not in OWN and v not in EMPTY}
        text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=ABOUT + 40)
        terminal.out.print(text.rstrip(), soft_wrap=True)

    run(work, as_json=as_json)


def show_now(name: str, world: str | None, as_json: bool) -> None:
    """Print how a persona stands now."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        found = await call(settings, world, "persona_status", persona_id=name)
        if as_json:
            terminal.print_json(found)
            return
        for line in standing(found):
            terminal.out.print(line, soft_wrap=True)

    run(work, as_json=as_json)


def standing(found: dict[str, Any]) -> list[str]:
    """Say how a persona stands now, a line each."""
    left, felt, kept = (found[n] for n in ("interaction_state", "emotional_state", "memory_stats"))
    weighty = kept["high_importance_count"]
    wait = f"{left['unavailable_reason']}, free in {left['available_in']:.0f} s"
    feelings = ("mood", "energy_level", "stress_level", "curiosity", "social_battery")
    values = ", ".join(f"{name.replace('_', ' ')} {felt[name]:.2f}" for name in feelings)
    looks = [
        f"looks ({one['type']}): {one['description'] or one['data']}"
        for one in found["visual_context"]
    ]
    return [
        f"{found['persona']['name']} ({found['persona']['id']}), version {found['version']}",
        f"feels {felt['label']}: {values}",
        f"left: energy {left['social_energy']:.0f}, {left['available_time']:.0f} s of talk, "
        f"fatigue {left['interaction_fatigue']:.0f}; "
        f"{'can talk' if left['is_available'] else wait}",
        f"remembers {kept['total_memories']} things, {weighty} of them weighty",
        *looks,
    ]


def create(file: Path, dry_run: bool, world: str | None, as_json: bool) -> None:
    """Store a persona from a file, or only check it."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        spec = read_persona(file)
        if dry_run:
            made: dict[str, Any] = {"name": spec.name, "created": False, "valid": True}
        else:
            made = await call(settings, world, "persona_create", **spec.model_dump())
        if as_json:
            terminal.print_json(made)
        elif dry_run:
            terminal.out.print(f"{file} is a valid persona: {spec.name}; nothing was stored")
        else:
            there = f" --world {world}" if world is not None else ""
            terminal.out.print(
                f"created {made['name']}; talk to it: persona chat {made['persona_id']}{there}",
                soft_wrap=True,
            )

    run(work, as_json=as_json)
