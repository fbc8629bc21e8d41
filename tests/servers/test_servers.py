"""The servers behave as their docstrings promise: everything else is built on that."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers import binaries
from tests.servers.bao import Bao
from tests.servers.base import Server, fetch, free_port, is_open
from tests.servers.binaries import Missing, Program, find, need
from tests.servers.chaos import Chaos
from tests.servers.forked import Forked, fork
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream


@pytest.fixture
def pebble() -> Iterator[Pebble]:
    need("pebble", "pebble-challtestsrv")
    with ChallTestSrv() as dns, Pebble(dns) as server:
        yield server


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


class Listener(Server):
    """A web server that any Python has."""

    name = "listener"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    def program(self) -> Program:
        return Program(sys.executable, {})

    def arguments(self) -> list[str]:
        return ["-m", "http.server", "--bind", "127.0.0.1", str(self.port)]

    def ready(self) -> bool:
        return fetch(f"http://127.0.0.1:{self.port}/").status == 200


class TestPebble:
    def test_answers_with_its_directory(self, pebble: Pebble) -> None:
        """The directory is served over HTTPS that the CA bundle makes trusted, and nothing else does."""
        directory = fetch(pebble.directory, context=pebble.context)
        assert b"newOrder" in directory.body
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(pebble.directory, context=ssl.create_default_context())

    def test_shows_its_certificates(self, pebble: Pebble) -> None:
        """Root and intermediate come from the management interface, and differ."""
        assert pebble.root().startswith("-----BEGIN CERTIFICATE-----")
        assert pebble.root() != pebble.intermediate()

    def test_counts_what_it_was_asked(self, pebble: Pebble) -> None:
        """Requests since `before` are counted by path; those of the readiness check are not."""
        before = pebble.seen()
        assert before.requests == 0
        fetch(pebble.directory, context=pebble.context)
        seen = pebble.seen() - before
        assert (seen.requests, seen.by_path["/dir"], seen.orders, seen.certificates) == (1, 1, 0, 0)

    def test_restarts_on_its_port_with_new_keys(self, pebble: Pebble) -> None:
        """After a restart the same URL answers, and the CA is another one."""
        root, directory = pebble.root(), pebble.directory
        pebble.restart()
        assert fetch(directory, context=pebble.context).status == 200
        assert pebble.root() != root

    def test_comes_back_after_a_kill(self, pebble: Pebble) -> None:
        """A killed CA refuses connections, and can be started again."""
        pebble.kill()
        assert not pebble.running
        with pytest.raises(OSError, match="refused"):
            fetch(pebble.directory, context=pebble.context)
        pebble.start()
        assert fetch(pebble.directory, context=pebble.context).status == 200

    def test_says_nothing_while_paused(self, pebble: Pebble) -> None:
        """A paused CA lets clients wait; resumed, it answers again."""
        pebble.pause()
        with pytest.raises(OSError, match="timed out"):
            fetch(pebble.directory, context=pebble.context, timeout=0.3)
        pebble.resume()
        assert fetch(pebble.directory, context=pebble.context).status == 200

    def test_offers_what_it_was_told_to(self) -> None:
        """Profiles, alternate roots and external account binding reach the configuration."""
        need("pebble")
        with Pebble(
            profiles={"long": 1000, "short": 60}, alternate_roots=1, eab={"kid": "c2VjcmV0LTMyLWJ5dGVz"}
        ) as pebble:
            directory = fetch(pebble.directory, context=pebble.context).text
            assert '"long"' in directory
            assert '"short"' in directory
            assert '"externalAccountRequired": true' in directory
            assert pebble.root(0) != pebble.root(1)


class TestServer:
    def test_shows_its_log_when_it_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If a server ends while starting, the error shows its log, and its folder is removed."""
        server = Listener()
        monkeypatch.setattr(server, "arguments", lambda: ["-c", "raise SystemExit('no such luck')"])
        with pytest.raises(RuntimeError, match="no such luck"), server:
            pass
        assert not server.folder.exists()

    def test_leaves_nothing_behind(self) -> None:
        """At the end of the block the process is gone, and so is the folder."""
        with Listener() as server:
            assert server.running
            assert fetch(f"http://127.0.0.1:{server.port}/").status == 200
        assert not server.running
        assert not is_open(server.port)
        assert not server.folder.exists()

    def test_dies_with_a_killed_test_run(self, tmp_path: Path) -> None:
        """A process that is killed with SIGKILL takes the servers that it started with it."""
        program = """
            from tests.servers.test_servers import Listener
            server = Listener().start()
            print(server.pid, server.port, flush=True)
            input()
        """
        pid, port = killed_run(program, tmp_path)
        wait_until_gone(pid)
        assert not is_open(port)

    def test_never_gives_a_port_twice(self) -> None:
        """A hundred free ports are a hundred different ones."""
        assert len({free_port() for _ in range(100)}) == 100


