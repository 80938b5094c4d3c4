"""Two worlds with everything in them, and callers to whom only the first one is open."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event

from persona_mcp.config.settings import ConversationSettings, IndexSettings, Settings
from persona_mcp.server.operations.registry import Caller, call_operation
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.wire import problem_of
from persona_mcp.state.callers import SCOPES, Identity, Scope, called_by
from persona_mcp.state.database import Database
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.memory.params import PruningParams
from tests.calls import Row, dump
from tests.doubles import ScriptedModel, WordEmbedder

OPEN, CLOSED = "orchard", "quarry"
"""The world of the caller, and the other one."""
NOWHERE = "xyphos"
"""A world that is not there; as long as the closed one's id."""
GUEST = Identity("t_guest", "guest", frozenset(SCOPES), frozenset({OPEN}))
INSIDER = Identity("t_guest", "guest", frozenset(SCOPES), frozenset({CLOSED}))
"""The same one when the other world was open to it."""
LINES = 400
ID = re.compile(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
HANDLE = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
NUMBER = re.compile(r"-?\b\d+(\.\d+)?(e-?\d+)?\b")
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
PASSED_OVER = ("BEGIN", "PRAGMA")
SHORTEST = 5
"""Of texts that tell of the world they are in; shorter ones may be anybody's."""
Answer = dict[str, Any]


@dataclass(frozen=True)
class People:
    """What is called how in a world; nothing of it is like anything of the other world."""

    one: str
    two: str
    three: str
    user: str
    mark: str


NAMED = {
    OPEN: People("Bob Applewood", "Dee Applewood", "Moe Applewood", "guppy", "applewood"),
    CLOSED: People("Zyx Vuvuzela", "Ixxy Vuvuzela", "Qrr Vuvuzela", "jujitsu", "vuvuzela"),
}


@dataclass
class Things:
    """What is in a world, by kind: ids and names that a call may name.

    Attributes:
        world_id: Which world.
        of: The first of each kind is one that a good call takes.
        texts: All texts of its rows that are of this world alone.
    """

    world_id: str
    of: dict[str, list[str]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)


def settings_in(folder: Path) -> Settings:
    """Settings of a service of the tests of isolation."""
    return Settings(
        _env_file=None,
        data_dir=folder,
        index=IndexSettings(kind="exact"),
        pruning=PruningParams(
            start=2,
            target=1,
            least=1,
            most_share=0.5,
            pause_s=0.0,
            kept_importance=1.0,
            kept_unread_days=0.0,
            kept_read_days=0.0,
        ),
        conversation=ConversationSettings(busy_wait_s=2.0),
    )


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Service]:
    """Open a service on a folder, with a model that has much to say."""
    model = ScriptedModel(*["So it is said, and so it is."] * LINES)
    async with open_service(settings_in(folder), model=model, embedder=WordEmbedder()) as service:
        yield service


async def two_worlds(folder: Path) -> dict[str, Things]:
    """Make the worlds in a folder, each with everything that operations make."""
    found = {}
    async with opened(folder) as service:
        for world_id in (OPEN, CLOSED):
            await service.personas.ensure_world(world_id, f"{world_id} hill", [], 1_700_000_000.0)
            found[world_id] = await filled(service, world_id)
        found[CLOSED].of["session"] += await sessions_of(service, found[CLOSED])
        texts = {id: texts_of(await rows_of(service.database, id)) for id in found}
        found[CLOSED].texts = texts[CLOSED] - texts[OPEN] - {CLOSED}
        found[OPEN].texts = texts[OPEN] - texts[CLOSED]
    return found


