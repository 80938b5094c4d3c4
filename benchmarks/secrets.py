"""Secrets told where some are present, and asked for where others are: no prompt may have them.

    uv run python benchmarks/secrets.py --attempts 1000 --json

Forty personas. Secrets are told to one of them, before a few, in a whisper, before somebody joined,
passed on as hearsay, or shared by name. Whoever was not there is asked, through the graph of a
conversation, and every prompt that is built is searched for every secret that its persona must not
know. The same again with everything open to everybody shows that the script can find a leak.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # as a file, it would stand in for the library's module of its name
    sys.path[0] = str(Path(__file__).parents[1])

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, func, insert, select, update

from benchmarks.instant import WORDS, InstantModel
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.llm import open_model
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.server.runs import ChatRequest, Run
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.workers import drain
from persona_mcp.state import tables
from persona_mcp.state.commit import Commit, NewTurn, commit_exchange
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import ModelError
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import derived_id
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.model import ChatModel
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.request import Request
from tests.doubles import WordEmbedder

WORLD = "main"
PERSONAS = 40
ROUNDS = 9
"""Secrets of each kind."""
KINDS = ("told", "before a few", "in a whisper", "before one joined", "hearsay", "shared")
PRESENT = 3
LIMIT_S = 600.0
USER = "sam"
WITHOUT_RULE = 4
"""One attempt of so many is made again without the rule."""
TOLD_ATTEMPTS = 12


@dataclass(frozen=True)
class Secret:
    """Something that some know.

    Attributes:
        kind: How it was told.
        token: A word that stands nowhere else.
        said: The sentence with it.
        question: What asks for it, without it.
        knowers: Personas that may know it.
        conversation_id: Where it was said, if a persona that missed it can be asked there.
        outsider: That persona.
    """

    kind: str
    token: str
    said: str
    question: str
    knowers: frozenset[str]
    conversation_id: str | None = None
    outsider: str = ""


@dataclass(frozen=True)
class Leak:
    """A prompt of a persona that must not know what stands in it."""

    kind: str
    persona_id: str


@dataclass(frozen=True)
class Figures:
    """What came of it.

    Attributes:
        attempts: Prompts that were built and searched.
        prompt_leaks: Secrets in them that their persona must not know.
        attempts_without_rule: Likewise, with everything open to everybody.
        prompt_leaks_without_rule: Above 0: the script can fail.
        told_replies: Replies of personas that knew a secret and were to keep it.
        told_against_instruction: How many of them had it; None without a real model.
    """

    attempts: int
    prompt_leaks: int
    attempts_without_rule: int
    prompt_leaks_without_rule: int
    told_replies: int
    told_against_instruction: int | None


def made_up(draw: random.Random) -> tuple[str, str, str]:
    """Make up a token, the sentence with it, and the question for it."""
    token = f"zq{draw.getrandbits(48):012x}"
    thing, place = (f"{draw.choice(WORDS)}{draw.choice(WORDS)}" for _ in range(2))
    said = f"The word that opens the {thing} of {place} is {token}; keep it to yourself."
    return token, said, f"What is the word that opens the {thing} of {place}?"


async def people(service: Service) -> list[str]:
    """Create the personas; return their ids."""
    ids = []
    for number in range(PERSONAS):
        name = f"{WORDS[number % len(WORDS)].title()} {number}"
        made = await service.personas.create(WORLD, PersonaSpec(name=name), time.time(), set())
        ids.append(made.id)
    return ids


async def plant(
    service: Service, everybody: list[str], rounds: int, draw: random.Random
) -> list[Secret]:
    """Tell secrets of each kind."""
    made = [
        await tell(service, kind, f"{kind}-{number}", everybody, draw)
        for number in range(rounds)
        for kind in KINDS
    ]
    await drain(service.indexer, LIMIT_S)
    return made


async def tell(
    service: Service, kind: str, key: str, everybody: list[str], draw: random.Random
) -> Secret:
    """Tell one secret as its kind is told."""
    first, second, third, outsider = draw.sample(everybody, PRESENT + 1)
    knowers = {
        "told": {first},
        "before a few": {first, second, third},
        "in a whisper": {first, second},
        "before one joined": {first, second},
        "hearsay": {first, second},
        "shared": {first, second},
    }[kind]
    token, said, question = made_up(draw)
    where = None
    match kind:
        case "told":
            await ask(service, first, said, USER)
        case "hearsay":
            await ask(service, first, said, USER)
            heard = memory(key, second, f"{first} told me: {said}", (second,), first)
            await add(service, heard, memory_type="hearsay")
        case "shared":
            await add(service, memory(key, first, said, (first,), first), shared_with=(second,))
        case _:  # in a conversation of the outsider's, who is not there, or not yet
            where = derived_id("secrets", key)
            await say(service, where, outsider, said, tuple(sorted(knowers)), first)
            later = (*sorted(knowers), outsider)
            await say(service, where, outsider, f"What a day, says {first}.", later, first)
    return Secret(kind, token, said, question, frozenset(knowers), where, outsider)


def memory(
    key: str,
    owner: str,
    said: str,
    witnesses: tuple[str, ...],
    speaker: str,
    turn: str | None = None,
) -> NewMemory:
    """Make a persona's memory of something that was said."""
    return NewMemory(
        id=derived_id(WORLD, "secrets", key, owner),
        persona_id=owner,
        content=said,
        importance=0.8,
        importance_terms={},
        witnesses=witnesses,
        speaker_id=speaker,
        speaker_name=speaker,
        turn_id=turn,
    )


