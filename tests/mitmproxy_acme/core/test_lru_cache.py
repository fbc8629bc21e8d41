"""The bounded mapping: what goes first."""

import pytest

from mitmproxy_acme.core.lru_cache import LruCache


def test_least_recently_used_goes_first() -> None:
    """To read a value is a use of it, as to write it is; to list all of them is none."""
    cache: LruCache[str, int] = LruCache(3)
    for number, key in enumerate("abc"):
        cache.put(key, number)
    assert cache.get("a") == 0
    assert cache.values() == [1, 2, 0]
    cache.put("b", 9)
    cache.put("d", 3)
    assert cache.items() == [("a", 0), ("b", 9), ("d", 3)]
    assert cache.get("c") is None
    assert len(cache) == 3


@pytest.mark.parametrize("size", [0, 1, 5])
def test_no_more_than_its_size_is_kept(size: int) -> None:
    cache: LruCache[int, str] = LruCache(size)
    for number in range(10):
        cache.put(number, "x")
    assert [number for number, _ in cache.items()] == list(range(10))[10 - size :]
    cache.clear()
    assert (len(cache), cache.items()) == (0, [])


def test_what_is_forgotten_or_missing_is_none() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.forget("a")
    cache.forget("a")
    assert (cache.get("a"), len(cache)) == (None, 0)
