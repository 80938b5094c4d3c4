"""Kill -9 at random moments: what was acknowledged is never lost, and nothing is half there.

    python -m benchmarks.crash --rounds 100

Each round a new process talks, in two conversations at once, through a model server that streams
slowly; what it has no answer to from the round before it asks again under the same request id. It
is killed at a random moment, also while it starts. Then the tables are looked at. Exits with 1 on
any fault.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks.bookkeeping import faults, model_server
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import IndexSettings, LLMSettings, Settings
from persona_mcp.server.runs import ChatRequest
from persona_mcp.server.service import Service, open_service
from tests.doubles import WordEmbedder

Told = tuple[str, str]
"""ready, asked or answered; and the request."""

USERS = ("sam", "kim")
LONGEST_LIFE_S = 2.0
READY_S = 60.0
EARLY, EARLY_S = 0.1, 0.3
"""Share of the kills that come while a process starts, and how soon."""
WORD_S = 0.01
"""Between two words of a reply."""


@dataclass(frozen=True)
class Round:
    """One process's life.

    Attributes:
        lived_s: From when it had opened everything to when it was killed; None if killed before.
        asked: Requests that it began.
        answered: Requests that it acknowledged.
        again: Requests of the round before that were asked again.
        faults: What was found in the tables.
    """

    lived_s: float | None
    asked: int
    answered: int
    again: int
    faults: list[str]


def settings_of(data_dir: Path, url: str, index: Literal["auto", "exact"]) -> Settings:
    """Say where data and model are."""
    llm = LLMSettings(model="openai:test", openai_url=url)
    return Settings(_env_file=None, data_dir=data_dir, llm=llm, index=IndexSettings(kind=index))


def live(settings: Settings, number: int, again: dict[str, str], told: Connection) -> None:
    """Talk without end; the process is killed."""
    configure_logging(settings.log)
    asyncio.run(talk(settings, number, again, told))


async def talk(settings: Settings, number: int, again: dict[str, str], told: Connection) -> None:
    """Talk in two conversations at once, each going on where the last process was killed."""
    async with open_service(settings, embedder=WordEmbedder()) as service:
        told.send(("ready", ""))
        users = (talk_as(service, user, number, again.get(user), told) for user in USERS)
        await asyncio.gather(*users)


async def talk_as(
    service: Service, user: str, number: int, again: str | None, told: Connection
) -> None:
    """Say one thing after the other; each is told before it is asked and once it is answered."""
    count = 0
    while True:
        request_id = again or f"{user}-{number}-{count}"
        known = await service.exchanges.find("main", request_id)
        last = await service.conversations.latest("main", "aria", user)
        where = last.id if last else None
        if known is not None:  # asked again as it was asked
            where = known.conversation_id if known.number > 1 else None
        told.send(("asked", request_id))
        said = f"This is what I tell you as {request_id}, and I thank you for it."
        run, _ = await service.chat(ChatRequest("main", "aria", user, said, where, request_id))
        assert (await run.outcome())["exchange"].status == "done"
        told.send(("answered", request_id))
        again, count = None, count + 1


def play(
    data_dir: Path, rounds: int, seed: int, index: Literal["auto", "exact"] = "exact"
) -> Iterator[Round]:
    """Live and die so many times."""
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")  # imports once, forks each life
    context.set_forkserver_preload(["persona_mcp.server.service", "langchain_openai"])
    acknowledged: set[str] = set()
    again: dict[str, str] = {}
    with model_server(WORD_S) as url:
        settings = settings_of(data_dir, url, index)
        for number in range(rounds):
            heard, told = context.Pipe(duplex=False)
            process = context.Process(target=live, args=(settings, number, again, told))
            process.start()
            told.close()
            lived, seen = killed_after(process, heard, chance, patient=number == 0)
            asked, answered = requests_in(heard, seen)
            repeated = len(again)
            acknowledged |= set(answered)
            again = {
                **({} if asked else again),
                **{r.split("-")[0]: r for r in asked if r not in answered},
            }
            wrong = asyncio.run(faults(settings, acknowledged)) if data_dir.exists() else []
            yield Round(lived, len(asked), len(answered), repeated, wrong)


def killed_after(
    process: multiprocessing.process.BaseProcess,
    heard: Connection,
    chance: random.Random,
    *,
    patient: bool,
) -> tuple[float | None, list[Told]]:
    """Kill a process at a random moment: mostly while it talks, sometimes while it starts.

    Args:
        process: The life.
        heard: What it tells.
        chance: Draws the moment.
        patient: Not before it has acknowledged something, however slow the machine is.

    Returns:
        How long it talked, None if it was still starting; and what it told until then.
    """
    seen: list[Told] = []
    early = not patient and chance.random() < EARLY
    if early:
        time.sleep(chance.random() * EARLY_S)
        lived = None
    else:
        awaited = "answered" if patient else "ready"
        while not seen or seen[-1][0] != awaited:
            assert heard.poll(READY_S), f"the process was not {awaited} in time"
            seen.append(heard.recv())
        lived = chance.random() * LONGEST_LIFE_S
        time.sleep(lived)
    assert process.is_alive(), "the process ended by itself"
    process.kill()
    process.join()
    return lived, seen


def requests_in(heard: Connection, seen: list[Told]) -> tuple[list[str], list[str]]:
    """Read what a process had told before it was killed; the last message may be cut off."""
    told: dict[str, list[str]] = {"ready": [], "asked": [], "answered": []}
    for what, request_id in seen:
        told[what].append(request_id)
    try:
        while True:
            what, request_id = heard.recv()
            told[what].append(request_id)
    except (EOFError, OSError):
        heard.close()
    return told["asked"], told["answered"]


def main() -> None:
    """Run the rounds and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--index", choices=("auto", "exact"), default="auto")
    given = parser.parse_args()
    table = Table("round", "lived", "asked", "answered", "asked again", "faults")
    total, answered, again, wrong = 0, 0, 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="persona-crash-") as folder:
        for number, one in enumerate(play(Path(folder), given.rounds, given.seed, given.index)):
            lived = "starting" if one.lived_s is None else f"{one.lived_s:.2f} s"
            table.add_row(
                str(number), lived, str(one.asked), str(one.answered), str(one.again),
                str(len(one.faults)),
            )  # fmt: skip
            total, answered, again = total + one.asked, answered + one.answered, again + one.again
            wrong += [f"round {number}: {fault}" for fault in one.faults]
            if wrong:
                break
    Console(width=100).print(table)
    for fault in wrong:
        print(fault)
    print(
        f"{given.rounds} kills, {total} exchanges begun, {answered} acknowledged, "
        f"{again} asked again: {'FAILED' if wrong else 'nothing lost, nothing doubled'}"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
