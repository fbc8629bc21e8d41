"""The lines of ``watch``, and which events it prints: each once, whatever comes again."""

import argparse
from typing import Any

import pytest

from mitmproxy_acme.admin.documents import logged_event
from mitmproxy_acme.cli.commands import watch
from mitmproxy_acme.store.event_log import EventKind, LoggedEvent
from mitmproxy_acme.store.keys import EventId
from tests.mitmproxy_acme.fakes import EPOCH

type Event = dict[str, Any]


def event(number: int, kind: EventKind = EventKind.RENEWED, **fields: Any) -> Event:
    id = EventId(int(EPOCH * 1000) + number, number, "3f9a1c20")
    return logged_event(LoggedEvent(id, kind, f"n{number}.example.test", **fields))


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (
            event(0, machine="edge-1", ca="letsencrypt", seconds=2.3),
            "2027-01-15T08:00:00Z  renewed   n0.example.test: by letsencrypt in 2.30 s (node 3f9a1c20 on edge-1)",
        ),
        (
            event(1, EventKind.FAILED, ca="letsencrypt", seconds=11, reason="no address", retry_at=EPOCH, left_out=3),
            "2027-01-15T08:00:00Z  failed    n1.example.test: no address, by letsencrypt in 11.00 s, next attempt at "
            "2027-01-15T08:00:00Z (node 3f9a1c20); 3 earlier events of this node are not listed",
        ),
        (
            event(2, EventKind.REMOVED, reason="expired long ago", more=41),
            "2027-01-15T08:00:00Z  removed   n2.example.test and 41 more: expired long ago (node 3f9a1c20)",
        ),
    ],
)
def test_event_is_one_line(shown: Event, line: str) -> None:
    """When, what, which, why and where."""
    assert watch.line(shown) == line


@pytest.mark.parametrize(("last", "begun"), [(0, []), (2, [2, 3]), (100, [1, 2, 3])])
def test_each_event_is_printed_once(last: int, begun: list[int]) -> None:
    """The last few of what was, then what comes, the oldest first; not again what a restarted node brings back."""
    histories = [[event(number) for number in numbers] for numbers in ((3, 2, 1), (5, 4, 3), (5, 4, 3, 2, 1), (6, 5))]
    printed = [shown["host"] for shown in watch._new_ones(iter(histories), last)]
    assert printed == [f"n{number}.example.test" for number in (*begun, 4, 5, 6)]


@pytest.mark.parametrize("text", ["-1", "101", "x", "1.5", "", "٣"])
def test_wrong_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 0 to 100"):
        watch._last(text)
