"""What happens when things break: each fault for real, while clients talk to a real server.

    python -m benchmarks.reliability [--only NAME ...] [--times N] [--write]

Each fault is done so many times, in one run of a server with its clients. Afterwards the database
is compared with what the clients were told: an acknowledged exchange must be there once, with the
reply that was shown. `--write` puts the rows into docs/reliability.md. Exits with 1 where something
was lost, doubled or half there.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.breakages import FAULTS, Fault, Unfit
from benchmarks.faults import Found, Scene

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
HEAD = (
    "| fault | what was done | times | acknowledged | found | lost | doubled "
    "| until the next reply, s: median, longest |\n|---|---|---|---|---|---|---|---|\n"
)
BETWEEN = 5
"""Replies between two breakages, at least, so that something is under way."""


@dataclass(frozen=True)
class Row:
    """What came of one fault.

    Attributes:
        name: Of the fault.
        what: What was done.
        times: How often.
        found: What is in the database.
        recovery_s: Until the next reply after the fault was over, in seconds, each time.
        refused: How often clients got which error meanwhile.
    """

    name: str
    what: str
    times: int
    found: Found
    recovery_s: list[float]
    refused: dict[str, int]

    @property
    def lost(self) -> int:
        """Acknowledged exchanges that are not there."""
        return self.found.acknowledged - self.found.found

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled or half there."""
        return not (self.lost or self.found.doubled or self.found.wrong)

    def line(self) -> str:
        """Write it as a line of the page's table."""
        cells = (
            self.name,
            self.what,
            self.times,
            self.found.acknowledged,
            self.found.found,
            self.lost,
            self.found.doubled,
            f"{median(self.recovery_s):.1f}, {max(self.recovery_s):.1f}",
        )
        return "| " + " | ".join(map(str, cells)) + " |"


async def carried_out(fault: Fault, folder: Path, times: int) -> Row:
    """Break it so many times while clients talk, and look at what is left.

    Raises:
        Unfit: It cannot be done on this machine.
    """
    recovery: list[float] = []
    async with fault.scene(folder) as scene:
        await scene.server.start()
        async with scene.talking():
            await scene.more(BETWEEN)
            for _ in range(times):
                recovery.append(await broken(fault, scene))
                await scene.more(BETWEEN)
        found = await scene.examine()
        refused = dict(scene.book.refused)
    return Row(fault.name, fault.what, times, found, recovery, refused)


async def broken(fault: Fault, scene: Scene) -> float:
    """Break it once; return how long the next reply took once the fault was over, in seconds."""
    over = await fault.strike(scene)
    await scene.more(1)
    return max(0.0, scene.book.last - over)


def written(page: str, rows: Sequence[Row]) -> str:
    """Put rows into the page's table, each in the place of the one that has its name."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    known = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    known |= {row.name: row.line() for row in rows}
    lines = [known[name] for name in FAULTS if name in known]
    return f"{before}{BEGIN}{HEAD}" + "\n".join(lines) + f"\n{END}{after}"


def show(rows: Sequence[Row]) -> None:
    """Print what came of it."""
    table = Table("fault", "times", "acknowledged", "found", "doubled", "recovery s", "refused")
    for row in rows:
        slowest = f"{median(row.recovery_s):.1f}, {max(row.recovery_s):.1f}"
        refused = ", ".join(f"{count} {code}" for code, count in sorted(row.refused.items()))
        counts = (row.times, row.found.acknowledged, row.found.found, row.found.doubled)
        table.add_row(
            row.name, *map(str, counts), slowest, refused, style=None if row.good else "red"
        )
    Console(width=140).print(table)
    for row in rows:
        for line in row.found.wrong[:20]:
            print(f"{row.name}: {line}")


def main() -> None:
    """Carry out what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), metavar="NAME")
    parser.add_argument("--times", type=int, help="in place of each fault's own number")
    parser.add_argument("--list", action="store_true", help="say which faults there are")
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    given = parser.parse_args()
    if given.list:
        for fault in FAULTS.values():
            print(f"{fault.name:24} {fault.times:4} x  {fault.what}")
        return
    rows = []
    for name in given.only or FAULTS:
        fault, began = FAULTS[name], time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="persona-fault-") as folder:
                rows.append(
                    asyncio.run(carried_out(fault, Path(folder), given.times or fault.times))
                )
        except Unfit as error:
            print(f"{name}: not done: {error}", file=sys.stderr)
            continue
        row = rows[-1]
        said = "good" if row.good else "FAILED"
        print(f"{name}: {said} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
        if given.write:
            PAGE.write_text(written(PAGE.read_text("utf-8"), [row]), encoding="utf-8")
    show(rows)
    sys.exit(0 if all(row.good for row in rows) else 1)


if __name__ == "__main__":
    main()
