"""Refusals that are repeated from memory, and for how long."""

import pytest

from mitmproxy_acme.errors import ChallengeFailed
from mitmproxy_acme.names import ServerName
from mitmproxy_acme.refusals import Refusals
from tests.mitmproxy_acme.fakes import Clock

NAME = ServerName("a.test")


@pytest.mark.parametrize("step", [10.0, -3_600.0], ids=["seconds later", "the clock set back"])
def test_refusal_is_repeated_for_seconds(clock: Clock, step: float) -> None:
    """And not until an hour has come again, where the clock was set back."""
    refusals = Refusals(clock)
    refusals.remember(NAME, ChallengeFailed("no route"))
    for _ in range(2):
        with pytest.raises(ChallengeFailed, match="no route"):
            refusals.repeat(NAME)
    clock.advance(step)
    refusals.repeat(NAME)
