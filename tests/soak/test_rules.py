"""The rules of the soak on made-up runs: each finds what breaks it, and a fault excuses what it may and no more."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from tests.soak.faults import CA_KINDS, CLOCK_KINDS, NODE_KINDS, STORE_KINDS, Fault, Kind, draw_faults
from tests.soak.issued import Issue, Issued
from tests.soak.journal import EXPIRED, FOREIGN, REFUSED, SILENT, Failure, Held, Journal, Stream
from tests.soak.rules import Rules

_NOW = 1_000_000.0
_NAME = "a.soak.test"
_ALL = (*NODE_KINDS, *CLOCK_KINDS, *STORE_KINDS, *CA_KINDS)
_KILLED, _CLOCK, _STORE, _CA = NODE_KINDS[0], CLOCK_KINDS[0], STORE_KINDS[0], CA_KINDS[0]


def rules_after(*faults: tuple[Kind, int | None, float, float], issues: tuple[Issue, ...] = ()) -> Rules:
    """Return the rules of a run with these faults: kind, node, and from when until when, in seconds from ``_NOW``."""
    journal = Journal()
    for kind, node, begun, ended in faults:
        struck = journal.strike(Fault(kind, 0.0, ended - begun, node), _NOW + begun)
        struck.ended = _NOW + ended
    issued: Any = SimpleNamespace(by_name={_NAME: list(issues)})
    issued.valid = lambda *asked: Issued.valid(issued, *asked)
    for issue in issues:
        journal._first[issue.name, issue.not_after] = issue.not_before + 1
    issued.ended_between = lambda *asked: Issued.ended_between(issued, *asked)
    return Rules(journal, issued)


def failure(outcome: str, node: int = 0, held: Held | None = None) -> Failure:
    return Failure(node, _NAME, _NOW, _NOW + 0.1, outcome, "", held)


@pytest.mark.parametrize("outcome", [EXPIRED, FOREIGN, REFUSED, SILENT])
def test_nothing_is_excused_without_a_fault(outcome: str) -> None:
    assert not rules_after().excuse(failure(outcome))


@pytest.mark.parametrize("kind", _ALL)
def test_foreign_certificate_has_no_excuse(kind: Kind) -> None:
    assert not rules_after((kind, 0, -5, 5)).excuse(failure(FOREIGN))


@pytest.mark.parametrize("kind", _ALL)
def test_expired_certificate_is_excused_by_a_wrong_clock_of_its_node_only(kind: Kind) -> None:
    expired = failure(EXPIRED, node=2)
    assert bool(rules_after((kind, 2, -5, 5)).excuse(expired)) == (kind in CLOCK_KINDS)
    assert not rules_after((kind, 1, -5, 5)).excuse(expired)


def test_certificate_that_ends_during_a_handshake_is_not_held_against_anybody() -> None:
    ended, ends = Issue(_NAME, _NOW - 60, _NOW - 2), Issue(_NAME, _NOW - 60, _NOW)
    assert not rules_after(issues=(ended,)).excuse(failure(EXPIRED))
    assert rules_after(issues=(ends,)).excuse(failure(EXPIRED))


@pytest.mark.parametrize("kind", [_STORE, _CA])
def test_what_is_in_memory_must_be_served_whatever_fails(kind: Kind) -> None:
    """Unless the node has lost its memory, or is the one with several."""
    valid, ended = Held(_NOW - 10, _NOW + 30), Held(_NOW - 10, _NOW - 1)
    rules = rules_after((kind, None, -5, 5))
    assert not rules.excuse(failure(REFUSED, held=valid))
    assert rules.excuse(failure(REFUSED, held=ended))
    assert rules.excuse(failure(REFUSED, node=1, held=valid))
    rules._journal.begin_life(0, _NOW - 5)
    assert rules.excuse(failure(REFUSED, held=valid))


def test_what_is_stored_may_be_refused_only_while_the_store_is_struck() -> None:
    stored = Issue(_NAME, _NOW - 20, _NOW + 40)
    assert rules_after((_STORE, None, -5, 5), issues=(stored,)).excuse(failure(REFUSED))
    assert rules_after((_STORE, None, -20, -10), issues=(stored,)).excuse(failure(REFUSED))
    assert not rules_after((_STORE, None, -60, -50), issues=(stored,)).excuse(failure(REFUSED))
    assert not rules_after((_CA, None, -5, 5), issues=(stored,)).excuse(failure(REFUSED))
    assert not rules_after((_KILLED, 1, -5, 5), issues=(stored,)).excuse(failure(REFUSED))


def test_what_was_lost_on_the_way_from_the_ca_is_not_stored() -> None:
    """It is issued, and no node has ever served it: the CA became unreachable before the node had it."""
    rules = rules_after((_CA, None, -5, 5), issues=(Issue(_NAME, _NOW - 3, _NOW + 57),))
    rules._journal._first.clear()
    assert rules.excuse(failure(REFUSED))


def test_fault_of_a_node_excuses_that_node_while_it_is_down() -> None:
    stored = Issue(_NAME, _NOW - 20, _NOW + 40)
    assert rules_after((_KILLED, 0, -5, 5), issues=(stored,)).excuse(failure(REFUSED))
    assert not rules_after((_KILLED, 0, -20, -10), issues=(stored,)).excuse(failure(REFUSED))
    assert not rules_after((_KILLED, 0, 5, 10), issues=(stored,)).excuse(failure(REFUSED))


def test_name_without_a_certificate_waits_for_what_an_order_needs() -> None:
    assert rules_after((_CA, None, -30, -20)).excuse(failure(REFUSED))
    assert not rules_after((_CA, None, -60, -50)).excuse(failure(REFUSED))


def test_download_may_break_only_with_its_node() -> None:
    broken = Stream(0, _NOW - 10, _NOW, "half of it came")
    assert rules_after((_KILLED, 0, -1, 5)).excuse_stream(broken)
    for kind, node in ((_KILLED, 1), (_STORE, None), (_CA, None), (NODE_KINDS[1], 0)):
        assert not rules_after((kind, node, -5, 5)).excuse_stream(broken)


def test_order_for_a_fresh_certificate_needs_an_excuse() -> None:
    first, second = Issue(_NAME, _NOW - 10, _NOW + 50), Issue(_NAME, _NOW, _NOW + 60)
    assert not rules_after().excuse_early(first, second)
    assert rules_after((_STORE, None, -12, -8)).excuse_early(first, second)
    assert not rules_after((_STORE, None, -60, -40)).excuse_early(first, second)


def test_fault_in_the_second_in_which_a_certificate_begins_excuses_it() -> None:
    """Its time is a whole second, which began before it was issued."""
    first, second = Issue(_NAME, _NOW - 10, _NOW + 50), Issue(_NAME, _NOW, _NOW + 60)
    assert rules_after((_CLOCK, 2, 0.9, 5)).excuse_early(first, second)
    assert not rules_after((_CLOCK, 2, 1.1, 5)).excuse_early(first, second)


@pytest.mark.parametrize("seed", range(20))
def test_faults_are_drawn_from_the_seed(seed: int) -> None:
    """No target is struck twice at once, and the end is quiet."""
    faults = draw_faults(seed, 120, _ALL)
    assert faults == draw_faults(seed, 120, _ALL)
    assert faults != draw_faults(seed + 1, 120, _ALL)
    assert max(fault.end for fault in faults) <= 110
    for target in {fault.target for fault in faults}:
        own = [fault for fault in faults if fault.target == target]
        assert all(one.end <= other.at for one, other in pairwise(own))
