"""The bounded mapping whose entries expire."""

import pytest

from mitmproxy_acme.core.expiring_cache import ExpiringCache
from tests.mitmproxy_acme.fakes import Clock


@pytest.fixture
def cache(clock: Clock) -> ExpiringCache[str, str]:
    return ExpiringCache(2, 100.0, clock)


def test_value_is_there_for_its_time(cache: ExpiringCache[str, str], clock: Clock) -> None:
    """And not at its end; a longer time is that of the cache at most, as far as it is read."""
    cache.put("a", "value", 100.0)
    assert cache.get("a") == "value"
    clock.advance(99.9)
    assert cache.get("a") == "value"
    clock.advance(0.1)
    assert cache.get("a") is None
    assert len(cache) == 0


def test_value_from_before_the_clock_was_set_back_is_none(cache: ExpiringCache[str, str], clock: Clock) -> None:
    """It would last for as long as the clock was ahead."""
    cache.put("a", "value", 100.0)
    clock.advance(-0.1)
    assert cache.get("a") is None
    clock.advance(0.1)
    assert cache.get("a") == "value"


def test_least_recently_used_goes_first(cache: ExpiringCache[str, str]) -> None:
    """To read one is a use of it; a forgotten one makes room."""
    for key in "ab":
        cache.put(key, key, 50.0)
    assert cache.get("a") == "a"
    cache.put("c", "c", 50.0)
    assert [cache.get(key) for key in "abc"] == ["a", None, "c"]
    cache.forget("a")
    cache.forget("never there")
    cache.put("b", "b", 50.0)
    assert [cache.get(key) for key in "abc"] == [None, "b", "c"]
    assert len(cache) == 2


def test_later_value_replaces_the_earlier_with_its_time(cache: ExpiringCache[str, str], clock: Clock) -> None:
    cache.put("a", "long", 90.0)
    cache.put("a", "short", 10.0)
    assert cache.get("a") == "short"
    clock.advance(10.0)
    assert cache.get("a") is None