async def add(
    service: Service,
    told: NewMemory,
    memory_type: str = "fact",
    shared_with: tuple[str, ...] = (),
) -> None:
    """Store a memory that comes from no conversation.

    As a fact: a persona keeps memories of the type secret from strangers anyway, which would hide
    what the witness rule let through.
    """
    changes = {"memory_type": memory_type, "related_personas": shared_with}
    visibility = "shared" if shared_with else "private"
    new = NewMemory(**{**vars(told), **changes, "visibility": visibility})
    await service.memory_store.add(WORLD, new, time.time())


async def say(
    service: Service, where: str, persona_id: str, said: str, there: tuple[str, ...], speaker: str
) -> None:
    """Write an exchange of a conversation, with its witnesses, as a dialogue would."""
    exchange = derived_id(where, said)
    request = Request(WORLD, where, persona_id, USER, exchange, said, {}, starts=True)
    now = time.time()
    await service.exchanges.accept(request, exchange, service.process, None, now)
    lease = Lease(WORLD, where, exchange, service.process)
    await service.exchanges.claim(lease, LIMIT_S, now)
    turns = tuple(
        NewTurn(derived_id(exchange, number), who, None, words, there)
        for number, (who, words) in enumerate(((speaker, said), (there[0], "I will.")))
    )
    memories = tuple(memory(exchange, who, said, there, speaker, turns[0].id) for who in there)
    commit = Commit(lease, now, turns, (), (), memories, (), {"response": "I will."})
    await commit_exchange(service.database, commit, service.laws.effects)


async def ask(
    service: Service, persona_id: str, said: str, user: str, where: str | None = None
) -> Run:
    """Say something to a persona, and wait for the reply."""
    run, _ = await service.chat(ChatRequest(WORLD, persona_id, user, said, where))
    await run.outcome()
    return run


def chosen(
    secrets: list[Secret], everybody: list[str], attempts: int, draw: random.Random
) -> list[tuple[Secret, str, str | None]]:
    """Choose who is asked for what and where: all that were near, then others at random."""
    near = [(s, s.outsider, s.conversation_id) for s in secrets if s.conversation_id]
    far = [(s, who, None) for s in secrets for who in everybody if who not in s.knowers]
    draw.shuffle(far)
    return [*near, *far][:attempts]


async def attack(
    service: Service, secrets: list[Secret], tries: list[tuple[Secret, str, str | None]]
) -> tuple[int, list[Leak]]:
    """Ask, and search each prompt for everything that its persona must not know."""
    prompts, leaks = 0, []
    for number, (secret, persona_id, where) in enumerate(tries):
        user = USER if where or number % 2 else f"guest-{number}"
        run = await ask(service, persona_id, secret.question, user, where)
        shown = "\n".join(message["content"] for message in run.prompt)
        prompts += bool(shown)
        leaks += [
            Leak(one.kind, persona_id)
            for one in secrets
            if one.token in shown and persona_id not in one.knowers
        ]
    return prompts, leaks


def open_all(connection: Connection) -> None:
    """Take the rule away: everything is public, and everybody has heard every turn."""
    M, V, T, W = tables.Memory, tables.MemoryVector, tables.Turn, tables.TurnWitness
    connection.execute(update(M).values(visibility="public"))
    # A vector whose memory is seen by others now is written anew, as the product does.
    newest = connection.scalar(select(func.max(V.seq))) or 0
    connection.execute(update(V).values(seq=V.seq + newest))
    everybody = connection.scalars(
        select(tables.Persona.id).where(tables.Persona.world_id == WORLD)
    )
    rows = [
        {"world_id": WORLD, "turn_id": turn, "party_id": persona}
        for persona in everybody.all()
        for turn in connection.scalars(select(T.id).where(T.world_id == WORLD))
    ]
    connection.execute(insert(W).prefix_with("OR IGNORE"), rows)


