"""The command that checks a specification and tells what a batch would come to."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from persona_mcp.config.settings import Settings
from persona_mcp.config.spec_files import SpecFile, read_plan
from persona_mcp.server.batch import check as batch_check
from persona_mcp.server.batch.model_pool import open_pool
from persona_mcp.server.cli.run import llm, run_loop
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.batch.plan import BatchPlan


def check(
    file: Path,
    model: str | None,
    as_json: bool,
    *,
    asks: bool = True,
    first: Callable[[bytes], None] | None = None,
) -> None:
    """Check a specification, and show what it comes to.

    Args:
        file: The specification.
        model: In place of the one that it names.
        as_json: Print one JSON object instead.
        asks: The model is asked once, to estimate the time.
        first: Given the bytes of a specification that can be held; what it raises is told.
    """

    async def work(settings: Settings, terminal: Terminal, spec: SpecFile, plan: BatchPlan) -> None:
        chosen = plan.spec.model
        if model is not None:
            chosen = chosen.model_copy(update={"name": model})
        pool = open_pool(settings.llm, chosen)
        try:
            checked = await batch_check.check(spec, plan, settings, pool if asks else None, model)
        finally:
            await pool.aclose()
        if as_json:
            terminal.print_json(checked.as_json())
        else:
            batch_check.show(terminal, checked)

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        # Before the event loop runs: in a thread beside it a Ctrl-C waits for the thread's end.
        spec, plan = read_plan(file)
        if first is not None:
            first(spec.text.encode())
        runner.run(work(settings, terminal, spec, plan))

    run_loop(loop, as_json=as_json, llm=llm(model))
