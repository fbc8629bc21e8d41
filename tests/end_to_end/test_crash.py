"""Crashes and bad disks: a killed process loses nothing and leaves nothing, and storage trouble is not the client's."""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from OpenSSL import SSL

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.lease import LEASE_TTL
from tests.end_to_end.client import eventually, handshake, handshakes, is_trusted, negotiate
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.chaos import Chaos
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble

type FreshName = Callable[[], str]

_KILLS = 50


def test_fifty_killed_orders_lose_nothing(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """Killed in the middle of 50 orders, the proxy serves what it had, orders the rest, and leaves no litter."""
    moments = random.Random(seed := random.randrange(1_000_000))
    print(f"random.Random({seed})")
    names: list[str] = []
    had: dict[str, int] = {}  # what clients were served -> its serial number
    killed = 0
    with Pebble(dns) as ca:
        root = ca.root()
        running = proxy(ca=ca, start=False)
        longest = 0.25  # seconds until a kill: on a busy machine no client is served so soon
        while killed < _KILLS or not had:
            managed, *others = fresh = [fresh_name() for _ in range(6)]
            running.options["acme_certificates"] = [managed]
            running.start()
            with ThreadPoolExecutor(len(others)) as pool:
                clients = {name: pool.submit(_serial, running, name, root) for name in others}
                time.sleep(moments.uniform(0, longest))
                running.kill()
            names += fresh
            had |= {name: serial for name, client in clients.items() if (serial := client.result())}
            killed += sum(_is_half_done(store, name) for name in fresh)
            longest *= 1.0 if had else 1.1
        last_kill = time.monotonic()
        assert {f"certificates/{name}" for name in had} <= set(store.keys("certificates/"))

        running.options["acme_handshake_wait"] = 45  # a hundred names at once, beside whatever else runs
        running.start()

        # what was killed last is leased to the dead, and taken over from them
        served = {s.names[0]: s.leaf.serial_number for s in handshakes(running.https_port, names, root)}
        assert served.keys() == set(names)
        assert served.items() >= had.items()
        eventually(lambda: not store.keys("leases/"), timeout=LEASE_TTL - (time.monotonic() - last_kill) + 1)
        running.stop()
    _read_everything(store)
    assert "cannot be" not in running.log.read_text()


def test_restart_after_a_kill_waits_for_no_lease(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """Killed in the middle of an order, and started again: it takes over the lease, and serves the name at once."""
    name = fresh_name()
    with Pebble(dns) as ca, Chaos(ca.port) as far_away:
        far_away.delay(0.3)  # time to kill it
        running = proxy(ca=ca, acme_ca=[f"https://localhost:{far_away.port}/dir"])
        with ThreadPoolExecutor(1) as pool:
            visit = pool.submit(_serial, running, name, ca.root())
            eventually(lambda: _is_half_done(store, name))
            running.kill()
            assert visit.result() is None
        assert _is_half_done(store, name)
        far_away.delay(0)

        running.start()

        assert handshake(running.https_port, name, ca.root()).names == [name]
        assert running.log.read_text().count("is taken over from a process of this machine that was killed") == 1
        assert not store.keys("leases/")


def _is_half_done(store: Storage, name: str) -> bool:
    return store.get(f"leases/{name}") is not None and store.get(f"certificates/{name}") is None


def test_broken_records_are_ordered_anew(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    """A certificate's file full of junk, and a record that is none, cost one line of the log each and a new order."""
    names = [fresh_name(), fresh_name()]
    running = proxy()
    old = handshakes(running.https_port, names, root)
    running.stop()
    (file,) = (tmp_path / "store" / "certificates").glob(f"{names[0]}*")
    file.write_bytes(b"\x00junk" * 100)
    store.put(f"certificates/{names[1]}", b'{"version": 1, "chain": ["junk"]')

    running.start()

    new = handshakes(running.https_port, names, root)
    assert not {s.leaf.serial_number for s in old} & {s.leaf.serial_number for s in new}
    said = [line for line in running.log_text().splitlines() if "is ordered again" in line]
    assert sorted(name for name in names for line in said if f"{name}: " in line) == sorted(names)
    assert "Traceback" not in running.log_text()
    _read_everything(store)


def test_records_of_nobody_are_in_nobodys_way(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, fresh_name: FreshName
) -> None:
    """What others left in the storage, or a disk made of it, keeps no name from being served, renewed or listed."""
    name, locked, proven = fresh_name(), fresh_name(), fresh_name()
    now = time.time()
    store.put("changes/x", b"")
    store.put("calendar/00000001/5", b"")
    store.put(f"calendar/{int(now // 3_600):08d}/00~{name}", b"inf")
    store.put(f"backoffs/{locked}", b'{"failures": Infinity, "until": Infinity, "reason": ""}')
    store.put(f"challenges/tls-alpn-01/{proven}", b"junk")
    store.put("nodes/control/x", b"[" * 50_000)

    running = proxy()
    assert [s.names for s in handshakes(running.https_port, [name, locked], root)] == [[name], [locked]]
    with pytest.raises(SSL.Error):
        negotiate(running.https_port, proven, alpn=[b"acme-tls/1"])
    store.put(f"certificates/{name}", b"[" * 50_000)
    store.put(f"changes/{int(now * 1_000):013d}.1~x~{name}", b"")
    eventually(lambda: f"{name}: the stored certificate cannot be used" in running.log_text())

    assert "Traceback" not in running.log_text()
    assert running.log_text().count("Addon error") == 0


def test_nothing_is_ordered_where_nothing_can_be_kept(
    proxy: StartProxy, pebble: Pebble, root: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    """With a storage folder that cannot be written no order is placed; the proxy runs on with the fallback."""
    (tmp_path / "file").write_text("no folder")
    before = pebble.seen()
    running = proxy(storage=tmp_path / "file" / "store", acme_certificates=[fresh_name()])

    for _ in range(5):
        assert not is_trusted(running.https_port, fresh_name(), root)

    assert running.running
    assert (pebble.seen() - before).by_path["/order-plz"] == 0
    assert running.log.read_text().count("a part of the path is a file, not a folder") == 1
    assert "Traceback" not in running.log_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own with room for a few certificates."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a small filesystem: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_read_only_disk_stops_orders_and_nothing_else(
    proxy: StartProxy, pebble: Pebble, root: str, small_disk: Path, fresh_name: FreshName
) -> None:
    """A disk that becomes read-only stops new orders, with a clear sentence; what is stored is served."""
    known = fresh_name()
    running = proxy(storage=small_disk / "store")
    first = handshake(running.https_port, known, root)
    _remount(small_disk, "ro")
    before = pebble.seen()

    running.restart()

    assert not is_trusted(running.https_port, fresh_name(), root)
    assert handshake(running.https_port, known, root).leaf == first.leaf
    assert (pebble.seen() - before).by_path["/order-plz"] == 0
    assert "it is mounted read-only" in running.log.read_text()
    _remount(small_disk, "rw")
    eventually(lambda: is_trusted(running.https_port, fresh_name(), root))


def test_full_disk_does_not_lose_the_certificate(
    proxy: StartProxy, dns: ChallTestSrv, small_disk: Path, fresh_name: FreshName
) -> None:
    """A certificate that came when the disk was full is served from memory, and stored when there is room."""
    name = fresh_name()
    store = open_storage(f"file:{small_disk / 'store'}", default_folder=small_disk)
    with Pebble(dns) as ca, Chaos(ca.port) as far_away:
        far_away.delay(0.15)  # time to fill the disk in the middle of the order
        running = proxy(ca=ca, storage=small_disk / "store", acme_ca=[f"https://localhost:{far_away.port}/dir"])
        with ThreadPoolExecutor(1) as pool:
            visit = pool.submit(handshake, running.https_port, name, ca.root())
            eventually(lambda: ca.seen().by_path["/chalZ/"])
            filling = _fill(small_disk)
            served = visit.result()
        assert "is held in memory only for now" in running.log_text()
        assert "the disk is full" in running.log_text()
        assert handshake(running.https_port, name, ca.root()).leaf == served.leaf
        assert store.get(f"certificates/{name}") is None
        filling.unlink()
        eventually(lambda: store.get(f"certificates/{name}"), timeout=15)
        assert ca.seen().orders == 1


def test_two_processes_on_one_folder_order_once(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """Two proxies on one folder, asked for the same 20 cold names at once, order 20 certificates and serve them all."""
    names = [fresh_name() for _ in range(20)]
    with Pebble(dns) as ca:
        one = proxy(ca=ca)
        other = proxy(ca=ca, start=False)
        other.http_port = free_port()  # the CA comes to the first one, whichever ordered
        other.start()

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda running: handshakes(running.https_port, names, ca.root()), (one, other))

        assert [s.leaf.serial_number for s in first] == [s.leaf.serial_number for s in second]
        assert [s.names for s in first] == [[name] for name in names]
        assert ca.seen().certificates == 20
    assert one.log_text().count(": certificate by ") + other.log_text().count(": certificate by ") == 20


def _serial(running: Mitmdump, name: str, root: str) -> int | None:
    """The serial number that a client was served before the proxy died under it, if it was."""
    try:
        return handshake(running.https_port, name, root).leaf.serial_number
    except OSError:
        return None


def _read_everything(store: Storage) -> None:
    """Every record can be read, as what its place says."""
    for key in store.keys(""):
        value = store.get(key)
        kind, _, rest = key.partition("/")
        if value is None:
            continue  # its time was over
        if kind == "certificates":
            Certificate.from_record(ServerName(rest), value)
        elif kind == "accounts":
            Account.from_record(value)
        elif kind == "backoffs":
            assert Backoff.from_record(value)
        elif kind == "calendar":
            float(value)
        else:
            assert kind in ("challenges", "changes", "events", "leases", "nodes", "renewal-info", "usage")


def _remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


def _fill(folder: Path) -> Path:
    """Leave no room on the disk; the file that takes it may be removed."""
    filling = folder / "filling"
    with filling.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4_096):
                pass
        except OSError:
            return filling
    raise AssertionError("the disk has no end")
