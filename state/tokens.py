"""Tokens in SQL: made, listed, revoked, and found again by what a caller shows.

A token is shown once, to whoever makes it; kept is its SHA-256. It has 256 random bits, so that no
slow hash is needed, and nobody finds one by trying. It is looked up by that digest: what is
compared is no part of the token, so the time that it takes tells nothing of it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    String,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from persona_mcp.state import tables
from persona_mcp.state.access_tables import Token as T
from persona_mcp.state.callers import SCOPES, Identity, Scope
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, Fault, InvalidParams, NotFound
from persona_mcp.state.ids import new_id
from persona_mcp.state.prepared import Prepared

PREFIX = "pmcp_"
"""Tokens begin so, so that whoever finds one, a scanner of leaked secrets too, knows what it is."""
RANDOM_BYTES = 32
FORM = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
NOTED_S = 300.0
"""A use is noted again after this, in seconds, so that calls seldom write."""
NAME_LENGTH = 80

BY_DIGEST = Prepared(select(T).where(T.digest == bindparam("digest", type_=String)))
NOTE = Prepared(
    update(T)
    .where(T.id == bindparam("key", type_=String))
    .values(used_at=bindparam("now", type_=Float))
)


@dataclass(frozen=True)
class KnownToken:
    """What is kept of a token.

    Attributes:
        id: What stands for its bearer wherever rows and the log name a caller.
        name: For people; of those in use no two have the same.
        scopes: What it allows.
        worlds: Ids of those that it opens; None for every world.
        created_at: Seconds since the epoch, UTC, as the others.
        expires_at: None for never.
        revoked_at: None while it was not.
        used_at: Last use that was noted; None for none yet.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    worlds: tuple[str, ...] | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None

    def status(self, now: float) -> str:
        """Say active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        over = self.expires_at is not None and self.expires_at <= now
        return "expired" if over else "active"

    @property
    def identity(self) -> Identity:
        """Return for whom calls with it are made."""
        worlds = None if self.worlds is None else frozenset(self.worlds)
        return Identity(self.id, self.name, frozenset(self.scopes), worlds)


class TokenStore:
    """Makes, lists, revokes and finds tokens."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def create(
        self,
        name: str,
        scopes: Collection[str],
        worlds: Collection[str] | None,
        expires_at: float | None,
        now: float,
    ) -> tuple[str, KnownToken]:
        """Make a token; one of this name that is expired or revoked gives way to it.

        Args:
            name: For people, 1..80 characters.
            scopes: What it allows, at least one.
            worlds: Ids of those that it opens; None for every world.
            expires_at: Seconds since the epoch, UTC; None for never.
            now: Likewise.

        Returns:
            The token itself, which nothing tells again, and what is kept of it.

        Raises:
            InvalidParams: A scope is not known, the name is blank or too long, or it would have
                expired already.
            NotFound: A world is not there.
            Conflict: A token that is in use has this name.
        """
        check_asked(name, scopes, worlds, expires_at, now)
        token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        known = KnownToken(
            id=f"t_{new_id()}",
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            worlds=None if worlds is None else tuple(sorted(set(worlds))),
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
            used_at=None,
        )

        def write(connection: Connection) -> None:
            check_worlds(connection, known.worlds or ())
            if connection.execute(select(T.id).where(T.name == name, usable(now))).first():
                raise Conflict(
                    f"name '{name}' is taken by a token that is in use; choose another name, or "
                    f"revoke that one first: persona token revoke {name}",
                    field="name",
                    given=name,
                )
            connection.execute(delete(T).where(T.name == name))
            lists = {"scopes": list(known.scopes), "worlds": known.worlds and list(known.worlds)}
            connection.execute(insert(T).values({**vars(known), **lists, "digest": digest(token)}))

        await self._database.write(write)
        return token, known

    async def all(self) -> list[KnownToken]:
        """Return what is kept of every token, the newest first."""
        query = Prepared(select(T).order_by(T.created_at.desc(), T.id))
        return [to_token(row) for row in await self._database.read(query.all)]

    async def opening(self, world_id: str, now: float) -> list[KnownToken]:
        """Return the tokens in use that name a world, the newest first."""
        known = await self.all()
        return [
            one for one in known if world_id in (one.worlds or ()) and one.status(now) == "active"
        ]

    async def named(self, reference: str) -> KnownToken:
        """Return what is kept of a token, by its id or its name.

        Raises:
            NotFound: It is not there; the names of those that are, are told.
        """
        known = await self.all()
        by_id = {token.id: token for token in known}
        found = by_id.get(reference) or {token.name: token for token in known}.get(reference)
        if found is None:
            raise NotFound.of("token", reference, [token.name for token in known])
        return found

    async def revoke(self, reference: str, now: float) -> KnownToken:
        """End a token, by its id or its name; one that was revoked already stays as it is.

        Raises:
            NotFound: It is not there.
        """
        found = await self.named(reference)
        change = update(T).where(T.id == found.id, T.revoked_at.is_(None)).values(revoked_at=now)
        await self._database.write(Prepared(change).run)
        return await self.named(found.id)

    async def find(self, token: str, now: float) -> KnownToken | None:
        """Find a token that is in use by what its bearer shows, and note the use now and then.

        Returns:
            None if nobody made it, if it has expired, or was revoked.
        """
        if not FORM.fullmatch(token):
            return None
        shown = digest(token)
        row = await self._database.read(BY_DIGEST.first, digest=shown)
        if row is None or not hmac.compare_digest(row.digest, shown):
            return None
        found = to_token(row)
        if found.status(now) != "active":
            return None
        if found.used_at is None or now - found.used_at > NOTED_S:
            await self._database.write(NOTE.run, {"key": found.id, "now": now})
        return found

    async def any_usable(self, now: float) -> bool:
        """Tell whether there is a token that opens anything."""
        query = Prepared(select(T.id).where(usable(now)).limit(1))
        return await self._database.read(query.first) is not None


