"""What differs between operating systems when files are shared: locks, owners, and what reaches the disk.

The only module of this package that asks which system this is: all others work with every system that Python has. It
knows nothing about records, keys or paths. Windows is type-checked and simulated by tests, but was never run.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

if sys.platform == "win32":
    import getpass
    import msvcrt

    BINARY = os.O_BINARY  # else os.write puts \r before each \n
    EXAMPLE_PATH = "/C:/acme"
    _SHARING_WAIT = 0.5  # seconds

    def try_lock(file: int) -> bool:
        """Lock an open file against every other open file of the same path; return False if one has the lock."""
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # of its first byte, which need not exist
        except PermissionError:
            return False
        return True

    def unlock(file: int) -> None:
        """Release the lock of an open file."""
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

    def set_mode(file: int, mode: int) -> None:
        """Do nothing: a file inherits who may read it, and the 0700 of its folder lets only this user in."""

    def sync_folder(folder: str) -> None:
        """Do nothing: a folder cannot be opened, and NTFS journals the names in it."""

    def without_sharing_violation[T](action: Callable[[], T]) -> T:
        """Call ``action`` again while another thread or process has the file open, which here keeps it in place."""
        deadline = time.monotonic() + _SHARING_WAIT
        while True:
            try:
                return action()
            except PermissionError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.002)

    def others_may_write(folder: str) -> bool:
        """Return False: a mode says nothing here."""
        return False

    def exact_path(folder: Path) -> str:
        r"""Return a folder's path as the kernel takes it: ``\\?\`` lifts the limit of 260 characters.

        And a name such as ``con.example.com`` below it is a file, not the console.
        """
        path = os.path.abspath(folder)
        return path if path.startswith("\\\\") else f"\\\\?\\{path}"

    def path_in_url(path: str) -> Path | None:
        """Return the folder that ``/C:/its/path`` means, None if it is not absolute."""
        folder = Path(path.lstrip("/"))
        return folder if folder.is_absolute() else None

    def user_name() -> str:
        """Return the name of the user that this process runs as."""
        return getpass.getuser()

else:
    import fcntl
    import pwd

    BINARY = 0
    EXAMPLE_PATH = "/var/lib/acme"

    def try_lock(file: int) -> bool:
        """Lock an open file against every other open file of the same path; return False if one has the lock.

        Processes of all releases must use the same kind of lock: flock and lockf do not exclude each other on Linux.
        (lockf does not exclude threads, and closing any file of the path releases it. The package filelock takes the
        same lock, in 116 us instead of 7.)
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(file: int) -> None:
        """Release the lock of an open file."""
        fcntl.flock(file, fcntl.LOCK_UN)

    def set_mode(file: int, mode: int) -> None:
        """Set the mode of an open file, whatever the umask was when it was created."""
        os.fchmod(file, mode)

    def sync_folder(folder: str) -> None:
        """Write the names in a folder to the disk."""
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def without_sharing_violation[T](action: Callable[[], T]) -> T:
        """Call ``action``: a file that is open can be replaced and removed."""
        return action()

    def others_may_write(folder: str) -> bool:
        """Say whether users other than the owner may create and replace files in a folder."""
        return bool(os.stat(folder).st_mode & 0o022)

    def exact_path(folder: Path) -> str:
        """Return a folder's path as the kernel takes it."""
        return os.path.abspath(folder)

    def path_in_url(path: str) -> Path | None:
        """Return the folder that ``/its/path`` means, None if it is not absolute."""
        return Path("/" + path.lstrip("/")) if path.startswith("/") else None

    def user_name() -> str:
        """Return the name of the user that this process runs as, or the number if it has none, as in containers."""
        try:
            return pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            return str(os.geteuid())
