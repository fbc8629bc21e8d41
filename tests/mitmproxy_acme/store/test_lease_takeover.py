"""The lease of a killed process of this machine is free at once, and no other is."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from acme_storage import Storage, open_storage
from acme_storage.memory import Memory
from mitmproxy_acme.core.process_identity import ProcessIdentity
from mitmproxy_acme.store.lease import LEASE_TTL, Lease
from tests.mitmproxy_acme.fakes import Clock

NAME = "a.test"
KEY = f"leases/{NAME}"
_HOLD = """
import sys
from pathlib import Path
from acme_storage import open_storage
from mitmproxy_acme.store.lease import Lease
lease = Lease.acquire(open_storage(sys.argv[1], default_folder=Path("/none")), sys.argv[2], "child")
print(lease is not None, flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is known of processes")


@contextmanager
def holder(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, url, NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file:{tmp_path}/store"


@pytest.fixture
def files(url: str) -> Storage:
    return open_storage(url, default_folder=Path("/none"))


def test_lease_of_a_killed_process_is_free_at_once(url: str, files: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """By SIGKILL, which lets it free nothing; one process gets it, and then holds it as any other lease."""
    caplog.set_level("INFO")
    with holder(url) as process:
        assert Lease.acquire(files, NAME, "this") is None
        process.kill()
        process.wait()

    lease = Lease.acquire(files, NAME, "this")

    assert lease is not None
    assert Lease.acquire(files, NAME, "this") is None
    assert lease.extend()
    lease.release()
    assert files.get(KEY) is None
    assert caplog.text.count("is taken over from a process of this machine that was killed") == 1


def test_many_processes_want_the_lease_of_a_dead_one(clock: Clock, memory: Memory) -> None:
    """One gets it: the others find that its value has changed."""
    leave_to_the_dead(memory)
    got = Lease.acquire(memory, NAME, "one")
    assert got is not None
    assert Lease.acquire(memory, NAME, "two") is None
    assert memory.get(KEY) == got.owner


def test_owner_that_comes_between_keeps_it(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes over between the look at the dead owner and our write."""
    leave_to_the_dead(memory)
    read = memory.get

    def get(key: str) -> bytes | None:
        value = read(key)
        memory.put(key, b"other owner", ttl=LEASE_TTL)
        return value

    monkeypatch.setattr(memory, "get", get)
    assert Lease.acquire(memory, NAME, "this") is None
    assert read(KEY) == b"other owner"


def test_lease_that_is_freed_between_is_taken_at_the_next_try(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.put(KEY, b"other owner", ttl=LEASE_TTL)
    monkeypatch.setattr(memory, "get", lambda key: None)
    assert Lease.acquire(memory, NAME, "this") is None


@pytest.mark.parametrize(
    "owner", [b"node 0123456789abcdef", b"", b"\xff\xfe", b"a b c", b"node token " + b"0" * 300, b"node token -"]
)
def test_owners_that_say_no_process_hold_it_as_before(memory: Memory, clock: Clock, owner: bytes) -> None:
    """Those of earlier releases, of other systems, and junk."""
    memory.put(KEY, owner, ttl=LEASE_TTL)
    assert Lease.acquire(memory, NAME, "this") is None
    clock.advance(LEASE_TTL)
    assert Lease.acquire(memory, NAME, "this") is not None


def test_process_of_another_machine_holds_it_as_before(memory: Memory, clock: Clock) -> None:
    own = ProcessIdentity.of_this_process()
    assert own is not None
    elsewhere = replace(own, boot="0" * 8 + own.boot[8:], start=own.start - 1)
    memory.put(KEY, f"node token {elsewhere}".encode(), ttl=LEASE_TTL)
    assert Lease.acquire(memory, NAME, "this") is None
    clock.advance(LEASE_TTL)
    assert Lease.acquire(memory, NAME, "this") is not None


def leave_to_the_dead(storage: Storage) -> None:
    """Store the lease of a process of this machine that no longer lives."""
    own = ProcessIdentity.of_this_process()
    assert own is not None
    storage.put(KEY, f"node token {replace(own, start=own.start - 1)}".encode(), ttl=LEASE_TTL)


def test_lease_of_a_dead_node_is_free_after_ten_seconds(memory: Memory, clock: Clock) -> None:
    """As long as a visitor waits at most; extended, it begins anew."""
    lease = Lease.acquire(memory, "a.test", "dead")
    assert lease is not None
    clock.advance(9.9)
    assert Lease.acquire(memory, "a.test", "other") is None
    assert lease.extend()
    clock.advance(9.9)
    assert Lease.acquire(memory, "a.test", "other") is None
    clock.advance(0.2)
    assert Lease.acquire(memory, "a.test", "other") is not None
    assert not lease.extend()


def test_lease_that_was_taken_over_ends_like_any_other(memory: Memory, clock: Clock) -> None:
    """Its new owner may be killed too, on a machine that no longer runs."""
    leave_to_the_dead(memory)
    assert Lease.acquire(memory, NAME, "one") is not None
    clock.advance(LEASE_TTL - 0.1)
    assert memory.get(KEY) is not None
    clock.advance(0.1)
    assert memory.get(KEY) is None
