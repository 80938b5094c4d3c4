"""What is in SQL of what was acknowledged: each exchange once, with its words, in order."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from benchmarks.bookkeeping import faults, rows
from benchmarks.faults.load import Load, Said, send
from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.state import tables

Words = dict[str, list[tuple[str, int, str]]]
"""By request id, each turn that is there: its exchange, its number, its text."""


@dataclass(frozen=True)
class Found:
    """What was found of what was acknowledged.

    Attributes:
        acknowledged: Exchanges that callers had an answer of.
        found: Those that are there with both of their texts.
        doubled: Those that are there more than once, or part of them.
        faults: A line for each thing that is wrong, these included.
    """

    acknowledged: int
    found: int
    doubled: int
    faults: tuple[str, ...]


async def look(settings: Settings, said: Sequence[Said]) -> Found:
    """Count in SQL, beside the server.

    Args:
        settings: Where the data is; the server may run.
        said: What callers had an answer of.
    """
    words = await words_in(settings)
    wrong = await faults(settings, {one.request_id for one in said})
    found, doubled = 0, 0
    for one in said:
        there = words[one.request_id]
        texts = [text for _, _, text in there]
        due = [one.body["message"], one.response]
        if sorted(set(texts)) != sorted(set(due)):
            wrong.append(f"{one.request_id} has the texts {texts}, not {due}")
            continue
        found += 1
        if texts != due or {id for id, _, _ in there} != {one.exchange_id}:
            doubled += 1
            wrong.append(f"{one.request_id} is there more than once, or is another exchange")
    return Found(len(said), found, doubled, (*wrong, *order_of(said, words)))


async def words_in(settings: Settings) -> Words:
    """Read all turns, in the order of their conversations."""
    X, T = tables.Exchange, tables.Turn
    query = (
        select(X.request_id, X.id, T.number, T.content)
        .join(T, (T.world_id == X.world_id) & (T.exchange_id == X.id))
        .order_by(T.conversation_id, T.number)
    )
    database = open_database(settings)
    words: Words = defaultdict(list)
    try:
        for request_id, exchange_id, number, text in await rows(database, query):
            words[request_id].append((exchange_id, number, text))
    finally:
        await database.aclose()
    return words


def order_of(said: Sequence[Said], words: Words) -> list[str]:
    """Look whether each conversation has its exchanges in the order in which they were answered."""
    last: dict[str, int] = defaultdict(int)
    wrong = []
    for one in said:
        numbers = [number for _, number, _ in words[one.request_id]]
        if numbers and (min(numbers) <= last[one.conversation_id]):
            wrong.append(f"{one.request_id} is out of order")
        if numbers and max(numbers) != one.turn_number:
            wrong.append(f"{one.request_id} was turn {one.turn_number} and is {max(numbers)}")
        last[one.conversation_id] = max(numbers, default=last[one.conversation_id])
    return wrong


async def asked_again(load: Load, most: int, chance: random.Random) -> list[str]:
    """Send acknowledged messages again: each must get the answer that it had.

    Args:
        load: What was acknowledged, and by whom.
        most: How many of them.
        chance: Draws which.
    """
    wrong = []
    async with load.site.client() as client:
        for one in chance.sample(load.said, min(most, len(load.said))):
            same = await send(load, client, one.body)
            if same is None:
                wrong.append(f"{one.request_id} was refused when sent again: {load.last_error}")
            elif (same.exchange_id, same.response) != (one.exchange_id, one.response):
                wrong.append(f"{one.request_id} got another answer when sent again")
    return wrong
