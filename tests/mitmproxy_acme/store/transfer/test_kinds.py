"""Each kind of record is decided: it moves to another storage, or the table says why it does not."""

import ast
import re
from pathlib import Path

from mitmproxy_acme.store import keys
from mitmproxy_acme.store.transfer.kinds import KINDS, MOVING, kind_of

_PREFIX = re.compile(r"[a-z-]+/")


def _prefixes_in_keys() -> set[str]:
    """The beginnings of all keys that ``keys.py`` spells."""
    tree = ast.parse(Path(keys.__file__).read_text())
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {match[0] for text in texts if (match := _PREFIX.match(text))}


def test_every_prefix_is_decided() -> None:
    """A new prefix in keys.py needs a decision in store/transfer/kinds.py: does it move, and why?"""
    assert _prefixes_in_keys() == {kind.prefix for kind in KINDS}


def test_every_decision_has_a_reason() -> None:
    assert all(kind.why and kind.prefix.endswith("/") for kind in KINDS)
    assert len({kind.prefix for kind in KINDS}) == len(KINDS)


def test_the_schedule_is_copied_before_the_certificates() -> None:
    """So that no kill in between leaves a certificate that no node renews."""
    order = [kind.name for kind in MOVING]
    assert order.index("calendar") < order.index("certificates")


def test_what_lives_seconds_does_not_move() -> None:
    left = {"leases", "nodes", "changes", "challenges", "probes", "requests", "refusals"}
    assert left <= {kind.name for kind in KINDS if not kind.moves}


def test_everything_else_moves() -> None:
    """In the order of the table."""
    moving = "accounts compromised budgets backoffs calendar expired renewal-info usage certificates"
    assert [kind.name for kind in MOVING] == moving.split()


def test_kind_is_found_by_key() -> None:
    kind = kind_of("certificates/a.test")
    assert kind is not None
    assert kind.name == "certificates"
    assert kind_of("elsewhere/a.test") is None
