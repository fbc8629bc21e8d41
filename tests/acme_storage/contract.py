"""The contract of every adapter: ``acme_storage.protocol`` as tests. One class, for any store.

An adapter's test file has ``class TestX(StorageContract)`` with a fixture ``storage``, and a fixture ``clock`` if its
store has its own clock. This module knows no adapter.
"""

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Protocol

import pytest

from acme_storage import Storage
from tests.acme_storage.values import is_whole, uniform


class Clock(Protocol):
    """A clock that a test advances."""

    def advance(self, seconds: float) -> None:
        """Let the store believe that these seconds passed."""
        ...


class ManualClock:
    """A clock for stores that take ``now``."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


def together[T](work: Callable[[int], T], times: int) -> list[T]:
    """Run ``work(0)``, ``work(1)``, … in as many threads, all let go at once, and return what they return."""
    start = Barrier(times)

    def run(number: int) -> T:
        start.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(run, range(times)))


BAD_KEYS = [
    "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "a b", "a\n", "a\\b", "é", "a%b", "a\0", "x" * 513,
    "a?", "a#b", "a,b",
]  # fmt: skip
GOOD_KEYS = [
    "a", "A/b", "certificates/*.example.com", "a/.b", "a/...", "..a/b..", "~", "a=v", "=v", "=", ":", "@/+", "x" * 512,
    "*" * 512, "/".join("x" * 256) + "y", "x" * 84, "x" * 84 + "/y", "x" * 83 + "/y", ".locks/00", "-",
]  # fmt: skip
# In the order of their code points, which is not the order of a walk through folders.
SORTED_KEYS = ["a", "a*", "a-b", "a-b/c", "a.b", "a/b", "a/b-c/d", "a/b/c", "a/b0", "a0", "aB", "a~", "b", "b/c"]


class StorageContract:
    """The tests; a subclass gives the fixture ``storage``: an empty store that runs on ``clock``."""

    @pytest.fixture
    def clock(self) -> Clock:
        return ManualClock()

    @pytest.fixture
    def storage(self, clock: Clock) -> Iterable[Storage]:
        raise NotImplementedError("the test class of an adapter gives its store")

    # Values

    def test_absent(self, storage: Storage) -> None:
        """An absent key has the value None, and is not listed."""
        assert storage.get("a/b") is None
        assert storage.keys("") == []
        assert storage.keys("a/") == []

    def test_put(self, storage: Storage) -> None:
        """A stored value can be read, and the last put wins."""
        storage.put("a/b", b"one")
        assert storage.get("a/b") == b"one"
        storage.put("a/b", b"two")
        assert storage.get("a/b") == b"two"

    @pytest.mark.parametrize(
        "value",
        [b"", b"\0", b"\0" * 1000, bytes(range(256)), b"\xff\xfe", b"\r\n", "é".encode(), b"x" * 65536],
        ids=["empty", "zero", "zeros", "all bytes", "no UTF-8", "line ends", "UTF-8", "64 KiB"],
    )
    def test_any_bytes(self, storage: Storage, value: bytes) -> None:
        """Any bytes up to 64 KiB come back as they were put, by put and by swap."""
        storage.put("put", value)
        assert storage.get("put") == value
        assert storage.swap("swap", None, value)
        assert storage.get("swap") == value
        assert storage.swap("swap", value, b"next")

    def test_empty_is_not_absent(self, storage: Storage) -> None:
        """An empty value is a value: it has a key, and is not None to a swap."""
        storage.put("a", b"")
        assert storage.keys("") == ["a"]
        assert not storage.swap("a", None, b"x")
        assert storage.swap("a", b"", b"x")

    def test_too_long(self, storage: Storage) -> None:
        """A value over 64 KiB is refused, unseen in the message, and nothing is written."""
        with pytest.raises(ValueError, match="too long") as caught:
            storage.put("a", b"secret" * 11_000)
        assert "secret" not in str(caught.value)
        with pytest.raises(ValueError, match="too long"):
            storage.swap("a", None, b"x" * 65_537)
        assert storage.get("a") is None

    def test_delete(self, storage: Storage) -> None:
        """A deleted value is gone with its key, and to delete again does nothing."""
        storage.put("a/b", b"x")
        storage.put("a/c", b"y")
        storage.delete("a/b")
        storage.delete("a/b")
        storage.delete("never/was")
        assert storage.get("a/b") is None
        assert storage.keys("") == ["a/c"]

    # Swap

    def test_swap_creates(self, storage: Storage) -> None:
        """A swap from None writes where nothing is, and only there."""
        assert storage.swap("a", None, b"one")
        assert not storage.swap("a", None, b"two")
        assert storage.get("a") == b"one"

    def test_swap_replaces(self, storage: Storage) -> None:
        """A swap replaces exactly the old value."""
        assert not storage.swap("a", b"one", b"two")
        assert storage.get("a") is None
        storage.put("a", b"one")
        assert not storage.swap("a", b"on", b"two")
        assert not storage.swap("a", b"one ", b"two")
        assert storage.swap("a", b"one", b"two")
        assert storage.get("a") == b"two"

    def test_swap_deletes(self, storage: Storage) -> None:
        """A swap to None deletes exactly the old value: how a lease is released."""
        storage.put("a", b"mine")
        assert not storage.swap("a", b"yours", None)
        assert storage.get("a") == b"mine"
        assert storage.swap("a", b"mine", None)
        assert storage.get("a") is None
        assert storage.keys("") == []

    def test_swap_nothing(self, storage: Storage) -> None:
        """A swap from None to None says whether nothing is there."""
        assert storage.swap("a", None, None)
        storage.put("a", b"x")
        assert not storage.swap("a", None, None)
        assert storage.get("a") == b"x"

    # Keys as arguments

    @pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
    def test_bad_key(self, storage: Storage, key: str) -> None:
        """Every method refuses an invalid key."""
        calls: list[Callable[[], Any]] = [
            lambda: storage.get(key),
            lambda: storage.put(key, b"x"),
            lambda: storage.swap(key, None, b"x"),
            lambda: storage.delete(key),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="not a storage key"):
                call()

    def test_good_keys(self, storage: Storage) -> None:
        """Every key of the contract takes a value of its own, and is listed as it was spelt."""
        for number, key in enumerate(GOOD_KEYS):
            storage.put(key, b"%d" % number)
        assert [storage.get(key) for key in GOOD_KEYS] == [b"%d" % number for number in range(len(GOOD_KEYS))]
        assert storage.keys("") == sorted(GOOD_KEYS)
        for key in GOOD_KEYS:
            storage.delete(key)
        assert storage.keys("") == []

    def test_key_under_key(self, storage: Storage) -> None:
        """``a`` and ``a/b`` both hold values, and neither's end is the other's."""
        storage.put("a", b"1")
        storage.put("a/b", b"2")
        storage.delete("a")
        assert storage.get("a/b") == b"2"
        storage.put("a", b"3")
        storage.delete("a/b")
        assert storage.get("a") == b"3"

    @pytest.mark.parametrize("prefix", ["a", "/", "a//", "../", "a/./", "é/", "x" * 513 + "/"])
    def test_bad_prefix(self, storage: Storage, prefix: str) -> None:
        """A prefix is empty, or a key and a slash."""
        with pytest.raises(ValueError, match="not a key prefix"):
            storage.keys(prefix)

    # Listing

    def test_sorted(self, storage: Storage) -> None:
        """Keys are sorted by code point, whatever the order in which they were put."""
        for key in random.Random(1).sample(SORTED_KEYS, len(SORTED_KEYS)):
            storage.put(key, b"x")
        assert sorted(SORTED_KEYS) == SORTED_KEYS
        assert storage.keys("") == SORTED_KEYS

    def test_prefix(self, storage: Storage) -> None:
        """A prefix is parts, not letters: ``a/`` holds neither ``a`` nor ``a-b/c``."""
        for key in SORTED_KEYS:
            storage.put(key, b"x")
        for prefix in ["a/", "a-b/", "a/b/", "b/", "c/"]:
            assert storage.keys(prefix) == [key for key in SORTED_KEYS if key.startswith(prefix)]

    @pytest.mark.parametrize("prefix", ["", "a/", "a/b/"])
    def test_after(self, storage: Storage, prefix: str) -> None:
        """``after`` itself is left out; it need not exist, and may sort before or behind the whole prefix."""
        for key in SORTED_KEYS:
            storage.put(key, b"x")
        for after in [*SORTED_KEYS, "", "A", "a/", "a/b-", "a/b-c/", "a/b/c/d", "a/b/b", "zzz"]:
            expected = [key for key in SORTED_KEYS if key.startswith(prefix) and key > after]
            assert storage.keys(prefix, after=after) == expected

    def test_limit(self, storage: Storage) -> None:
        """At most ``limit`` keys come; zero gives none, and fewer than zero is refused."""
        for key in SORTED_KEYS:
            storage.put(key, b"x")
        assert storage.keys("", limit=0) == []
        assert storage.keys("", limit=3) == SORTED_KEYS[:3]
        assert storage.keys("a/", after="a/b", limit=1) == ["a/b-c/d"]
        assert storage.keys("", limit=1000) == SORTED_KEYS
        with pytest.raises(ValueError, match="not a limit"):
            storage.keys("", limit=-1)

    turns = 25
    """How often each of ``test_neighbours`` comes and goes."""
    many = 1_250
    """The keys of ``test_pages``: three pages."""

    def test_pages(self, storage: Storage) -> None:
        """Many keys come complete and sorted in pages, each page going on after the last key of the one before."""
        names = [f"names/{number * 7919 % 10_007}.example.com" for number in range(self.many)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: storage.put(name, b"x", ttl=86_400), names))
        pages = []
        after = ""
        while page := storage.keys("names/", after=after, limit=499):
            pages.append(page)
            after = page[-1]
        full, rest = divmod(self.many, 499)
        assert [len(page) for page in pages] == [499] * full + [rest]
        assert [name for page in pages for name in page] == sorted(names)

    # Time to live

    def test_ttl(self, storage: Storage, clock: Clock) -> None:
        """A value is there until its ttl has passed, and then absent to get, keys and swap."""
        storage.put("a/b", b"x", ttl=10)
        storage.put("a/c", b"y")
        clock.advance(9)
        assert storage.get("a/b") == b"x"
        assert storage.keys("a/") == ["a/b", "a/c"]
        clock.advance(2)
        assert storage.get("a/b") is None
        assert storage.keys("a/") == ["a/c"]
        assert not storage.swap("a/b", b"x", b"z")
        assert storage.swap("a/b", None, b"z")
        assert storage.get("a/b") == b"z"

    def test_expired_in_listing(self, storage: Storage, clock: Clock) -> None:
        """Expired keys do not count towards the size of a page."""
        for number in range(20):
            storage.put(f"a/{number:02}", b"x", ttl=10 if number % 2 else None)
        clock.advance(11)
        assert storage.keys("a/", limit=3) == ["a/00", "a/02", "a/04"]

    def test_expired_delete(self, storage: Storage, clock: Clock) -> None:
        """An expired value is no old value for a swap that deletes, and deleting it does nothing."""
        storage.put("a", b"x", ttl=10)
        clock.advance(11)
        assert not storage.swap("a", b"x", None)
        storage.delete("a")
        assert storage.swap("a", None, None)

    def test_put_replaces_ttl(self, storage: Storage, clock: Clock) -> None:
        """A later write replaces the earlier ttl, also with no ttl."""
        storage.put("stays", b"x", ttl=10)
        storage.put("stays", b"x")
        storage.put("goes", b"x")
        storage.put("goes", b"x", ttl=10)
        storage.put("swapped", b"x", ttl=10)
        assert storage.swap("swapped", b"x", b"y")
        clock.advance(11)
        assert storage.keys("") == ["stays", "swapped"]

    def test_lease(self, storage: Storage, clock: Clock) -> None:
        """A lease is taken by one, extended by its owner, lost when it expires, and not freed by who lost it."""
        assert storage.swap("lease", None, b"me", ttl=10)
        clock.advance(6)
        assert storage.swap("lease", b"me", b"me", ttl=10)
        clock.advance(6)
        assert not storage.swap("lease", None, b"you", ttl=10)
        clock.advance(5)
        assert storage.swap("lease", None, b"you", ttl=10)
        assert not storage.swap("lease", b"me", b"me", ttl=10)
        assert not storage.swap("lease", b"me", None)
        assert storage.get("lease") == b"you"
        assert storage.swap("lease", b"you", None)

    def test_fractional_ttl(self, storage: Storage, clock: Clock) -> None:
        """A ttl may have a fraction."""
        storage.put("a", b"x", ttl=2.5)
        clock.advance(2.25)
        assert storage.get("a") == b"x"
        clock.advance(1)
        assert storage.get("a") is None

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
    def test_bad_ttl(self, storage: Storage, ttl: float) -> None:
        """A ttl is above zero and finite."""
        with pytest.raises(ValueError, match="not a ttl"):
            storage.put("a", b"x", ttl=ttl)
        with pytest.raises(ValueError, match="not a ttl"):
            storage.swap("a", None, b"x", ttl=ttl)
        assert storage.get("a") is None

    # Threads

    def test_one_winner(self, storage: Storage) -> None:
        """Of 32 threads that swap from the same old value, exactly one wins, and its value is stored."""
        old = None
        for turn in range(6):
            values = [b"%d of %d" % (number, turn) for number in range(32)]
            won = together(lambda number: storage.swap("a", old, values[number]), 32)  # noqa: B023 - awaited at once
            assert won.count(True) == 1
            old = values[won.index(True)]
            assert storage.get("a") == old

    def test_one_winner_deletes(self, storage: Storage) -> None:
        """Of 32 threads that delete the same value by swap, exactly one wins."""
        for _ in range(6):
            storage.put("a", b"x")
            assert together(lambda _: storage.swap("a", b"x", None), 32).count(True) == 1

    def test_never_torn(self, storage: Storage) -> None:
        """A reader sees, while others write, one of the values, whole, and never none."""
        storage.put("a", uniform(0))

        def work(number: int) -> bool:
            if number < 4:
                for turn in range(30):
                    storage.put("a", uniform(number * 30 + turn))
                return True
            values = [storage.get("a") for _ in range(75)]
            return all(value is not None and is_whole(value) for value in values)

        assert all(together(work, 8))

    def test_put_beats_swap(self, storage: Storage) -> None:
        """A put that meets a swap is not lost: the swap comes before it, or sees it and fails."""
        for turn in range(30):
            storage.put("a", b"old")

            def work(number: int) -> bool:
                if number:
                    return storage.swap("a", b"old", b"swapped")
                storage.put("a", b"put")
                return True

            together(work, 2)
            assert storage.get("a") == b"put", turn

    def test_neighbours(self, storage: Storage) -> None:
        """Keys that come and go under one prefix don't disturb each other's writers and listers."""

        def work(number: int) -> None:
            for turn in range(self.turns):
                key = f"deep/er/{number}"
                storage.put(key, uniform(turn), ttl=None if turn % 5 == 0 else 60)
                assert storage.get(key) == uniform(turn)
                assert key in storage.keys("deep/")
                storage.delete(key)

        together(work, 6)
        assert storage.keys("") == []

    def test_deleted_at_once(self, storage: Storage) -> None:
        """Several may delete the same value at once."""
        for _ in range(10):
            storage.put("a/b", b"x", ttl=60)
            together(lambda _: storage.delete("a/b"), 8)
            assert storage.keys("") == []

    def test_close(self, storage: Storage) -> None:
        """To close again does nothing."""
        storage.put("a", b"x")
        storage.close()
        storage.close()
