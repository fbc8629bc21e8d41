"""A command in this process, on a storage of the test's own."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acme_storage import open_storage
from mitmproxy_acme.cli.main import main
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED, make_certificate
from tests.servers.binaries import need
from tests.servers.pebble import Pebble

type Run = Callable[..., tuple[int, str, str]]
type Put = Callable[..., Certificate]

OPTIONS = ("acme_domains=**.example.test", "acme_tos_accepted=true")


@pytest.fixture
def run(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command with the words; return the exit code, the output and the errors."""

    def run_command(*words: str, settings: tuple[str, ...] = OPTIONS) -> tuple[int, str, str]:
        options = [word for setting in settings for word in ("--set", setting)]
        code = main([*words, "--confdir", str(tmp_path), *options])
        said = capsysbinary.readouterr()
        return code, said.out.decode(), said.err.decode()

    return run_command


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Store a certificate for the names, that began so many seconds ago; ``mark`` is its kind's."""

    def put_certificate(*names: str, ago: float = 0.0, mark: str = "", **more: Any) -> Certificate:
        made = make_certificate(names, now=float(int(time.time() - ago)), **more)
        certificate = replace(made, id=ServerName(made.id + mark))
        store = Store(open_storage("file:", default_folder=tmp_path), UNSEALED)
        assert store.replace(store.slot(certificate.id), certificate)
        return certificate

    return put_certificate


@pytest.fixture(scope="module")
def pebble() -> Iterator[Pebble]:
    need("pebble")
    with Pebble(always_valid=True) as server:
        yield server


@pytest.fixture
def at_ca(run: Run, pebble: Pebble) -> Run:
    """Run a command with the options of the CA."""
    options = (*OPTIONS, f"acme_ca={pebble.directory}", f"acme_ca_bundle={pebble.ca_bundle}")
    return lambda *words: run(*words, settings=options)
