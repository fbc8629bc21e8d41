"""What differs between operating systems when an operator's command runs: its processes, its output, its folder.

``acme_storage.operating_system`` is the same for files that are shared. No other module imports what only one system
has. It must not know what the command does. Windows is type-checked and simulated by tests, but was never run.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, its whole environment, and the descriptors that it inherits."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    inherited: Sequence[int] = ()


if sys.platform == "win32":
    _ABANDONED = 3600.0  # seconds; a command may run for two minutes

    @contextlib.contextmanager
    def claim_folder(folder: Path) -> Iterator[Sequence[int]]:
        """Do nothing: a folder cannot be locked."""
        yield ()

    @contextlib.contextmanager
    def claim_abandoned(folder: Path) -> Iterator[bool]:
        """Say whether a folder is so old that no command can be using it."""
        found = folder.lstat()
        yield not folder.is_junction() and not folder.is_symlink() and time.time() - found.st_mtime > _ABANDONED

    @contextlib.asynccontextmanager
    async def start_group(command: Command) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
        """Start a command in a process group; yields it, and a reader of what it prints. Raises ``OSError``.

        It counts as running as long as a process that it started has its output open.
        """
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=command.environment,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        yield process, process.stdout

    def end_group(process: asyncio.subprocess.Process) -> None:
        """Ask all processes of a group to end."""
        with contextlib.suppress(OSError):
            process.send_signal(signal.CTRL_BREAK_EVENT)

    def kill_group(process: asyncio.subprocess.Process) -> None:
        """End a process and all that it started."""
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)  # noqa: S603, S607  # a part of Windows

else:
    import fcntl

    @contextlib.contextmanager
    def claim_folder(folder: Path) -> Iterator[Sequence[int]]:
        """Lock a new folder; yields descriptors, and the lock lasts as long as a process that inherits them."""
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield (lock,)
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def claim_abandoned(folder: Path) -> Iterator[bool]:
        """Lock a folder of this user that no process has locked; yields whether it was. Raises ``OSError``."""
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # others may write where it is
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
            else:
                yield False
        finally:
            os.close(lock)

    @contextlib.asynccontextmanager
    async def start_group(command: Command) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
        """Start a command in a process group; yields it, and a reader of what it prints. Raises ``OSError``."""
        async with _pipe() as (reader, write_end):
            try:
                process = await asyncio.create_subprocess_exec(
                    *command.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=write_end,
                    stderr=write_end,
                    env=command.environment,
                    pass_fds=command.inherited,
                    start_new_session=True,
                )
            finally:
                os.close(write_end)
            yield process, reader

    @contextlib.asynccontextmanager
    async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
        """Open a pipe. Not asyncio's own, with which a process has not ended while another keeps the pipe open."""
        read_end, write_end = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
        )
        try:
            yield reader, write_end
        finally:
            transport.close()

    def end_group(process: asyncio.subprocess.Process) -> None:
        """Ask all processes of a group to end."""
        _signal(process, signal.SIGTERM)

    def kill_group(process: asyncio.subprocess.Process) -> None:
        """End all processes of a group."""
        _signal(process, signal.SIGKILL)

    def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def with_home(path: str) -> str:
    """Return a path with the home folder of its user in place of a leading ``~``; one that is no user's stays."""
    try:
        return os.path.expanduser(path)
    except ValueError:  # it has a NUL, so there is no such file
        return path
