"""The main job, shown on this machine: a name never seen before, a certificate that the client trusts, at once.

Started by scripts/demo. Knows the test servers and how to look at a certificate; must not know the addon's code.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.servers.base import fetch, free_port
from tests.servers.binaries import Missing
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

ZONE = "demo.example.test"
ORDERED = 'orders_total{{ca="{ca}",result="success"}}'
SERVED = 'handshakes_total{result="obtained"}'
SHOWN = ("handshakes_total", "orders_total", "challenges_total", "certificates")


class Failed(Exception):
    """The proof does not hold; says why."""


class Visit(NamedTuple):
    """What one client met."""

    milliseconds: float  # from the TCP connection to the trusted handshake
    status: int
    body: str


@dataclass(frozen=True)
class Stage:
    """Everything that runs, and the files that a client needs."""

    pebble: Pebble
    mitmdump: Mitmdump
    folder: Path
    admin: str  # URL of the status page

    @property
    def root(self) -> Path:
        """PEM file of the one root that the clients trust."""
        return self.folder / "pebble-root.pem"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"


def main() -> int:
    """0 when the proof holds."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Real certificates at the first handshake.")
    parser.add_argument("--once", action="store_true", help="end after the proof instead of staying for your own tries")
    once = parser.parse_args().once
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    try:
        with ExitStack() as stack:
            stage = set_up(stack)
            prove(stage)
            if not once:
                suggest(stage)
                follow(stage)
    except (Failed, Missing, RuntimeError) as error:
        print(f"\n{bold('The demo failed:')} {error}", flush=True)
        return 1
    except KeyboardInterrupt:
        say("\nAll servers are stopped, and the folder is removed.")
    return 0


def leave(number: int, _: object) -> NoReturn:
    """For a signal: unwind, so that everything is stopped."""
    raise SystemExit(128 + number)


def set_up(stack: ExitStack) -> Stage:
    """Start everything; what was started is stopped by `stack`. Raises Missing, and RuntimeError with a log's end."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mitmproxy-acme-demo-")))
    upstream = stack.enter_context(Upstream())
    step("a web server to protect", upstream.url)
    pebble = stack.enter_context(Pebble(stack.enter_context(ChallTestSrv())))
    step("Pebble, Let's Encrypt's CA for tests", pebble.directory)
    options: dict[str, Option] = {
        "acme_domains": "**.example.test",
        "acme_ca": pebble.directory,
        "acme_ca_bundle": str(pebble.ca_bundle),
        "acme_email": "me@example.com",
        "acme_tos_accepted": True,
        "acme_storage": f"file:{folder / 'storage'}",
        "acme_admin_listen": f"127.0.0.1:{(admin := free_port())}",
    }
    mitmdump = stack.enter_context(Mitmdump(upstream.url, options, http_port=pebble.http_port))
    step("mitmdump with the addon", f"https on {mitmdump.https_port}, http on {mitmdump.http_port}")
    stage = Stage(pebble, mitmdump, folder, f"http://127.0.0.1:{admin}/")
    step("its status page", stage.admin)
    stage.root.write_text(pebble.root())
    return stage


def prove(stage: Stage) -> None:
    """Visit a new name twice, and show what was served. Raises Failed."""
    name = f"{secrets.token_hex(4)}.{ZONE}"
    curl = shutil.which("curl")
    visit: Callable[[Stage, str], Visit] = visit_with_curl if curl else visit_with_python
    client = "curl" if curl else "Python's ssl module, since there is no curl here"
    say(f"\nA client asks for {bold(f'https://{name}/')}, a new name.")
    say(f"It is {client}. It trusts Pebble's root, and nothing else.\n")
    before = metrics(stage)
    try:
        first = visit(stage, name)
        seen = stage.pebble.seen()
        leaf = served(stage, name)
        second = visit(stage, name)
    except Failed as error:
        raise Failed(f"{error}\nThe end of mitmdump's log:\n{stage.mitmdump.tail()}") from error
    check(stage, name, leaf, first, second)
    moved = {metric: value - before.get(metric, 0.0) for metric, value in metrics(stage).items()}
    if not (moved.get(ORDERED.format(ca=stage.pebble.directory)) == moved.get(SERVED) == 1):
        raise Failed(f"the metrics do not say what happened: {moved}")
    fact("answer", f"{first.status}, {first.body.strip()}")
    fact("issuer", f"{common_name(leaf.issuer)}, under {common_name(certificate(stage.pebble.root()).subject)}")
    fact("names", ", ".join(names(leaf)))
    fact("valid", f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M} to {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    fact("key", key_type(leaf))
    fact(
        "CA's work",
        f"certificates: {seen.certificates}, orders: {seen.orders}, requests: {seen.requests}, the account's included",
    )
    fact(
        "first visit",
        f"{first.milliseconds:7.1f} ms from connect to trusted handshake, the certificate was made meanwhile",
    )
    fact("second visit", f"{second.milliseconds:7.1f} ms, from memory")
    say("\nWhat moved in the metrics of the proxy:\n")
    for metric, value in sorted(moved.items()):
        if value and metric.startswith(SHOWN):
            say(f"  {metric} +{value:g}")
    say(f"\n{bold('It works:')} the client trusted the certificate at its first visit.")


def metrics(stage: Stage) -> dict[str, float]:
    """What the proxy counts. Raises Failed."""
    reply = fetch(f"{stage.admin}metrics")
    if reply.status != 200:
        raise Failed(f"there are no metrics: {reply.status} {reply.text}")
    samples = (line.rpartition(" ") for line in reply.text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("mitmproxy_acme_"): float(value) for name, _, value in samples}


def check(stage: Stage, name: str, leaf: x509.Certificate, *visits: Visit) -> None:
    """Raise Failed unless the certificate is Pebble's, is for `name`, and the upstream answered."""
    if leaf.serial_number not in stage.pebble.issued_serials():
        raise Failed(f"the certificate for {name} was not issued by Pebble, but by {leaf.issuer.rfc4514_string()}.")
    if name not in names(leaf):
        raise Failed(f"the certificate is for {', '.join(names(leaf))}, not for {name}.")
    for visit in visits:
        if visit.status != 200 or "hello from upstream" not in visit.body:
            raise Failed(f"the web server did not answer: {visit.status} {visit.body.strip()}")


