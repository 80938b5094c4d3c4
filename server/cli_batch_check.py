"""The command that checks a specification and tells what a batch would come to."""

import asyncio
from pathlib import Path

from persona_mcp.config.settings import Settings
from persona_mcp.config.spec_files import read_plan
from persona_mcp.server import batch_check
from persona_mcp.server.cli_run import llm, run
from persona_mcp.server.model_pool import open_pool
from persona_mcp.server.terminal import Terminal


def check(file: Path, model: str | None, as_json: bool, *, asks: bool = True) -> None:
    """Check a specification, and show what it comes to.

    Args:
        file: The specification.
        model: In place of the one that it names.
        as_json: Print one JSON object instead.
        asks: The model is asked once, to estimate the time.
    """

    async def work(settings: Settings, terminal: Terminal) -> None:
        _, plan = await asyncio.to_thread(read_plan, file)
        chosen = plan.spec.model
        if model is not None:
            chosen = chosen.model_copy(update={"name": model})
        pool = open_pool(settings.llm, chosen)
        try:
            checked = await batch_check.check(file, settings, pool if asks else None, model)
        finally:
            await pool.aclose()
        if as_json:
            terminal.print_json(checked.as_json())
        else:
            batch_check.show(terminal, checked)

    run(work, as_json=as_json, llm=llm(model))
