"""Commands on tokens: create, list, revoke."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import Shown, confirm, in_options
from persona_mcp.server.cli.run import run_loop
from persona_mcp.server.store import Store, open_store
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.tokens import KnownToken, TokenStore

T = TypeVar("T")

EVERY = "*"
LASTING = re.compile(r"(?P<number>[1-9]\d{0,5})(?P<unit>[mhd])")
SECONDS = {"m": 60, "h": 3600, "d": 86400}


def create(name: str, scopes: str, worlds: str | None, expires: str | None, as_json: bool) -> None:
    """Make a token and print it."""

    def work(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        now = time.time()
        until = None if expires is None else expiry(expires, now)
        given = settings.world if worlds is None else worlds
        opened = None if given.strip() == EVERY else words(given)

        async def made(store: Store) -> tuple[str, KnownToken]:
            return await store.tokens.create(name, words(scopes), opened, until, now)

        token, known = runner.run(with_store(settings, made))
        if as_json:
            terminal.print_json({"token": token, **shown(known, now)})
            return
        terminal.out.print(token, soft_wrap=True)
        told = f"{', '.join(known.scopes)} in {worlds_in_words(known)}, {lasts(known)}"
        terminal.err.print(f"{known.name} ({known.id}): {told}", soft_wrap=True)
        terminal.err.print(
            "Keep it now: it is not shown again. Send it as Authorization: Bearer TOKEN.",
            style="dim",
            soft_wrap=True,
        )

    run_loop(work, as_json=as_json)


def list_tokens(as_json: bool) -> None:
    """List the tokens."""

    def work(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        known = runner.run(with_store(settings, lambda store: store.tokens.all()))
        now = time.time()
        if as_json:
            terminal.print_json({"tokens": [shown(one, now) for one in known]})
        elif not known:
            terminal.out.print("no tokens; persona token create makes one")
        else:
            terminal.out.print(table_of(known, now))

    run_loop(work, as_json=as_json)


def revoke(which: str, yes: bool, as_json: bool) -> None:
    """End a token, after asking."""

    def work(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        known = runner.run(with_store(settings, lambda store: store.tokens.named(which)))
        if not yes:
            confirm(terminal, as_json, lambda: f"Revoke {known.name} ({known.id})?")
        now = time.time()
        ended = runner.run(with_store(settings, lambda store: store.tokens.revoke(known.id, now)))
        if as_json:
            terminal.print_json(shown(ended, now))
        else:
            terminal.out.print(f"{ended.name} ({ended.id}) is revoked", soft_wrap=True)

    run_loop(work, as_json=as_json)


async def with_store(settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open the database and do the work.

    Raises:
        PersonaError: What the work raises, in the words of the command line.
    """
    async with open_store(settings) as store:
        try:
            return await work(store)
        except InvalidParams as error:
            raise in_options(error) from error


async def has_usable(settings: Settings) -> bool:
    """Tell whether there is a token that opens anything."""
    async with open_store(settings) as store:
        tokens: TokenStore = store.tokens
        return await tokens.any_usable(time.time())


def words(text: str) -> list[str]:
    """Read a list that is written with commas."""
    return [word for part in text.split(",") if (word := part.strip())]


def expiry(text: str, now: float) -> float:
    """Read how long a token lasts, or until when.

    Returns:
        Seconds since the epoch, UTC.

    Raises:
        InvalidParams: It is neither.
    """
    lasting = LASTING.fullmatch(text.strip().lower())
    if lasting:
        return now + int(lasting["number"]) * SECONDS[lasting["unit"]]
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        allowed = "30d, 12h or 45m, or a date as 2027-01-31 or 2027-01-31T12:00:00Z"
        raise InvalidParams.one("--expires", allowed, text) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def shown(known: KnownToken, now: float) -> Shown:
    """Return what is told of a token."""
    times: dict[str, Any] = {
        name: None if (at := getattr(known, name)) is None else rfc3339(at)
        for name in ("created_at", "expires_at", "revoked_at", "used_at")
    }
    its = {"id": known.id, "name": known.name, "status": known.status(now)}
    worlds = None if known.worlds is None else list(known.worlds)
    return {**its, "scopes": list(known.scopes), "worlds": worlds, **times}


def worlds_in_words(known: KnownToken) -> str:
    """Say which worlds a token opens."""
    return "every world" if known.worlds is None else ", ".join(known.worlds)


def lasts(known: KnownToken) -> str:
    """Say how long a token lasts."""
    return f"until {rfc3339(known.expires_at)}" if known.expires_at else "until it is revoked"


def table_of(known: list[KnownToken], now: float) -> Table:
    """Lay tokens out."""
    table = Table()
    for name in ("name", "status", "scopes", "worlds", "expires", "last used", "id"):
        table.add_column(name)
    for one in known:
        told = shown(one, now)
        times = (told[name] or "never" for name in ("expires_at", "used_at"))
        scopes = ", ".join(one.scopes)
        table.add_row(one.name, told["status"], scopes, worlds_in_words(one), *times, one.id)
    return table