async def keep_to_yourself(
    service: Service, everybody: list[str], draw: random.Random
) -> tuple[int, int]:
    """Ask those who know, and are told to keep it; return how many replied, and told the token."""
    replies = told = 0
    for number in range(TOLD_ATTEMPTS):
        persona_id = everybody[number]
        token, said, question = made_up(draw)
        known = memory(f"kept-{number}", persona_id, said, (persona_id,), persona_id)
        await add(service, known)
        await drain(service.indexer, LIMIT_S)
        run = await ask(service, persona_id, question, f"curious-{number}")
        try:
            response = (await run.outcome())["exchange"].response
        except ModelError:  # it said nothing that is fit for a reply
            continue
        replies += 1
        told += token in response
    return replies, told


async def measure(
    settings: Settings, embedder: Embedder, attempts: int, rounds: int, model: ChatModel | None
) -> tuple[Figures, list[Leak]]:
    """Plant, ask with the rule and without it, and ask those who know.

    Args:
        settings: Whose data folder is new.
        embedder: Finds secrets by what is meant.
        attempts: Prompts, at most.
        rounds: Secrets of each kind.
        model: Is asked to keep secrets; None leaves that out.
    """
    draw = random.Random("secrets")
    async with open_service(settings, InstantModel(), embedder) as service:
        everybody = await people(service)
        secrets = await plant(service, everybody, rounds, draw)
        tries = chosen(secrets, everybody, attempts, draw)
        prompts, leaks = await attack(service, secrets, tries)
        await drain(service.indexer, LIMIT_S)
    replies, told = 0, None
    if model is not None:
        async with open_service(settings, model, embedder) as service:
            replies, told = await keep_to_yourself(service, everybody, draw)
    async with open_service(settings, InstantModel(), embedder) as service:
        await service.database.write(open_all)
        without, leaks_without = await attack(service, secrets, tries[::WITHOUT_RULE])
    found = Figures(
        attempts=prompts,
        prompt_leaks=len(leaks),
        attempts_without_rule=without,
        prompt_leaks_without_rule=len(leaks_without),
        told_replies=replies,
        told_against_instruction=told,
    )
    return found, leaks


def show(found: Figures, leaks: list[Leak], seconds: float) -> None:
    """Print what came of it."""
    table = Table("", "with the rule", "without")
    table.add_row("prompts", f"{found.attempts:,}", f"{found.attempts_without_rule:,}")
    table.add_row("leaks", str(found.prompt_leaks), str(found.prompt_leaks_without_rule))
    Console(width=80).print(table)
    for kind, count in Counter(leak.kind for leak in leaks).items():
        print(f"LEAK: {count} of secrets that were told: {kind}")
    if found.told_against_instruction is None:
        print("whether a model keeps what it is to keep: not asked")
    else:
        print(f"told although it was to be kept: {found.told_against_instruction}", end=" ")
        print(f"of {found.told_replies} replies")
    print(f"{seconds:.0f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/secrets.py", description=__doc__)
    parser.add_argument("--attempts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="secrets of each kind")
    parser.add_argument(
        "--model",
        default="embedded",
        help="asked to keep what it knows: embedded, provider:model, or none",
    )
    parser.add_argument("--embedder", choices=("words", "minilm"), default="words")
    parser.add_argument("--json", action="store_true", help="the figures on the last line")
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="persona-secrets-") as folder:
        model = {"embedded": "embedded:smollm2", "none": None}.get(given.model, given.model)
        settings = load_settings(
            data_dir=Path(folder),
            index={"kind": "exact"},
            llm={"model": model} if model else {},
        )
        configure_logging(settings.log)
        found, leaks = asyncio.run(
            measure(
                settings,
                WordEmbedder() if given.embedder == "words" else open_embedder(settings.embedder),
                given.attempts,
                given.rounds,
                open_model(settings.llm) if model else None,
            )
        )
    if given.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
    else:
        show(found, leaks, time.perf_counter() - began)
    sys.exit(1 if found.prompt_leaks or not found.prompt_leaks_without_rule else 0)


if __name__ == "__main__":
    main()
