"""What every adapter to a server must do if the server fails: stopped, killed, frozen, cut off, and back again.

A subclass gives the fixtures ``server``, ``port`` and ``open_at``. This module knows no adapter.
"""

import logging
import time
from collections.abc import Callable, Iterator

import pytest

from acme_storage import Storage, StorageUnavailable
from acme_storage.server_clock import ServerClock
from tests.acme_storage.contract import together
from tests.acme_storage.values import is_whole, uniform
from tests.servers.base import Server
from tests.servers.chaos import Chaos

SECRET = b"-----BEGIN hunter2 PRIVATE KEY-----"
NOTICED = 5.0  # seconds: 2 by design, and what a busy machine adds; without a timeout it would be a minute


class ServerContract:
    """The tests. All use one server, and each may break it and must mend it."""

    password: str  # what must never show

    @pytest.fixture
    def port(self, server: Server) -> int:
        raise NotImplementedError("the test class of an adapter gives its server's port")

    @pytest.fixture
    def open_at(self, server: Server) -> Callable[[int], Storage]:
        """A function from a port to the store at that port, with a password."""
        raise NotImplementedError("the test class of an adapter opens its store")

    @pytest.fixture
    def chaos(self, port: int) -> Iterator[Chaos]:
        with Chaos(port) as proxy:
            yield proxy

    @pytest.fixture
    def storage(self, chaos: Chaos, open_at: Callable[[int], Storage]) -> Iterator[Storage]:
        """The store through the breaking proxy, with connections that are open already."""
        store = open_at(chaos.port)
        store.put("a", b"kept")
        yield store
        chaos.heal()
        store.close()

    @pytest.fixture
    def direct(self, port: int, open_at: Callable[[int], Storage]) -> Iterator[Storage]:
        """The store without the proxy."""
        store = open_at(port)
        store.put("a", b"kept")
        together(lambda _: store.get("a"), 4)
        yield store
        store.close()

    def fails(self, call: Callable[[], object], port: int) -> str:
        """Assert that it raises StorageUnavailable in time, with a sentence that names the store and no secret."""
        started = time.monotonic()
        with pytest.raises(StorageUnavailable) as caught:
            call()
        took = time.monotonic() - started
        text = str(caught.value)
        assert took < NOTICED, text
        assert str(port) in text
        assert self.password not in text
        assert "hunter2" not in text
        return text

    def all_fail(self, store: Storage, port: int) -> None:
        """Assert it of every method at once, as when four threads meet a dead store."""
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.put("b", SECRET),
            lambda: store.swap("c", None, SECRET),
            lambda: store.keys(""),
            lambda: store.delete("z"),
        ]
        together(lambda number: self.fails(calls[number], port), len(calls))

    def test_restart(self, server: Server, direct: Storage) -> None:
        """After a restart the values are there, and the first call of each kind goes through, a swap too."""
        server.restart()
        assert direct.swap("a", b"kept", b"swapped")
        server.restart()
        assert direct.get("a") == b"swapped"
        server.restart()
        direct.put("b", b"x")
        server.restart()
        assert direct.keys("") == ["a", "b"]

    def test_killed(self, server: Server, port: int, direct: Storage) -> None:
        """A killed server is noticed at once; when it is back, nothing is lost and the next call goes through."""
        direct.put("big", uniform(255))
        server.kill()
        try:
            self.all_fail(direct, port)
        finally:
            server.start()
        assert direct.swap("a", b"kept", b"next")
        assert direct.get("big") == uniform(255)

    def test_stopped(self, server: Server, port: int, direct: Storage) -> None:
        """The same for one that was stopped politely."""
        server.stop()
        try:
            self.all_fail(direct, port)
        finally:
            server.start()
        assert direct.get("a") == b"kept"
        assert direct.swap("a", b"kept", b"next")

    def test_paused(self, server: Server, port: int, direct: Storage) -> None:
        """A frozen server costs two seconds, on an open connection and on a new one; thawed, it serves at once."""
        server.pause()
        try:
            self.all_fail(direct, port)
        finally:
            server.resume()
        assert direct.get("a") == b"kept"

    def test_black_hole(self, chaos: Chaos, storage: Storage) -> None:
        """The same for a network that swallows everything; no late reply is taken for the answer to another call."""
        storage.put("b", b"other")
        chaos.blackhole()
        self.all_fail(storage, chaos.port)
        chaos.heal()
        assert storage.get("a") == b"kept"
        assert storage.get("b") in (b"other", SECRET)
        assert [key for key in storage.keys("") if key != "c"] == ["a", "b"]

    def test_refused(self, chaos: Chaos, storage: Storage) -> None:
        """A port without a listener is noticed at once; calls work again when there is one."""
        chaos.refuse()
        self.all_fail(storage, chaos.port)
        chaos.heal()
        assert storage.get("a") == b"kept"

    def test_reset_while_idle(self, chaos: Chaos, storage: Storage) -> None:
        """After idle connections were reset, no call fails, whichever comes first."""
        reset(chaos)
        assert storage.swap("a", b"kept", b"next")
        reset(chaos)
        assert storage.get("a") == b"next"
        reset(chaos)
        storage.put("b", b"x")
        reset(chaos)
        storage.delete("b")
        reset(chaos)
        assert storage.keys("") == ["a"]

    @pytest.mark.parametrize("count", [1, 100, 5_000, 20_000, 60_000])
    def test_cut_in_a_write(
        self, chaos: Chaos, storage: Storage, open_at: Callable[[int], Storage], port: int, count: int
    ) -> None:
        """A connection cut in the middle of a write leaves the old value or the new one, never a mixture."""
        chaos.cut_after(count)
        long = b"x" * 65_536
        self.fails(lambda: storage.put("a", long), chaos.port)
        self.fails(lambda: storage.swap("b", None, long), chaos.port)
        chaos.heal()
        assert storage.get("a") in (b"kept", long)
        assert storage.get("b") in (None, long)
        storage.put("a", b"after")
        direct = open_at(port)
        assert direct.get("a") == b"after"
        direct.close()

    def test_reset_under_swaps(self, chaos: Chaos, storage: Storage) -> None:
        """A counter raised by swaps over a network that resets is never behind what was acknowledged.

        A swap that raises may have been made or not; one that returns is certain.
        """
        storage.put("count", b"0")
        sure = unsure = 0
        for turn in range(60):
            old = storage.get("count") or b""
            if turn % 3 == 0:
                chaos.cut_after(chaos_point(turn))
                chaos.reset()
            try:
                sure += storage.swap("count", old, b"%d" % (int(old) + 1))
            except StorageUnavailable:
                unsure += 1
            chaos.heal()
        total = int(storage.get("count") or b"0")
        assert sure <= total <= sure + unsure

    def test_slow(self, chaos: Chaos, storage: Storage) -> None:
        """A slow network is no failure."""
        chaos.delay(0.1)
        assert storage.get("a") == b"kept"
        assert storage.swap("a", b"kept", b"next")

    def test_junk(self, chaos: Chaos, open_at: Callable[[int], Storage]) -> None:
        """Something else that answers on the port is unavailable, in a sentence."""
        chaos.answer_junk()
        store = open_at(chaos.port)
        self.fails(lambda: store.get("a"), chaos.port)
        store.close()

    def test_no_secret_in_logs(self, chaos: Chaos, storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
        """Neither a value nor the password is in any log at DEBUG, when all goes well and when it doesn't."""
        with caplog.at_level(logging.DEBUG):
            storage.put("a", SECRET)
            assert storage.swap("a", SECRET, SECRET + b"2")
            assert storage.get("a") == SECRET + b"2"
            chaos.refuse()
            self.fails(lambda: storage.swap("a", SECRET, SECRET), chaos.port)
        assert "hunter2" not in caplog.text
        assert self.password not in caplog.text
        assert self.password not in repr(storage)

    def test_is_whole(self, storage: Storage, chaos: Chaos) -> None:
        """Values read while connections are reset are whole."""
        storage.put("a", uniform(0))

        def work(number: int) -> bool:
            good = True
            for turn in range(15):
                try:
                    if number == 0:
                        chaos.reset()
                    elif number == 1:
                        storage.put("a", uniform(turn))
                    else:
                        good = good and is_whole(storage.get("a") or b"")
                except StorageUnavailable:
                    continue
            return good

        assert all(together(work, 4))


def until_available[T](call: Callable[[], T]) -> T:
    """Return what it returns, once it raises no more; within 5 s."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return call()
        except StorageUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def reset(chaos: Chaos) -> None:
    """Reset all connections, and wait until that has happened."""
    chaos.reset()
    while chaos._snapshot():
        time.sleep(0.002)


def chaos_point(turn: int) -> int:
    """Return after how many bytes to cut, different each time: in the login, in the request, in the reply."""
    return 20 + turn * 37


def require_clock_of_the_server(opened: Storage, open_with: Callable[[Callable[[], float]], Storage]) -> None:
    """A node whose clock is a day ahead takes no lease for a day, and no fresh value for expired.

    ``opened`` is a store as a URL opens it, and ``open_with`` opens the same one with a clock.
    """
    clock = opened._now  # type: ignore[attr-defined]
    assert isinstance(clock, ServerClock)
    clock._now = lambda: time.time() + 86_400
    right, later = open_with(time.time), open_with(lambda: time.time() + 60)
    right.put("a", b"x", ttl=10)
    assert opened.get("a") == b"x"
    assert opened.keys("") == ["a"]
    assert opened.swap("lease", None, b"x", ttl=10)
    assert right.get("lease") == b"x"
    assert later.get("lease") is None
    for store in (opened, right, later):
        store.close()
