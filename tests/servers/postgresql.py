"""PostgreSQL with an empty database. Knows initdb's and the server's command line; must not know any table."""

import atexit
import functools
import glob
import os
import pwd
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from tests.servers.base import Server, free_port
from tests.servers.binaries import CACHE, Program, find
from tests.servers.ca import ThrowawayCA

PASSWORD = "pass/w@rd:7"  # all that a URL must quote


class Postgresql(Server):
    """Database, user and role ``postgres``; scram passwords; with ``tls`` also over TLS, trusted through `ca`."""

    name = "postgresql"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": SIGTERM would wait for every client to leave

    def __init__(self, *, tls: bool = False, settings: dict[str, str] | None = None) -> None:
        super().__init__()
        self.port = free_port()
        self.ca = ThrowawayCA(self.folder / "tls") if tls else None
        self._settings = settings or {}
        self._data = self.folder / "data"
        # It refuses root; and its folder is its user's.
        names = {user.pw_name for user in pwd.getpwall()}
        self.user = ("postgres" if "postgres" in names else "nobody") if os.geteuid() == 0 else None
        self.folder.chmod(0o755)

    def program(self) -> Program:
        program = _found("postgres", self.user)
        if not self._data.exists():
            self._make_data()
        return Program(_as_user(program.path, self.user)[0], program.environment)

    def arguments(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._data),
            "fsync": "off",  # tests kill processes, not machines
            "jit": "off",
            "shared_buffers": "16MB",
            "log_min_messages": "warning",
            **self._settings,
        }
        if self.ca:
            settings |= {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
        words = ["-D", str(self._data)]
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        return [*_as_user(_found("postgres", self.user).path, self.user)[1:], *words]

    def ready(self) -> bool:
        """Whether it asks for the password ("R") and does not say that it is starting ("E")."""
        startup = b"user\0postgres\0database\0postgres\0\0"
        with socket.create_connection(("127.0.0.1", self.port), 1) as client:
            client.settimeout(1)
            client.sendall(struct.pack("!II", 8 + len(startup), 196_608) + startup)
            return client.recv(1) == b"R"

    def _signal(self, number: signal.Signals) -> None:
        # Each backend has a session of its own, so the group holds only the first process: pause and kill all.
        if self.running:
            for pid in _family(self.pid):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue

    def _make_data(self) -> None:
        subprocess.run(["cp", "-a", _template(self.user), self._data], check=True)
        self._install_certificate(pwd.getpwnam(self.user) if self.user else None)

    def _install_certificate(self, owner: pwd.struct_passwd | None) -> None:
        if not self.ca:
            return
        identity = self.ca.issue()
        for source, name in ((identity.certificate, "server.crt"), (identity.key, "server.key")):
            target = self._data / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if owner:
                shutil.chown(target, owner.pw_uid, owner.pw_gid)


def _as_user(path: str, user: str | None) -> list[str]:
    """The words that execute `path` as this user."""
    if not user:
        return [path]
    # setpriv and not su: no session, no shell, the same pid
    owner = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", path]


def _found(name: str, user: str | None) -> Program:
    program = find(name)
    return reachable(program) if user else program


@functools.cache
def _template(user: str | None) -> Path:
    """An empty database of this user's, which each server copies: initdb takes ten times as long."""
    folder = Path(tempfile.mkdtemp(prefix="acme-test-postgresql-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    initdb, data, password = _found("initdb", user), folder / "data", folder / "password"
    password.write_text(PASSWORD)
    data.mkdir(mode=0o700)
    if user:
        shutil.chown(data, user, pwd.getpwnam(user).pw_gid)
    words = ["-D", str(data), "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "scram-sha-256"]
    words += [f"--pwfile={password}", "--wal-segsize=1", "--no-sync", "--no-instructions"]
    done = subprocess.run(
        [*_as_user(initdb.path, user), *words],
        env={**os.environ, **initdb.environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")
    return data


def reachable(program: Program) -> Program:
    """The same where any user may enter: a checkout that is root's alone, as one from mktemp, has it in its cache."""
    path = Path(program.path)
    if CACHE not in path.parents or all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents):
        return program
    unpacked = CACHE / path.relative_to(CACHE).parts[0]
    copy = _copied(unpacked)
    environment = {name: value.replace(str(unpacked), str(copy)) for name, value in program.environment.items()}
    return Program(str(copy / path.relative_to(unpacked)), environment)


@functools.cache
def _copied(folder: Path) -> Path:
    copy = Path(tempfile.mkdtemp(prefix="acme-test-programs-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(folder, copy, symlinks=True, dirs_exist_ok=True, copy_function=_link)
    copy.chmod(0o755)
    return copy


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copy2(source, target)


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for children in glob.glob(f"/proc/{parent}/task/*/children"):
            try:
                found += map(int, Path(children).read_text().split())
            except OSError:
                continue
    return found