async def filled(service: Service, world_id: str) -> Things:
    """Fill a world through its operations, each text with the world's mark in it."""
    people, made = NAMED[world_id], Things(world_id)
    mark = people.mark

    async def do(name: str, /, **arguments: Any) -> dict[str, Any]:
        return await call_operation(service, name, {"world_id": world_id, **arguments})

    ids = []
    for name in (people.one, people.two, people.three):
        persona = await do(
            "persona_create",
            name=name,
            description=f"{name} tends the {mark} mill.",
            topic_preferences={f"the {mark} mill": 90},
            personality_traits={"speaking_style": f"like {mark}"},
            tags=[f"{mark}-tag"],
            system_prompt=f"Praise {mark}.",
            exit_lines={"tired": [f"{mark} is asleep."]},
            examples=[{"user": f"What of {mark}?", "reply": f"All of {mark}."}],
        )
        ids.append(persona["persona_id"])
    one, two, three = ids
    await do("persona_import", card={"name": f"Card {mark}", "description": f"A card of {mark}."})
    await do("visual_update", persona_id=one, description=f"A coat of {mark}.", data={"a": mark})
    await do("visual_update", scene=f"{mark} pier", description=f"Fog over {mark}.")
    chat = await do(
        "persona_chat",
        persona_id=one,
        message=f"I was born in {mark}.",
        user_id=people.user,
        scene=f"{mark} pier",
        request_id=f"{mark}-said",
    )
    note = {"persona_id": one, "content": f"The {mark} mill is shut.", "metadata": {"of": mark}}
    shared = {"visibility": "shared", "related_personas": [two]}
    memory = await do("memory_store", **note, **shared, request_id=f"{mark}-noted")
    await do("memory_update", memory_id=memory["memory_id"], content=f"{mark} is open again.")
    told = {"told_by": two, "source_memory_id": memory["memory_id"]}
    hearsay = await do("memory_store", persona_id=three, content=f"Gossip of {mark}.", **told)
    await do("memory_store", persona_id=two, content=f"All love {mark}.", visibility="public")
    gone = await do("memory_store", persona_id=one, content=f"Old {mark} is gone.")
    await do("memory_delete", memory_id=gone["memory_id"])
    document = f"# Guide to {mark}\n\nIt is old."
    await do("memory_import", persona_id=one, title=f"Guide {mark}", text=document)
    decay = await do("memory_decay_force", persona_id=one, decay_factor=0.5)
    prune = await do("memory_prune", persona_id=one, force=True)
    pair = {"persona1_id": one, "persona2_id": two}
    await do("relationship_update", **pair, interaction_quality=0.6, why=f"They fixed {mark}.")
    user = {"persona1_id": one, "persona2_id": people.user}
    await do("relationship_update", **user, interaction_quality=0.2, why=f"A gift of {mark}.")
    events = await do("relationship_history", **pair)
    await do("emotional_update_state", persona_id=one, mood=0.4, why=f"Sun over {mark}.")
    over = await do("conversation_start", **pair, topic=f"dead {mark}", request_id=f"{mark}-talk")
    await do("conversation_end", conversation_id=over["conversation_id"], reason=f"No more {mark}.")
    resting = {"persona1_id": three, "persona2_id": "card-" + mark}
    talk = await do("conversation_start", **resting, topic=f"the {mark} mill", witnesses=[two])
    await do(
        "conversation_advance", conversation_id=talk["conversation_id"], input=f"{mark} rings."
    )
    trace = await do("conversation_history", conversation_id=talk["conversation_id"])
    prompt = await do("persona_prompt", persona_id=two, message=f"Tell of {mark}.")
    held = await do(
        "dialogue_start",
        participants=[one, two],
        topic=f"{mark} by night",
        max_turns=2,
        ignore_availability=True,
        keep=False,
        seed=7,
    )
    await do("dialogue_status", dialogue_id=held["dialogue_id"], wait_ms=20_000)
    saved = await do("state_save", name=f"{mark} save", note=f"Before {mark} fell.")
    handle = await do("persona_switch", persona_id=one)
    while await service.indexer.work_off() or await service.indexer.pending():
        pass
    made.of = {
        "persona": [one, people.one, two, people.three.upper()],
        "user": [people.user],
        "conversation": [chat["conversation_id"], talk["conversation_id"], over["conversation_id"]],
        "talk": [talk["conversation_id"], chat["conversation_id"]],
        "memory": [memory["memory_id"], hearsay["memory_id"], gone["memory_id"]],
        "prompt": [prompt["prompt_id"]],
        "dialogue": [held["dialogue_id"]],
        "prune": [prune["prune_id"]],
        "decay": [decay["decay_id"]],
        "event": [events["events"][0]["event_id"]],
        "snapshot": [saved["state"]["snapshot_id"]],
        "saved name": [saved["state"]["name"]],
        "checkpoint": [trace["checkpoints"][0]["checkpoint_id"]],
        "scene": [f"{mark} pier"],
        "tag": [f"{mark}-tag"],
        "request": [f"{mark}-said", f"{mark}-noted", f"{mark}-talk"],
        "session": [handle["session_id"]],
        "world": [world_id],
    }
    return made


