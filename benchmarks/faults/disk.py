"""Faults of the disk: it is full, or it cannot be written to. They need root, for a small mount."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.running import Broken, Fault, now
from benchmarks.faults.site import NotServing

SIZE = "48m"
BLOCK = 1 << 16
FELT = 4
MOUNT, UNMOUNT = "mount", "umount"


def no_mount() -> str | None:
    """Say why nothing can be mounted here, or nothing."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "only root of a Linux machine can mount a small disk"
    probe = subprocess.run(
        ["unshare", "--mount", MOUNT, "-t", "tmpfs", "tmpfs", "/tmp"],  # noqa: S108 - of a namespace of its own
        capture_output=True,
        check=False,
    )
    return None if probe.returncode == 0 else "this container may not mount anything"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Make the data folder a disk of its own, of 48 MiB."""
    data = folder / "data"
    data.mkdir()
    subprocess.run([MOUNT, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(data)], check=True)
    try:
        yield
    finally:
        subprocess.run([UNMOUNT, "--lazy", str(data)], check=True)


async def is_full(broken: Broken) -> float:
    """Fill the disk to the last byte under load, and make room again once callers were told."""
    filler = broken.site.data / "filler"
    try:
        fill(filler)
        await broken.load.met(FELT)
    finally:
        filler.unlink()
    return now()


def fill(filler: Path) -> None:
    """Write until nothing more can be written."""
    handle = os.open(filler, os.O_CREAT | os.O_WRONLY)
    try:
        for size in (BLOCK, 1):
            try:
                while True:
                    os.write(handle, b"\0" * size)
            except OSError:
                continue
    finally:
        os.close(handle)


async def is_read_only(broken: Broken) -> float:
    """Stop it, let nothing be written, start it in vain, and start it again when it can write."""
    data = str(broken.site.data)
    await broken.site.stop()
    subprocess.run([MOUNT, "-o", "remount,ro", data], check=True)
    refused = ""
    try:
        await broken.site.start()
        await broken.load.met(FELT)  # it may serve, but can acknowledge nothing
        await broken.site.stop()
    except NotServing as error:
        refused = str(error)
        assert "error: the data folder cannot be written" in refused, refused
        assert "Traceback" not in refused, refused
    finally:
        subprocess.run([MOUNT, "-o", "remount,rw", data], check=True)
    gone = now()
    await broken.site.start()
    return gone


FAULTS = [
    Fault(
        "disk-full",
        "The disk of the data folder was filled to the last byte, and room was made again.",
        is_full,
        missing=no_mount,
        place=small_disk,
    ),
    Fault(
        "disk-read-only",
        "The server was started on a disk that could only be read, then again on one that could "
        "be written.",
        is_read_only,
        missing=no_mount,
        place=small_disk,
    ),
]
