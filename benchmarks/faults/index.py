"""Faults of the index: Chroma's folder is gone or damaged, while the server runs or is stopped."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.load import Said
from benchmarks.faults.running import Broken, Fault, now
from persona_mcp.config.index import FOLDER

SEARCH = "/api/v1/memory/search"
GARBAGE = b"This is no index. " * 400
WITHOUT = 6
"""Exchanges that must be acknowledged while the index is gone."""
CHROMA = {"PERSONA_INDEX__KIND": "chroma", "PERSONA_INDEX__BATCH": "8"}


def files_of(folder: Path) -> Iterator[Path]:
    """Name what an index is made of."""
    yield from (file for file in folder.rglob("*") if file.is_file())


def remove(folder: Path) -> None:
    """Take the folder away."""
    shutil.rmtree(folder)


def damage(folder: Path) -> None:
    """Write over every file of it."""
    for file in files_of(folder):
        file.write_bytes(GARBAGE)


async def running(broken: Broken, break_it: Callable[[Path], None]) -> float:
    """Break the index of a server that runs, which must go on, then start the server again."""
    folder = broken.site.data / FOLDER
    assert any(files_of(folder)), "there is no index to break"
    break_it(folder)
    await broken.load.more(WITHOUT)
    code = await broken.site.stop()
    assert code == 0, f"the server ended with {code}"
    return await mended(broken)


async def stopped(broken: Broken, break_it: Callable[[Path], None]) -> float:
    """Break the index of a server that is stopped, and start the server."""
    code = await broken.site.stop()
    assert code == 0, f"the server ended with {code}"
    break_it(broken.site.data / FOLDER)
    return await mended(broken)


async def mended(broken: Broken) -> float:
    """Start the server, and look whether a search finds what was said before."""
    gone = now()
    await broken.site.start()
    await broken.load.more(1)
    oldest = broken.load.said[0]
    assert await finds(broken, oldest), f"{oldest.request_id} is not found any more"
    return gone


async def finds(broken: Broken, said: Said) -> bool:
    """Search for what somebody said."""
    asked = {
        "persona_id": said.body["persona_id"],
        "query": said.body["message"],
        "n_results": 20,
    }
    async with broken.site.client() as client:
        answer = await client.post(broken.site.url + SEARCH, json=asked)
        return said.request_id in answer.text


async def gone_while_running(broken: Broken) -> float:
    """Take it away from a server that runs."""
    return await running(broken, remove)


async def damaged_while_running(broken: Broken) -> float:
    """Write over it while a server runs."""
    return await running(broken, damage)


async def gone_while_stopped(broken: Broken) -> float:
    """Take it away from a server that is stopped."""
    return await stopped(broken, remove)


async def damaged_while_stopped(broken: Broken) -> float:
    """Write over it while no server runs."""
    return await stopped(broken, damage)


FAULTS = [
    Fault(
        "index-gone",
        "Chroma's folder was removed under load; the server went on, and was started again.",
        gone_while_running,
        given=CHROMA,
        felt=False,
    ),
    Fault(
        "index-damaged",
        "Chroma's files were written over under load; the server went on, and was started again.",
        damaged_while_running,
        given=CHROMA,
        felt=False,
    ),
    Fault(
        "index-gone-stopped",
        "Chroma's folder was removed while the server was stopped.",
        gone_while_stopped,
        given=CHROMA,
        felt=False,
    ),
    Fault(
        "index-damaged-stopped",
        "Chroma's files were written over while the server was stopped.",
        damaged_while_stopped,
        given=CHROMA,
        felt=False,
    ),
]
