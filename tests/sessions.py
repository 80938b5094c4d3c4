"""Many sessions that switch and talk at once, through any door; a mix-up of two would show.

`drive` plays a seeded random interleaving through `call`, which may be an operation called in
process or a request over HTTP. The model behind the door is to be an `EchoModel`.
"""

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from persona_mcp.state.model import Chunk, Message, Sampling
from tests.doubles import ScriptedModel

Caller = Callable[[str, dict[str, Any]], Awaitable[Mapping[str, Any]]]

NAMES = [
    f"{first}{last}"
    for first in ("Ana", "Bel", "Cor", "Dag")
    for last in ("dor", "lis", "mir", "nov", "rut")
]
"""No name is part of another one."""
PAIR_SHARE = 0.3
"""Of the messages: they go out two at once."""
TAG = re.compile(r"\[(s\d+-\d+)\]")


@dataclass
class Player:
    """One client with a session of its own, and what it expects of it.

    Attributes:
        number: Which one; stands in every message that it sends.
        turn: Its calls go out one after the other, but for two messages at once.
        persona: Whom it chose last.
        session_id: Its handle; None before its first switch.
        conversation_id: Where its messages are to land.
    """

    number: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    persona: str = ""
    session_id: str | None = None
    conversation_id: str = ""


@dataclass(frozen=True)
class Said:
    """A message that was sent, what was expected of it, and what came."""

    player: int
    persona: str
    conversation_id: str
    message: str
    reply: Mapping[str, Any]


class EchoModel(ScriptedModel):
    """Says which persona its instructions name, and whose messages it was shown."""

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        system = "\n".join(m.content for m in messages if m.role == "system")
        who = [name for name in NAMES if name in system]
        heard = [tag for m in messages if m.role == "user" for tag in TAG.findall(m.content)]
        yield Chunk(f"I am {' and '.join(who)}, and I heard [{'], ['.join(heard)}].")
        yield Chunk("", 9, "stop")


async def drive(
    call: Caller,
    seed: int,
    players: int = 200,
    steps: int = 1000,
    at_once: int = 16,
    talk: float = 0.1,
) -> list[Said]:
    """Make personas and sessions, and play a random interleaving of switches and messages.

    Args:
        call: The door.
        seed: Of the interleaving.
        players: How many sessions there are.
        steps: Switches and messages, all together.
        at_once: How many are under way at one time.
        talk: Share of the messages; each costs as much as twenty switches.

    Returns:
        Everything that was said.
    """
    for name in NAMES:
        tireless = {"available_time": 86400, "social_energy": 200}
        await call("persona_create", {"name": name, "description": f"You are {name}.", **tireless})
    chance = random.Random(seed)
    said: list[Said] = []
    plan = planned(chance, [Player(n) for n in range(players)], steps, talk)

    async def work() -> None:
        for player, persona, texts in plan:
            async with player.turn:
                if texts:
                    said.extend(await asyncio.gather(*(say(call, player, t) for t in texts)))
                else:
                    await switch(call, player, persona)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return said


def planned(
    chance: random.Random, players: Sequence[Player], steps: int, talk: float
) -> Iterator[tuple[Player, str, list[str]]]:
    """Draw who acts next: whom it chooses, or what it says; it chooses somebody at first.

    Half of the steps go round, so that everybody acts; the other half go to anybody.
    """
    chosen: set[int] = set()
    step = 0
    while step < steps:
        player = chance.choice(players) if chance.random() < 0.5 else players[step % len(players)]
        texts = []
        if player.number in chosen and chance.random() < talk:
            texts = [f"[s{player.number}-{step}] Who are you?"]
            if chance.random() < PAIR_SHARE:
                texts.append(f"[s{player.number}-{step + 1}] And who else?")
        chosen.add(player.number)
        step += len(texts) or 1
        yield player, chance.choice(NAMES), texts


async def switch(call: Caller, player: Player, persona: str) -> None:
    """Choose somebody; the session is made at the first time and stays the same."""
    found = await call("persona_switch", {"persona_id": persona, "session_id": player.session_id})
    assert found["name"] == persona
    assert found["session_id"] == (player.session_id or found["session_id"])
    player.persona, player.session_id = persona, found["session_id"]
    player.conversation_id = found["conversation_session_id"]


async def say(call: Caller, player: Player, message: str) -> Said:
    """Say something to whoever is current."""
    reply = await call("persona_chat", {"message": message, "session_id": player.session_id})
    return Said(player.number, player.persona, player.conversation_id, message, reply)


async def check(call: Caller, said: Sequence[Said]) -> None:
    """Look for a mix-up: in each reply, and in what is stored of each conversation."""
    conversations: dict[str, list[Said]] = defaultdict(list)
    for one in said:
        conversations[one.conversation_id].append(one)
        assert one.reply["conversation_id"] == one.conversation_id
        assert one.reply["response"].startswith(f"I am {one.persona}, and I heard ")
        assert {tag.split("-")[0] for tag in TAG.findall(one.reply["response"])} == {
            f"s{one.player}"
        }
    for conversation_id, mine in conversations.items():
        assert len({one.player for one in mine}) == len({one.persona for one in mine}) == 1
        found = await call("conversation_get", {"conversation_id": conversation_id, "limit": 200})
        speaker = found["persona_id"]
        assert speaker == mine[0].persona.lower()
        assert sorted(t["content"] for t in found["turns"] if t["speaker_id"] != speaker) == sorted(
            one.message for one in mine
        )
        assert sorted(t["content"] for t in found["turns"] if t["speaker_id"] == speaker) == sorted(
            one.reply["response"] for one in mine
        )
