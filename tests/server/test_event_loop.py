"""How commands are run, and what does many things at once."""

import asyncio
import gc
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from persona_mcp.server.event_loop import HEAPS, busy_runner, keep_imports
from tests.processes import environment


async def loop_module() -> str:
    await asyncio.sleep(0)
    return type(asyncio.get_running_loop()).__module__


def test_many_things_run_on_the_faster_loop_where_there_is_one() -> None:
    with busy_runner() as runner:
        found = runner.run(loop_module())

    assert (found == "uvloop") == (importlib.util.find_spec("uvloop") is not None)


def test_what_was_loaded_before_is_not_looked_through_meanwhile_and_is_again_after() -> None:
    with busy_runner():
        assert gc.get_freeze_count() > 0

    assert gc.get_freeze_count() == 0


AT_THE_END = """
import atexit, gc
from persona_mcp.server.cli.run import run

async def work(settings, terminal):
    print(gc.get_freeze_count(), gc.isenabled())

atexit.register(lambda: print(gc.get_freeze_count() > 0))  # the last to be called
run(work)
"""


def test_a_command_looks_through_nothing_that_was_imported_before_its_process_ends(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AT_THE_END],
        env=environment(PERSONA_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.splitlines() == ["0 True", "True"]


def test_what_was_imported_with_the_collector_off_is_kept_from_it() -> None:
    gc.disable()

    keep_imports()

    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


def test_what_was_imported_with_the_collector_on_is_left_to_it() -> None:
    keep_imports()

    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


HEAPS_OF_THREADS = """
import ctypes, sys, threading
from persona_mcp.server.event_loop import share_heaps

if sys.argv[1] == "shared":
    share_heaps()
together = threading.Barrier(9)

def work():
    held = bytearray(100_000)
    together.wait()
    together.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads:
    one.start()
together.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
told = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(told))
libc.fclose(ctypes.c_void_p(told))
together.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("how", "few"), [("shared", True), ("as they come", False)])
def test_threads_share_two_heaps(tmp_path: Path, how: str, few: bool) -> None:
    told = tmp_path / "heaps.xml"

    subprocess.run([sys.executable, "-c", HEAPS_OF_THREADS, how, told], check=True, timeout=120)

    heaps = told.read_text("ascii").count("<heap nr=")
    assert (heaps <= HEAPS) is few
