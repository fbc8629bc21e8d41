"""A server as a child process: started when it really answers, stopped, killed, paused, and never left behind.

Knows processes, ports and logs; must not know what any one server does.
"""

import atexit
import contextlib
import fcntl
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message
from pathlib import Path
from random import SystemRandom
from typing import ClassVar, NamedTuple, Protocol, Self

from tests.servers.binaries import Missing, Program, missing

# Below the ports that kernels hand to outgoing connections: one of those could take the port of a server that is
# down for a moment. Each process has a share of its own, for the same reason: another one of pytest-xdist's, or a run
# in another checkout.
_PORTS, _SHARES = range(15_000, 32_000), 16


@functools.cache
def _share() -> range:
    """Take a share of the ports while this process lives: the lock that marks it ends with the process.

    At the first port only: a process that distributes tests needs none.
    """
    for number in range(_SHARES):
        try:
            descriptor = os.open(
                Path(tempfile.gettempdir()) / f"acme-test-ports-{number}", os.O_RDWR | os.O_CREAT, 0o666
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody else's
            continue
        return _PORTS[number::_SHARES]
    raise RuntimeError(f"{_SHARES} processes take ports for tests already")


_random = SystemRandom()  # that of the simulator and of hypothesis begins anew at the same place
_given: set[int] = set()
_given_lock = threading.Lock()


def free_port() -> int:
    """A port of 127.0.0.1 that is free for TCP and UDP; never the same one twice in this process."""
    with _given_lock:  # so that there is one share only
        share = _share()
    for _ in range(500):
        port = _random.choice(share)
        with _given_lock:
            if port in _given or not _is_free(port):
                continue
            _given.add(port)
            return port
    raise RuntimeError("no free port found on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def has_ipv6() -> bool:
    """Whether this machine has ::1: containers often have none."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def udp_sockets(port: int) -> int:
    """Return how many sockets receive UDP datagrams at this port; Linux only, because asking would disturb the
    listener.
    """
    sockets = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") for line in sockets)


def is_open(port: int) -> bool:
    """Whether something accepts TCP connections on 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    except OSError:
        return False


class Reply(NamedTuple):
    """An HTTP reply, whatever its status."""

    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def fetch(
    url: str, body: object = None, *, context: ssl.SSLContext | None = None, timeout: float = 5, host: str = ""
) -> Reply:
    """GET `url`, or POST `body` as JSON; never through a proxy of the environment. Raises OSError, not for a status."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(url, data, headers | ({"Host": host} if host else {}))
    try:
        with _opener(context or _NO_TRUST).open(request, timeout=timeout) as reply:
            return Reply(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read())


_NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@functools.lru_cache(maxsize=16)
def _opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """What opens URLs; made once, for that takes longer than to ask a server that is not there yet.

    The handler that urllib would add for HTTPS reads every CA of this machine: 10 ms, for plain HTTP as well.
    """
    secure = urllib.request.HTTPSHandler(context=context)
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), secure, _NoRedirect)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@contextlib.contextmanager
def started[S: "Server"](server: S) -> Iterator[S]:
    """The server while it is needed; without its program the test is skipped, and fails in CI."""
    try:
        server.program()
    except Missing as error:
        server.close()
        missing(error)
    with server as running_server:
        yield running_server


class Watchdog:
    """A shell that kills the listed processes when our end of the pipe closes, so that a killed pytest leaves none.

    Not PR_SET_PDEATHSIG: that fires when the *thread* that started the child ends.
    """

    _SCRIPT = """
    list=
    while read -r verb group; do
        case $verb in
            watch) list="$list $group" ;;
            forget) list=$(for g in $list; do [ "$g" = "$group" ] || printf '%s ' "$g"; done) ;;
        esac
    done
    for group in $list; do kill -s KILL -- "-$group" 2>/dev/null; done
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shell: subprocess.Popen[str] | None = None

    def watch(self, group: int) -> None:
        self._tell("watch", group)

    def forget(self, group: int) -> None:
        self._tell("forget", group)

    def close(self) -> None:
        if self._shell:
            with contextlib.suppress(BrokenPipeError):
                self._shell.communicate()

    def _tell(self, verb: str, group: int) -> None:
        with self._lock:
            shell = self._shell = self._shell or self._start()
            assert shell.stdin
            shell.stdin.write(f"{verb} {group}\n")
            shell.stdin.flush()

    def _start(self) -> subprocess.Popen[str]:
        atexit.register(self.close)
        # its own session: Ctrl-C in the terminal must not end it before us
        argv = ["/bin/sh", "-c", self._SCRIPT]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, text=True, start_new_session=True)


