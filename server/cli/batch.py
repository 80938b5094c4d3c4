"""Commands on batches of dialogues: run one, verify it, tell how far it is, report again."""

import asyncio
import contextlib
import shlex
import signal
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

import typer
from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.config.spec_files import SpecFile, read_plan
from persona_mcp.server.batch.batches import Summary
from persona_mcp.server.batch.check import needs_folder, reader
from persona_mcp.server.batch.folder import (
    MANIFEST,
    SPEC,
    check_folder,
    is_locked,
    open_folder,
    spec_in,
)
from persona_mcp.server.batch.manifest import counts_in, read_manifest
from persona_mcp.server.batch.outputs import REPORT
from persona_mcp.server.batch.process_crew import processors
from persona_mcp.server.batch.progress import Display, Events, Silence, display, duration
from persona_mcp.server.batch.results import BEGUN, report_again
from persona_mcp.server.batch.rows import NAME as STORE
from persona_mcp.server.batch.rows import calls_under_way, read_progress
from persona_mcp.server.batch.running import Asked, EngineName, How, run_in_folder
from persona_mcp.server.batch.settings import as_begun
from persona_mcp.server.batch.verify import Verdict, verify_batch
from persona_mcp.server.cli.calls import counted
from persona_mcp.server.cli.run import FAILED, INTERRUPTED, command_module, llm, run, run_loop
from persona_mcp.server.store import read_store
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.errors import InvalidParams, NotFound

SOME_FAILED = 3
"""Exit code of a batch that came to its end, some dialogues of which failed."""
ENGINES = get_args(EngineName)
BUSY, LONG_S = 0.9, 30.0
"""A process that worked for such a share of its time cannot keep up with the model, which a run of
so many seconds is told of."""
FAILURES_SHOWN = 20
DIM = "dim"


def run_file(
    file: Path,
    out: Path,
    *,
    workers: int | None,
    engine: str,
    resume: bool,
    retry_failed: bool,
    force: bool,
    dry_run: bool,
    model: str | None,
    as_json: bool,
) -> None:
    """Run a batch; exits with 3 if a dialogue failed, and with 130 after Ctrl-C."""

    def can_begin(spec: bytes) -> None:
        check_engine(engine)
        check_folder(out, spec, resume=resume or retry_failed, force=force)

    if dry_run:
        check = command_module("cli.batch_check").check
        check(file, model, as_json, asks=False, first=can_begin)
        return

    async def work(settings: Settings, terminal: Terminal, spec: SpecFile, plan: BatchPlan) -> None:
        how = How(workers, cast("EngineName", engine), resume, retry_failed, force)
        stopping = asyncio.Event()
        shown = display(terminal, as_json=as_json)
        async with read_store(settings) if needs_folder(plan.spec) else nullcontext() as store:
            asked = Asked(
                spec.text.encode(),
                plan,
                reader(spec, plan, store),
                with_name(plan.spec.model, model),
                settings,
            )
            with closing(shown), stopped_by_ctrl_c(stopping, terminal):
                summary = await run_in_folder(out, asked, how, shown.told, stopping)
        ended(shown, terminal, summary, engine, again(file, out, engine, model), out)

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        check_engine(engine)
        # Before the event loop runs: in a thread beside it a Ctrl-C waits for the thread's end.
        runner.run(work(settings, terminal, *read_plan(file)))

    run_loop(loop, as_json=as_json, busy=True, llm=llm(model))


def check_engine(name: str) -> None:
    """Look whether there is an engine of that name.

    Raises:
        InvalidParams: There is none.
    """
    if name not in ENGINES:
        raise InvalidParams.one("--engine", ", ".join(ENGINES), name)


def with_name(model: ModelSpec, name: str | None) -> ModelSpec:
    """Return a batch's model under another name; None for its own."""
    return model if name is None else model.model_copy(update={"name": name})


@contextlib.contextmanager
def stopped_by_ctrl_c(stopping: asyncio.Event, terminal: Terminal) -> Iterator[None]:
    """Have the first Ctrl-C stop the batch where turns end; a second one is as elsewhere."""
    usual, loop = signal.getsignal(signal.SIGINT), asyncio.get_running_loop()

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, usual)
        terminal.err.print("(stops where each dialogue's turn ends; Ctrl-C again: now)", style=DIM)
        loop.call_soon_threadsafe(stopping.set)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def again(file: Path, out: Path, engine: str, model: str | None) -> str:
    """Write the command that goes on with a batch as it was begun; how it goes on is missing."""
    words = ["persona", "dialogue", "run", str(file), "--out", str(out)]
    words += ["--engine", engine] if engine != ENGINES[0] else []
    words += ["--model", model] if model is not None else []
    return shlex.join(words)


def ended(
    shown: Display, terminal: Terminal, summary: Summary, engine: str, command: str, out: Path
) -> None:
    """Tell what came of a batch, and exit as it ended.

    Raises:
        typer.Exit: It was stopped, or a dialogue failed.
    """
    report = out / REPORT
    event = {
        "event": "stopped" if summary.stopped else "finished",
        **asdict(summary),
        "folder": str(out),
        "report": str(report) if report.exists() and not summary.stopped else None,
    }
    if isinstance(shown, Events):
        shown.told(event)
    else:
        show_summary(terminal, summary, command, out)
        if advice := pace(summary, engine, processors()):
            terminal.err.print(advice, style=DIM)
    if summary.stopped:
        raise typer.Exit(INTERRUPTED)
    if summary.failed:
        raise typer.Exit(SOME_FAILED)


