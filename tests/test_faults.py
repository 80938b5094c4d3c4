"""The server is broken in every way that is known; nothing acknowledged is lost or doubled."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from benchmarks import load as load_benchmark
from benchmarks import reliability, soak
from benchmarks.faults.load import Said, loaded
from benchmarks.faults.looking import asked_again, look
from benchmarks.faults.registry import FAULTS
from benchmarks.faults.running import Row, run
from benchmarks.faults.site import Site, site
from persona_mcp.config.database import open_database
from persona_mcp.state import tables
from tests.postgres import IS_WANTED

SHARE = 0.02
"""Of the fault's size: 200 slow clients in place of 10,000."""
ROUNDS = 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_under_load_loses_and_doubles_nothing_and_the_server_recovers(name: str) -> None:
    fault = FAULTS[name]
    if reason := fault.missing():
        if IS_WANTED and fault.database == "postgresql":
            pytest.fail(reason)
        pytest.skip(reason)

    row = asyncio.run(run(fault, ROUNDS, SHARE, seed=7))

    assert row.faults == []
    assert (row.lost, row.doubled) == (0, 0)
    assert row.found == row.acknowledged > 0


async def taken_away(one: Site, said: Said) -> None:
    database = open_database(one.settings)
    try:
        wanted = tables.Turn.exchange_id == said.exchange_id
        await database.write(lambda c: c.execute(delete(tables.Turn).where(wanted)))
    finally:
        await database.aclose()


async def other_words(one: Site, said: Said) -> None:
    database = open_database(one.settings)
    try:
        wanted = tables.Turn.exchange_id == said.exchange_id
        reply = update(tables.Turn).where(wanted, tables.Turn.position == 1)
        await database.write(lambda c: c.execute(reply.values(content="Something else.")))
    finally:
        await database.aclose()


@pytest.mark.anyio
async def test_the_count_sees_what_is_lost_changed_or_answered_otherwise(tmp_path: Path) -> None:
    """What looks for losses must find one, or it says nothing."""
    async with site(tmp_path, {}) as one:
        async with loaded(one, 2) as load:
            await load.more(4)
        good = await look(one.settings, load.said)
        assert (good.found, good.doubled, good.faults) == (len(load.said), 0, ())
        assert await asked_again(load, 3, random.Random(1)) == []

        await other_words(one, load.said[0])
        changed = await look(one.settings, load.said)
        assert changed.found == len(load.said) - 1
        [fault] = changed.faults
        assert "Something else." in fault

        load.said[1] = replace(load.said[1], response="Never said.")
        again = await asked_again(load, len(load.said), random.Random(1))
        assert f"{load.said[1].request_id} got another answer when sent again" in again

        await taken_away(one, load.said[2])
        lost = await look(one.settings, load.said)
        assert lost.found == len(load.said) - 3
        assert any(load.said[2].request_id in fault for fault in lost.faults)


def test_many_sessions_at_once_are_told_of_no_error(tmp_path: Path) -> None:
    """What they cost is measured by the benchmark, on a machine that does nothing else."""
    work = load_benchmark.measure(tmp_path, 20, 2.0, exchanges=4, every_s=0.5, warm_up=1)
    result = asyncio.run(work)

    assert result.refused == {}
    assert result.faults == ()
    assert result.exchanges >= 20
    assert min(result.cpu_ms, result.before_ms, result.after_ms) > 0


def test_a_load_says_which_of_its_bars_are_missed() -> None:
    refused = {"rate_limited": 3}
    good = load_benchmark.Result(500, 600.0, 9000, 16.0, 24.0, 25.0, 0.4, 300.0, refused, ())
    bad = replace(good, cpu_ms=27.0, slope_mb=1.2, refused={"internal_error": 1}, faults=("lost",))

    assert good.missed == []
    assert [missed.split(":")[0] for missed in bad.missed] == [
        "errors that state no limit",
        "an exchange costs 1.35 times that of one session",
        "memory rises by 1.20 MB per 1,000 exchanges",
        "lost",
    ]


def test_a_soak_counts_what_is_there_and_says_what_grew(tmp_path: Path) -> None:
    looks = asyncio.run(soak.soak(tmp_path, 40, sessions=4, index="embedded"))

    assert [one.exchanges for one in looks] == sorted(one.exchanges for one in looks)
    assert looks[-1].rows["persona.db: turns"] >= 2 * 40
    assert all(one.files > 0 < one.threads and one.memory > 0 for one in looks)
    assert soak.grown([looks[-1]] * 10) == []
    leaking = [
        replace(looks[-1], exchanges=1000 * n, memory=2_000_000 * n, files=30 * n, threads=9 * n)
        for n in range(10)
    ]
    assert [what.split(":")[0] for what in soak.grown(leaking)] == [
        "memory",
        "file handles",
        "threads",
    ]


ROW = Row("kill", "It was killed.", "sqlite", 3, 70, 70, 0, 0, 2.5, 1.5, {"connection": 9}, [], {})


def test_rows_are_put_into_the_page_and_others_stay() -> None:
    page = f"Head.\n{reliability.BEGIN}\n{reliability.END}\nTail.\n"

    one = reliability.merged(page, {"kill": reliability.cells_of(ROW, "today")})
    other = replace(ROW, name="disk-full", acknowledged=1200, found=1200)
    two = reliability.merged(one, {"disk-full": reliability.cells_of(other, "later")})
    again = reliability.merged(two, {"kill": reliability.cells_of(ROW, "at last")})

    assert one.startswith("Head.\n")
    assert again.endswith("\nTail.\n")
    assert list(reliability.rows_in(again)) == ["kill", "disk-full"]
    assert reliability.rows_in(again)["kill"][-1] == "at last"
    assert reliability.rows_in(again)["disk-full"][4:8] == ["1,200", "1,200", "0", "0"]
    with pytest.raises(ValueError, match="the page needs the lines"):
        reliability.merged("nothing", {})


def column(name: str) -> int:
    names: Sequence[str] = reliability.COLUMNS
    return list(names).index(name)


def test_the_page_names_every_fault_and_nothing_was_lost_or_doubled() -> None:
    text = reliability.PAGE.read_text("utf-8")
    rows = reliability.rows_in(text)

    assert text == reliability.merged(text, {}), "run `make reliability`"
    assert list(rows) == list(FAULTS)
    assert all(f"`{name}`" in text for name in FAULTS)
    for name, cells in rows.items():
        assert len(cells) == len(reliability.COLUMNS), name
        assert cells[column("What was done")] == FAULTS[name].done
        assert (cells[column("Lost")], cells[column("Doubled")]) == ("0", "0"), name
        assert cells[column("Found after")] == cells[column("Acknowledged before")] != "0", name
        assert int(cells[column("Times")]) > 0
