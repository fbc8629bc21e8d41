"""The rules: what is never allowed, and what a fault excuses.

Knows what happened; must not know how. Docs: docs/explanation/soak.md.

1. Nothing expired is served, unless the node's clock is wrong; and nothing foreign, ever.
2. A node that has served a certificate serves it until its end, whatever fails, while the node itself is up with a
   right clock. (With several workers each has a memory of its own, so this rule is for the other two nodes.)
3. Where a valid certificate is stored, a node that does not have it in memory may refuse the name only while the store
   is struck, or shortly after.
4. Where there is none, it may be refused while anything is struck that an order needs, or shortly after.
5. A download that runs while its certificate is renewed comes whole, unless its node is killed or restarted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.soak.faults import CLOCK_KINDS, RUN_WITH_WORKERS, Fault
from tests.soak.issued import Issue, Issued
from tests.soak.journal import EXPIRED, FOREIGN, Failure, Journal, Stream

# Seconds after a fault for which it still excuses what it struck itself: a node that starts or wakes.
_SOON = 3.0
# The same for a wrong clock, which a node reads once a second, and by which it has dropped what it held.
_CLOCK_AFTER = 15.0
# After a fault of the store, for a name that is stored: a refusal is repeated from memory for ten seconds.
_STORE_AFTER = 13.0
# After a fault of anything that an order needs, for a name without a certificate: a lease of ten seconds may be left,
# a backoff of the CA of eleven (acme_fail_backoff is 1s, 2s, 5s here), and then it is ordered.
_ORDER_AFTER = 25.0
# Seconds: an order, and the wait for its lease.
_ORDER_TAKES = 15.0
# A certificate begins in the whole second before it was issued: a fault may begin in that second, and be its cause.
_WHOLE_SECOND = 1.0
# A certificate that ends so soon may not be served any more by the time that it is looked at.
_NEARLY_ENDED = 1.5


@dataclass(frozen=True)
class Between:
    """Some time, in Unix seconds."""

    begun: float
    ended: float


class Rules:
    """The rules, for one run that is over."""

    def __init__(self, journal: Journal, issued: Issued) -> None:
        self._journal, self._issued = journal, issued

    def excuse(self, failure: Failure) -> str:
        """Return what excuses a failed handshake; empty if nothing does."""
        node = failure.node
        if failure.outcome == FOREIGN:
            return ""
        if found := self._struck(failure, _CLOCK_AFTER, lambda fault: _is_wrong_clock(fault, node)):
            return found
        if failure.outcome == EXPIRED:
            ended = self._issued.ended_between(failure.name, failure.begun, failure.ended)
            return "it ended during the handshake" if ended else ""
        if found := self._struck(failure, _SOON, lambda fault: fault.node == node):
            return found
        if self._has_in_memory(failure):
            return ""
        if found := self._struck(failure, _STORE_AFTER, lambda fault: fault.kind.strikes == "store"):
            return found
        if self._is_stored(failure):
            return ""
        return self._struck(failure, _ORDER_AFTER, lambda fault: True)

    def excuse_early(self, before: Issue, after: Issue) -> str:
        """Return what excuses that a name was ordered again while its certificate was fresh: it was not known.

        The node that ordered it was struck before it was stored, or the store lost it; or the clock of one was wrong.
        """
        time = Between(before.not_before - _ORDER_TAKES, after.not_before + _WHOLE_SECOND)
        return self._struck(time, 0.0, lambda fault: True)

    def excuse_stream(self, stream: Stream) -> str:
        """Return what excuses a download that broke."""
        ends = ("killed", "restarted")
        return self._struck(stream, 0.5, lambda fault: fault.node == stream.node and fault.kind.name in ends)

    def _has_in_memory(self, failure: Failure) -> bool:
        held = failure.held
        if held is None or failure.node == RUN_WITH_WORKERS or failure.ended > held.not_after - _NEARLY_ENDED:
            return False
        return self._journal.is_of_life(failure.node, held.at, failure.ended)

    def _is_stored(self, failure: Failure) -> bool:
        """Say whether a valid certificate was there: issued, and not lost on its way, for a node had served it."""
        valid = self._issued.valid(failure.name, failure.begun, failure.ended)
        return any(self._journal.was_served(failure.name, issue.not_after, failure.begun) for issue in valid)

    def _struck(self, what: Failure | Stream | Between, grace: float, can_excuse: Callable[[Fault], bool]) -> str:
        """Return a fault that was going on, or over for less than ``grace`` seconds, when something happened."""
        for struck in self._journal.struck:
            if struck.begun <= what.ended and what.begun <= struck.ended + grace and can_excuse(struck.fault):
                return str(struck.fault)
        return ""


def _is_wrong_clock(fault: Fault, node: int) -> bool:
    return fault.node == node and fault.kind in CLOCK_KINDS
