"""What a batch would come to, before anything is run: how much of what, and about how long."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from persona_mcp.config.settings import LLMSettings, Settings
from persona_mcp.config.spec_files import SpecFile
from persona_mcp.server.batch.cast import cast_of
from persona_mcp.server.batch.casts import OF_A_CAST
from persona_mcp.server.store import Store, read_store
from persona_mcp.state.batch.arms import at_values, chosen_in
from persona_mcp.state.batch.faults import refused
from persona_mcp.state.batch.grid import Arm
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.values import Cast
from persona_mcp.state.dialogue_spec import DialogueSpec, ModelSpec
from persona_mcp.state.errors import InvalidParams, PersonaError
from persona_mcp.state.model import ChatModel, Message, Sampling
from persona_mcp.state.moments import DAY_S, HOUR_S, MINUTE_S

if TYPE_CHECKING:
    from persona_mcp.server.terminal import Terminal

PROBE_TOKENS = 60
PROBE_TEMPERATURE = 0.7
PROBE_SCENE = "You meet somebody on the way. Say in two sentences who you are and what you want."
SHORT, LONG = 0.5, 2.0
"""A dialogue may end at half of its turns; its later prompts take up to twice as long as the
probe's, since they hold what was said."""
EMBEDDED = "embedded:"
NAMES_SHOWN = 12


@dataclass(frozen=True)
class Estimate:
    """How long a batch takes, by one call of the model.

    Attributes:
        model: Who answered, `provider:name`.
        call_s: What the call took, in seconds.
        tokens: It said, as the provider counts; None if it does not.
        at_once: Calls that can be under way at the same time.
        least_s: If dialogues end at half of their turns.
        most_s: If each goes to its end, with prompts that grow; on the embedded model, whose
            replies share this machine, as if one were made after the other.
    """

    model: str
    call_s: float
    tokens: int | None
    at_once: int
    least_s: float
    most_s: float


@dataclass(frozen=True)
class Checked:
    """What a batch would come to.

    Attributes:
        file: Name of the specification.
        name: Of the batch.
        cast: Names by id, of the first arm.
        arms: Combinations of the grid.
        runs: Of all arms.
        waves: Of a run; of the arm that has the most.
        dialogues: In all.
        turns_max: In all, if each dialogue goes to its end.
        calls_max: Calls of the model: one a turn, if no reply is refused.
        appraisals_max: Calls of the model beside these, where the settings have it appraise.
        attempts: A reply that is refused is made again, until there were so many.
        tokens_max: Tokens of all that is said, by the budgets.
        model: Who writes the replies, as it is asked for.
        endpoints: Servers, with the replies that each makes at once; empty for the settings' own.
        slots: Replies made at once, in all.
        outputs: Files that are made at the end, beside dialogues.jsonl.
        estimate: How long it takes; None if the model was not asked, or did not answer.
        no_estimate: Why there is none; empty where there is one.
    """

    file: str
    name: str
    cast: dict[str, str]
    arms: int
    runs: int
    waves: int
    dialogues: int
    turns_max: int
    calls_max: int
    appraisals_max: int
    attempts: int
    tokens_max: int
    model: str
    endpoints: tuple[tuple[str, int], ...]
    slots: int
    outputs: tuple[str, ...]
    estimate: Estimate | None
    no_estimate: str

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON values."""
        ends = [{"url": url, "slots": slots} for url, slots in self.endpoints]
        return {**asdict(self), "endpoints": ends, "outputs": list(self.outputs)}


async def check(
    file: SpecFile,
    plan: BatchPlan,
    settings: Settings,
    model: ChatModel | None,
    named: str | None = None,
) -> Checked:
    """Check the casts of a specification, and say what it comes to; nothing is run or written.

    Args:
        file: The specification.
        plan: Of it.
        settings: For what it leaves open, and the data folder, which is only read.
        model: Is asked once, to estimate how long it takes; None to ask nobody.
        named: The model that is asked for in place of the specification's, as it is shown.

    Raises:
        InvalidParams: Somebody cannot be cast; the message has a line for each fault.
        StorageUnavailable: A persona is to come from a data folder that cannot be read.
    """
    cast = await first_cast(file, plan, settings)
    spec = plan.spec
    asks = named or spec.model.name or settings.llm.model
    slots = slots_of(spec.model, settings.llm, asks)
    appraisals = plan.turns_max if settings.relationships.appraiser == "model" else 0
    estimate, why = None, "the model was not asked"
    if model is not None:
        calls = plan.calls_max + appraisals
        estimate, why = await estimated(plan, cast, model, slots, calls)
    return Checked(
        file=file.path.name,
        name=spec.name,
        cast={member.id: member.spec.name for member in cast.members},
        arms=len(plan.arms),
        runs=len(plan.arms) * plan.repeats,
        waves=plan.waves,
        dialogues=plan.total,
        turns_max=plan.turns_max,
        calls_max=plan.calls_max,
        appraisals_max=appraisals,
        attempts=settings.conversation.attempts,
        tokens_max=plan.tokens_max,
        model=asks,
        endpoints=tuple((end.url, end.slots) for end in spec.model.endpoints),
        slots=slots,
        outputs=tuple(spec.outputs),
        estimate=estimate,
        no_estimate=why,
    )


async def first_cast(file: SpecFile, plan: BatchPlan, settings: Settings) -> Cast:
    """Read the casts of all arms that differ in them, and return the first arm's.

    Raises:
        InvalidParams: One cannot be read, told at its line.
        StorageUnavailable: The data folder cannot be read.
    """
    needed = read_store(settings) if needs_folder(plan.spec) else nullcontext()
    async with needed as store:
        read = reader(file, plan, store)
        first = await read(plan.arms[0])
        for arm in differing(plan):
            await read(arm)
        return first


def differing(plan: BatchPlan) -> Iterator[Arm]:
    """Return an arm for each cast but the first arm's."""
    paths = [path for path in plan.spec.variations if path.split(".")[0] in OF_A_CAST]
    seen = {cast_key(plan.arms[0], paths)} if paths else set()
    for arm in plan.arms if paths else ():
        key = cast_key(arm, paths)
        if key not in seen:
            seen.add(key)
            yield arm


