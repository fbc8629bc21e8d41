"""How bytes are written whole into a shared folder: locks between threads and processes, and atomic files.

The files hold private keys: folders are created with mode 0700 and files with 0600, whatever the umask. Existing ones
are left unchanged. All functions raise ``OSError``, which ``file`` translates; a lock that stays taken raises
``StorageUnavailable``.

This module knows nothing about records, or how a key becomes a path.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from zlib import crc32

from acme_storage.errors import StorageUnavailable

_SHARDS = 64
_log = logging.getLogger(__name__)


class Locks:
    """The locks of a folder, in its subfolder ``.locks``: 64 for keys (chosen by a key's hash), one for folders."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
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
        path = f"{self._folder}/.locks/{number:02}"
        deadline = time.monotonic() + wait
        if not self._thread_locks[number].acquire(timeout=wait):
            raise StorageUnavailable(f"{path} has been locked by another thread for more than {wait:g} s")
        try:
            file = self._open(path)
            try:
                _flock(file, path, deadline)
                yield f"{path}.new"
            finally:
                # A process that was forked meanwhile has the file too, and would keep the lock as long as it lives.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)
        finally:
            self._thread_locks[number].release()

    def _open(self, path: str) -> int:
        # Opened each time (15 us), so that a folder that was removed and created again gets a new lock. Never unlinked:
        # two processes would each hold a lock of that name, one on the old file and one on the new.
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            make_folder(f"{self._folder}/.locks", sync=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(file, 0o600)
        if not self._checked:
            self._checked = True
            self._warn_if_open_to_others()
        return file

    def _warn_if_open_to_others(self) -> None:
        if os.stat(self._folder).st_mode & 0o022:
            _log.warning("%s can be written by other users, who could replace its files", self._folder)


def _flock(file: int, path: str, deadline: float) -> None:
    # Polled, because flock has no timeout, and a stopped process must not stop all others. Threads do not poll: they
    # queue before this. (Not lockf: it does not exclude threads, and closing any file releases it.)
    pause = 0.0005
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StorageUnavailable(f"{path} stays locked by another process; is one stopped?") from None
        else:
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.008)


def write_new(path: str, data: bytes, *, sync: bool) -> None:
    """Write a new file, replacing any old one; with ``sync`` down to the disk. After an error it is removed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o600)
    except FileExistsError:  # left by a killed process; O_EXCL, because its mode and owner could be anything
        os.unlink(path)
        file = os.open(path, flags, 0o600)
    try:
        os.fchmod(file, 0o600)
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
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    make_folder(parent, sync=sync)
    with suppress(FileExistsError):  # another process was faster; or it is a file, and the next call says so
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)
        if sync:
            sync_folder(parent)


def sync_folder(folder: str) -> None:
    """Write the names in a folder to the disk."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


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
