"""``mitmproxy-acme`` as a process: on a storage that proxies share, and through the admin API of one."""

import contextlib
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509

from tests.end_to_end.client import end_of, eventually, handshake
from tests.end_to_end.conftest import StartProxy, default_options
from tests.servers import forked, stores
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

_PROGRAM = str(Path(sys.executable).with_name("mitmproxy-acme"))
_TOKEN = "0123456789abcdef-of-the-admin-api"

type FreshName = Callable[[], str]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Command:
    """The command with the options of a proxy, and with others that go over them."""

    running: Mitmdump
    options: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, *words: str, at: int | None = None) -> subprocess.Popen[str]:
        """Start it, with pipes unless ``at`` is a terminal's descriptor."""
        return forked.Popen([_PROGRAM, *self._words(name, *words)], environment=self._environment, at=at)

    def __call__(self, name: str, *words: str, stdin: str = "") -> Done:
        """Run it to its end."""
        done = forked.run([_PROGRAM, *self._words(name, *words)], stdin=stdin, environment=self._environment)
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def _environment(self) -> dict[str, str]:
        return self.running.environment | self.environment

    def _words(self, name: str, *words: str) -> list[str]:
        ours = [word for word in self.running.arguments() if word.startswith("acme_")]
        options = [word for option in (*ours, *self.options) for word in ("--set", option)]
        return [name, "--confdir", str(self.running.folder / "confdir"), *options, *words]


@pytest.fixture(scope="module")
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    """A CA beside the session's: its port for validations is that of ``command``'s proxy."""
    need("pebble")
    with Pebble(dns) as server:
        yield server


