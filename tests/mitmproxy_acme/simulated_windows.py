"""A system without Unix: run as a program by ``test_platforms``, which reads what it prints.

All modules of the project are imported twice: first as they are, which imports what they depend on, then with
``sys.platform`` of Windows, without the modules and names that only Unix has, and with a ``msvcrt`` that locks as that
of Windows does. What remains are our own decisions; how Windows carries them out is not seen here.
"""

import asyncio
import contextlib
import errno
import fcntl
import importlib
import io
import json
import ntpath
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path, PureWindowsPath
from types import ModuleType, SimpleNamespace
from typing import Any

_PACKAGES = ("acme_storage", "mitmproxy_acme")
_UNIX_MODULES = ("fcntl", "pwd", "grp", "resource", "uvloop", "termios", "pty", "tty", "syslog")
_UNIX_NAMES: tuple[tuple[ModuleType, str], ...] = (
    *((os, name) for name in ("geteuid", "getuid", "fchmod", "killpg", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")),
    *((signal, name) for name in ("SIGCHLD", "SIGKILL", "pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK")),
    (socket, "AF_UNIX"),
    (socket, "SO_REUSEPORT"),
)


def import_all() -> list[str]:
    """Import each module of the project; return their names."""
    names = []
    for package in map(importlib.import_module, _PACKAGES):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [info.name for info in found if not info.name.endswith(".__main__")]
    for name in names:
        importlib.import_module(name)
    return names


def become_windows() -> None:
    """Take away what only Unix has, and forget our modules."""
    flock, exclusive, release = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

    def locking(file: int, mode: int, _bytes: int) -> None:
        try:
            flock(file, exclusive if mode else release)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    for name in list(sys.modules):
        if name.partition(".")[0] in _PACKAGES:
            del sys.modules[name]
    for name in _UNIX_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
    for module, name in _UNIX_NAMES:
        delattr(module, name)
    sys.modules["msvcrt"] = SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)  # type: ignore[assignment]
    os.O_BINARY = 0  # type: ignore[attr-defined]
    subprocess.CREATE_NEW_PROCESS_GROUP = 0  # type: ignore[attr-defined]
    signal.CTRL_BREAK_EVENT = signal.SIGTERM  # type: ignore[attr-defined]
    sys.platform = "win32"


def read_paths() -> dict[str, str | None]:
    """Return what becomes of paths, by the rules of Windows' own paths."""
    system: Any = importlib.import_module("acme_storage.operating_system")
    kept = system.os, system.Path
    system.os, system.Path = SimpleNamespace(path=ntpath), PureWindowsPath
    try:
        paths = {
            "folder": system.exact_path("C:/Users/me/acme"),
            "share": system.exact_path(r"\\server\share"),
            "url": str(system.path_in_url("/C:/its/path")),
            "unix url": system.path_in_url("/var/lib/acme"),
        }
    finally:
        system.os, system.Path = kept
    return paths


def use_files(folder: Path) -> dict[str, Any]:
    """Use the folder store: alone, and while another process has its locks."""
    module = importlib.import_module("acme_storage.file")
    module.exact_path = os.path.abspath  # type: ignore[attr-defined]  # the disk is this system's
    files = module.Files(folder, lock_wait=0)
    errors = importlib.import_module("acme_storage.errors")
    files.put("a/b", b"line\n")
    swapped = files.swap("a/b", b"line\n", b"2"), files.swap("a/b", b"line\n", b"3")
    lock = importlib.import_module("acme_storage.operating_system").try_lock
    held = [os.open(path, os.O_RDWR) for path in (folder / ".locks").iterdir()]
    assert all(map(lock, held))
    try:
        files.put("a/b", b"4")
        refused = ""
    except errors.StorageUnavailable as error:
        refused = str(error).rpartition("; ")[0].rpartition(" ")[2]
    for file in held:
        os.close(file)
    kept = files.get("a/b").decode(), files.keys("")
    files.delete("a/b")
    return {"swapped": swapped, "refused by": refused, "kept": kept, "left": sorted(os.listdir(folder))}


async def run_command(folder: Path) -> dict[str, Any]:
    """Run a command as the deploy hook does."""
    system = importlib.import_module("mitmproxy_acme.core.operating_system")
    command = system.Command([sys.executable, "-c", "import os; print(os.environ['WORD'])"], {"WORD": "hello"})
    async with system.start_group(command) as (process, reader):
        printed = (await reader.read()).decode()
        code = await process.wait()
    with system.claim_abandoned(folder) as young:
        os.utime(folder, (0, 0))
    with system.claim_abandoned(folder) as old:
        return {"printed": printed, "code": code, "abandoned": (young, old)}


def refuse_what_only_unix_has() -> dict[str, str]:
    """Return the sentences about Unix sockets and workers."""
    settings = importlib.import_module("mitmproxy_acme.config.admin_settings")
    listener = importlib.import_module("mitmproxy_acme.admin.api.listener")
    supervisor = importlib.import_module("mitmproxy_acme.mitm.supervisor")
    try:
        listener.Listener(settings.AdminSocket("/nowhere/admin.sock", 0o600)).open()
        socket_error = ""
    except Exception as error:
        socket_error = str(error)
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        code = supervisor.Supervisor(2, "", {}).run()
    return {"socket": socket_error, "workers": f"{code} {printed.getvalue()}"}


def main() -> None:
    """Print what was seen as JSON."""
    before = import_all()
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as name:
        runner.get_loop()  # made of what Unix has
        become_windows()
        assert import_all() == before
        folder = Path(name)
        found = {
            "modules": before,
            "paths": read_paths(),
            "files": use_files(folder / "store"),
            "command": runner.run(run_command(folder)),
            "refused": refuse_what_only_unix_has(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
