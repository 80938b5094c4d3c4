"""One dialogue of a batch, from its frozen world to what came of it: the same wherever it is held.

Its world is a copy in memory that nobody else has, and its time is simulated. So nothing in an
outcome but what was measured depends on the machine, on the clock or on other dialogues.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import Connection

from persona_mcp.nodes.parts import ChatContext, ChatIds, Parts
from persona_mcp.nodes.summarising import sum_up_plainly
from persona_mcp.server.batch.counted_model import Counted
from persona_mcp.server.batch.dialogue_graph import dialogue_graph
from persona_mcp.server.batch.dialogue_host import DialogueHost
from persona_mcp.server.wire import problem_of
from persona_mcp.state import feelings, folding, personas, small_turns
from persona_mcp.state.availability import check_available
from persona_mcp.state.batch.values import Job, Outcome, TurnTold
from persona_mcp.state.dialogue import NARRATOR, Member, Plan, first_by_initiative
from persona_mcp.state.dialogue_spec import TalkSpec
from persona_mcp.state.errors import Cancelled, InternalError, NotFound, PersonaError
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.inline_database import InlineDatabase
from persona_mcp.state.memory.held import HeldMemories
from persona_mcp.state.memory.search import MemorySearch
from persona_mcp.state.model import ChatModel
from persona_mcp.state.persona_changes import update_persona
from persona_mcp.state.small_turns import PROCESS, Said
from persona_mcp.state.small_world import WORLD
from persona_mcp.state.summaries import Outgrown

log = structlog.get_logger(__name__)

SHARDS = 32
"""Personas whose vectors stay in memory: all of a dialogue's."""
HELD = 10_000
"""Memories that are held while a dialogue lasts; of a persona that knows more, indexes tell."""
Told = Callable[[TurnTold], None]


@dataclass(frozen=True)
class Swap:
    """What is different from a turn on.

    Attributes:
        job: In place of the one that the dialogue was begun with; its place and id are not read.
        personas: Fields of personas that are different, by their ids, as JSON.
    """

    job: Job
    personas: Mapping[str, Mapping[str, Any]]


BeforeTurn = Callable[[int], Job | Swap | None]


async def run_dialogue(
    host: DialogueHost,
    job: Job,
    frozen: bytes,
    model: ChatModel,
    told: Told,
    stopping: Callable[[], bool],
    before_turn: BeforeTurn | None = None,
) -> Outcome:
    """Hold a dialogue to its end; one that fails is an outcome too, with what was said before.

    Args:
        host: What this process holds dialogues with.
        job: Which one.
        frozen: The world of its run; it is not changed.
        model: Who writes the replies.
        told: Called after each turn.
        stopping: Asked before each turn but the first.
        before_turn: Asked before turn 1, 2, ... for what is different from it on; None for nothing.

    Raises:
        Cancelled: It was asked to stop.
    """
    started = time.monotonic()
    with host.copies.copy(frozen) as database:
        talk = Talk(host, job, database, Counted(model), told, stopping, before_turn)
        outcome = await talk.held()
    measured = {
        "wall_s": time.monotonic() - started,
        "model_s": talk.model.seconds,
        "tokens": float(talk.tokens),
    }
    return replace(outcome, measured=measured)


