"""Who a call is made for: a name, what it may do, and which worlds are open to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["read", "chat", "manage", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""read: list, get, public data; chat: talk, start dialogues; manage: create, change, delete, read a
persona's private data; admin: tokens, limits, metrics, loading of states."""


@dataclass(frozen=True)
class Identity:
    """Who a call is made for.

    Attributes:
        id: What rows, limits and metrics name; never the token itself.
        name: For people.
        scopes: What it may do; none of them holds another.
        worlds: Those that are open to it; None for every world.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    worlds: frozenset[str] | None = None

    def opens(self, world_id: str) -> bool:
        """Say whether a world is open to it."""
        return self.worlds is None or world_id in self.worlds


LOCAL = Identity("local", "local", frozenset(SCOPES))
"""Whoever works at this machine: the command line, stdio, and the server on loopback."""

NOBODY = Identity("nobody", "nobody", frozenset(), frozenset())
"""Whoever shows no token where one is needed: may do nothing, anywhere."""


def known_as(id: str) -> Identity:
    """Return who goes by an id that a row names, to do work in the background for; no scopes."""
    return LOCAL if id == LOCAL.id else Identity(id, id, frozenset())


_caller: ContextVar[Identity] = ContextVar("caller", default=LOCAL)


@contextmanager
def called_by(identity: Identity) -> Iterator[None]:
    """Make this the caller of everything that the block does, tasks that it starts included."""
    token = _caller.set(identity)
    try:
        yield
    finally:
        _caller.reset(token)


def current_caller() -> Identity:
    """Return for whom the work under way is done."""
    return _caller.get()


def signed() -> tuple[str, ...]:
    """Return what tells the caller's calls from those of others: nothing for whoever is LOCAL."""
    caller = current_caller()
    return () if caller.id == LOCAL.id else (caller.id,)
