"""The stores of a soak: those of the tests, and a Redis that keeps nothing when it is restarted.

Knows how to start each; must not know what is stored.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import stores
from tests.servers.base import started
from tests.servers.redis import Redis
from tests.servers.stores import Place

VOLATILE = "redis-volatile"
KINDS = (*stores.KINDS, VOLATILE)
DISKS = ("file", "sqlite")
"""The stores that are files of the nodes."""

_DISK_SIZE = "256m"


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Place]:
    """Start the store of this kind, an empty one."""
    if kind != VOLATILE:
        with stores.running(kind, folder) as place:
            yield place
        return
    with started(Redis("appendonly no")) as server:
        yield Place(kind, "redis://127.0.0.1:{}".format, server, server.port)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make a folder a filesystem of its own, which can be filled; say whether this machine allows that."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_SIZE},mode=0700", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Leave no room on the disk of a folder."""
    filling = folder / "filling"
    try:
        with filling.open("wb", buffering=0) as file:
            while file.write(bytes(65_536)):
                pass
    except OSError:
        pass
    try:
        yield
    finally:
        filling.unlink()
