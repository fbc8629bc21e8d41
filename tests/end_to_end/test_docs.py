"""The commands of the documentation, run as an operator would: in a shell, with a ``config.yaml`` in ``~/.mitmproxy``.

A block that is marked ``console`` has commands behind ``$``. Each must succeed. What differs between the operator's
world and this one (addresses, ports, the CA) is put in its place; nothing else is changed.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.client import eventually, handshake
from tests.servers import forked
from tests.servers.base import free_port, is_open
from tests.servers.binaries import need
from tests.servers.forked import Forked
from tests.servers.mitmdump import SCRIPT
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

_ROOT = Path(__file__).resolve().parents[2]
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAMS = Path(sys.executable).parent  # mitmproxy-acme and python3, as an operator has them on PATH
# What the pages leave out: an error page is a failure, and the environment's proxy is not asked.
_CURLRC = 'silent\nshow-error\nfail-with-body\nnoproxy = "*"\nmax-time = 60\n'

type Operator = Callable[[str], "Home"]


class Home(Forked):
    """A proxy whose only options are in the ``config.yaml`` of a home, and a shell there."""

    def __init__(self, settings: str, ca: Pebble, dns: ChallTestSrv, upstream: Upstream) -> None:
        super().__init__(upstream.url, {}, http_port=ca.http_port)
        confdir = self.folder / ".mitmproxy"
        confdir.mkdir()
        self.options["confdir"] = str(confdir)
        (confdir / "config.yaml").write_text(self._at_home(settings, ca))
        (self.folder / ".curlrc").write_text(_CURLRC)
        self._check = f"--dns {dns.address} --http-port {self.http_port} --https-port {self.https_port}".split()

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

    def arguments(self) -> list[str]:
        return ["--set", f"confdir={self.options['confdir']}"]

    def run(self, command: str) -> str:
        """Run one command; return what it prints. It must succeed."""
        words = shlex.split(command)
        environment = {"HOME": str(self.folder), "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
        if words[0] == "mitmproxy-acme":
            here = self._check if words[1] == "check" else []
            with contextlib.chdir(self.folder):
                done = forked.run([_PROGRAMS / words[0], *words[1:], *here], environment=environment, timeout=120)
        else:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, env=os.environ | environment, capture_output=True, text=True
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
    """Return the configuration of the first deployment."""
    found = _YAML.search((_ROOT / "docs/how-to/deploy.md").read_text())
    assert found
    return found[1]


def test_tutorials(operator: Operator) -> None:
    home = operator(settings())
    pages = ("tutorial/first-certificate.md", "tutorial/cluster.md")
    outputs = {command: home.run(command) for page in pages for command in commands(page)}
    assert re.fullmatch(r"((pass|warn) +\S.*\n)+", home.run("mitmproxy-acme check"))
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
    eventually(lambda: is_open(port))
    outputs = [home.run(command.replace(":8008", f":{port}")) for command in commands("reference/admin-api.md")]
    assert len(outputs) == 9
    assert "is created" in outputs[0]
