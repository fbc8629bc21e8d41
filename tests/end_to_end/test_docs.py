"""The commands of the documentation, run as an operator would: in a shell, with a ``config.yaml`` in ``~/.mitmproxy``.

A block that is marked ``console`` has commands behind ``$``. Each must succeed. What differs between the operator's
world and this one (addresses, ports, the CA) is put in its place; nothing else is changed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.client import handshake
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.forked import Forked
from tests.servers.mitmdump import SCRIPT
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

_ROOT = Path(__file__).resolve().parents[2]
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The programs as an operator has them on PATH; check and curl are told where this world's servers are.
_PROGRAMS = {
    "mitmproxy-acme": '[ "$1" != check ] || set -- "$@" {check}\n'
    'exec "{python}" -c "import sys; from mitmproxy_acme.cli.main import main; sys.exit(main())" "$@"',
    "curl": 'exec "{curl}" -q -sS --noproxy "*" --fail-with-body --max-time 60 "$@"',
    "python3": 'exec "{python}" "$@"',
}

type Operator = Callable[[str], "Home"]


class Home(Forked):
    """A proxy whose only options are in the ``config.yaml`` of a home, and a shell there."""

    def __init__(self, settings: str, ca: Pebble, dns: ChallTestSrv, upstream: Upstream) -> None:
        super().__init__(upstream.url, {}, http_port=ca.http_port)
        self._bin = self.folder / "bin"
        self._confdir = self.folder / ".mitmproxy"
        self._confdir.mkdir()
        (self._confdir / "config.yaml").write_text(self._at_home(settings, ca))
        self._make_programs(f"--dns {dns.address} --http-port {self.http_port} --https-port {self.https_port}")

    def _at_home(self, settings: str, ca: Pebble) -> str:
        places = {
            "http://127.0.0.1:8000@443": f"{self.upstream}@127.0.0.1:{self.https_port}",
            "http://127.0.0.1:8000@80": f"{self.upstream}@127.0.0.1:{self.http_port}",
            "/opt/mitmproxy-acme/addons/acme_addon.py": str(SCRIPT),
            "letsencrypt-staging": ca.directory,
        }
        for old, new in places.items():
            assert old in settings
            settings = settings.replace(old, new)
        return f"{settings}acme_ca_bundle: {ca.ca_bundle}\n"

    def _make_programs(self, check: str) -> None:
        self._bin.mkdir()
        curl = subprocess.run(
            ["sh", "-c", "command -v curl"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name, text in _PROGRAMS.items():
            program = self._bin / name
            program.write_text("#!/bin/sh\n" + text.format(check=check, python=sys.executable, curl=curl) + "\n")
            program.chmod(0o755)

    def arguments(self) -> list[str]:
        return ["--set", f"confdir={self._confdir}"]

    def run(self, command: str) -> str:
        """Run one command; return what it prints. It must succeed."""
        environment: Mapping[str, str] = {
            **os.environ,
            "HOME": str(self.folder),
            "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(str(_ROOT / folder) for folder in ("addons", "storage")),
        }
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self.tail()}"
        return done.stdout


@pytest.fixture(scope="module")
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    need("pebble")
    with Pebble(dns) as server:
        yield server


@pytest.fixture
def operator(ca: Pebble, dns: ChallTestSrv, upstream: Upstream) -> Iterator[Operator]:
    """Start a proxy with these settings, and visit www.example.com."""
    with ExitStack() as stack:

        def start(settings: str) -> Home:
            home = stack.enter_context(Home(settings, ca, dns, upstream))
            handshake(home.https_port, "www.example.com", ca.root())
            return home

        yield start


def commands(page: str) -> list[str]:
    """Return the commands of a page; those of the checkout are left out, for ``.ci/run`` runs them."""
    text = (_ROOT / "docs" / page).read_text()
    lines = [line for block in _CONSOLE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ") and not line.startswith("$ scripts/")]


def settings() -> str:
    """Return the configuration of the first tutorial."""
    found = _YAML.search((_ROOT / "docs/tutorial/first-certificate.md").read_text())
    assert found
    return found[1]


def test_tutorials(operator: Operator) -> None:
    home = operator(settings())
    pages = ("tutorial/first-certificate.md", "tutorial/cluster.md")
    outputs = {command: home.run(command) for page in pages for command in commands(page)}
    assert re.fullmatch(r"((pass|warn) +\S.*\n)+", outputs["mitmproxy-acme check"])
    assert "www.example.com" in outputs["mitmproxy-acme list"]
    assert "www.example.com" in outputs["mitmproxy-acme show www.example.com"]


def test_command_line(operator: Operator) -> None:
    home = operator(settings().replace("  - www.example.com\n", '  - "*.example.com"\n'))
    (home.folder / "names.txt").write_text("c.example.com\nd.example.com  # and its reason\n")
    outputs = {command: home.run(command) for command in commands("reference/cli.md")}
    assert len(outputs) > 15
    assert outputs["mitmproxy-acme script"].strip() == str(SCRIPT)
    assert "BEGIN PRIVATE KEY" in (home.folder / "haproxy.pem").read_text()
    assert "PRIVATE KEY" not in outputs["mitmproxy-acme export www.example.com"]


def test_admin_api(operator: Operator) -> None:
    port = free_port()
    home = operator(f"{settings()}acme_admin_listen: 127.0.0.1:{port}\n")
    outputs = [home.run(command.replace(":8008", f":{port}")) for command in commands("reference/admin-api.md")]
    assert len(outputs) == 8
    assert "is created" in outputs[0]
