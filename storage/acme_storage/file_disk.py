"""How bytes get into a shared folder whole: locks between threads and processes, and files that appear at once.

Private keys lie in these files: folders are made 0700 and files 0600, whatever the umask. What others made is left
as it is. All raise ``OSError``, for ``file`` to translate; a lock that stays taken is ``StorageUnavailable``.

This module knows nothing of records, nor of what a key has to do with a path.
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
    """The locks of a folder, in its subfolder ``.locks``: 64 for keys (a key's hash says which), one for folders."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._turns = [threading.Lock() for _ in range(_SHARDS + 1)]
        self._looked_at = False

    def of_key(self, key: str, wait: float) -> AbstractContextManager[str]:
        """Hold the key's lock against threads and processes; gives the path of the file to write beside.

        The folder is made if it is missing. Raises ``StorageUnavailable`` after ``wait`` seconds. The file to write
        beside belongs to the lock: a killed process leaves at most 64 of them in all, and the next holder overwrites
        its own, so that there is nothing to sweep.
        """
        return self._hold(crc32(key.encode()) % _SHARDS, wait)

    def of_folders(self, wait: float) -> AbstractContextManager[str]:
        """Hold the lock for making folders, and for removing empty ones; inside a key's lock, never around it.

        Without it, who makes a folder to write in and who removes it as empty can chase each other for long.
        """
        return self._hold(_SHARDS, wait)

    @contextmanager
    def _hold(self, number: int, wait: float) -> Iterator[str]:
        path = f"{self._folder}/.locks/{number:02}"
        deadline = time.monotonic() + wait
        if not self._turns[number].acquire(timeout=wait):
            raise StorageUnavailable(f"{path} is locked by another thread for more than {wait:g} s")
        try:
            file = self._open(path)
            try:
                _flock(file, path, deadline)
                yield f"{path}.new"
            finally:
                # A child that was forked meanwhile has the file too, and would hold the lock as long as it lives.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)
        finally:
            self._turns[number].release()

    def _open(self, path: str) -> int:
        # Opened each time (15 us), so that a folder that was removed and made anew is locked anew. Never unlinked:
        # two processes would each hold a lock of that name, one on the old file and one on the new.
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            make_folder(f"{self._folder}/.locks", sync=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(file, 0o600)
        if not self._looked_at:
            self._looked_at = True
            self._warn_if_open_to_others()
        return file

    def _warn_if_open_to_others(self) -> None:
        if os.stat(self._folder).st_mode & 0o022:
            _log.warning("%s can be written by other users, who could replace what lies in it", self._folder)


def _flock(file: int, path: str, deadline: float) -> None:
    # Polled, since flock knows no timeout, and a stopped process must not stop all others. Threads do not poll:
    # they queue before this. (And not lockf: it does not exclude threads, and closing any file drops it.)
    pause = 0.0005
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StorageUnavailable(f"{path} stays locked by another process: is one stopped?") from None
        else:
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.008)


def write_new(path: str, data: bytes, *, sync: bool) -> None:
    """Write a new file, in place of any that lies there; on the disk itself if ``sync``. On error it is removed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o600)
    except FileExistsError:  # of a killed process; O_EXCL, since its mode and owner could be anything
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
    """Make a folder and those above it, 0700; those that exist are left as they are."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    make_folder(parent, sync=sync)
    with suppress(FileExistsError):  # another process was faster; or it is a file, and what comes next says so
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)
        if sync:
            sync_folder(parent)


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to the disk itself."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def remove_empty(folder: str, top: str) -> None:
    """Remove a folder if it is empty, then those above it that are, up to ``top``, which stays."""
    with suppress(OSError):
        while folder != top:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def is_empty(folder: str) -> bool:
    """Say whether nothing is in a folder; False too where there is none."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return False