class Talk:
    """A dialogue as it is held.

    Attributes:
        model: Counts its calls.
        tokens: Of all that was said.
    """

    def __init__(
        self,
        host: DialogueHost,
        job: Job,
        database: InlineDatabase,
        model: Counted,
        told: Told,
        stopping: Callable[[], bool],
        before_turn: BeforeTurn | None,
    ) -> None:
        """Stand before its beginning."""
        self.model = model
        self.tokens = 0
        self._host = host
        self._job = job
        self._current = job
        self._database = database
        self._told = told
        self._stopping = stopping
        self._before_turn = before_turn
        self._now = job.starts_at
        self._exchanges = 0
        self._exchange: str | None = None
        self._turns = 0
        self._said = 0
        self._memories = 0
        self._outgrown: list[Outgrown] = []
        self._plan = Plan(token_budget=0, max_duration=0.0, max_turns=0, seed=0, first_speaker="")
        self._parts = self._parts_of(host)

    def _parts_of(self, host: DialogueHost) -> Parts:
        index = ExactIndex(self._database, host.embedder.model_id, SHARDS)
        held = HeldMemories(HELD, HELD)
        memories = MemorySearch(self._database, index, host.embedder, host.retrieval, held=held)
        return Parts(
            database=self._database,
            memories=memories,
            model=self.model,
            appraiser=host.appraiser(self.model),
            laws=host.laws,
            limits=host.limits,
            process=PROCESS,
            world=WORLD,
            now=lambda: self._now,
            written=nothing,
            outgrown=self._outgrown.append,
            accept=self._accept,
        )

    async def held(self) -> Outcome:
        """Hold it to its end.

        Raises:
            Cancelled: It was asked to stop.
        """
        database, laws = self._database, self._host.laws.effects
        ids, starts_at = everybody(self._job.talk), self._job.starts_at
        marks = await database.read(folding.marks)
        self._memories = await database.read(small_turns.last_memory)
        before = await database.read(small_turns.views, ids, starts_at, laws)
        error = await self._tried()
        ended_at = starts_at + await database.read(small_turns.duration_of, self._job.id)
        after = await database.read(small_turns.views, ids, ended_at, laws)
        reason = await database.read(small_turns.exit_reason, self._job.id)
        return Outcome(
            job=self._job,
            status="failed" if error else "done",
            exit_reason="" if error else reason,
            error=error,
            rows=await database.read(folding.delta, marks),
            before=before,
            after=after,
            ended_at=ended_at,
            calls=self.model.calls,
        )

    async def _tried(self) -> dict[str, Any] | None:
        """Hold it to its end, or return what it failed with.

        Raises:
            Cancelled: It was asked to stop.
        """
        try:
            await self._begin()
            with dialogue_graph(self._parts) as graph:
                await self._go_on(graph)
            await self._settle()
        except Cancelled:
            raise
        except PersonaError as error:
            return await self._failed(error)
        except Exception:  # a defect of ours is no reason to stop the others
            log.exception("dialogue failed", conversation_id=self._job.id)
            ours = InternalError()
            return await self._failed(ours)
        return None

    async def _failed(self, error: PersonaError) -> dict[str, Any]:
        """Write what it failed with, where a turn was under way, and return it as a problem."""
        problem = problem_of(error)
        problem["data"].pop("correlation_id", None)  # another one each time
        if self._exchange is not None:
            said = self.model.said
            await self._database.write(
                small_turns.fail_turn, self._exchange, problem, said, self._now
            )
        self._tell(await self._database.read(small_turns.said_since, self._job.id, self._turns))
        return problem

    async def _begin(self) -> None:
        """Write the conversation with its plan.

        Raises:
            NotFound: Somebody is not in its world.
            PersonaUnavailable: Somebody cannot talk now, and that is not to be ignored.
        """
        job = self._job

        def write(connection: Connection) -> None:
            members = self._members(connection)
            self._plan = plan_of(job, self._first_speaker(members))
            ids = [member.persona.id for member in members]
            small_turns.begin_talk(connection, job.id, ids, job.topic, self._plan)

        await self._database.write(write)

    def _members(self, connection: Connection) -> list[Member]:
        """Read who talks, in the job's order, and check that they can.

        Raises:
            NotFound: Somebody is not there.
            PersonaUnavailable: Somebody cannot talk now, and that is not to be ignored.
        """
        talk, laws = self._job.talk, self._host.laws.effects
        found = {one.id: one for one in personas.those(connection, WORLD, everybody(talk))}
        for id in everybody(talk):
            if id not in found:
                raise NotFound.of("persona", id)
        members = []
        for id in speakers_of(talk):
            felt = feelings.read_feelings(connection, WORLD, found[id], self._now, laws)
            if not talk.ignore_availability:
                check_available(found[id], felt.interaction, laws.interaction)
            members.append(Member(found[id], felt))
        return members

    def _first_speaker(self, members: Sequence[Member]) -> str:
        """Return who begins: as the job says, else by initiative among those who are there."""
        talk, laws = self._job.talk, self._host.laws.continuation
        if talk.first_speaker is not None:
            return talk.first_speaker
        late = {one.persona for one in talk.joins if one.turn > 1}
        there = [member for member in members if member.persona.id not in late]
        return first_by_initiative(there or members, self._job.seed, laws)

    async def _go_on(self, graph: Any) -> None:
        """Make its turns, until it is over."""
        # Knobs hold for a whole run of the graph: where they may change, each turn is one.
        turns = 1 if self._before_turn else self._plan.max_turns
        given: dict[str, Any] = {"direction": "", "turns": turns, "follows": None}
        over = False
        while not over:
            if self._before_turn:
                await self._settle()
                await self._swap(self._before_turn(self._said + 1))
            # Nobody reads the state after each node; at the end, who goes on with it.
            mode: Any = "values" if self._before_turn else []
            result = await graph.ainvoke(given, context=self._knobs(), stream_mode=mode)
            over = not self._before_turn or result["next_speaker"] is None
            given["follows"] = result["head"] if self._before_turn else None

    def _knobs(self) -> ChatContext:
        """Return the knobs of a run; seeds are the plan's."""
        budget, heat = self._plan.token_budget, self._current.temperature
        return ChatContext(routing="score", token_budget=budget, temperature=heat)

    async def _accept(self, state: Mapping[str, Any], context: ChatContext) -> ChatIds:
        """Write the next exchange, after what the last one left has been seen to.

        Raises:
            Cancelled: It was asked to stop.
            ModelError: The embedder did not answer.
        """
        talk_id = self._job.id
        if self._exchanges:
            await self._settle()
            if self._stopping():
                raise Cancelled("the dialogue was stopped; run the batch again to go on")
        self._exchanges += 1
        self._exchange = await self._database.write(
            small_turns.begin_turn, talk_id, self._exchanges, self._now
        )
        return ChatIds(world_id=WORLD, conversation_id=talk_id, exchange_id=self._exchange)

    async def _settle(self) -> None:
        """See to what a turn left: tell of it, sum up, embed, let time pass. Twice is once."""
        if self._exchange is None:
            return
        self._exchange = None
        self.model.said = ""
        self._tell(await self._database.read(small_turns.said_since, self._job.id, self._turns))
        while self._outgrown:
            await sum_up_plainly(self._parts, self._outgrown.pop(0))
        rows = await self._database.read(small_turns.remembered_since, self._memories)
        if rows:
            await self._host.embed(self._database, rows)
            self._memories = rows[-1].seq
        duration = await self._database.read(small_turns.duration_of, self._job.id)
        self._now = self._job.starts_at + duration

    def _tell(self, said: Sequence[Said]) -> None:
        """Tell of turns that were spoken; a narrator's are not counted."""
        for turn in said:
            self._turns = turn.number
            if turn.speaker_id == NARRATOR:
                continue
            self._said += 1
            tokens = turn.tokens_used or 0
            self.tokens += tokens
            index = self._job.place.index
            self._told(TurnTold(index, self._said, turn.speaker_id, tokens, turn.content))

    async def _swap(self, found: Job | Swap | None) -> None:
        """Take over what is different from the next turn on."""
        if found is None:
            return
        swap = found if isinstance(found, Swap) else Swap(found, {})
        self._current = swap.job
        self._plan = plan_of(swap.job, self._plan.first_speaker, self._job.starts_at)

        def write(connection: Connection) -> None:
            small_turns.change_talk(connection, self._job.id, swap.job.topic, self._plan)
            for id, fields in sorted(swap.personas.items()):
                laws = self._host.laws.effects
                update_persona(connection, WORLD, id, fields, None, self._now, laws)

        await self._database.write(write)