def digest(token: str) -> str:
    """Return what is kept of a token in its place."""
    return hashlib.sha256(token.encode()).hexdigest()


def usable(now: float) -> ColumnElement[bool]:
    """Return the condition of tokens that are in use."""
    return T.revoked_at.is_(None) & or_(T.expires_at.is_(None), T.expires_at > now)


def check_asked(
    name: str,
    scopes: Collection[str],
    worlds: Collection[str] | None,
    expires_at: float | None,
    now: float,
) -> None:
    """Refuse what no token can be, all of it at once.

    Raises:
        InvalidParams: A field is wrong.
    """
    faults: list[Fault] = []
    if not 1 <= len(name) <= NAME_LENGTH or name != name.strip() or not name.isprintable():
        allowed = f"1..{NAME_LENGTH} printable characters, none blank at the ends"
        faults.append({"field": "name", "allowed": allowed, "given": name[:NAME_LENGTH]})
    strange = sorted(set(scopes) - set(SCOPES))
    if strange or not scopes:
        given = ",".join(strange) or "none"
        allowed = f"one or several of {', '.join(SCOPES)}"
        faults.append({"field": "scopes", "allowed": allowed, "given": given})
    if worlds is not None and not worlds:
        allowed = "ids of worlds, or left out for every world"
        faults.append({"field": "worlds", "allowed": allowed, "given": "none"})
    if expires_at is not None and expires_at <= now:
        allowed = "a time that is still to come"
        faults.append({"field": "expires", "allowed": allowed, "given": "one that has passed"})
    if faults:
        raise InvalidParams.of(faults)


def check_worlds(connection: Connection, worlds: Collection[str]) -> None:
    """Make sure that worlds are there.

    Raises:
        NotFound: One is not.
    """
    known = connection.execute(select(tables.World.id).order_by(tables.World.id)).scalars().all()
    for world_id in worlds:
        if world_id not in known:
            raise NotFound.of("world", world_id, known)


def to_token(row: Any) -> KnownToken:
    """Read a row."""
    its = {name: getattr(row, name) for name in KnownToken.__dataclass_fields__}
    its["scopes"] = tuple(cast("list[Scope]", row.scopes))
    its["worlds"] = None if row.worlds is None else tuple(row.worlds)
    return KnownToken(**its)
