"""Conversations and their transcripts in SQL."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    and_,
    bindparam,
    func,
    literal,
    select,
)

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.errors import NotFound
from persona_mcp.state.exchange import (
    MESSAGE_AND_REPLY,
    UNFINISHED,
    Conversation,
    Exchange,
    Turn,
)
from persona_mcp.state.exchanges import to_exchange
from persona_mcp.state.prepared import Prepared, listed

C = tables.Conversation
T = tables.Turn
W = tables.TurnWitness
X = tables.Exchange
M = tables.Memory
U = tables.MemoryUse
E = tables.RelationshipEvent
TURNS_KEPT = 4096
"""As many as two hundred chats have in their windows; one takes a kilobyte."""
BY_ID = Prepared(select(C).where(C.world_id == bindparam("world"), C.id == bindparam("key")))
SPOKEN = Prepared(
    select(func.count()).where(
        T.world_id == bindparam("world"),
        T.conversation_id == bindparam("conversation"),
        T.speaker_id == bindparam("speaker"),
        T.active,
    )
)
WITNESSES = Prepared(
    select(W.turn_id, W.party_id)
    .where(W.world_id == bindparam("world"), W.turn_id.in_(listed("ids")))
    .order_by(W.turn_id, W.party_id)
)
LAST_NUMBER = Prepared(
    select(func.max(T.number)).where(
        T.world_id == bindparam("world"), T.exchange_id == bindparam("exchange")
    )
)
UNDER_WAY = Prepared(
    select(func.count()).where(
        X.world_id == bindparam("world"),
        X.conversation_id == bindparam("conversation"),
        X.number < bindparam("number"),
        X.status.in_(UNFINISHED),
    )
)
"""Exchanges that were accepted earlier and may still be done."""
TRACES = [
    Prepared(
        query.where(
            table.world_id == bindparam("world"),
            table.exchange_id.in_(listed("ids")),
        )
    )
    for query, table in (
        (select(T.exchange_id, T.number).order_by(T.number), T),
        (
            select(M.exchange_id, M.turn_id, M.id)
            .where(M.turn_id.is_not(None))  # a summary is of more turns than an exchange has
            .order_by(M.seq),
            M,
        ),
        (select(U.exchange_id, U.memory_id).order_by(U.memory_id), U),
        (select(E.exchange_id, E.id).order_by(E.seq), E),
    )
]
"""What an exchange left behind: its turns, the memories made of it and used in it, its events."""


@dataclass(frozen=True)
class Trace:
    """What an exchange left behind.

    Attributes:
        last_turn: Number of its last turn; None if it has none.
        memories: Ids of the memories that were made, by the turn that they are made from.
        used: Ids of the memories that were in its prompt.
        events: Ids of the relationship events.
    """

    last_turn: int | None
    memories: dict[str, list[str]]
    used: tuple[str, ...]
    events: tuple[str, ...]


class ConversationStore:
    """Reads conversations; `ExchangeStore.accept` makes them."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def get(self, world_id: str, conversation_id: str) -> Conversation:
        """Return a conversation.

        Raises:
            NotFound: It is not there.
        """
        return await self._database.read(get, world_id, conversation_id)

    async def find(self, world_id: str, conversation_id: str) -> Conversation | None:
        """Return a conversation, None if it is not there."""
        return await self._database.read(find, world_id, conversation_id)

    async def latest(self, world_id: str, persona_id: str, user_id: str) -> Conversation | None:
        """Return the chat of these two that was used last, None if they never talked."""
        query = (
            select(C)
            .where(
                C.world_id == world_id,
                C.persona_id == persona_id,
                C.user_id == user_id,
                C.status == "active",
            )
            .order_by(C.updated_at.desc(), C.id)
            .limit(1)
        )
        row = await self._database.read(Prepared(query).first)
        return to_conversation(row) if row else None

    async def count_active(self, world_id: str) -> int:
        """Count the conversations that are not ended."""
        query = select(func.count()).where(C.world_id == world_id, C.status == "active")
        count: int = await self._database.read(Prepared(query).scalar)
        return count

    async def knows_user(self, world_id: str, user_id: str) -> bool:
        """Tell whether somebody of this id has talked to a persona."""
        query = select(C.id).where(C.world_id == world_id, C.user_id == user_id).limit(1)
        return await self._database.read(Prepared(query).first) is not None

    async def begun(self, world_id: str, start: str, limit: int) -> tuple[list[str], int]:
        """Return ids that start so, the one that was used last first, and how many there are."""
        query = (
            select(C.id, func.count().over())
            .where(C.world_id == world_id, C.id.startswith(start, autoescape=True))
            .order_by(C.updated_at.desc(), C.id)
            .limit(limit)
        )
        rows = await self._database.read(Prepared(query).all)
        return [id for id, _ in rows], rows[0][1] if rows else 0

    async def transcript(
        self,
        world_id: str,
        conversation_id: str,
        limit: int,
        after: int = 0,
        viewer: str | None = None,
    ) -> tuple[list[Turn], list[Exchange]]:
        """Return turns in order from behind number `after`, their exchanges, and all not done.

        Turns that were switched off are left out. For a viewer, only what it said or heard: an
        exchange that is not done was heard by nobody.
        """
        turns = (
            select(T)
            .where(
                T.world_id == world_id,
                T.conversation_id == conversation_id,
                T.active,
                T.number > after,
            )
            .order_by(T.number)
            .limit(limit)
        )
        if viewer is not None:
            heard = (W.world_id == T.world_id) & (W.turn_id == T.id) & (W.party_id == viewer)
            turns = turns.join(W, heard)

        def read(connection: Connection) -> tuple[list[Turn], list[Exchange]]:
            rows = connection.execute(turns).all()
            witnesses = witnesses_of(connection, world_id, [r.id for r in rows])
            wanted = X.id.in_({r.exchange_id for r in rows})
            exchanges = (
                select(X)
                .where(X.world_id == world_id, X.conversation_id == conversation_id)
                .where(wanted if viewer is not None else wanted | (X.status != "done"))
                .order_by(X.number)
            )
            found = [to_exchange(row) for row in connection.execute(exchanges)]
            return [to_turn(r, witnesses.get(r.id, ())) for r in rows], found

        return await self._database.read(read)

    async def traces(self, world_id: str, exchange_ids: Sequence[str]) -> dict[str, Trace]:
        """Return what each exchange left behind, by its id."""

        def read(connection: Connection) -> list[Sequence[Any]]:
            return [query.all(connection, world=world_id, ids=exchange_ids) for query in TRACES]

        numbers, memories, uses, changes = await self._database.read(read)
        return {
            exchange: Trace(
                last_turn=max(
                    (r.number for r in numbers if r.exchange_id == exchange), default=None
                ),
                memories=by_turn(r for r in memories if r.exchange_id == exchange),
                used=tuple(r.memory_id for r in uses if r.exchange_id == exchange),
                events=tuple(r.id for r in changes if r.exchange_id == exchange),
            )
            for exchange in exchange_ids
        }