@pytest.fixture(scope="module")
def command(ca: Pebble, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command beside a proxy without an admin API, which several tests share."""
    options = default_options(ca, tmp_path_factory.mktemp("store"))
    with Forked(upstream.url, options, http_port=ca.http_port) as running:
        yield Command(running)


@pytest.fixture
def remote(proxy: StartProxy) -> Command:
    """The command beside a proxy whose admin API wants a token."""
    running = proxy(start=False, acme_admin_listen=f"127.0.0.1:{free_port()}", acme_admin_token="env:ACME_TEST_ADMIN")
    running.environment["ACME_TEST_ADMIN"] = _TOKEN
    running.start()
    return Command(running)


def serials(documents: Sequence[Any]) -> list[int]:
    return [int(document["serial_number"].replace(":", ""), 16) for document in documents]


def test_twenty_names_of_a_file(command: Command, ca: Pebble, fresh_name: FreshName, tmp_path: Path) -> None:
    """All are ordered once, a running proxy answers the challenges and serves them; twice is the same."""
    names = [fresh_name() for _ in range(20)]
    (tmp_path / "names.txt").write_text("# a comment\n\n" + "\n".join(f" {name}  # mine" for name in names))
    before = ca.seen()

    done = command("issue", "-f", str(tmp_path / "names.txt"), "--parallel", "8")

    assert done.code == 0, done.err
    assert done.err == "using the file storage directly, without the admin API (1 proxy uses it)\n"
    assert sorted(line.split(",")[0] for line in done.lines[:-1]) == sorted(f"obtained {name}" for name in names)
    assert done.lines[-1] == "obtained 20, stored already 0, failed 0"
    assert (ca.seen() - before).orders == 20
    assert handshake(command.running.https_port, names[7], ca.root()).names == [names[7]]

    again = command("issue", *names)

    assert (again.code, again.out) == (0, "obtained 0, stored already 20, failed 0\n")
    assert (ca.seen() - before).orders == 20


def test_issue_goes_on_after_a_kill(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """What was obtained before the process was killed is in Redis, and only the rest is ordered then."""
    with stores.running("redis", tmp_path) as redis:
        running = proxy(start=False, acme_storage=redis.url)
        running.environment.update(redis.environment)
        running.start()
        command, names, before = Command(running), [fresh_name() for _ in range(20)], pebble.seen()
        with command.start("issue", *names, "--parallel", "2", "--json") as process:
            assert process.stdout
            said = [process.stdout.readline() for _ in range(4)]
            process.kill()
        assert [json.loads(line)["outcome"] for line in said] == ["obtained"] * 4

        done = command("issue", *names, "--parallel", "20")

        obtained, stored, failed = (int(part.split()[-1]) for part in done.lines[-1].split(","))
        assert (done.code, obtained + stored, failed) == (0, 20, 0)
        assert stored >= 4
        assert (pebble.seen() - before).orders <= 20 + 2
        assert handshake(running.https_port, names[0], root).names == [names[0]]
        assert not any(secret in done.out + done.err for secret in redis.secrets)


def test_interrupted_issue_ends_what_runs(command: Command, fresh_name: FreshName) -> None:
    """Ctrl-C begins nothing more, ends what runs, says what was not tried, and is exit code 130."""
    names = [fresh_name() for _ in range(40)]
    with command.start("issue", *names, "--parallel", "2", "--json") as process:
        assert process.stdout
        said = [process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        out, err = end_of(process)
    results = [json.loads(line) for line in [*said, *out.splitlines()]]
    obtained = [result["host"] for result in results if result["outcome"] == "obtained"]
    assert process.returncode == 130, err
    assert "interrupted: waiting for running orders; press Ctrl-C again to quit now" in err
    assert {result["outcome"] for result in results} == {"obtained", "not_tried"}
    assert sorted(result["host"] for result in results) == sorted(names)
    stored = command("list", "--json").document["data"]
    assert set(obtained) == {document["host"] for document in stored} & set(names)


def test_name_that_fails(command: Command, ca: Pebble, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """It fails with reason and time of the next attempt, the others succeed, and a second run tries it at once."""
    good, bad = fresh_name(), fresh_name()
    dns.add_a(bad, "127.0.0.99")
    before = ca.seen()

    done = command("issue", "-f", "-", stdin=f"{good}\n{bad}\nelsewhere.test\na.test b.test\nno_name\n")

    assert done.code == 1
    assert done.lines[-1] == "obtained 1, stored already 0, failed 4"
    failures = [line for line in done.err.splitlines() if line.startswith("failed ")]
    assert len(failures) == 4
    failed = next(line for line in failures if line.startswith(f"failed {bad}: "))
    assert f"could not validate {bad}: " in failed
    assert "; next attempt in " in failed
    assert any(
        "elsewhere.test: host elsewhere.test is not included in acme_domains or acme_certificates" in line
        for line in failures
    )
    assert any("a.test,b.test: no entry of acme_certificates lists these names" in line for line in failures)
    assert any("no_name: NAMES: 'no_name' is not a host name" in line for line in failures)
    assert "mitmproxy-acme check NAME finds what prevents that" in done.err
    assert f"could not validate {bad}: " in command("issue", bad).err
    assert (ca.seen() - before).orders == 3
    dns.clear_a(bad)
    assert command("issue", bad).lines[-1] == "obtained 1, stored already 0, failed 0"


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what it still says, if it ends by itself."""
    try:
        return process.communicate(timeout=30)
    finally:
        process.kill()


def _wait_until_it_rests(process: subprocess.Popen[str]) -> None:
    """Python takes no signal between its last step and its waiting, which may be while another thread has its turn.

    A person is slower than that: the main thread has not been switched to or from in three looks.
    """
    switches: list[str] = []

    def rests() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        switches.append(status[status.index("voluntary_ctxt_switches") :])
        return len(switches) > 3 and len(set(switches[-4:])) == 1

    eventually(rests)


def test_ctrl_c_at_the_question(command: Command, fresh_name: FreshName) -> None:
    """One is enough, nothing is revoked, and it is exit code 130."""
    name = fresh_name()
    assert command("issue", name).code == 0
    asked, terminal = pty.openpty()
    with command.start("revoke", name, at=terminal) as process:
        os.close(terminal)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(asked, 4_096)
        _wait_until_it_rests(process)
        os.write(asked, b"\x03")
        _end(process)
    os.close(asked)
    assert process.returncode == 130
    assert command("show", name).code == 0


def test_ctrl_c_while_the_admin_api_is_looked_for(command: Command) -> None:
    """What listens there may never answer: one Ctrl-C ends the wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = replace(command, options=[f"acme_admin_listen=127.0.0.1:{silent.getsockname()[1]}"])
        with command.start("list") as process:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(4_096)
                _wait_until_it_rests(process)
                process.send_signal(signal.SIGINT)
                _, err = _end(process)
    assert (process.returncode, err) == (130, "interrupted\n")


def test_stops_where_the_ca_is_down(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """With the CA away the first failures are the last attempts: the rest is not tried, and that is said."""
    with Pebble(dns) as ca:
        running = proxy(ca=ca)
        ca.kill()
        done = Command(running)("issue", *(fresh_name() for _ in range(30)), "--parallel", "2")
    assert done.code == 1
    assert "stopped, because the others would fail too: " in done.err
    assert "cannot be reached: no connection" in done.err
    assert int(done.lines[-1].split()[-1]) >= 28
    assert "not tried" in done.lines[-1]


def test_list_show_and_renew(command: Command, fresh_name: FreshName) -> None:
    """What is stored is listed as JSON and as a table; a renewal replaces it."""
    names = sorted(fresh_name() for _ in range(3))
    command("issue", *names)
    documents = [listed for listed in command("list", "--json").document["data"] if listed["host"] in names]
    assert [document["host"] for document in documents] == names
    assert {(document["state"], document["valid"]) for document in documents} == {("valid", True)}
    assert [row.split()[0] for row in command("list", "--search", names[0]).lines] == ["host", names[0]]

    done = command("renew", names[1])

    assert (done.code, done.lines[-1]) == (0, "renewed 1, failed 0")
    after = command("show", names[1], "--json").document
    assert serials([after]) != serials([documents[1]])


def test_revoked_and_obtained_again(proxy: StartProxy, pebble: Pebble, fresh_name: FreshName) -> None:
    """The CA lists it as revoked for the reason; the proxy whose options list it obtains another."""
    name, other = fresh_name(), fresh_name()
    command = Command(proxy(acme_certificates=[f"{name},{other}"]))
    shown: list[Any] = []

    def is_stored() -> bool:
        shown[:] = [done.document for done in (command("show", other, "--json"),) if done.code == 0]
        return bool(shown)

    eventually(is_stored)
    serial = serials(shown)[0]

    done = command("revoke", other, "--reason", "superseded", "--yes")

    assert (done.code, done.out) == (0, f"revoked {name}: superseded\n")
    assert "It is managed: a running proxy obtains another at once." in done.err
    status = pebble.cert_status(serial)
    assert (status["Status"], str(status["Reason"])) == ("Revoked", "4")
    eventually(is_stored)
    assert serials(shown) != [serial]


def test_exported_certificate_serves(command: Command, ca: Pebble, fresh_name: FreshName, tmp_path: Path) -> None:
    """A TLS server of Python's own serves the files."""
    name = fresh_name()
    command("issue", name)
    assert command("export", name, "--all", "--out", str(tmp_path / "all.pem")).code == 0
    assert x509.load_pem_x509_certificates(command("export", name).out.encode())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "all.pem")
    with serving(context) as port:
        assert handshake(port, name, ca.root()).names == [name]


