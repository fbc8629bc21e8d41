"""The bounded mapping: what goes first."""

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
