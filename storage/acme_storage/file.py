"""The default store: a folder, shared by the threads and processes of one machine, and consistent after any kill.

Every change holds a lock, every value is written to a separate file and renamed into place, and reading takes no lock.
Expired values are removed when they are read or listed. Also, writing an expiring value lists, once an hour, everything
under the first part of its key. So keep expiring values apart from the many permanent ones.

This module knows nothing about the meaning of any key. ``file_layout`` knows the names and formats of files,
``file_disk`` how they are written whole, ``file_errors`` what the operating system's errors mean.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from heapq import heapify, heappop
from itertools import islice
from math import inf
from os import sep
from pathlib import Path
from urllib.parse import unquote

from acme_storage import file_layout as layout
from acme_storage.checks import check_key, check_limit, check_prefix, check_value, is_key, refuse_parameters
from acme_storage.errors import StorageCorrupt, StorageError
from acme_storage.file_disk import Locks, is_empty, make_folder, remove_empty, write_new
from acme_storage.file_errors import unavailable
from acme_storage.operating_system import (
    EXAMPLE_PATH,
    exact_path,
    path_in_url,
    sync_folder,
    without_sharing_violation,
)

_SWEEP_EVERY = 3600.0


def open_url(url: str, default_folder: Path) -> "Files":
    """Return the store of ``file:`` (the folder ``acme`` in ``default_folder``) or ``file:/absolute/path``."""
    refuse_parameters(url)
    path = unquote(url.partition(":")[2])
    if not path:
        return Files(default_folder / "acme")
    if path.startswith("//") and not path.startswith("///"):
        raise ValueError("the storage URL file:// has a host; write file:/its/path for a folder of this machine")
    folder = path_in_url(path)
    if folder is None or "\0" in path:
        raise ValueError(f"the storage URL file: needs an absolute path, such as file:{EXAMPLE_PATH}, or none")
    return Files(folder)


class Files:
    """A ``Storage`` in ``folder``, which the first write creates.

    ``now`` gives the time in seconds, for ttls; all users of the folder must share it. If another process holds a lock
    for more than ``lock_wait`` seconds (it is stopped, or its disk hangs), calls raise ``StorageUnavailable``.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.time, *, lock_wait: float = 10.0) -> None:
        self._folder = exact_path(folder)
        self._now = now
        self._lock_wait = lock_wait
        self._locks = Locks(self._folder)
        self._swept: dict[str, float] = {}  # first part of a key -> time of its last sweep

    def get(self, key: str) -> bytes | None:
        check_key(key)
        with self._mapped_errors():
            record = self._read(key)
            if record is None:
                return None
            if record.expires > self._now():
                return record.value
            self._drop_expired(key)
            return None

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value, ttl)
        with self._mapped_errors(), self._locks.of_key(key, self._lock_wait) as spare:
            self._write(key, value, ttl, spare)
        if ttl is not None:
            self._sweep(key)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(new or b"", ttl)
        with self._mapped_errors():
            if not self._holds(key, old):  # most losers need not wait for the winner's lock
                return False
            if old is None and new is None:
                return True
            with self._locks.of_key(key, self._lock_wait) as spare:
                if not self._holds(key, old):
                    return False
                if new is None:
                    self._remove(key, self._lock_wait)
                else:
                    self._write(key, new, ttl, spare)
        if new is not None and ttl is not None:
            self._sweep(key)
        return True

    def delete(self, key: str) -> None:
        check_key(key)
        with self._mapped_errors():
            try:
                os.lstat(self._path(key))
            except FileNotFoundError:
                return  # do not create a folder just for the lock
            with self._locks.of_key(key, self._lock_wait):
                self._remove(key, self._lock_wait)

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        check_prefix(prefix)
        check_limit(limit)
        if after > prefix and not after.startswith(prefix):
            return []
        rest = after.removeprefix(prefix) if after.startswith(prefix) else None
        with self._mapped_errors():
            return list(islice(self._walk(self._path_of_folder(prefix), prefix, rest), limit))

    def close(self) -> None:
        """Do nothing: no file stays open between two calls."""

    # Reading

    def _path(self, key: str) -> str:
        return f"{self._folder}{sep}{layout.path_of(key)}"

    def _path_of_folder(self, prefix: str) -> str:
        return f"{self._folder}{sep}{layout.folder_of(prefix)}"

    def _read(self, key: str) -> layout.Record | None:
        path = self._path(key)
        try:
            return layout.unpack(key, without_sharing_violation(lambda: _content(path)))
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            raise StorageCorrupt(f"{path} is a folder and not a record of this store") from None
        except ValueError as error:
            raise StorageCorrupt(f"{path} {error}") from error

    def _holds(self, key: str, value: bytes | None) -> bool:
        try:
            record = self._read(key)
        except StorageCorrupt:
            return False
        current = record.value if record and record.expires > self._now() else None
        return current == value

    def _walk(self, folder: str, base: str, after: str | None) -> Iterator[str]:
        """Yield the keys in and below ``folder``, which all begin with ``base``; after ``base`` + ``after``."""
        texts = self._entries(folder, after)
        heapify(texts)  # not sorted: the first page of 100,000 only needs its own entries in order
        while texts:
            text = heappop(texts)
            if not layout.is_value(text):
                inner = after[len(text) :] if after is not None and after.startswith(text) else None
                yield from self._walk(folder + layout.name_of(text), base + text, inner)
            elif is_key(base + text) and self._is_listed(base + text, folder + layout.name_of(text)):
                yield base + text

    def _entries(self, folder: str, after: str | None) -> list[str]:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            os.scandir(self._folder).close()  # raises if the store itself is not a folder
            return []
        texts = [text for name in names if (text := layout.text_of(name)) is not None]
        if after is None:
            return texts
        return [text for text in texts if text > after or (not layout.is_value(text) and after.startswith(text))]

    def _is_listed(self, key: str, path: str) -> bool:
        try:
            if not layout.may_expire(os.lstat(path).st_size):
                return True
            record = self._read(key)
        except FileNotFoundError:
            return False
        except StorageCorrupt:
            return True
        if record is None or record.expires > self._now():
            return record is not None
        self._drop_expired(key)
        return False

    # Writing; always under the key's lock

    def _write(self, key: str, value: bytes, ttl: float | None, spare: str) -> None:
        path = self._path(key)
        folder = os.path.dirname(path)
        # An expiring value (a lease, a challenge) need not survive a power cut: no fsync, which on a slow disk costs
        # more than everything else that an order stores. See layout.unpack for what a power cut may leave.
        sync = ttl is None
        expires = inf if ttl is None else self._now() + ttl
        write_new(spare, layout.pack(key, layout.Record(value, expires)), sync=sync)
        try:
            without_sharing_violation(lambda: os.replace(spare, path))
        except FileNotFoundError:
            with self._locks.of_folders(self._lock_wait):
                make_folder(folder, sync=sync)
                without_sharing_violation(lambda: os.replace(spare, path))
        if sync:
            sync_folder(folder)

    def _remove(self, key: str, wait: float) -> None:
        path = self._path(key)
        folder = os.path.dirname(path)
        try:
            size = os.lstat(path).st_size
            without_sharing_violation(lambda: os.unlink(path))
        except FileNotFoundError:
            return
        if not layout.may_expire(size):
            with suppress(FileNotFoundError):  # another process removed the emptied folder
                sync_folder(folder)
        # Empty folders are removed too, or each hour and each name would leave one for ever.
        if folder != self._folder and is_empty(folder):
            with suppress(StorageError), self._locks.of_folders(wait):
                remove_empty(folder, self._folder)

    def _drop_expired(self, key: str) -> None:
        # Read again under the lock: a newer value may be there. If it cannot be removed now (the lock is taken, or the
        # folder belongs to another user), it stays: an expired value counts as absent anyway.
        with suppress(OSError, StorageError), self._locks.of_key(key, 0):
            record = self._read(key)
            if record is not None and record.expires <= self._now():
                self._remove(key, 0)

    def _sweep(self, key: str) -> None:
        first, slash, _ = key.partition("/")
        now = self._now()
        if slash and now - self._swept.get(first, -inf) >= _SWEEP_EVERY:
            self._swept[first] = now
            with suppress(StorageError):  # the value is written: tidying up must not fail the call
                self.keys(f"{first}/")

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unavailable(error, self._folder) from error


def _content(path: str) -> bytes:
    # Unbuffered: a single read gets everything, and a buffer would cost four more system calls.
    with open(path, "rb", buffering=0) as file:
        return file.read(layout.MAX_RECORD + 1)
