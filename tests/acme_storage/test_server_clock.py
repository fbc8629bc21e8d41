"""The clock of a server counts where ours is wrong, as its replies tell it."""

from email.utils import formatdate

import pytest
import requests

from acme_storage.server_clock import ServerClock

_DAY = 86_400.0


class Clocks:
    """Ours, and that of a server, in seconds; both go on together."""

    def __init__(self, ours: float) -> None:
        self.server, self.ours, self.passed = 1_800_000_000.0, ours, 0.0
        self.session = requests.Session()
        self.clock = ServerClock(self.session, lambda: self.ours + self.passed, lambda: self.passed)

    def hear(self, date: str | None = None) -> None:
        """Let a reply arrive."""
        reply = requests.Response()
        reply.headers["Date"] = formatdate(self.server + self.passed, usegmt=True) if date is None else date
        for hook in self.session.hooks["response"]:
            hook(reply)


@pytest.mark.parametrize("wrong_by", [-365 * _DAY, -_DAY, -31.0, 31.0, _DAY, 365 * _DAY])
def test_server_counts_where_our_clock_is_wrong(wrong_by: float) -> None:
    """Also for what follows the reply, however our clock is set then."""
    clocks = Clocks(1_800_000_000.0 + wrong_by)
    assert clocks.clock() == clocks.ours  # nothing was heard
    clocks.hear()
    assert clocks.clock() == clocks.server
    clocks.passed = 5.5
    assert clocks.clock() == clocks.server + 5.5
    clocks.ours += _DAY
    assert clocks.clock() == clocks.server + 5.5


@pytest.mark.parametrize("wrong_by", [-30.0, -3.25, 0.0, 0.75, 30.0])
def test_small_difference_changes_nothing(wrong_by: float) -> None:
    """Date has whole seconds, and a reply takes time."""
    clocks = Clocks(1_800_000_000.0 + wrong_by)
    clocks.hear()
    assert clocks.clock() == clocks.ours


def test_clock_that_is_set_right_counts_again() -> None:
    clocks = Clocks(1_800_000_000.0 + _DAY)
    clocks.hear()
    clocks.ours -= _DAY - 0.5
    clocks.hear()
    assert clocks.clock() == clocks.ours


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 15 Jan 99999999 08:00:00 GMT", "0"])
def test_reply_without_a_time_leaves_our_own(date: str) -> None:
    """A web server between us and the store may send anything, or nothing."""
    clocks = Clocks(1_700_000_000.0)
    clocks.hear(date)
    assert clocks.clock() == clocks.ours
