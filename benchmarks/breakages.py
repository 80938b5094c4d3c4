"""The faults: each breaks one thing in a scene, and says when that was over."""

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import websockets

from benchmarks.faults import Scene, scene
from tests.postgres import fresh_database, missing, postgres_server

Strike = Callable[[Scene], Awaitable[float]]
Opening = Callable[[Path], AbstractAsyncContextManager[Scene]]

LONGEST_LIFE_S = 2.0
"""A server is killed so long after its first replies, at most."""
BROKEN_S = 4.0
"""How long a fault lasts that ends by itself."""
DISK_MB = 48
SLOW_CLIENTS = 10_000
OVERSIZED = 20 * 1024 * 1024
BACK_S = 3600
CLOCK = "clock"
CHANCE = random.Random(20)


class Unfit(Exception):
    """A fault cannot be done on this machine; the text says why."""


@dataclass(frozen=True)
class Fault:
    """One way to break something.

    Attributes:
        name: As the page and `--only` have it.
        what: What is done, in a sentence.
        times: How often a full run does it.
        strike: Does it once; returns when it was over, by the monotonic clock.
        scene: Where it is done.
    """

    name: str
    what: str
    times: int
    strike: Strike
    scene: Opening


# Scenes


@asynccontextmanager
async def on_postgres(folder: Path) -> AsyncIterator[Scene]:
    """Serve from a PostgreSQL of its own, at `scene.postgres`."""
    if reason := missing():
        raise Unfit(reason)
    with postgres_server() as server:
        server.settings = {}  # as in production: what is committed is on the disk
        server.restart()
        with fresh_database(server.url()) as url:
            async with scene(folder, database_url=url) as found:
                found.postgres = server
                yield found


@asynccontextmanager
async def on_small_disk(folder: Path) -> AsyncIterator[Scene]:
    """Serve from a disk that is soon full."""
    disk = folder / "disk"
    disk.mkdir()
    mounted("-t", "tmpfs", "-o", f"size={DISK_MB}m", "persona", str(disk))
    try:
        async with scene(folder, data_dir=disk / "data") as found:
            yield found
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@asynccontextmanager
async def with_clock(folder: Path) -> AsyncIterator[Scene]:
    """Serve under a clock that can be set; the machine's own stays as it is."""
    (folder / CLOCK).write_text("0", "utf-8")
    program = (sys.executable, "-m", "benchmarks.clocked", str(folder / CLOCK))
    async with scene(folder, program=program) as found:
        yield found


def mounted(*arguments: str) -> None:
    """Mount something.

    Raises:
        Unfit: We may not.
    """
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        raise Unfit(f"mount is not allowed here: {done.stderr.decode().strip()}")


# The server's process


async def kill(scene: Scene) -> float:
    """Kill the server at a random moment, and start it again."""
    await asyncio.sleep(CHANCE.random() * LONGEST_LIFE_S)
    await scene.server.kill()
    began = time.monotonic()
    await scene.server.start()
    return began


async def terminate(scene: Scene) -> float:
    """Stop the server as a service manager does, and start it again."""
    code = await scene.server.stop()
    assert code == 0, f"the server ended with {code}:\n{scene.server.log()}"
    began = time.monotonic()
    await scene.server.start()
    return began


# The model


async def behaving(scene: Scene, *behaviours: str) -> float:
    """Have the model behave so for a while, in turns, and then well again."""
    well = scene.model.default
    until = time.monotonic() + BROKEN_S
    while time.monotonic() < until:
        for behaviour in behaviours:
            scene.model.default = scene.model.named(behaviour)
            await asyncio.sleep(0.1)
    scene.model.default = well
    return time.monotonic()


async def model_gone(scene: Scene) -> float:
    """Close the model's server, and open it again at the same address."""
    await scene.model.__aexit__()
    await asyncio.sleep(BROKEN_S)
    await scene.model.__aenter__()
    return time.monotonic()


# The disk, the index, the clock


async def full_disk(scene: Scene) -> float:
    """Fill the disk, and make room again."""
    filler = scene.data_dir.parent / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    await asyncio.sleep(BROKEN_S)
    filler.unlink()
    return time.monotonic()


async def read_only_disk(scene: Scene) -> float:
    """Have the server start on a disk that cannot be written: it must say so and end."""
    disk = str(scene.data_dir.parent)
    await scene.server.kill()
    mounted("-o", "remount,ro", disk)
    try:
        scene.server.begin()
        code = await scene.server.ended()
    finally:
        mounted("-o", "remount,rw", disk)
    assert code == 1, f"the server ended with {code} on a read-only disk"
    assert "cannot be written" in scene.server.log() or "read-only" in scene.server.log()
    began = time.monotonic()
    await scene.server.start()
    return began


async def index_gone(scene: Scene) -> float:
    """Delete Chroma's folder while the server uses it."""
    shutil.rmtree(scene.data_dir / "chroma")
    return time.monotonic()


async def index_damaged(scene: Scene) -> float:
    """Overwrite Chroma's files while the server is stopped."""
    await scene.server.kill()
    for file in (scene.data_dir / "chroma").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged" * (1 + file.stat().st_size // 7))
    began = time.monotonic()
    await scene.server.start()
    return began


async def clock_back(scene: Scene) -> float:
    """Set the server's clock back by an hour, once more each time."""
    file = scene.folder / CLOCK
    ago = int(file.read_text("utf-8")) - BACK_S
    fresh = file.with_suffix(".new")
    fresh.write_text(str(ago), "utf-8")
    os.replace(fresh, file)
    return time.monotonic()


# PostgreSQL


