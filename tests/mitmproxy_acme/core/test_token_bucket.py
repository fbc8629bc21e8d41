"""How often something may happen, and how often at once."""

from mitmproxy_acme.core.token_bucket import TokenBucket
from tests.mitmproxy_acme.fakes import Clock


def takes(bucket: TokenBucket) -> int:
    """Return how many tokens are there, and take them."""
    taken = 0
    while bucket.take():
        taken += 1
    return taken


def test_burst_comes_first_and_the_rate_after_it(clock: Clock) -> None:
    """What is refused takes nothing; a rest fills it up to its burst, and no further."""
    bucket = TokenBucket(3, 2.0, clock)
    assert takes(bucket) == 3
    assert takes(bucket) == 0
    clock.advance(0.25)
    assert takes(bucket) == 0
    clock.advance(0.25)
    assert takes(bucket) == 1
    clock.advance(1.0)
    assert takes(bucket) == 2
    clock.advance(1_000.0)
    assert takes(bucket) == 3
