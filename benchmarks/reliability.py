"""Break the real server under load in every way that is known, and write down what came of it.

    python -m benchmarks.reliability --write
    python -m benchmarks.reliability --only model-hangs --only kill --rounds 5 --write

Prints a row for each fault. With --write its rows take the place of those of the same name in
docs/reliability.md; the others stay. Exits with 1 if anything was lost, doubled or wrong.
"""

import argparse
import asyncio
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.faults.registry import FAULTS
from benchmarks.faults.running import Fault, Row, run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- rows: begin -->", "<!-- rows: end -->"
COLUMNS = (
    "Fault", "What was done", "Database", "Times", "Acknowledged before", "Found after", "Lost",
    "Doubled", "Time to recover", "What callers were told", "Made",
)  # fmt: skip
SEPARATOR = "|".join(["", *("---" for _ in COLUMNS), ""])
GIB = 1 << 30
NOT_RUN = "Not yet run for this page: "


def cells_of(row: Row, made: str) -> list[str]:
    """Write a row of the page, cell by cell."""
    told = ", ".join(f"{count} x {code}" for code, count in row.refused.items()) or "no error"
    notes = "".join(f"; {what}: {value:,.0f}" for what, value in row.notes.items())
    return [
        f"`{row.name}`",
        row.done,
        {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[row.database],
        f"{row.rounds:,}",
        f"{row.acknowledged:,}",
        f"{row.found:,}",
        f"{row.lost:,}",
        f"{row.doubled:,}",
        f"{row.recover_median_s:.1f} s, at most {row.recover_s:.1f} s",
        told + notes,
        made,
    ]


def line_of(cells: Iterable[str]) -> str:
    """Write a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def rows_in(text: str) -> dict[str, list[str]]:
    """Read the table of the page: the cells of each row, by the fault's name."""
    between = text.partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in between.splitlines() if line.startswith("| `")]
    listed = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return {cells[0].strip("` "): cells for cells in listed}


def merged(text: str, new: dict[str, list[str]]) -> str:
    """Return the page with these rows in place of those of the same name, in the registry's order.

    Raises:
        ValueError: The page has no place for rows.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    rows = {**rows_in(text), **new}
    lines = [line_of(COLUMNS), SEPARATOR]
    lines += [line_of(rows[name]) for name in FAULTS if name in rows]
    if missing := [f"`{name}`" for name in FAULTS if name not in rows]:
        lines += ["", f"{NOT_RUN}{', '.join(missing)}."]
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}"


def machine() -> str:
    """Name the machine, without its name."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    return (
        f"{os.cpu_count()} processors, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def commit() -> str:
    """Name the commit, with a + if files were changed since."""
    told = [
        subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        for arguments in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "-uno"))
    ]
    return told[0] + ("+" if re.sub(r".*docs/reliability\.md", "", told[1]).strip() else "")


def made_now() -> str:
    """Say when and of which commit a row was made."""
    return f"{time.strftime('%Y-%m-%d', time.gmtime())}, {commit()}; {machine()}"


def write(rows: Sequence[Row]) -> None:
    """Put rows into the page."""
    made = made_now()
    text = PAGE.read_text("utf-8")
    PAGE.write_text(merged(text, {row.name: cells_of(row, made) for row in rows}), "utf-8")


def play(fault: Fault, rounds: int | None, share: float) -> Row | None:
    """Run one fault and say what came of it; None if it cannot be run here."""
    if reason := fault.missing():
        print(f"{fault.name}: skipped: {reason}", flush=True)
        return None
    began = time.monotonic()
    row = asyncio.run(run(fault, rounds or fault.rounds, share))
    print(f"{line_of(cells_of(row, ''))} ({time.monotonic() - began:.0f} s)", flush=True)
    for wrong in row.faults:
        print(f"  WRONG: {wrong}", flush=True)
    return row


def main() -> None:
    """Run the faults that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="may be repeated")
    parser.add_argument("--rounds", type=int, help="in place of each fault's own number")
    parser.add_argument("--share", type=float, default=1.0, help="size of a fault, up to 1")
    parser.add_argument("--write", action="store_true", help="put the rows into the page")
    given = parser.parse_args()
    failed = False
    for name in given.only or FAULTS:
        try:
            row = play(FAULTS[name], given.rounds, given.share)
        except (AssertionError, TimeoutError, OSError) as error:
            print(f"{name}: FAILED: {error}", flush=True)
            failed = True
            continue
        if row is not None:
            failed |= bool(row.lost or row.doubled or row.faults)
            if given.write and not row.faults:
                write([row])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
