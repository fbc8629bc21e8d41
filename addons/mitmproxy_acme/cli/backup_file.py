"""The file of a backup: written whole or not at all, and only over an earlier backup.

This module knows files; it must not know what is in one.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..core.errors import ConfigError, SourceError
from ..store.transfer.encrypted_file import is_backup


@contextlib.contextmanager
def new_backup(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that only its owner can read; it takes the name ``path`` when the block ends without an exception.

    Raises ``ConfigError`` if it cannot be written, or if another kind of file has the name.
    """
    _require_replaceable(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync_folder(path.absolute().parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
    except BrokenPipeError:  # from standard output, in the block
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def open_backup(path: Path) -> Iterator[IO[bytes]]:
    """Open a backup to read it; errors about its content name it. Raises ``SourceError``."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        try:
            yield file
        except SourceError as error:
            raise SourceError(f"{path}: {error}; nothing was written") from None


def _require_replaceable(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it")
    if not path.exists():
        return
    with open_backup(path) as file:
        ours = is_backup(file)
    if not ours:
        raise ConfigError(f"{path} exists and is no backup; name another file")


def _sync_folder(folder: Path) -> None:
    """Write the new name to the disk, or a power cut could bring back the earlier file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