QUIET: dict[str, Option] = {"acme_storage": "memory:", "acme_domains": ["a.example.test"], "acme_tos_accepted": True}
LOOK = """
import json, os, random, subprocess, sys, threading
child = subprocess.Popen(["sleep", "60"])
seen = {
    "argv": sys.argv[:3], "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
    "session": os.getsid(0) == os.getpgrp() == os.getpid(), "parent": os.getppid(),
    "files": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)], "threads": threading.active_count(),
    "buffers": [sys.stdout.write_through, sys.stdout.encoding, sys.stderr.encoding, os.get_blocking(0)],
}
own = {"child": child.pid, "random": [random.random(), random.SystemRandom().random(), str(os.urandom(8))]}
with open("seen.json", "w") as file:
    json.dump([seen, own], file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Forked is Mitmdump, and there is no /proc")
class TestForked:
    @pytest.fixture
    def look(self, tmp_path: Path) -> Path:
        """A script for -s that writes what the process sees around it, and starts a child."""
        script = tmp_path / "look.py"
        script.write_text(LOOK)
        return script

    @pytest.fixture
    def forked(self, look: Path) -> Iterator[Forked]:
        with Forked("http://127.0.0.1:1", QUIET, arguments=["-s", str(look)]) as server:
            yield server

    def test_sees_what_the_real_one_sees(self, look: Path, forked: Forked, monkeypatch: pytest.MonkeyPatch) -> None:
        """Session, parent, folder, environment, arguments, sys.path and standard files are those of an executed one."""
        forked.stop()
        monkeypatch.delenv("PYTEST_VERSION")  # which the process that forks has
        forked.environment["ACME_TEST_ONLY_HERE"] = "1"
        forked.start()
        ours, _ = json.loads((forked.folder / "seen.json").read_text())
        real = Mitmdump("http://127.0.0.1:1", QUIET, arguments=["-s", str(look)])
        real.environment["ACME_TEST_ONLY_HERE"] = "1"
        with real:
            theirs, _ = json.loads(
                (real.folder / "seen.json").read_text().replace(str(real.folder), str(forked.folder))
            )
        assert ours == theirs
        assert (ours["folder"], ours["parent"], ours["session"]) == (str(forked.folder), os.getpid(), True)
        assert ours["files"] == [os.devnull, str(forked.log), str(forked.log)]

    def test_is_forked_and_leaves_no_file_open(self, forked: Forked) -> None:
        """It did not execute mitmdump, and it has none of the starter's pipes."""
        assert "starter.py" in Path(f"/proc/{forked.pid}/cmdline").read_text()
        links = []
        for path in Path(f"/proc/{forked.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it lives, and closes files while we look
                links.append(os.readlink(path))
        assert str(forked.log) in links
        assert [link for link in links if link.startswith("pipe:")] == []

    def test_each_one_draws_its_own_random_numbers(self, forked: Forked) -> None:
        """Two that were forked from one process share no random number."""
        _, first = json.loads((forked.folder / "seen.json").read_text())
        forked.restart()
        _, second = json.loads((forked.folder / "seen.json").read_text())
        assert not set(first["random"]) & set(second["random"])

    @pytest.mark.parametrize("words", [["--version"], ["--nonsense"], ["--set", "http2=nonsense"]])
    def test_ends_as_the_real_one_does(self, tmp_path: Path, words: list[str]) -> None:
        """Exit code and output are the same, and both are there as soon as it has ended."""
        argv = [str(Path(sys.executable).with_name("mitmdump")), *words]
        log = tmp_path / "log.txt"
        log.write_text("before\n")
        child = fork(argv, os.environ, tmp_path, (Path(os.devnull), log, log))
        assert child
        try:
            exit_code = child.wait(20)
        finally:
            child.send_signal(signal.SIGKILL)
        real = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
        )
        assert (exit_code, log.read_text()) == (real.returncode, f"before\n{real.stdout}")

    def test_ends_with_its_children(self, forked: Forked) -> None:
        """A kill ends the whole group, and is noticed; then it starts again on its ports."""
        _, own = json.loads((forked.folder / "seen.json").read_text())
        killed = forked.pid
        forked.kill()
        assert not forked.running
        assert forked.exit_code == -signal.SIGKILL
        wait_until_gone(killed)
        wait_until_gone(own["child"])
        forked.start()
        forked.stop()
        assert forked.exit_code == 0

    def test_pauses(self, forked: Forked) -> None:
        """A paused server does not answer, and is waited for no longer than its timeout; resumed, it answers again."""
        forked.pause()
        with pytest.raises(OSError, match="timed out"):
            fetch(f"http://127.0.0.1:{forked.http_port}/", timeout=0.3)
        forked.resume()
        assert forked.ready()
        forked.pause()
        forked.stop_signal = signal.SIGCONT  # type: ignore[misc]  # which ends nothing
        forked.stop(timeout=0.1)
        assert forked.exit_code == -signal.SIGKILL

    def test_shows_its_log_when_it_does_not_start(self) -> None:
        """If it ends while starting, the error shows its log."""
        with pytest.raises(RuntimeError, match="acme_on_demand"), Forked("http://127.0.0.1:1", {"acme_on_demand": "x"}):
            pass

    def test_is_executed_where_its_environment_is_read_before(self, forked: Forked, tmp_path: Path) -> None:
        """An interpreter with an environment of its own is started as such."""
        forked.stop()
        (tmp_path / "sitecustomize.py").write_text("print('it was read')")
        forked.environment["PYTHONPATH"] = str(tmp_path)
        forked.start()
        assert "it was read" in forked.log.read_text()

    def test_dies_with_a_killed_test_run(self, tmp_path: Path) -> None:
        """So does the process that forked it."""
        program = """
            from tests.servers import forked, test_servers
            server = forked.Forked("http://127.0.0.1:1", test_servers.QUIET).start()
            print(server.pid, server.http_port, forked._starter._process.pid, flush=True)
            input()
        """
        pid, port, starter = killed_run(program, tmp_path)
        wait_until_gone(pid)
        wait_until_gone(starter)
        assert not is_open(port)