def pace(summary: Summary, engine: str, processors: int) -> str:
    """Return what would have made a batch faster; empty where the model took the time."""
    if engine != "local" or processors == 1:
        return ""
    if summary.wall_s < LONG_S or summary.busy < BUSY:
        return ""
    return (
        f"(this process was busy {summary.busy:.0%} of the time: --engine processes shares its "
        f"work over {processors} processors)"
    )


def show_under_way(terminal: Terminal, calls: int) -> None:
    """Say that what was begun is not lost, if anything was."""
    if calls:
        what = counted(calls, "model call")
        terminal.out.print(f"{what} of dialogues under way are kept, too: they go on from there")


def show_summary(terminal: Terminal, summary: Summary, command: str, out: Path) -> None:
    """Write what came of a batch in a table, and what to do next: the command, with one option."""
    table = Table("dialogues", "done", "failed", "turns", "model calls", "time")
    counts = (summary.total, summary.done, summary.failed, summary.turns, summary.calls)
    table.add_row(*map(str, counts), duration(summary.wall_s))
    terminal.out.print(table)
    if summary.stopped:
        show_under_way(terminal, calls_under_way(out))
        terminal.out.print(f"stopped; go on with: {command} --resume")
        return
    if summary.failed:
        terminal.out.print(
            f"what failed is told by: {shlex.join(['persona', 'dialogue', 'status', str(out)])}; "
            f"hold it again with: {command} --retry-failed"
        )
    report = out / REPORT
    terminal.out.print(f"report: {report}" if report.exists() else f"results: {out}")


def verify(folder: Path, as_json: bool) -> None:
    """Verify a finished batch; exits with 1 if it is not what it should be."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        shown = Silence() if as_json else display(terminal, as_json=False)
        with closing(shown):
            verdict = await verify_batch(folder, settings, told=shown.told)
        if as_json:
            terminal.print_json(verdict.as_json())
        else:
            show_verdict(terminal, verdict)
        if not verdict.good:
            raise typer.Exit(FAILED)

    run(work, as_json=as_json)


def show_verdict(terminal: Terminal, verdict: Verdict) -> None:
    """Write what a check came to."""
    for difference in verdict.differences:
        terminal.out.print(str(difference), style="bold red")
    for note in verdict.notes:
        terminal.out.print(note, style=DIM)
    if verdict.good:
        terminal.out.print(
            f"verified: {verdict.files} files; {verdict.dialogues} dialogues held again from "
            f"{verdict.calls} recorded calls came to the same bytes"
        )
    else:
        terminal.out.print("not verified")


def status(folder: Path, as_json: bool) -> None:
    """Tell how far a batch is, and what failed."""

    def loop(settings: Settings, terminal: Terminal, _: asyncio.Runner) -> None:
        found = status_of(folder)
        if as_json:
            terminal.print_json(found)
        else:
            show_status(terminal, found)

    run_loop(loop, as_json=as_json)


def status_of(folder: Path) -> dict[str, Any]:
    """Read how far a batch is; one that another process runs is not disturbed.

    Raises:
        NotFound: There is no batch.
        BadSnapshot: Its store is gone, and its manifest is damaged.
    """
    spec_in(folder)
    _, plan = read_plan(folder / SPEC)
    counts, failures = read_progress(folder)
    finished = (folder / MANIFEST).exists()
    if finished and not (folder / STORE).is_file():
        counts = counts_in(read_manifest(folder))
    held = counts.done + counts.failed
    running = is_locked(folder)
    return {
        "name": plan.spec.name,
        "status": "finished" if finished else "running" if running else "stopped",
        "dialogues": plan.total,
        "done": counts.done,
        "failed": counts.failed,
        "left": plan.total - held,
        "turns": counts.turns,
        "calls": counts.calls,
        "calls_under_way": 0 if finished else calls_under_way(folder),
        "failures": [{"dialogue": index, "reason": why} for index, why in failures],
    }


def show_status(terminal: Terminal, found: dict[str, Any]) -> None:
    """Lay out how far a batch is."""
    terminal.out.print(
        f"{found['name']}: {found['status']}; {found['done']} of {found['dialogues']} dialogues "
        f"done, {found['failed']} failed, {found['left']} left; {found['turns']} turns, "
        f"{found['calls']} model calls"
    )
    show_under_way(terminal, found["calls_under_way"])
    if not found["failures"]:
        return
    table = Table("dialogue", "failed because")
    for one in found["failures"][:FAILURES_SHOWN]:
        table.add_row(str(one["dialogue"]), one["reason"])
    terminal.out.print(table)
    more = found["failed"] - FAILURES_SHOWN
    if more > 0:
        terminal.out.print(f"(and {more} more)", style=DIM)


def report(folder: Path, as_json: bool) -> None:
    """Write a batch's report again."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        async with open_folder(folder) as opened:
            casts = await asyncio.to_thread(opened.casts)
            begun = await opened.store.fact(BEGUN)
            if casts is None or begun is None:
                raise NotFound("no dialogue was held yet", kind="batch", id=folder.name)
            _, plan = await asyncio.to_thread(read_plan, folder / SPEC)
            path = await report_again(opened, plan, casts, as_begun(settings, begun))
        if as_json:
            terminal.print_json({"report": str(path)})
        else:
            terminal.out.print(f"report: {path}")

    run(work, as_json=as_json)
