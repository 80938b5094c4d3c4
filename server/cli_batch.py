"""Commands on batches of dialogues: run one, verify it, tell how far it is, write its report again."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import typer
from rich.table import Table

from persona_mcp.config.settings import Settings
from persona_mcp.config.spec_files import SpecFile, read_plan
from persona_mcp.server.batch_folder import SPEC, open_folder, spec_in
from persona_mcp.server.batch_outputs import REPORT
from persona_mcp.server.batch_progress import Display, display, duration
from persona_mcp.server.batch_results import BEGUN, report_again
from persona_mcp.server.batch_running import Asked, EngineName, How, run_in_folder
from persona_mcp.server.batch_settings import as_begun
from persona_mcp.server.batch_verify import Verdict, verify_batch
from persona_mcp.server.batches import Summary
from persona_mcp.server.casting_files import cast_reader
from persona_mcp.server.cli_run import FAILED, INTERRUPTED, command_module, llm, run
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams, NotFound

SOME_FAILED = 3
"""Exit code of a batch that came to its end, some dialogues of which failed."""
ENGINES = ("local", "ray")
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
    if dry_run:
        command_module("cli_batch_check").check(file, model, as_json, probe=False)
        return

    async def work(settings: Settings, terminal: Terminal) -> None:
        if engine not in ENGINES:
            raise InvalidParams.of(
                [{"field": "--engine", "allowed": " or ".join(ENGINES), "given": engine}]
            )
        how = How(workers, cast("EngineName", engine), resume, retry_failed, force)
        spec, plan = await asyncio.to_thread(read_plan, file)
        stopping = asyncio.Event()
        shown = display(terminal, as_json=as_json)
        async with cast_reader(spec, settings) as read_cast:
            chosen = plan.spec.model
            if model is not None:
                chosen = chosen.model_copy(update={"name": model})
            asked = Asked(spec.text.encode(), plan, read_cast, chosen, settings)
            with closed(shown), stopped_by_ctrl_c(stopping, terminal):
                summary = await run_in_folder(out, asked, how, shown.told, stopping)
        tell_end(terminal, summary, file, out, as_json)

    run(work, as_json=as_json, llm=llm(model))
