"""How mitmproxy hears of our options, and what becomes of values that were set before it did."""

from collections.abc import Sequence
from typing import Any

import pytest
from mitmproxy.optmanager import OptManager, _UnconvertedStrings
from mitmproxy.test import taddons

from mitmproxy_acme.config import options
from mitmproxy_acme.mitm.addon import AcmeAddon


class Listening:
    """An addon that notes of which options it hears."""

    def __init__(self) -> None:
        self.heard: list[set[str]] = []

    def configure(self, updated: set[str]) -> None:
        self.heard.append(updated)


def loaded_into(given: dict[str, Any], *others: Any) -> OptManager:
    """Load the addon behind the others, where these values were set for options that were not known yet."""
    with taddons.context(*others) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        tctx.options.deferred.update(given)
        tctx.master.addons.add(AcmeAddon())
        manager: OptManager = tctx.options
        return manager


def test_other_addons_hear_once_of_all_options() -> None:
    """mitmproxy would say each to each addon: that was half of the CPU of a start."""
    other = Listening()
    loaded_into({}, other)
    assert [updated for updated in other.heard if updated & options.NAMES] == [options.NAMES]


def test_values_that_were_set_before_are_read() -> None:
    """As from the command line, which has texts, and from config.yaml, which has types; another addon's are left."""
    given = {"acme_domains": _UnconvertedStrings(["a.test", "b.test"]), "acme_handshake_wait": 7, "theirs": "x"}
    manager = loaded_into(given)
    assert (manager.acme_domains, manager.acme_handshake_wait) == (["a.test", "b.test"], 7)
    assert manager.deferred == {"theirs": "x"}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("acme_handshake_wait", _UnconvertedStrings(["soon"]), "write one whole number"),
        ("acme_tos_accepted", _UnconvertedStrings(["perhaps"]), "write true or false"),
        ("acme_email", ["secret"], "the value is a list; write one text"),
        ("acme_domains", "secret", "the value is a str; write a list of texts"),
    ],
)
def test_wrong_value_costs_no_other(
    caplog: pytest.LogCaptureFixture, name: str, value: Sequence[str], problem: str
) -> None:
    """One line names the option and what to write, but never a value that may be a secret; the others are read."""
    manager = loaded_into({"acme_certificates": ["a.test"], name: value, "acme_allow_any_domain": True, "theirs": "x"})
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(f"{name}: ")
    assert record.getMessage().endswith(problem)
    assert "secret" not in record.getMessage()
    assert manager.acme_certificates == ["a.test"]
    assert manager.acme_allow_any_domain is True
    assert getattr(manager, name) == manager.default(name)
    assert manager.deferred == {"theirs": "x"}