class Process(Protocol):
    """What a server needs of its process, a child of ours; see subprocess.Popen for each method."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: signal.Signals, /) -> None: ...


_watchdog = Watchdog()
_started: weakref.WeakSet["Server"] = weakref.WeakSet()


def running() -> list["Server"]:
    """All servers of this process that run now, or have just been killed."""
    return [server for server in _started if server.folder.exists()]


class Server:
    """One server on 127.0.0.1, with a folder of its own. A subclass says `program`, `arguments` and `ready`.

    ``with Server() as server`` starts it and, at the end, stops it and removes the folder. Stopped or killed, it can
    be started again on the same ports with the same folder. Not for use by several threads at once.
    """

    name: ClassVar[str] = "server"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    ready_timeout: ClassVar[float] = 30
    noise: ClassVar[re.Pattern[str]] = re.compile("(?!)")  # lines of its log that tell nothing of a failure

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"acme-test-{self.name}-"))
        self.log = self.folder / "log.txt"
        self.environment: dict[str, str] = {}
        self._process: Process | None = None
        self._log_start = 0

    def program(self) -> Program:
        """The program to execute; raises Missing."""
        raise NotImplementedError

    def arguments(self) -> list[str]:
        """The command line after the program; called at every start."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether a real operation succeeds; OSError and HTTPException mean not yet."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self._process, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        assert self._process, f"{self.name} was never started"
        return self._process.poll()

    def start(self) -> Self:
        """Start, and return when it answers. RuntimeError with the end of its log when it doesn't; raises Missing."""
        assert not self.running, f"{self.name} is running"
        program = self.program()
        environment = {**os.environ, **program.environment, **self.environment}
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process = self.launch([program.path, *self.arguments()], environment)
        _watchdog.watch(self.pid)
        _started.add(self)
        self._wait_until_ready()
        return self

    def fail_to_start(self) -> str:
        """Start what ends by itself before it is ready, and return its log. RuntimeError when it does not.

        Nothing connects to it meanwhile: what an event loop accepts as it ends leaves a traceback of asyncio's own.
        """
        self.ready = lambda: False  # type: ignore[method-assign]
        try:
            self.start()
        except RuntimeError:
            if self.exit_code is None or self.exit_code < 0:
                raise
        return self.log.read_text()

    def launch(self, argv: Sequence[str], environment: Mapping[str, str]) -> Process:
        """A child of ours in a session of its own, in the folder, whose output is appended to the log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.ready_timeout
        while not self._answers():
            if not self.running:
                _watchdog.forget(self.pid)
                raise RuntimeError(f"{self.name} ended while starting. The end of its log:\n{self.tail(100)}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} not ready in {self.ready_timeout} s. Its log:\n{self.tail()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.ready()
        except (OSError, http.client.HTTPException):
            return False

    def stop(self, timeout: float = 10) -> None:
        """Ask it to end, and kill it when it has not after `timeout` seconds. A server that is down stays down."""
        self.resume()
        if self.running:
            self._end(timeout)
        if self._process:
            _watchdog.forget(self.pid)

    def _end(self, timeout: float) -> None:
        assert self._process
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and its children at once, as a crash or a power cut would."""
        self._signal(signal.SIGKILL)
        if self._process:
            self._process.wait(10)
            _watchdog.forget(self.pid)

    def pause(self) -> None:
        """Freeze it: connections are accepted by the kernel, and nothing answers."""
        self._signal(signal.SIGSTOP)
        if self.running and hasattr(os, "waitid"):  # macOS has it since Python 3.13
            # The signal takes a moment to reach all threads, and one of them may still answer.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Stop and start again: same ports, same folder."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop, and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self) -> str:
        """What it has logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def tail(self, lines: int = 20) -> str:
        """The last lines of its whole log, without the noise."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([line for line in text.splitlines() if not self.noise.search(line)][-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()