def visit_with_curl(stage: Stage, name: str) -> Visit:
    """Raises Failed when curl does not trust what it meets, or meets nothing."""
    nothing = stage.folder / "no-other-roots"
    nothing.mkdir(exist_ok=True)
    command = ["curl", "-q", "--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]
    command += ["--cacert", str(stage.root), "--capath", str(nothing)]
    command += ["--connect-to", f"::127.0.0.1:{stage.mitmdump.https_port}"]
    command += ["--write-out", "\n%{http_code} %{time_connect} %{time_appconnect}", f"https://{name}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"curl ended with {done.returncode}: {done.stderr.strip()}")
    body, _, figures = done.stdout.rpartition("\n")
    status, connected, trusted = figures.split()
    return Visit((float(trusted) - float(connected)) * 1000, int(status), body)


def visit_with_python(stage: Stage, name: str) -> Visit:
    """The same without curl."""
    with connect(stage) as plain:
        started = time.perf_counter()
        with trust(stage, plain, name) as secure:
            milliseconds = (time.perf_counter() - started) * 1000
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = b"".join(iter(lambda: secure.recv(65536), b"")).decode().partition("\r\n\r\n")
    return Visit(milliseconds, int(head.split()[1]), body)


def served(stage: Stage, name: str) -> x509.Certificate:
    """The leaf that a client meets. Raises Failed when it is not to be trusted."""
    with connect(stage) as plain, trust(stage, plain, name) as secure:
        leaf = secure.getpeercert(binary_form=True)
    assert leaf
    return x509.load_der_x509_certificate(leaf)


def connect(stage: Stage) -> socket.socket:
    try:
        return socket.create_connection(("127.0.0.1", stage.mitmdump.https_port), 30)
    except OSError as error:
        raise Failed(f"no connection: {error}") from error


def trust(stage: Stage, plain: socket.socket, name: str) -> ssl.SSLSocket:
    try:
        return ssl.create_default_context(cafile=stage.root).wrap_socket(plain, server_hostname=name)
    except OSError as error:
        raise Failed(f"the handshake failed: {error}") from error


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def names(leaf: x509.Certificate) -> list[str]:
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


def common_name(name: x509.Name) -> str:
    return str(name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def key_type(leaf: x509.Certificate) -> str:
    match leaf.public_key():
        case ec.EllipticCurvePublicKey() as key:
            return f"ECDSA, {key.curve.name}"
        case rsa.RSAPublicKey() as key:
            return f"RSA, {key.key_size} bits"
        case key:
            return type(key).__name__


def suggest(stage: Stage) -> None:
    """What to try while everything runs."""
    port, name = stage.mitmdump.https_port, f"any-name.{ZONE}"
    say(f"\n{bold('What to try next,')} in another terminal, with any name under example.test:\n")
    say(f"  curl --cacert {stage.root} --connect-to ::127.0.0.1:{port} https://{name}/\n")
    say(f"  openssl s_client -connect 127.0.0.1:{port} -servername {name} -CAfile {stage.root} </dev/null\n")
    say(f"  find {stage.storage} -type f -not -path '*/.*'    # account, certificates, keys")
    say(f"  {stage.admin} is the status page; {stage.admin}metrics is for Prometheus\n")
    say("A proxy of your own beside it, on the same storage: its terminal shows what a newcomer sees.\n")
    # The CA finds the challenge at the demo's proxy, which reads it from the storage that both share.
    serve = f"{Path(sys.executable).with_name('mitmproxy-acme')} serve my.{ZONE} --to {stage.mitmdump.upstream}"
    ports = f"--https-port {free_port()} --http-port off --challenge http-01 --status 127.0.0.1:{free_port()}"
    ca = f"--ca {stage.pebble.directory} --set acme_ca_bundle={stage.pebble.ca_bundle}"
    say(f"  {serve} \\\n    {ports} \\\n    {ca} \\\n    --storage file:{stage.storage}\n")
    say("Ctrl-C stops everything. Until then, what mitmdump says:\n")


def follow(stage: Stage) -> None:
    """Show mitmdump's log until Ctrl-C. Raises Failed when mitmdump ends by itself."""
    with stage.mitmdump.log.open() as log:
        log.seek(0, os.SEEK_END)
        while stage.mitmdump.running:
            for line in log:
                say(f"  {line.rstrip()}")
            time.sleep(0.2)
    raise Failed(f"mitmdump ended. The end of its log:\n{stage.mitmdump.tail()}")


def step(what: str, where: str) -> None:
    say(f"started  {what:<38}{where}")


def fact(what: str, value: str) -> None:
    say(f"  {what:<14}{value}")


def say(line: str) -> None:
    print(line, flush=True)


def bold(text: str) -> str:
    """On a terminal."""
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


if __name__ == "__main__":
    sys.exit(main())