@contextlib.contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    class Silent(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_by_the_admin_api(remote: Command, pebble: Pebble, dns: ChallTestSrv, root: str, fresh_name: FreshName) -> None:
    """A running proxy orders, tells, renews and revokes what it is asked to; the command touches no storage."""
    names, bad = [fresh_name() for _ in range(5)], fresh_name()
    dns.add_a(bad, "127.0.0.99")
    remote.options = ["acme_storage=file:/nowhere/at/all"]

    done = remote("issue", *names, bad, "elsewhere.test")

    assert done.err.startswith("using the admin API of the proxy at http://127.0.0.1:")
    assert (done.code, done.lines[-1]) == (1, "obtained 5, stored already 0, failed 2")
    assert f"could not validate {bad}: " in done.err
    assert "; next attempt in " in done.err
    assert "failed elsewhere.test: host elsewhere.test is not included in acme_domains or acme_certificates" in done.err
    assert remote("issue", names[0]).out == "obtained 0, stored already 1, failed 0\n"
    listed = remote("list", "--json").document["data"]
    assert [document["host"] for document in listed] == sorted(names)
    renewed = remote("renew", names[0], "--json").document
    assert (renewed["host"], renewed["outcome"]) == (names[0], "renewed")
    new = renewed["certificate"]
    assert new["serial_number"] not in [document["serial_number"] for document in listed]
    assert remote("revoke", names[0], "--yes", "--reason", "superseded").code == 0
    assert pebble.cert_status(serials([new])[0])["Status"] == "Revoked"
    assert remote("show", names[0]).code == 1
    assert _TOKEN not in done.out + done.err


def test_the_admin_api_refuses(remote: Command, fresh_name: FreshName) -> None:
    """A wrong token, and another service on the port, are one sentence and exit code 2."""
    remote.environment["ACME_TEST_ADMIN"] = "another-token-altogether"
    done = remote("list")
    assert (done.code, done.out) == (2, "")
    assert "acme_admin_token: the proxy at 127.0.0.1:" in done.err
    remote.environment.clear()
    for port in (remote.running.http_port, remote.running.https_port):
        remote.options = [f"acme_admin_listen=127.0.0.1:{port}"]
        done = remote("list")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "is not the admin API of a proxy" in done.err


def test_check_before_and_with_a_proxy(
    proxy: StartProxy, pebble: Pebble, dns: ChallTestSrv, fresh_name: FreshName, tmp_path: Path
) -> None:
    """Nothing listens yet; then the proxy answers; another storage, DNS without the name and CAA are each reported."""
    good, gone, barred = fresh_name(), fresh_name(), fresh_name()
    dns.set_servfail(gone)
    dns.add_caa(barred, issue="other-ca.test")
    dns.add_caa(good, issue="pebble.test")
    running = proxy(start=False, acme_domains=[good, gone, barred])
    command = Command(running, ["block_global=false", "onboarding=false"])
    at = ["--dns", dns.address, "--http-port", str(running.http_port), "--https-port", str(running.https_port)]
    address = f"127.0.0.1:{running.http_port}"

    first = command("check", *at)

    assert first.code == 1
    assert f"warn  {good}: {address} refuses connections so far; start the proxy and check again" in first.lines
    assert f"pass  {good}: CAA of {good} lets the CA issue" in first.lines
    assert f"fail  {gone}: the DNS server fails (SERVFAIL); the CA will not find it either" in first.lines
    assert any(f"fail  {barred}: CAA of {barred}: only other-ca.test may issue; " in line for line in first.lines)

    running.start()
    second = command("check", *at, "--json")
    said = {finding["what"]: finding["outcome"] for finding in second.document["findings"]}
    assert said[f"{good}: {address} answers challenges from this storage"] == "pass"
    assert said[f"{good}: 127.0.0.1:{running.https_port} accepts connections"] == "pass"

    command.options = [*command.options, f"acme_storage=file:{tmp_path}/other"]
    third = command("check", *at)
    assert f"fail  {good}: {address} is answered by a proxy with this addon that does not use this storage" in third.out


def test_check_looks_at_what_the_challenges_need(
    proxy: StartProxy, pebble: Pebble, dns: ChallTestSrv, fresh_name: FreshName, tmp_path: Path
) -> None:
    """Validators on the TLS port, questions on the port of DNS, and port 80 not at all; a CA that is down has another.

    The look leaves no proof behind.
    """
    name, host, dead = fresh_name(), fresh_name(), f"https://127.0.0.1:{free_port()}/dir"
    running = proxy(
        dns_port=free_port(),
        acme_ca=[dead, pebble.directory],
        acme_domains=[name],
        acme_challenges=["tls-alpn-01", "dns-01"],
        acme_dns_zone="acme.example.test",
        acme_dns_nameservers=[host],
    )
    at = ["--dns", dns.address, "--http-port", str(free_port()), "--https-port", str(running.https_port)]
    command = Command(running, ["block_global=false", "onboarding=false"])

    done = command("check", *at, "--dns-port", str(running.dns_port))

    address, server = f"127.0.0.1:{running.https_port}", f"127.0.0.1:{running.dns_port}"
    assert f"warn  {dead} cannot be reached: no connection; orders go to {pebble.directory} meanwhile" in done.lines
    assert f"pass  {name}: {address} answers tls-alpn-01 from this storage" in done.lines
    assert f"pass  {host}: {server} answers for acme.example.test over UDP and TCP" in done.lines
    assert not any(line.startswith(f"fail  {name}") for line in done.lines)
    assert not list((tmp_path / "store").glob("**/*tls-alpn*"))

    command.options = [*command.options, f"acme_storage=file:{tmp_path}/other"]
    assert f"fail  {name}: {address} closes the connection of tls-alpn-01 validators" in command("check", *at).out
