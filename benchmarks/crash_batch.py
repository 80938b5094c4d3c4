"""Kill -9 at random moments: a batch that is gone on with comes to the bytes of an undisturbed one.

    python -m benchmarks.crash_batch --rounds 30

The model is a server whose replies depend on what it is asked and on nothing else. The batch is run
once undisturbed. Then it is run in another folder, killed at a random moment, gone on with, killed
again, until it is finished; then it is begun anew, until there were so many kills. Every finished
one is compared. Exits with 1 on any difference.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bookkeeping import model_server
from tests.batches import results, specification, written
from tests.processes import variables

WORD_S = 0.002
"""Between two words of a reply."""
LIMIT_S = 300.0
EARLY, EARLY_S = 0.1, 0.2
"""Share of the kills that come while a process starts, and how soon."""
LOOK_S = 0.02
SPEC = {"dialogue": {"topics": ["music", "trade"], "max_turns": 6, "bow_out": False}}


@dataclass(frozen=True)
class Batch:
    """One batch, killed until it was finished.

    Attributes:
        kills: How often.
        done_at: How many dialogues were done at each kill.
        faults: What is not as in an undisturbed run.
    """

    kills: int
    done_at: tuple[int, ...]
    faults: tuple[str, ...]


def live(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Run the command; the process is killed."""
    os.environ.update(environment)
    with open(log, "a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        from persona_mcp.server.cli.app import app  # noqa: PLC0415 - after the environment

        app(arguments)


def started(folder: Path, out: str, environment: dict[str, str]) -> BaseProcess:
    """Begin a life of a batch, or go on with it."""
    context = multiprocessing.get_context("forkserver")  # imports once, forks each life
    context.set_forkserver_preload(
        ["persona_mcp.server.cli.batch", "langchain_openai", "pyarrow.parquet"]
    )
    arguments = ["dialogue", "run", str(folder / "spec.yaml"), "--out", str(folder / out)]
    process = context.Process(
        target=live, args=([*arguments, "--resume"], environment, str(folder / f"{out}.log"))
    )
    process.start()
    return process


def finished(folder: Path, out: str, environment: dict[str, str]) -> None:
    """Run a batch to its end."""
    process = started(folder, out, environment)
    process.join(LIMIT_S)
    log = (folder / f"{out}.log").read_text("utf-8")
    assert process.exitcode == 0, f"exit code {process.exitcode}: {log[-2000:]}"


def play(folder: Path, rounds: int, seed: int) -> Iterator[Batch]:
    """Run batches until there were so many kills.

    Args:
        folder: An empty one.
        rounds: How many kills.
        seed: Of the moments.
    """
    chance = random.Random(seed)
    written(folder / "spec.yaml", specification(**SPEC))
    with model_server(WORD_S, "hashed") as url:
        embedder = {"PERSONA_EMBEDDER__MODEL": "openai:words", "PERSONA_EMBEDDER__OPENAI_URL": url}
        environment = variables(folder / "data", url, **embedder)
        finished(folder, "warm", environment)  # the first one imports everything
        began = time.monotonic()
        finished(folder, "whole", environment)
        lasts_s = time.monotonic() - began
        wanted = results(folder / "whole")
        left, number = rounds, 0
        while left > 0:
            number += 1
            one = killed(folder, f"batch-{number}", environment, left, lasts_s, chance, wanted)
            left -= one.kills
            yield one


def killed(
    folder: Path,
    out: str,
    environment: dict[str, str],
    most: int,
    lasts_s: float,
    chance: random.Random,
    wanted: dict[str, bytes],
) -> Batch:
    """Run one batch, killed at random moments but at most so often, and compare it."""
    done_at: list[int] = []
    while len(done_at) < most:
        process = started(folder, out, environment)
        early = chance.random() < EARLY
        if not done_at and out.endswith("-1"):  # however slow the machine is
            wait_for_a_dialogue(folder / out)
        process.join(chance.random() * (EARLY_S if early else lasts_s))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        done_at.append(dialogues_in(folder / out))
    finished(folder, out, environment)
    return Batch(len(done_at), tuple(done_at), tuple(differences(wanted, results(folder / out))))


def wait_for_a_dialogue(out: Path) -> None:
    """Wait until the first dialogue of a batch is kept."""
    deadline = time.monotonic() + LIMIT_S
    while not dialogues_in(out):
        assert time.monotonic() < deadline, "no dialogue was held in time"
        time.sleep(LOOK_S)


def dialogues_in(out: Path) -> int:
    """Count the dialogues that are kept."""
    from persona_mcp.server.batch.rows import read_progress  # noqa: PLC0415 - only in the parent
    from persona_mcp.state.errors import StorageUnavailable  # noqa: PLC0415

    try:
        counts, _ = read_progress(out)
    except StorageUnavailable:  # killed before it had made its tables
        return 0
    return counts.done + counts.failed


def differences(wanted: dict[str, bytes], found: dict[str, bytes]) -> Iterator[str]:
    """Name the files that are not the same."""
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            yield f"{name} is not the same"


def main() -> None:
    """Kill, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash_batch")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    table = Table("batch", "kills", "dialogues done at each", "faults")
    kills, wrong = 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="persona-crash-") as folder:
        for number, one in enumerate(play(Path(folder), given.rounds, given.seed), start=1):
            counts = " ".join(map(str, one.done_at))
            table.add_row(str(number), str(one.kills), counts, str(len(one.faults)))
            kills += one.kills
            wrong += [f"batch {number}: {fault}" for fault in one.faults]
    Console(width=100).print(table)
    for fault in wrong:
        print(fault)
    print(f"{kills} kills: {'FAILED' if wrong else 'the same bytes as undisturbed'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
