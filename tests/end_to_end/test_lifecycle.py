"""How the addon is installed, configured, changed and ended: what a person does with it, from outside."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.end_to_end.client import (
    HANDSHAKE_FAILURE,
    UNRECOGNIZED_NAME,
    alert_for,
    eventually,
    handshake,
    negotiate,
    untrusted,
)
from tests.end_to_end.conftest import StartProxy, default_options
from tests.servers.binaries import Program
from tests.servers.forked import Forked, ForkedWeb
from tests.servers.mitmdump import SCRIPT, Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream
from tests.servers.validation import Validation

FreshName = Callable[[], str]

PROJECT = SCRIPT.parents[1]
SOURCES = ("addons", "storage")


def is_mitmproxys(port: int, name: str) -> bool:
    return "mitmproxy" in untrusted(port, name).issuer.rfc4514_string()


# Loading


def copy_checkout(folder: Path) -> Path:
    """Copy what is needed to load, or to build, the project; return the folder."""
    for name in SOURCES:
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


class Environment:
    """A new virtual environment that has the dependencies, and not the project, however the tests' own has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        _run(sys.executable, "-m", "venv", "--without-pip", folder)
        variables = {"base": str(folder), "platbase": str(folder)}
        packages = Path(sysconfig.get_path("purelib", "venv", variables))
        # A .pth file in a folder that a .pth file names is not read: an editable install stays behind.
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        assert self._cannot_import("mitmproxy_acme")
        assert self._cannot_import("acme_storage")

    def install(self, *arguments: str | Path) -> None:
        """Run pip, offline."""
        pip = ("-m", "pip", "--python", self.python, "install", "--no-index", "--no-deps", "--no-build-isolation")
        _run(sys.executable, *pip, *arguments)

    def script(self) -> Path:
        """What `mitmproxy-acme script` prints."""
        return Path(_run(self.folder / "bin" / "mitmproxy-acme", "script").strip())

    def _cannot_import(self, module: str) -> bool:
        return subprocess.run([self.python, "-P", "-c", f"import {module}"], capture_output=True).returncode != 0


def _run(*words: str | Path) -> str:
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class InstalledMitmdump(Mitmdump):
    """mitmdump of an environment of its own, with a script from there."""

    python: Path
    script: Path

    def program(self) -> Program:
        return Program(str(self.python), {})

    def arguments(self) -> list[str]:
        words = [str(self.script) if word == str(SCRIPT) else word for word in super().arguments()]
        return ["-P", "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()", *words]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


@pytest.fixture
def serves(
    environment: Environment, pebble: Pebble, upstream: Upstream, root: str, fresh_name: FreshName, tmp_path: Path
) -> Callable[[Path], bool]:
    """Say whether mitmdump of the environment serves a new name when it is given this script."""

    def serves_with(script: Path) -> bool:
        options = default_options(pebble, tmp_path / "store")
        server, name = InstalledMitmdump(upstream.url, options, http_port=pebble.http_port), fresh_name()
        server.python, server.script = environment.python, script
        with server:
            return handshake(server.https_port, name, root).names == [name]

    return serves_with


def test_checkout_that_nobody_installed_serves(serves: Callable[[Path], bool], tmp_path: Path) -> None:
    """`mitmdump -s addons/acme_addon.py` works from a copy of the sources."""
    assert serves(copy_checkout(tmp_path) / "addons" / "acme_addon.py")


def test_editable_install_serves(environment: Environment, serves: Callable[[Path], bool], tmp_path: Path) -> None:
    """After `pip install -e` the command line prints the script of the checkout, which serves."""
    checkout = copy_checkout(tmp_path)
    environment.install("--editable", checkout)

    assert environment.script() == checkout / "addons" / "acme_addon.py"
    assert serves(environment.script())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_checkout(tmp_path_factory.mktemp("checkout"))
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", folder)
    (built,) = (folder / "dist").iterdir()
    return built


def test_wheel_serves(environment: Environment, serves: Callable[[Path], bool], wheel: Path) -> None:
    """`mitmdump -s "$(mitmproxy-acme script)"` works where the wheel is installed and no checkout is near."""
    environment.install(wheel)

    assert environment.script().is_relative_to(environment.folder)
    assert serves(environment.script())


def test_wheel_has_the_sources_and_nothing_else(wheel: Path) -> None:
    """The wheel holds the script, the two packages with their py.typed and the page, and its own description."""
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    described = {file for file in files if re.match(r"mitmproxy_acme-[\d.]+\.dist-info/", file)}
    sources = {
        str(path.relative_to(PROJECT / root))
        for root in SOURCES
        for path in (PROJECT / root).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
        if path.suffix == ".py" or path.name == "py.typed" or "page" in path.parent.parts
    }

    assert files - described == sources
    assert {file.split("/")[0] for file in files - described} == {"acme_addon.py", "mitmproxy_acme", "acme_storage"}
    assert {"mitmproxy_acme/py.typed", "acme_storage/py.typed", "mitmproxy_acme/admin/api/page/index.html"} <= files