async def sessions_of(service: Service, there: Things) -> list[str]:
    """Make a handle of the caller's own in a world that is closed to it now."""
    given = {"world_id": there.world_id, "persona_id": there.of["persona"][0]}
    made = await call_operation(service, "persona_switch", given, Caller(identity=INSIDER))
    return [made["session_id"]]


async def rows_of(database: Database, world_id: str) -> dict[str, list[Row]]:
    """Read all rows of a world."""
    found = await dump(database)
    key = {"worlds": "id"}
    return {
        table: [row for row in rows if row.get(key.get(table, "world_id")) == world_id]
        for table, rows in found.items()
    }


def texts_of(value: Any) -> set[str]:
    """Return the texts in a value that are long enough to tell of what they are in."""
    if isinstance(value, Mapping):
        return {text for item in value.values() for text in texts_of(item)} | {
            text for key in value for text in texts_of(key)
        }
    if isinstance(value, list | tuple):
        return {text for item in value for text in texts_of(item)}
    return {value} if isinstance(value, str) and len(value) >= SHORTEST else set()


def like(value: str, *, sorted_by: bool = False) -> str:
    """Make a value of the same form and length that nothing has: letters and digits move on.

    Where things are sorted by it, only its end does, so that it stands where the other one does.
    """
    kept = len(value) - 3 if sorted_by else 0

    def moved(at: int, char: str) -> str:
        if at < kept:
            return char
        if char in "0123456789":
            return str((int(char) + 3) % 10)
        if char in "abcdef":
            return "abcdef"[("abcdef".index(char) + 1) % 6]
        if char.isascii() and char.isalpha():
            base = "A" if char.isupper() else "g"
            span = 26 if char.isupper() else 20
            return chr(ord(base) + (ord(char) - ord(base) + 3) % span)
        return char

    return "".join(moved(at, char) for at, char in enumerate(value))


@dataclass(frozen=True)
class Heard:
    """What came of a call.

    Attributes:
        answer: `{"result": ...}` or `{"error": {code, message, data}}`.
        statements: SQL that was run for it, what begins and ends transactions left out.
    """

    answer: Answer
    statements: tuple[str, ...]

    def shown(self, *given: str) -> str:
        """Write the answer with what was given taken out, and what differs from call to call."""
        text = without(json.dumps(self.answer, sort_keys=True, ensure_ascii=False), *given)
        if "error" in self.answer:
            return text
        for pattern in (DIGEST, ID, HANDLE, TIME):
            text = pattern.sub("*", text)
        return NUMBER.sub("#", text)


def without(text: str, *given: str) -> str:
    """Take what was given out of a text."""
    for one in sorted(filter(None, given), key=len, reverse=True):
        text = text.replace(one, "<given>")
    return text


HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)
"""Takes the statements of whatever runs in its context."""


@contextmanager
def listening(database: Database) -> Iterator[None]:
    """Have the statements of calls counted; those of work behind them are left out."""

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        found = HEARD.get()
        if found is not None and not statement.startswith(PASSED_OVER):
            found.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


async def heard(
    service: Service, name: str, arguments: Mapping[str, Any], identity: Identity = GUEST
) -> Heard:
    """Call an operation in somebody's name."""
    statements: list[str] = []
    token = HEARD.set(statements)
    try:
        with called_by(identity):
            caller = Caller(identity=identity)
            answer = {"result": await call_operation(service, name, arguments, caller)}
    except PersonaError as error:
        problem = problem_of(error)
        problem["data"].pop("correlation_id", None)
        answer = {"error": problem}
    finally:
        HEARD.reset(token)
    return Heard(answer, tuple(statements))


def scopes_without(scope: Scope) -> frozenset[Scope]:
    """Return all scopes but one."""
    return frozenset(SCOPES) - {scope}


def leaks(text: str, closed: Things, given: Sequence[str] = ()) -> list[str]:
    """Name what a text tells of a closed world, beside what its caller gave."""
    left = without(text, *given)
    return sorted(one for one in closed.texts if one in left)