def by_turn(made: Iterable[Row[Any]]) -> dict[str, list[str]]:
    """Return the ids of memories by the turn that they are made from."""
    found: dict[str, list[str]] = {}
    for row in made:
        found.setdefault(row.turn_id, []).append(row.id)
    return found


def get(connection: Connection, world_id: str, conversation_id: str) -> Conversation:
    """Return a conversation inside a transaction.

    Raises:
        NotFound: It is not there.
    """
    found = find(connection, world_id, conversation_id)
    if found is None:
        raise NotFound.of("conversation", conversation_id)
    return found


def find(connection: Connection, world_id: str, conversation_id: str) -> Conversation | None:
    """Return a conversation inside a transaction, None if it is not there."""
    row = BY_ID.first(connection, world=world_id, key=conversation_id)
    return to_conversation(row) if row else None


def window(
    connection: Connection,
    world_id: str,
    conversation_id: str,
    reader: str,
    head_exchange_id: str | None,
    limit: int,
    turns_each: int = 1,
) -> list[Turn]:
    """Return the last turns that the reader witnessed, oldest first.

    They are those of an exchange, of the one that it follows, and so on: a fork at an older
    exchange does not see what was said after it elsewhere.

    Args:
        connection: An open transaction.
        world_id: Where.
        conversation_id: Which.
        reader: Who heard or said them.
        head_exchange_id: The exchange that ends the line; None for nothing.
        limit: How many turns, at most.
        turns_each: An exchange has so many at least, of which the reader witnessed each: so many
            fewer exchanges are looked at.
    """
    if head_exchange_id is None or limit == 0:
        return []
    rows = WINDOW.all(
        connection,
        world=world_id,
        conversation=conversation_id,
        reader=reader,
        head=head_exchange_id,
        most=limit,
        deep=exchanges_of(limit, turns_each),
    )
    return list(reversed(rows))