def test_addons_folder_holds_the_script_and_its_package_only() -> None:
    """Nothing else lies beside what `mitmdump -s` loads, for it would be importable by everybody."""
    found = {path.name for path in (PROJECT / "addons").iterdir()} - {"__pycache__"}

    assert found == {"acme_addon.py", "mitmproxy_acme"}


# Options


def test_config_yaml_is_read(
    pebble: Pebble, upstream: Upstream, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """All options can stand in mitmproxy's config.yaml."""
    name, options = fresh_name(), default_options(pebble, tmp_path / "store")
    with closing(Forked(upstream.url, {}, http_port=pebble.http_port)) as running:
        confdir = running.folder / "confdir"
        confdir.mkdir()
        # JSON is YAML
        (confdir / "config.yaml").write_text(json.dumps(options | {"acme_key_type": ["ecdsa-p384"]}))
        running.start()

        served = handshake(running.https_port, name, root)

    assert served.names == [name]
    assert getattr(served.leaf.public_key(), "key_size", 0) == 384


def test_misspelt_options_are_reported(proxy: StartProxy) -> None:
    """mitmproxy ignores an unknown option; the addon says so, and which one may be meant."""
    running = proxy(acme_domain=["a.example.test"], acme_emial="me@example.com", acme_xyzzy=1)

    log = running.log.read_text()

    assert re.search(r"acme_domain .*acme_domains", log)
    assert re.search(r"acme_emial .*acme_email", log)
    assert re.search(r"acme_xyzzy ", log)


WRONG: dict[str, Option] = {
    "acme_domains": ["https://a.example.test/"],
    "acme_certificates": ["*.example.test"],
    "acme_ask": "localhost:8000",
    "acme_on_demand": "sometimes",
    "acme_handshake_wait": 0,
    "acme_ca": ["nosuchca"],
    "acme_ca_bundle": "/nowhere/ca.pem",
    "acme_email": "me",
    "acme_tos_accepted": False,
    "acme_account_key": "file:/nowhere/key.pem",
    "acme_eab_kid": "without its key",
    "acme_challenges": ["tls-sni-01"],
    "acme_key_type": ["dsa-1024"],
    "acme_renew_before": "soon",
    "acme_fail_backoff": "1m,often",
    "acme_storage": "gopher://host",
    "acme_tls_profile": "old",
    "acme_cache_size": "many",
    "acme_allow_any_domain": "perhaps",
}


@pytest.mark.parametrize("option", WRONG)
def test_wrong_value_stops_the_start(pebble: Pebble, upstream: Upstream, tmp_path: Path, option: str) -> None:
    """One sentence names the option, the program ends with 1, and there is no traceback."""
    options = default_options(pebble, tmp_path / "store") | {option: WRONG[option]}
    with closing(Forked(upstream.url, options)) as wrong:
        said = wrong.fail_to_start().splitlines()
        assert wrong.exit_code == 1
        assert len([line for line in said if option in line]) == 1, said
        assert not any("Traceback" in line for line in said), said


def test_clients_that_come_during_the_start_get_our_certificate(
    pebble: Pebble, upstream: Upstream, fresh_name: FreshName, tmp_path: Path
) -> None:
    """A client is refused while nothing listens; from then on it is never given mitmproxy's certificate for ours."""
    name, options = fresh_name(), default_options(pebble, tmp_path / "store")
    with Forked(upstream.url, options, http_port=pebble.http_port) as before:
        assert not is_mitmproxys(before.https_port, name)
    running = Mitmdump(upstream.url, options, http_port=pebble.http_port)
    over, wrong = threading.Event(), []

    def visit() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                wrong.append(is_mitmproxys(running.https_port, name))
            time.sleep(0.002)  # else three threads keep a core busy while nothing listens

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    try:
        running.start()
    finally:
        over.set()
        for visitor in visitors:
            visitor.join()
        running.close()
    assert wrong
    assert not any(wrong)


# Changes while it runs


def test_hot_reload_keeps_serving(
    pebble: Pebble, upstream: Upstream, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """When the script's file is touched mitmproxy loads it anew, and meanwhile no handshake and no order is lost."""
    name, script = fresh_name(), copy_checkout(tmp_path) / "addons" / "acme_addon.py"
    server = InstalledMitmdump(upstream.url, default_options(pebble, tmp_path / "store"), http_port=pebble.http_port)
    server.python, server.script = Path(sys.executable), script
    with server:
        first = handshake(server.https_port, name, root)
        before = pebble.seen()
        loads = server.log.read_text().count("Loading script")

        os.utime(script, (time.time() + 10,) * 2)
        served, deadline = [], time.monotonic() + 20
        while server.log.read_text().count("Loading script") == loads and time.monotonic() < deadline:
            served.append(handshake(server.https_port, name, root))
        served += [handshake(server.https_port, name, root) for _ in range(10)]

        assert server.log.read_text().count("Loading script") == loads + 1
        assert {s.leaf.serial_number for s in served} == {first.leaf.serial_number}
        assert (pebble.seen() - before).orders == 0
        assert handshake(server.https_port, new := fresh_name(), root).names == [new]
        assert "Addon error" not in server.log.read_text()


@pytest.fixture
def web(pebble: Pebble, upstream: Upstream, tmp_path: Path) -> Iterator[ForkedWeb]:
    options = default_options(pebble, tmp_path / "store")
    with ForkedWeb(upstream.url, options, http_port=pebble.http_port) as server:
        yield server


def test_changed_options_take_effect(web: ForkedWeb, pebble: Pebble, root: str, fresh_name: FreshName) -> None:
    """In a running proxy new names, another TLS profile, TLS options and key types hold from the next handshake on."""
    name, new, other = fresh_name(), fresh_name(), "www.elsewhere.test"
    only_1_2 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
    first = handshake(web.https_port, name, root)
    assert alert_for(web.https_port, other) == UNRECOGNIZED_NAME
    before = pebble.seen()

    assert web.change(acme_tls_profile="modern") == (200, "")
    with pytest.raises(SSL.Error):
        negotiate(web.https_port, name, versions=only_1_2)
    assert web.change(acme_tls_profile="intermediate", http2=False) == (200, "")
    agreed = negotiate(web.https_port, name, root=root, versions=only_1_2, alpn=[b"h2", b"http/1.1"])
    assert agreed.alpn == b"http/1.1"
    assert agreed.leaf == first.leaf
    assert (pebble.seen() - before).orders == 0

    assert web.change(acme_domains=["**.example.test", other], acme_key_type=["ecdsa-p384"]) == (200, "")
    assert handshake(web.https_port, other, root).names == [other]
    assert getattr(handshake(web.https_port, new, root).leaf.public_key(), "key_size", 0) == 384
    assert handshake(web.https_port, name, root).leaf == first.leaf

    assert web.change(acme_domains=[new]) == (200, "")
    assert alert_for(web.https_port, name) == UNRECOGNIZED_NAME
    assert handshake(web.https_port, new, root).names == [new]


def test_wrong_change_is_refused_and_changes_nothing(web: ForkedWeb, root: str, fresh_name: FreshName) -> None:
    """A wrong value is answered with the sentence of the start, and what ran goes on."""
    name = fresh_name()

    status, said = web.change(acme_renew_before="soon")

    assert status == 400
    assert "acme_renew_before" in said
    assert handshake(web.https_port, name, root).names == [name]


def test_managed_names_that_are_added_are_obtained(web: ForkedWeb, pebble: Pebble, fresh_name: FreshName) -> None:
    """A name added to acme_certificates in a running proxy is ordered without waiting for a client."""
    name, before = fresh_name(), pebble.seen()

    assert web.change(acme_certificates=[name]) == (200, "")

    deadline = time.monotonic() + 15
    while (pebble.seen() - before).certificates == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (pebble.seen() - before).certificates == 1


# The end


@pytest.mark.parametrize("ca_is_silent", [False, True], ids=["while it validates", "while the CA is silent"])
def test_sigterm_during_an_order_ends_at_once_and_breaks_nothing(
    dns: ChallTestSrv, upstream: Upstream, fresh_name: FreshName, tmp_path: Path, ca_is_silent: bool
) -> None:
    """A proxy that is told to end in the middle of an order ends within seconds; the next start serves the name."""
    name = fresh_name()
    with (
        Validation() as validation,
        Pebble(dns, http_port=validation.port) as ca,
        Forked(upstream.url, default_options(ca, tmp_path / "store")) as running,
    ):
        client = threading.Thread(target=_visit, args=(running.https_port, name))
        client.start()
        path = validation.paths.get(timeout=20)
        if ca_is_silent:
            ca.pause()
            time.sleep(0.3)  # the next poll is under way

        begun = time.monotonic()
        running.stop(timeout=10)
        took = time.monotonic() - begun
        client.join()
        ca.resume()
        assert took < 5

        validation.answer(b"")
        running.http_port = validation.port
        validation.close()
        running.start()
        assert path
        assert handshake(running.https_port, name, ca.root()).names == [name]
        assert not re.search(r"cannot be (read|used)|corrupt|Traceback", running.log.read_text())


def _visit(port: int, name: str) -> None:
    try:
        untrusted(port, name)
    except OSError:
        return


def test_known_names_are_served_until_the_process_ends(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """While it waits for a webhook that does not answer. Never by a certificate that no client trusts."""
    name = fresh_name()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = "http://{}:{}/".format(*silent.getsockname())
        running = proxy(acme_webhook=webhook, acme_fallback="reject")
        handshake(running.https_port, name, root)
        ending = threading.Thread(target=running.stop)
        ending.start()

        eventually(lambda: alert_for(running.https_port, fresh_name()) == HANDSHAKE_FAILURE)
        assert handshake(running.https_port, name, root).names == [name]
        assert ending.is_alive()
        ending.join()
    assert "Traceback" not in running.log.read_text()