class TestFind:
    def test_prefers_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """$ACME_TEST_<NAME> is taken as it is."""
        monkeypatch.setenv("ACME_TEST_PEBBLE_CHALLTESTSRV", "/somewhere/else")
        assert find("pebble-challtestsrv") == Program("/somewhere/else", {})

    def test_passes_over_an_old_one(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A pebble on PATH that lacks what the tests need is as good as none."""
        old = tmp_path / "pebble"
        old.write_text("#!/bin/sh\n")
        old.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("ACME_TEST_PEBBLE", raising=False)
        assert binaries.installed("pebble") is None

    @pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
    def test_is_a_failure_only_in_ci(
        self, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
    ) -> None:
        """A test whose server is missing is skipped at home, and fails in CI."""
        monkeypatch.setenv("CI", ci)
        with pytest.raises(Missing, match="scripts/servers"):
            find("no-such-server")
        with pytest.raises(outcome, match="no-such-server"):
            need("no-such-server")

    def test_finds_no_other_than_those_that_are_wanted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """$ACME_TEST_ONLY lists the programs that may be used; a test of another one is skipped, in CI too."""
        monkeypatch.setenv("ACME_TEST_PEBBLE", "/somewhere/else")
        monkeypatch.setenv("ACME_TEST_ONLY", "pebble pebble-challtestsrv")
        monkeypatch.setenv("CI", "true")
        assert find("pebble").path == "/somewhere/else"
        for missing in ("redis-server", "bao"):
            with pytest.raises(pytest.skip.Exception, match=missing):
                need(missing)
        with pytest.raises(Missing, match="bao"):
            Bao().program()


class TestUpstream:
    def test_tells_who_answered(self, upstream: Upstream) -> None:
        """The reply names the upstream and the path, and the request is remembered."""
        reply = fetch(f"{upstream.url}/a/b", host="one.example.test")
        assert reply.text == "hello from upstream /a/b\n"
        assert upstream.requests == ["GET one.example.test /a/b"]

    def test_closes_under_an_open_connection(self) -> None:
        """A client that keeps its connection does not keep the upstream from closing."""
        with Upstream() as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100)
        with client:
            client.settimeout(5)
            while client.recv(4096):
                pass


class TestChaos:
    @pytest.fixture
    def chaos(self, upstream: Upstream) -> Iterator[Chaos]:
        with Chaos(upstream.port) as proxy:
            yield proxy

    @pytest.fixture
    def client(self, chaos: Chaos) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", chaos.port), 5) as connection:
            yield connection

    def test_passes_everything_on(self, chaos: Chaos) -> None:
        """Without a fault it is a proxy like any other, and counts."""
        assert fetch(f"http://127.0.0.1:{chaos.port}/x").text == "hello from upstream /x\n"
        assert chaos.connections == 1
        chaos.close()  # what has arrived is counted a moment later
        assert chaos.bytes > 100

    def test_delays(self, chaos: Chaos) -> None:
        """Latency is added on the way there and on the way back."""
        chaos.delay(0.1)
        started = time.monotonic()
        fetch(f"http://127.0.0.1:{chaos.port}/")
        assert time.monotonic() - started >= 0.2

    def test_swallows(self, chaos: Chaos) -> None:
        """In a blackhole a client waits for nothing; healed, everything flows again."""
        chaos.blackhole()
        with pytest.raises(TimeoutError):
            fetch(f"http://127.0.0.1:{chaos.port}/", timeout=0.2)
        chaos.heal()
        assert fetch(f"http://127.0.0.1:{chaos.port}/").status == 200

    def test_resets_open_connections(self, chaos: Chaos, client: socket.socket) -> None:
        """An open connection ends with RST, not with a polite end, even in a blackhole."""
        chaos.blackhole()
        ask(client)
        chaos.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(100)

    def test_refuses(self, chaos: Chaos) -> None:
        """A refusing proxy is a closed port; healed, the same port is open."""
        chaos.refuse()
        with pytest.raises(OSError, match="refused"):
            fetch(f"http://127.0.0.1:{chaos.port}/")
        chaos.heal()
        assert fetch(f"http://127.0.0.1:{chaos.port}/").status == 200

    def test_cuts(self, chaos: Chaos, client: socket.socket) -> None:
        """After so many bytes, and not one more, the connection is reset."""
        chaos.cut_after(50)
        ask(client)
        assert len(read_until_reset(client)) <= 50
        assert chaos.bytes <= 100

    def test_answers_junk(self, chaos: Chaos, upstream: Upstream) -> None:
        """The client gets an HTML error page, and the upstream hears nothing."""
        chaos.answer_junk()
        reply = fetch(f"http://127.0.0.1:{chaos.port}/")
        assert (reply.status, reply.headers["Content-Type"]) == (502, "text/html")
        assert upstream.requests == []

    def test_answers_junk_over_tls(self, pebble: Pebble) -> None:
        """Before a CA the junk comes after a proper handshake, as from its load balancer."""
        with Chaos(pebble.port, tls=pebble.ca.server_context()) as chaos:
            url = f"https://localhost:{chaos.port}/dir"
            assert f":{chaos.port}/" in fetch(url, context=pebble.context).text
            chaos.answer_junk()
            assert fetch(url, context=pebble.context).status == 502

    def test_resets_when_nobody_is_behind_it(self) -> None:
        """A dead upstream shows as a reset."""
        with Chaos(free_port()) as chaos:
            try:
                client = socket.create_connection(("127.0.0.1", chaos.port), 5)
            except ConnectionResetError:  # it may come before connect() has returned
                return
            with client:
                assert read_until_reset(client) == b""

    def test_closes_with_a_client_that_never_reads(self) -> None:
        """Neither a full pipe nor a silent client keeps it from closing."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            with Chaos(silent.getsockname()[1]) as chaos:
                client = socket.create_connection(("127.0.0.1", chaos.port))
                fill(client)
            client.close()


def killed_run(program: str, temporary: Path) -> list[int]:
    """Kill a Python that has started a server and printed its process and its port; return all that it printed."""
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=binaries.CACHE.parents[1],
        env={**os.environ, "TMPDIR": str(temporary)},  # a killed process leaves its folders
    )
    with run:
        assert run.stdout
        pid, port, *more = map(int, run.stdout.readline().split())
        assert is_open(port)
        os.kill(run.pid, signal.SIGKILL)
    return [pid, port, *more]


def ask(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHost: one.example.test\r\n\r\n")


def read_until_reset(client: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := client.recv(100):
            received += chunk
    except ConnectionResetError:
        return received
    raise AssertionError("the connection ended politely")


def fill(client: socket.socket) -> None:
    client.settimeout(0.2)
    try:
        while True:
            client.send(bytes(65536))
    except TimeoutError:
        return


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")
