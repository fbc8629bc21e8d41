"""What ``serve`` finds before it starts: in the storage, at its ports, and in the options."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acme_storage import open_storage
from mitmproxy_acme.cli import serve_preflight
from mitmproxy_acme.cli.serve_preflight import StoredState, ports_are_available, report
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.diagnostics.finding import Finding, passed, warn
from mitmproxy_acme.diagnostics.listen_check import ListenPort
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED, make_certificate
from tests.servers.base import free_port

_CA = "https://one.test/dir"
_OTHER = "https://two.test/dir"


def state(confdir: Path, **options: Any) -> StoredState:
    """Return what is found for one site, at a CA with an account and one without."""
    defaults = {"acme_ca": (_CA,), "acme_certificates": ("a.test",), "acme_tos_accepted": True}
    return StoredState.read(Config.from_options(defaults | options), confdir)


def new_cas(found: StoredState) -> list[str]:
    return [entry.ca for entry in found.new_cas]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A storage with an account at the first CA."""
    store = Store(open_storage("file:", default_folder=tmp_path), UNSEALED)
    store.save_account(Account(_CA, "thumb", "https://one.test/acct/1", '{"d": "secret"}', "", "", "", ""))
    return store


@pytest.mark.parametrize(("days_left", "is_complete"), [(80, True), (-1, False)])
def test_start_orders_nothing_if_all_is_stored_and_valid(
    store: Store, tmp_path: Path, days_left: int, is_complete: bool
) -> None:
    began = float(int(time.time() - (90 - days_left) * DAY))
    assert not state(tmp_path).complete
    slot = store.slot(ServerName("a.test"))
    assert store.replace(slot, make_certificate(["a.test"], now=began, lifetime=90 * DAY))

    found = state(tmp_path)
    assert (new_cas(found), found.complete) == ([], is_complete)
    found = state(tmp_path, acme_ca=(_CA, _OTHER))
    assert (new_cas(found), found.complete) == ([_OTHER], False)


def test_all_is_new_where_nothing_can_be_read(store: Store, tmp_path: Path) -> None:
    """In memory, in a storage that fails, and in one with a record that cannot be read."""
    (tmp_path / "letter").write_text("to my mother")
    for storage in ("memory:", f"file:{tmp_path}/letter"):
        found = state(tmp_path, acme_storage=storage)
        assert (new_cas(found), found.complete) == ([_CA], False), storage


def test_data_node_asks_no_ca(store: Store, tmp_path: Path) -> None:
    assert new_cas(state(tmp_path, acme_role="data", acme_ca=(_OTHER,))) == []


def test_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    free = ListenPort("127.0.0.1", free_port(), "--http-port")
    assert ports_are_available([free])
    assert capsys.readouterr().err == ""

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not ports_are_available([free, ListenPort("127.0.0.1", taken.getsockname()[1], "--https-port")])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fail  ")
    assert "--https-port" in line


def test_report_says_what_is_wrong_and_does_not_wait_for_the_slowest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaves = threading.Event()

    def inspect(*_: object) -> Iterator[Finding]:
        yield passed("all is well")
        yield warn("a.test is 10.0.0.1")
        leaves.wait(30)

    monkeypatch.setattr(serve_preflight, "inspect", inspect)
    monkeypatch.setattr(serve_preflight, "_WITHIN", 0.1)

    report({}, tmp_path)
    leaves.set()

    assert capsys.readouterr().err.splitlines() == [
        "warn  a.test is 10.0.0.1",
        "warn  the rest of the check takes too long here; mitmproxy-acme check does all of it",
    ]


def test_report_ends_with_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if the check itself fails."""

    def inspect(*_: object) -> Iterator[Finding]:
        yield warn("a.test is 10.0.0.1")

    monkeypatch.setattr(serve_preflight, "inspect", inspect)
    report({}, tmp_path)
    assert capsys.readouterr().err == "warn  a.test is 10.0.0.1\n"
