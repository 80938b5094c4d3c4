"""The command `persona tools`: what there is to call, as the registry has it."""

import json
import textwrap
from typing import Any

from rich.table import Column, Table

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.run import run
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import Operation, operation_named
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.validation import in_words, resolve

WIDTH = 98


def tools(name: str | None, as_json: bool) -> None:
    """Print the table of operations, or one with its parameters and result."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        found = None if name is None else operation_named(name)
        if as_json:
            terminal.print_json(
                described(found) if found else [brief(o) for o in operations("all")]
            )
        elif found:
            show_one(terminal, found)
        else:
            show_all(terminal)

    run(work, as_json=as_json)


def brief(operation: Operation) -> dict[str, Any]:
    """Return what a line of the table says."""
    return {
        "name": operation.name,
        "toolset": operation.toolset,
        "scope": operation.scope,
        "core": operation.core,
        "title": operation.title,
    }


def described(operation: Operation) -> dict[str, Any]:
    """Return all that a client is told of an operation."""
    return {
        **brief(operation),
        "description": operation.description,
        "read_only": operation.read_only,
        "destructive": operation.destructive,
        "idempotent": operation.idempotent,
        "open_world": operation.open_world,
        "input_schema": operation.input_schema,
        "output_schema": operation.output_schema,
    }


def show_all(terminal: Terminal) -> None:
    """Print a row for each operation; where there is little room, only titles are wrapped."""
    table = Table(Column("name", no_wrap=True), "toolset", "scope", "core", "title")
    for o in operations("all"):
        table.add_row(o.name, o.toolset, o.scope, "core" if o.core else "", o.title)
    terminal.out.print(table)


def show_one(terminal: Terminal, operation: Operation) -> None:
    """Print what an operation does, takes and returns."""
    core = "core" if operation.core else "not in the core toolset"
    facts = f"toolset {operation.toolset}, scope {operation.scope}, {core}"
    terminal.out.print(f"{operation.name}: {operation.title} ({facts})")
    terminal.out.print(textwrap.fill(operation.description, WIDTH))
    given, made = operation.input_schema, operation.output_schema
    takes = Table("takes", "allowed", "default", "meaning")
    for field, schema in given["properties"].items():
        takes.add_row(field, allowed(schema, given), default(field, given), meaning(schema))
    returns = Table("returns", "value", "meaning")
    for field, schema in made.get("properties", {}).items():
        returns.add_row(field, allowed(schema, made), meaning(schema))
    terminal.out.print(takes)
    terminal.out.print(returns)


def allowed(schema: dict[str, Any], root: dict[str, Any]) -> str:
    """Say what a value is, in a few words."""
    return in_words(resolve(schema, root), root)


def default(field: str, root: dict[str, Any]) -> str:
    """Say what a parameter is when it is left out."""
    if field in root.get("required", []):
        return "required"
    value = root["properties"][field].get("default")
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def meaning(schema: dict[str, Any]) -> str:
    """Return the description of a field; empty if its name says all."""
    found: str = schema.get("description", "")
    return found