def exchanges_of(turns: int, turns_each: int) -> int:
    """Return in how many exchanges so many turns are, where each has at least `turns_each`."""
    return -(-turns // turns_each)


def chain_of(most: ColumnElement[int]) -> CTE:
    """Return the ids of an exchange, `head`, of the one that it follows, and so on."""
    world = bindparam("world", type_=String)
    chain = (
        select(X.id, X.follows_id, literal(1).label("depth"))
        .where(X.world_id == world, X.id == bindparam("head"))
        .cte("chain", recursive=True)
    )
    return chain.union_all(
        select(X.id, X.follows_id, chain.c.depth + 1).where(
            X.world_id == world, X.id == chain.c.follows_id, chain.c.depth < most
        )
    )


def window_query() -> Select[*tuple[Any, ...]]:
    """Return the query of `window`: it walks along the chain, then reads the turns on it."""
    world, most = bindparam("world", type_=String), bindparam("most", type_=INTEGER)
    chain = chain_of(bindparam("deep", type_=INTEGER))
    heard = and_(W.world_id == T.world_id, W.turn_id == T.id, W.party_id == bindparam("reader"))
    return (
        select(T)
        .join(W, heard)
        .where(
            T.world_id == world,
            T.conversation_id == bindparam("conversation"),
            T.active,
            T.exchange_id.in_(select(chain.c.id)),
        )
        .order_by(T.number.desc())
        .limit(most)
    )


def spoken(connection: Connection, world_id: str, conversation_id: str, speaker: str) -> int:
    """Count the turns of a speaker in a conversation."""
    count: int = SPOKEN.scalar(
        connection, world=world_id, conversation=conversation_id, speaker=speaker
    )
    return count


def reply_number(connection: Connection, world_id: str, exchange: Exchange) -> int:
    """Return the turn that an exchange's reply is; before it is done, if those before it succeed.

    Raises:
        NotFound: Its conversation is not there.
    """
    number: int | None = LAST_NUMBER.scalar(connection, world=world_id, exchange=exchange.id)
    if number is not None:
        return number
    its = {"world": world_id, "conversation": exchange.conversation_id, "number": exchange.number}
    waiting: int = UNDER_WAY.scalar(connection, **its)
    said = get(connection, world_id, exchange.conversation_id).turn_count
    return said + MESSAGE_AND_REPLY * (waiting + 1)


def witnesses_of(
    connection: Connection, world_id: str, turn_ids: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return who said or heard each turn, in order of their ids."""
    found: dict[str, tuple[str, ...]] = {}
    for turn_id, party in WITNESSES.each(connection, world=world_id, ids=list(turn_ids)):
        found[turn_id] = (*found.get(turn_id, ()), party)
    return found


def to_conversation(row: Row[Any]) -> Conversation:
    """Read a row."""
    names = Conversation.__dataclass_fields__
    values = {name: getattr(row, name) for name in names}
    parties = {"persona_id": row.persona_id or "", "user_id": row.user_id or ""}
    return Conversation(**{**values, **parties, "participants": tuple(row.participants)})


def to_turn(row: Row[Any], witnesses: tuple[str, ...] = ()) -> Turn:
    """Read a row."""
    names = (n for n in Turn.__dataclass_fields__ if n != "witnesses")
    return Turn(**{name: getattr(row, name) for name in names}, witnesses=witnesses)


WINDOW = Prepared(window_query(), made=to_turn, kept=TURNS_KEPT)
"""Of a window all but the last exchange was in the one before."""
