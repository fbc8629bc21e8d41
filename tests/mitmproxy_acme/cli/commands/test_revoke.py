"""``revoke`` in this process, at a real CA: what is asked, what is said, and the exit codes."""

import io
import json
from pathlib import Path

import pytest

from acme_storage import open_storage
from mitmproxy_acme.cli import terminal
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.cli.commands.conftest import Run
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.pebble import Pebble


def serial(confdir: Path, name: str) -> int | None:
    """Return the serial number of the stored certificate."""
    certificate = Store(open_storage("file:", default_folder=confdir), UNSEALED).slot(ServerName(name)).certificate
    return certificate.leaf.serial_number if certificate is not None else None


def test_revoked_certificate_is_gone(at_ca: Run, pebble: Pebble, tmp_path: Path) -> None:
    """And the CA knows the reason."""
    assert at_ca("issue", "a.example.test")[0] == 0
    revoked = serial(tmp_path, "a.example.test")
    assert revoked is not None

    code, out, err = at_ca("revoke", "a.example.test", "--yes", "--reason", "superseded")

    assert (code, out) == (0, "revoked a.example.test: superseded\n")
    assert "Another is ordered when a client asks for the name." in err
    assert pebble.cert_status(revoked)["Status"] == "Revoked"
    assert serial(tmp_path, "a.example.test") is None


def test_stolen_key_is_replaced_first(at_ca: Run, tmp_path: Path) -> None:
    assert at_ca("issue", "b.example.test")[0] == 0
    stolen = serial(tmp_path, "b.example.test")

    code, out, _ = at_ca("revoke", "b.example.test", "--yes", "--reason", "keyCompromise", "--json")

    document = json.loads(out)
    assert (code, document["host"], document["reason"]) == (0, "b.example.test", "keyCompromise")
    assert serial(tmp_path, "b.example.test") not in (None, stolen)


@pytest.mark.parametrize("answer", ["n", ""])
def test_revocation_that_is_not_confirmed_changes_nothing(
    at_ca: Run, pebble: Pebble, tmp_path: Path, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question names the certificate, the reason, and what follows; without a terminal it cannot be asked."""
    assert at_ca("issue", "c.example.test")[0] == 0
    kept = serial(tmp_path, "c.example.test")
    code, _, err = at_ca("revoke", "c.example.test")
    assert (code, "add --yes to confirm without a terminal" in err) == (2, True)
    monkeypatch.setattr(terminal, "is_asked_here", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))

    code, _, err = at_ca("revoke", "c.example.test", "--reason", "keyCompromise")

    assert code == 1
    assert "Revoke the certificate of c.example.test, issued by Pebble Intermediate CA" in err
    assert "Reason: keyCompromise. A certificate with a new key is ordered first. [y/N]" in err
    assert "nothing was changed" in err
    assert kept is not None
    assert serial(tmp_path, "c.example.test") == kept
    assert pebble.cert_status(kept)["Status"] == "Valid"
