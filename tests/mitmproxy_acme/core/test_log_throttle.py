"""One log line for many equal events."""

import pytest

from mitmproxy_acme.core.log_throttle import LogThrottle
from tests.mitmproxy_acme.fakes import Clock


@pytest.mark.parametrize(("given", "interval"), [({}, 60.0), ({"interval": 5.0}, 5.0)])
def test_line_is_due_at_once_and_then_once_in_each_interval(
    clock: Clock, given: dict[str, float], interval: float
) -> None:
    """It says how many events it stands for, none of them twice."""
    throttle = LogThrottle(clock, **given)
    assert [throttle.count_event() for _ in range(3)] == [1, 0, 0]
    clock.advance(interval - 0.1)
    assert throttle.count_event() == 0
    clock.advance(0.1)
    assert [throttle.count_event() for _ in range(2)] == [4, 0]
    clock.advance(10 * interval)
    assert throttle.count_event() == 2