async def postgres_crash(scene: Scene) -> float:
    """Crash PostgreSQL, and start it again."""
    await asyncio.to_thread(scene.postgres.restart, signal.SIGQUIT)
    return time.monotonic()


async def postgres_away(scene: Scene) -> float:
    """Stop PostgreSQL for a while."""
    await asyncio.to_thread(scene.postgres.stop)
    await asyncio.sleep(BROKEN_S)
    await asyncio.to_thread(scene.postgres.start)
    return time.monotonic()


async def postgres_paused(scene: Scene) -> float:
    """Make PostgreSQL stand still for a while."""
    await asyncio.to_thread(scene.postgres.pause)
    await asyncio.sleep(BROKEN_S)
    await asyncio.to_thread(scene.postgres.resume)
    return time.monotonic()


# Clients


async def slow_clients(scene: Scene, count: int = SLOW_CLIENTS) -> float:
    """Open connections that send a byte now and then, and none of them a whole request."""
    allow_files(count + 1000)
    url = httpx.URL(scene.server.url)
    opened = []
    try:
        while len(opened) < count:
            opened.append(await asyncio.open_connection(url.host, url.port))
        for piece in (b"P", b"OST /api/v1/persona/chat HT"):
            for _, writer in opened:
                with contextlib.suppress(OSError):
                    writer.write(piece)
            await asyncio.sleep(1)
        await scene.more(5)  # the others are served meanwhile
    finally:
        for _, writer in opened:
            writer.close()
    return time.monotonic()


def allow_files(count: int) -> None:
    """Let this process have so many files open.

    Raises:
        Unfit: It may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Unfit(f"{count} open files are not allowed here, {hard} are")
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def malformed(scene: Scene) -> float:
    """Send what is no request, or too long, to each door."""
    url = scene.server.url
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        for path in ("/api/v1/persona/chat", "/api/v1/persona/chat_stream", "/mcp", "/x/all/mcp"):
            for body in (b"{", b"\xff\xfe\x00", b"[" * 100_000, b"{}" * 50_000, b"\0" * OVERSIZED):
                with contextlib.suppress(httpx.HTTPError):  # cut off in the middle of sending it
                    answer = await client.post(
                        path, content=body, headers={"Content-Type": "application/json"}
                    )
                    assert answer.is_client_error, f"{path}: {answer.status_code}"
    where = httpx.URL(url)
    for sent in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 65_536,
    ):
        with socket.create_connection((where.host, where.port or 80), timeout=30) as raw:
            raw.sendall(sent)
    address = url.replace("http", "ws", 1) + "/ws"
    for frame in ("{", b"\xff\x00", "[" * 50_000, "x" * 3_000_000):
        with contextlib.suppress(websockets.WebSocketException, OSError):
            async with websockets.connect(address, max_size=None, proxy=None) as door:
                await door.send(frame)
                await asyncio.wait_for(door.recv(), 30)
    return time.monotonic()


CHROMA = {"PERSONA_INDEX__KIND": "auto"}


def listed(faults: Sequence[Fault]) -> dict[str, Fault]:
    """Return faults by name."""
    return {fault.name: fault for fault in faults}


def model(name: str, what: str, *behaviours: str) -> Fault:
    """Describe a fault of the model."""
    strike = partial(behaving_as, behaviours)
    return Fault(f"model {name}", f"{what} for {BROKEN_S:g} s", 10, strike, scene)


async def behaving_as(behaviours: Sequence[str], scene: Scene) -> float:
    """Have the model behave so for a while."""
    return await behaving(scene, *behaviours)


FAULTS = listed(
    [
        Fault("kill, SQLite", "kill -9 at a random moment, start again", 100, kill, scene),
        Fault("kill, PostgreSQL", "kill -9 at a random moment, start again", 50, kill, on_postgres),
        Fault("stop", "SIGTERM under load, start again", 20, terminate, scene),
        Fault("disk full", "no byte left on the disk for 4 s", 10, full_disk, on_small_disk),
        Fault(
            "disk read-only",
            "kill -9, a start on a read-only disk is refused, then one on a writable one",
            5,
            read_only_disk,
            on_small_disk,
        ),
        Fault(
            "PostgreSQL crashed", "SIGQUIT to PostgreSQL, start it", 10, postgres_crash, on_postgres
        ),
        Fault("PostgreSQL away", "PostgreSQL stopped for 4 s", 10, postgres_away, on_postgres),
        Fault(
            "PostgreSQL paused", "PostgreSQL stands still for 4 s", 10, postgres_paused, on_postgres
        ),
        Fault(
            "Chroma gone",
            "its folder deleted while the server runs",
            5,
            index_gone,
            partial(scene, **CHROMA),
        ),
        Fault(
            "Chroma damaged",
            "kill -9, its files overwritten, start again",
            5,
            index_damaged,
            partial(scene, **CHROMA),
        ),
        model("hanging", "takes requests and says nothing", "hang"),
        model("silent", "stops in the middle of a reply", "silence"),
        model("failing", "answers half of the calls with 500", "500", "ok"),
        model("breaking off", "closes the connection in the middle", "drop"),
        model("flooding", "sends 10 MB", "flood"),
        model("garbled", "sends bytes that are no reply", "garbage", "wrong_shape", "not_http"),
        Fault("model gone", "its server closed for 4 s", 10, model_gone, scene),
        Fault("clock back", "the clock set back by an hour", 5, clock_back, with_clock),
        Fault(
            "slow clients",
            f"{SLOW_CLIENTS:,} connections that send a byte now and then",
            1,
            slow_clients,
            scene,
        ),
        Fault("malformed", "what is no request, or too long, to each door", 10, malformed, scene),
    ]
)
