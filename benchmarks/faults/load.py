"""Callers who chat over HTTP, send again what nobody answered, and keep what was acknowledged."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.faults.site import Site

CHAT = "/api/v1/persona/chat"
PERSONAS = ("aria", "kira")
AGAIN_S = 0.05
"""Wait before a message is sent again."""
PATIENCE_S = 300.0
"""Longest that a message stays unanswered once the fault is gone."""
CALL_S = 60.0
MET_S = 180.0
"""Longest that a fault may take to reach a caller."""


@dataclass(frozen=True)
class Said:
    """An exchange that was acknowledged to its caller.

    Attributes:
        body: What was sent.
        exchange_id: Which one it became.
        conversation_id: Where.
        turn_number: Of the reply, from 2 on.
        response: What the persona said.
        at: When, in seconds of the monotonic clock.
    """

    body: dict[str, Any]
    exchange_id: str
    conversation_id: str
    turn_number: int
    response: str
    at: float

    @property
    def request_id(self) -> str:
        """The request's own id."""
        return str(self.body["request_id"])


@dataclass
class Load:
    """What the callers did.

    Attributes:
        site: Whom they call.
        said: What was acknowledged, in the order of the answers.
        refused: Errors that they were told, by code; `connection` for none.
        last_error: What the last of them said.
        sent: Requests, those that were sent again too.
    """

    site: Site
    said: list[Said] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    last_error: str = ""
    sent: int = 0
    ending: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, check: Any, what: str, limit_s: float = PATIENCE_S) -> None:
        """Wait until something is so of this load.

        Raises:
            TimeoutError: It did not come about; the message has what.
        """
        try:
            async with asyncio.timeout(limit_s), self.changed:
                await self.changed.wait_for(check)
        except TimeoutError:
            message = f"waited {limit_s:g} s for {what}; the last error: {self.last_error}"
            raise TimeoutError(message) from None

    async def more(self, count: int) -> None:
        """Wait until so many further exchanges were acknowledged."""
        wanted = len(self.said) + count
        await self.until(lambda: len(self.said) >= wanted, f"{count} more exchanges")

    async def met(self, count: int = 1) -> None:
        """Wait until so many further errors were told: the fault is felt."""
        wanted = self.refused.total() + count
        await self.until(lambda: self.refused.total() >= wanted, "the fault to be felt", MET_S)

    async def recovered(self, since: float) -> float:
        """Wait for the first acknowledged call that was answered after a moment; give how long."""
        await self.until(lambda: bool(self.said) and self.said[-1].at > since, "a recovery")
        return next(said.at for said in self.said if said.at > since) - since

    async def tell(self) -> None:
        """Wake who waits for something."""
        async with self.changed:
            self.changed.notify_all()


async def send(load: Load, client: httpx.AsyncClient, body: dict[str, Any]) -> Said | None:
    """Send a message once; None if no exchange came of it, and the load knows why."""
    load.sent += 1
    try:
        answer = await client.post(load.site.url + CHAT, json=body)
        told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        load.refused["connection"] += 1
        load.last_error = repr(error)
        return None
    if answer.status_code != httpx.codes.OK:
        load.refused[told["error"]["data"]["code"]] += 1
        load.last_error = told["error"]["message"]
        return None
    if told["status"] != "done":  # a caller may be told that it is still under way
        load.refused[told["status"]] += 1
        return None
    where = told["exchange_id"], told["conversation_id"], told["turn_number"], told["response"]
    return Said(body, *where, time.monotonic())


async def insist(load: Load, client: httpx.AsyncClient, body: dict[str, Any]) -> Said:
    """Send a message, the same each time, until it is answered."""
    while True:
        said = await send(load, client, body)
        if said is not None:
            load.said.append(said)
        await load.tell()
        if said is not None:
            return said
        await asyncio.sleep(AGAIN_S)


async def talk(load: Load, name: str, number: int, pause_s: float, limit_s: float) -> None:
    """Say one thing after the other in one conversation."""
    about = {"persona_id": PERSONAS[number % len(PERSONAS)], "user_id": name}
    count = 0
    async with load.site.client(limit_s) as client:
        while not load.ending:
            request_id = f"{name}-{count}"
            message = f"This is what I tell you as {request_id}, and I thank you for it."
            said = await insist(
                load, client, {**about, "message": message, "request_id": request_id}
            )
            about["conversation_id"] = said.conversation_id
            count += 1
            await asyncio.sleep(pause_s)


@asynccontextmanager
async def loaded(
    site: Site, callers: int, name: str = "user", pause_s: float = 0.0, limit_s: float = CALL_S
) -> AsyncIterator[Load]:
    """Let callers chat while the block lasts; at its end each still gets its last answer.

    Args:
        site: Whom they call.
        callers: How many.
        name: What their names begin with.
        pause_s: Wait of each between an answer and its next message, in seconds.
        limit_s: Longest wait for an answer, in seconds.
    """
    load = Load(site)
    tasks = [
        asyncio.create_task(talk(load, f"{name}{number}", number, pause_s, limit_s))
        for number in range(callers)
    ]
    ended = asyncio.gather(*tasks)
    try:
        yield load
        load.ending = True
        async with asyncio.timeout(PATIENCE_S):
            await ended
    except TimeoutError as error:
        raise TimeoutError(
            f"{error or 'a message was never answered'}: {load.last_error}"
        ) from None
    finally:
        ended.cancel()
        await asyncio.gather(ended, *tasks, return_exceptions=True)