def speakers_of(talk: TalkSpec) -> list[str]:
    """Return who talks at some time: who comes later does too, unless it only overhears."""
    late = (one.persona for one in talk.joins if one.persona not in talk.witnesses)
    return list(dict.fromkeys([*(talk.participants or ()), *late]))


def everybody(talk: TalkSpec) -> list[str]:
    """Return who is there at some time."""
    return list(dict.fromkeys([*speakers_of(talk), *talk.witnesses]))


def nothing() -> None:
    """Do nothing: what was written is embedded before the next turn."""


def plan_of(job: Job, first_speaker: str, starts_at: float | None = None) -> Plan:
    """Write what a dialogue is begun with as the plan of its conversation."""
    talk = job.talk
    return Plan(
        token_budget=talk.token_budget,
        max_duration=60.0 * talk.minutes,
        max_turns=talk.max_turns,
        seed=job.seed,
        first_speaker=first_speaker,
        witnesses=tuple(talk.witnesses),
        speakers=talk.speakers,
        starts_at=job.starts_at if starts_at is None else starts_at,
        bow_out=talk.bow_out,
        setting=talk.scene,
        stagnation=talk.stagnation,
        joins=tuple(talk.joins),
        leaves=tuple(talk.leaves),
        whispers=tuple(talk.whispers),
        interventions=tuple(talk.interventions),
        ends_when=talk.ends_when,
    )
