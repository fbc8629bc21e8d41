"""How bytes are written whole into a shared folder: locks between threads and processes, and atomic files.

The files hold private keys: folders are created with mode 0700 and files with 0600, whatever the umask. Existing ones
are left unchanged. All functions raise ``OSError``, which ``file`` translates; a lock that stays taken raises
``StorageUnavailable``.

This module knows nothing about records, or how a key becomes a path.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from os import sep
from zlib import crc32

from acme_storage import operating_system
from acme_storage.errors import StorageUnavailable
from acme_storage.operating_system import BINARY, sync_folder

_SHARDS = 64
_log = logging.getLogger(__name__)


class Locks:
    """The locks of a folder, in its subfolder ``.locks``: 64 for keys (chosen by a key's hash), one for folders."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._locks = f"{folder}{sep}.locks"
        self._thread_locks = [threading.Lock() for _ in range(_SHARDS + 1)]
        self._checked = False

    def of_key(self, key: str, wait: float) -> AbstractContextManager[str]:
        """Hold the key's lock against threads and processes; yields the path of a temporary file for writing.

        Creates the folder if it is missing. Raises ``StorageUnavailable`` after ``wait`` seconds. The temporary file
        belongs to the lock: killed processes leave at most 64 of them, and the next holder overwrites its own, so there
        is nothing to tidy up.
        """
        return self._hold(crc32(key.encode()) % _SHARDS, wait)

    def of_folders(self, wait: float) -> AbstractContextManager[str]:
        """Hold the lock for creating folders and removing empty ones; take it inside a key's lock, never around one.

        Without it, one process that creates a folder and another that removes it as empty could loop for long.
        """
        return self._hold(_SHARDS, wait)

    @contextmanager
    def _hold(self, number: int, wait: float) -> Iterator[str]:
        path = f"{self._locks}{sep}{number:02}"
        deadline = time.monotonic() + wait
        if not self._thread_locks[number].acquire(timeout=wait):
            raise StorageUnavailable(f"{path} has been locked by another thread for more than {wait:g} s")
        try:
            file = self._open(path)
            try:
                _wait_for_lock(file, path, deadline)
                yield f"{path}.new"
            finally:
                # A process that was forked meanwhile has the file too, and would keep the lock as long as it lives.
                with suppress(OSError):
                    operating_system.unlock(file)
                os.close(file)
        finally:
            self._thread_locks[number].release()

    def _open(self, path: str) -> int:
        # Opened each time (15 us), so that a folder that was removed and created again gets a new lock. Never unlinked:
        # two processes would each hold a lock of that name, one on the old file and one on the new.
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            make_folder(self._locks, sync=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            operating_system.set_mode(file, 0o600)
        if not self._checked:
            self._checked = True
            self._warn_if_open_to_others()
        return file

    def _warn_if_open_to_others(self) -> None:
        if operating_system.others_may_write(self._folder):
            _log.warning("%s can be written by other users, who could replace its files", self._folder)


def _wait_for_lock(file: int, path: str, deadline: float) -> None:
    # Polled, because a lock of a file has no timeout, and a stopped process must not stop all others. Threads do not
    # poll: they queue before this.
    pause = 0.0005
    while not operating_system.try_lock(file):
        if time.monotonic() >= deadline:
            raise StorageUnavailable(f"{path} stays locked by another process; is one stopped?")
        time.sleep(pause)
        pause = min(pause * 2, 0.008)


def write_new(path: str, data: bytes, *, sync: bool) -> None:
    """Write a new file, replacing any old one; with ``sync`` down to the disk. After an error it is removed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY
    try:
        file = os.open(path, flags, 0o600)
    except FileExistsError:  # left by a killed process; O_EXCL, because its mode and owner could be anything
        os.unlink(path)
        file = os.open(path, flags, 0o600)
    try:
        operating_system.set_mode(file, 0o600)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        if sync:
            os.fsync(file)
    except OSError:
        os.unlink(path)  # on a full disk the space is needed
        raise
    finally:
        os.close(file)


def make_folder(folder: str, *, sync: bool) -> None:
    """Create a folder and its parents, mode 0700; existing ones are left unchanged."""
    parent = os.path.dirname(folder)
    if parent == folder or os.path.isdir(folder):  # a drive may be missing, and cannot be created
        return
    make_folder(parent, sync=sync)
    with suppress(FileExistsError):  # another process was faster; or it is a file, and the next call says so
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)
        if sync:
            sync_folder(parent)


def remove_empty(folder: str, top: str) -> None:
    """Remove a folder if it is empty, then its empty parents, up to ``top``, which stays."""
    with suppress(OSError):
        while folder != top:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def is_empty(folder: str) -> bool:
    """Say whether a folder is empty; False if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return False
