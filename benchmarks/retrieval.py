"""How much of what is asked for a search finds, on the LoCoMo benchmark.

    uv run python benchmarks/retrieval.py --locomo FILE [--archive 0.5]

Turns go in through the write of an exchange and come out through the search that the conversation's
graph calls. A result counts for the one turn that it is made from. R@k is the share of a question's
turns among the first k results, a mean over questions. FILE is not part of this project.

With `--archive` the product's own pruning first archives that share of the memories, the limits of
a run lifted; beside what is found, it prints which share of the turns that answer survived that.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, quantiles

from rich.console import Console
from rich.table import Table

if __name__ == "__main__":  # run as a file, too; its folder has a module that is named as Python's
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.forgetting import MARGIN, OF_SURVIVAL, forget
from benchmarks.instant import InstantModel
from benchmarks.locomo import CATEGORIES, Asked, Question, Session, Talk, read_talks
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings, Settings
from persona_mcp.nodes.chat_state import Scene
from persona_mcp.nodes.remembering import memories_of
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.workers import drain
from persona_mcp.state.commit import Commit, NewTurn, commit_exchange
from persona_mcp.state.continuation import Score
from persona_mcp.state.embedding import RecentQueries
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.feelings import at_rest
from persona_mcp.state.ids import derived_id
from persona_mcp.state.memory.search import MemorySearch
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.request import Request

DEPTHS = (5, 10, 20)
GOOD = 0.82
LIMIT_S = 3600.0
QUESTIONS_KEPT = 10_000
"""Each is asked again for every row of the table of parts."""
PARTS = {
    "meaning": {"dense_weight": 0.0},
    "words": {"lexical_weight": 0.0},
    "the turn before": {"previous_weight": 0.0},
    "the turn after": {"next_weight": 0.0},
    "session": {"session_weight": 0.0},
    "speaker": {"speaker_weight": 0.0},
    "date": {"date_weight": 0.0, "year_weight": 0.0},
    "question": {"question_penalty": 0.0},
    "length": {"length_weight": 0.0},
}
"""Settings that switch a part of the score off."""


@dataclass(frozen=True)
class Answer:
    """What a question found: for each result, the turn that it is made from."""

    question: Question
    found: tuple[str | None, ...]
    seconds: float

    def recall(self, depth: int) -> float:
        """Return the share of its turns among the first results."""
        return len(self.question.gold & set(self.found[:depth])) / len(self.question.gold)

    def ndcg(self, depth: int = 10) -> float:
        """Return the gain of results that bring a new turn, discounted by rank, of the best."""
        new, gain = set[str](), 0.0
        for rank, turn in enumerate(self.found[:depth], start=1):
            if turn in self.question.gold and turn not in new:
                new.add(turn)
                gain += 1 / math.log2(rank + 1)
        best = min(len(self.question.gold), depth)
        return min(1.0, gain / sum(1 / math.log2(rank + 1) for rank in range(1, best + 1)))


async def store(service: Service, world_id: str, talk: Talk) -> Asked:
    """Write a conversation as the product would have: the second speaker is the persona."""
    user, name = talk.speakers
    await service.personas.ensure_world(world_id, world_id, [], talk.sessions[0].at)
    spec = PersonaSpec(name=name)
    persona = await service.personas.create(world_id, spec, talk.sessions[0].at, {user})
    turns: dict[str, str] = {}
    for session in talk.sessions:
        turns |= await store_session(service, world_id, persona.id, user, session)
    return Asked(world_id, persona.id, turns, talk.questions, talk.sessions[-1].at)


async def store_session(
    service: Service, world_id: str, persona_id: str, user: str, session: Session
) -> dict[str, str]:
    """Write a session as a conversation, two turns an exchange; return what each turn is of."""
    where = f"s{session.number}"
    found: dict[str, str] = {}
    for number in range(0, len(session.turns), 2):
        pair = session.turns[number : number + 2]
        exchange = f"{where}-{number}"
        request = Request(
            world_id, where, persona_id, user, exchange, pair[0].text, {}, starts=True
        )
        await service.exchanges.accept(request, exchange, service.process, None, session.at)
        lease = Lease(world_id, where, exchange, service.process)
        await service.exchanges.claim(lease, LIMIT_S, session.at)
        persona = await service.personas.resolve(world_id, persona_id)
        scene = Scene(
            now=session.at,
            persona=persona,
            conversation=await service.conversations.get(world_id, where),
            window=(),
            arrow=None,
            feelings=at_rest(persona, session.at, service.laws.effects),
            answers=0,
        )
        key = (world_id, exchange)
        turns = tuple(
            NewTurn(
                derived_id(*key, "turn", position),
                user if said.speaker == user else persona.id,
                None if said.speaker == user else persona.version,
                said.text,
                (user, persona.id),
            )
            for position, said in enumerate(pair)
        )
        memories = memories_of(key, scene, turns, Score(50.0, {}), service.parts)
        commit = Commit(lease, session.at, turns, (), (), memories, (), {"response": pair[-1].text})
        await commit_exchange(service.database, commit, service.laws.effects)
        found |= {turn.id: said.id for turn, said in zip(turns, pair, strict=True)}
    return found


async def ask(memories: MemorySearch, asked: Sequence[Asked]) -> list[Answer]:
    """Search for every question."""
    answers = []
    for one in asked:
        for question in one.questions:
            began = time.perf_counter()
            recall = await memories.search(one.world_id, one.reader, question.text, max(DEPTHS))
            took = time.perf_counter() - began
            found = (one.turns.get(hit.memory.turn_id or "") for hit in recall.hits)
            answers.append(Answer(question, tuple(found), took))
    return answers


def figures(answers: Iterable[Answer]) -> dict[str, float]:
    """Return R@k and nDCG@10, means over questions."""
    given = list(answers)
    found = {f"R@{depth}": mean(one.recall(depth) for one in given) for depth in DEPTHS}
    return {**found, "nDCG@10": mean(one.ndcg() for one in given)}


def rows_of(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Return the figures of each category, and over all."""
    found = {
        name: figures(a for a in answers if a.question.category == category)
        for category, name in CATEGORIES.items()
        if any(a.question.category == category for a in answers)
    }
    found["without adversarial"] = figures(a for a in answers if a.question.category in range(1, 5))
    return {**found, "all": figures(answers)}


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of figures."""
    names = list(next(iter(rows.values())))
    table = Table("", *names, title=title)
    for name, values in rows.items():
        table.add_row(name, *(f"{values[key]:.3f}" for key in names))
    Console().print(table)


async def measure(
    settings: Settings, talks: Sequence[Talk], *, as_json: bool, share: float | None
) -> None:
    """Store, ask, and print."""
    embedder = RecentQueries(open_embedder(settings.embedder), QUESTIONS_KEPT)
    async with open_service(settings, InstantModel(), embedder) as service:
        began = time.perf_counter()
        asked = [await store(service, f"talk-{n}", talk) for n, talk in enumerate(talks)]
        await drain(service.indexer, LIMIT_S)
        took = time.perf_counter() - began
        if share is not None:
            await measure_pruned(service, asked, share, as_json=as_json)
            return
        answers = await ask(service.memories, asked)
        over_all = rows_of(answers)
        if as_json:
            sys.stdout.write(json.dumps(over_all["all"]) + "\n")
            return
        show("found", over_all)
        memories = sum(len(one.turns) for one in asked)
        times = quantiles([answer.seconds * 1000 for answer in answers], n=20)
        shown = Console()
        shown.print(
            f"{memories:,} memories stored and embedded in {took:.0f} s; a search, embedding"
        )
        shown.print(f"included: p50 {times[9]:.1f} ms, p95 {times[18]:.1f} ms")
        without = {"with all parts": over_all["all"]}
        for part, changes in PARTS.items():
            params = settings.retrieval.model_copy(update=changes)
            search = MemorySearch(service.database, service.index, embedder, params)
            without[f"without {part}"] = figures(await ask(search, asked))
        show("what each part is worth", without)
        best = over_all["all"]["R@10"]
        shown.print(f"{'held  ' if best >= GOOD else 'MISSED'} R@10 {best:.3f}, at least {GOOD}")


async def measure_pruned(
    service: Service, asked: Sequence[Asked], share: float, *, as_json: bool
) -> None:
    """Archive a share, ask, and print what survived and what is found."""
    survived = await forget(service, asked, share)
    over_all = rows_of(await ask(service.memories, asked))
    found = {**over_all["all"], **survived}
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    show("found after pruning", over_all)
    show("evidence that survived", {"share": survived})
    gain, part = survived["survival"] - survived["random"], OF_SURVIVAL * survived["survival"]
    for held, what in (
        (gain >= MARGIN, f"survival above random's by {gain:.3f}, at least {MARGIN}"),
        (found["R@10"] >= part, f"R@10 {found['R@10']:.3f}, at least {part:.3f}"),
    ):
        Console().print(f"{'held  ' if held else 'MISSED'} {what}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/retrieval.py", description=__doc__)
    parser.add_argument("--locomo", type=Path, required=True, help="the benchmark's JSON file")
    parser.add_argument("--json", action="store_true", help="the figures over all on one line")
    parser.add_argument(
        "--archive", type=float, metavar="SHARE", help="archive this share of the memories first"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(data_dir=Path(folder), log=LogSettings(level="WARNING"))
        configure_logging(settings.log)
        talks, share = read_talks(given.locomo), given.archive
        asyncio.run(measure(settings, talks, as_json=given.json, share=share))


if __name__ == "__main__":
    main()
