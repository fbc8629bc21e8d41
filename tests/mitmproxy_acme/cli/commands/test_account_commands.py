"""``rotate-account-key`` and ``deactivate-account`` in this process, at a real CA."""

import io
import json

import pytest

from mitmproxy_acme.cli import terminal
from tests.mitmproxy_acme.cli.commands.conftest import Run
from tests.servers.pebble import Pebble


def test_key_is_changed_and_the_account_ends(at_ca: Run, pebble: Pebble) -> None:
    """Each key is changed by the one before: the CA and the storage have the same one. Then there is no account."""
    assert at_ca("issue", "a.example.test")[0] == 0
    assert at_ca("rotate-account-key")[:2] == (
        0,
        "the account has a new key; the proxies use it from their next order on\n",
    )
    code, out, _ = at_ca("rotate-account-key", "--json")
    assert (code, json.loads(out)) == (0, {"account_key": "changed"})

    code, out, _ = at_ca("deactivate-account", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"account": "deactivated"})
    code, _, err = at_ca("rotate-account-key")
    assert (code, "there is no account at" in err) == (1, True)


def test_account_that_is_not_confirmed_stays(at_ca: Run, pebble: Pebble, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at_ca("issue", "b.example.test")[0] == 0
    before = pebble.seen()
    code, _, err = at_ca("deactivate-account")
    assert (code, "add --yes to confirm without a terminal" in err) == (2, True)

    monkeypatch.setattr(terminal, "is_asked_here", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = at_ca("deactivate-account")
    assert code == 1
    assert f"Deactivate the account at {pebble.directory}? The next order creates another. [y/N] " in err
    assert "nothing was changed" in err
    assert (pebble.seen() - before).requests == 0

    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert at_ca("deactivate-account")[:2] == (
        0,
        "the account is deactivated; restart the proxies to create another\n",
    )


def test_ca_that_is_not_in_the_options_is_refused(at_ca: Run, pebble: Pebble) -> None:
    code, _, err = at_ca("rotate-account-key", "--ca", "https://other.test/dir")
    assert code == 2
    assert f"--ca: 'https://other.test/dir' is not in acme_ca; write one of {pebble.directory}" in err