def cast_key(arm: Arm, paths: list[str]) -> str:
    """Return what an arm's cast depends on."""
    return json.dumps([arm.values[path] for path in paths], sort_keys=True)


def reader(
    file: SpecFile, plan: BatchPlan, store: Store | None
) -> Callable[[Arm], Awaitable[Cast]]:
    """Return what reads the cast of an arm, and tells what is wrong by its line in the file.

    Args:
        file: The specification.
        plan: Of it.
        store: The data folder, None if there is none.
    """

    async def read(arm: Arm) -> Cast:
        with file.telling_lines():
            try:
                return await cast_of(arm.spec, file.folder, store)
            except InvalidParams as error:
                chosen = chosen_in(plan.spec, plan.arms.chosen(arm.number))
                faults = error.faults
                raise refused([at_values(one, plan.spec, chosen) for one in faults]) from error

    return read


def slots_of(asked: ModelSpec, settings: LLMSettings, name: str) -> int:
    """Return how many replies are made at once."""
    if asked.endpoints:
        return sum(end.slots for end in asked.endpoints)
    if asked.slots is not None:
        return asked.slots
    few = settings.embedded_slots if name.startswith(EMBEDDED) else settings.concurrency
    return min(few, settings.concurrency)


async def estimated(
    plan: BatchPlan, cast: Cast, model: ChatModel, slots: int, calls: int
) -> tuple[Estimate | None, str]:
    """Ask the model once, and say how long all calls take; else why that cannot be said."""
    spec = cast.members[0].spec
    messages = [Message("system", spec.description or f"You are {spec.name}.")]
    scene = plan.arms[0].spec.dialogue.scene
    messages.append(Message("user", f"{scene}\n{PROBE_SCENE}".strip()))
    tokens: int | None = None
    try:
        info = await model.info()
        begun = time.perf_counter()
        sampling = Sampling(PROBE_TOKENS, PROBE_TEMPERATURE, seed=plan.spec.seed)
        async with aclosing(model.stream(messages, sampling)) as chunks:
            async for chunk in chunks:
                tokens = chunk.output_tokens or tokens
        call_s = time.perf_counter() - begun
    except PersonaError as error:
        return None, f"the model did not answer: {error.message}"
    at_once = max(1, min(slots, held_at_once(plan)))
    whole_s = calls * call_s
    least = SHORT * whole_s / at_once
    most = LONG * whole_s / (1 if info.id.startswith(EMBEDDED) else at_once)
    return Estimate(info.id, call_s, tokens, at_once, least, most), ""


def held_at_once(plan: BatchPlan) -> int:
    """Return how many dialogues can be under way at once: those of a wave, of each run."""
    return max(1, plan.total // max(1, plan.waves))


def show(terminal: "Terminal", checked: Checked) -> None:
    """Print what a batch would come to."""
    table = Table(show_header=False, title=f"{checked.file}: {checked.name}")
    for name, text in rows_of(checked):
        table.add_row(name, text)
    terminal.out.print(table)


def rows_of(checked: Checked) -> Iterator[tuple[str, str]]:
    """Write what there is to know, a line each."""
    names = [f"{name} ({id})" for id, name in checked.cast.items()]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    yield "cast", ", ".join(names[:NAMES_SHOWN]) + more
    yield "arms", f"{checked.arms:,}"
    yield "runs", f"{checked.runs:,}"
    yield "waves", f"{checked.waves:,}, one after the other"
    yield "dialogues", f"{checked.dialogues:,}"
    yield "turns", f"{checked.turns_max:,} at most"
    calls = f"{checked.calls_max:,} at most, one a turn"
    if checked.appraisals_max:
        calls += f", and {checked.appraisals_max:,} to appraise them"
    again = f"; a reply that is refused is made again, {checked.attempts} times in all at most"
    yield "model calls", calls + (again if checked.attempts > 1 else "")
    yield "tokens said", f"{checked.tokens_max:,} at most"
    yield "model", f"{checked.model}, {counted(checked.slots, 'reply', 'replies')} at once"
    for url, slots in checked.endpoints:
        yield "", f"{url}, {counted(slots, 'slot', 'slots')}"
    yield "outputs", ", ".join(["dialogues.jsonl", *checked.outputs])
    yield "time", time_of(checked)


def counted(number: int, one: str, many: str) -> str:
    """Write a number of things."""
    return f"{number:,} {one if number == 1 else many}"


def time_of(checked: Checked) -> str:
    """Write how long it takes, and by what that is known."""
    found = checked.estimate
    if found is None:
        return f"not known: {checked.no_estimate}"
    by = f"one call of {found.model} took {found.call_s:.2f} s"
    between = f"{duration(found.least_s)} to {duration(found.most_s)}"
    return f"about {between}: {by}, and up to {found.at_once} are made at once"


def duration(seconds: float) -> str:
    """Write a time in the unit that reads best."""
    for unit, size in (("d", DAY_S), ("h", HOUR_S), ("min", MINUTE_S)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


def needs_folder(spec: DialogueSpec) -> bool:
    """Tell whether anybody of a cast may come from the data folder."""
    entries = spec.personas.values()
    if any(one is None or (one.persona is None and one.card is None) for one in entries):
        return True
    return any(path.split(".")[0] == "personas" for path in spec.variations)
