"""Sealed storage: no private key leaves the process in clear, and a wrong key destroys nothing."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from acme_storage import Storage
from mitmproxy_acme.store.encryption import RecordCipher
from tests.end_to_end.client import eventually, handshake, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.mitmproxy_acme.fakes import make_certificate
from tests.servers import forked
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import Pebble

type FreshName = Callable[[], str]

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def with_keys(running: Mitmdump, *keys: str) -> Mitmdump:
    """Give the proxy these keys, from its next start on."""
    running.environment["STORAGE_KEYS"] = ",".join(keys)
    running.options["acme_storage_key"] = "env:STORAGE_KEYS" if keys else ""
    return running


def secrets_in(store: Storage) -> list[str]:
    """Return the keys of the records that are not sealed; every record of the two kinds is parsed."""
    records = {
        key: json.loads(store.get(key) or b"") for kind in ("accounts/", "certificates/") for key in store.keys(kind)
    }
    assert {key.partition("/")[0] for key in records} == {"accounts", "certificates"}
    return [key for key, record in records.items() if record.keys() != {"sealed", "key_id", "sealed_key"}]


def bytes_of(folder: Path) -> dict[Path, bytes]:
    """Every record of an account or certificate, as it lies on the disk."""
    kinds = ("accounts", "certificates")
    return {path: path.read_bytes() for kind in kinds for path in (folder / kind).rglob("*") if path.is_file()}


def rotate(storage: Path, *keys: str) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("mitmproxy-acme")
    settings = ("--set", f"acme_storage=file:{storage}", "--set", "acme_storage_key=env:STORAGE_KEYS")
    return forked.run(
        [program, "rotate-storage-key", "--confdir", storage.parent, *settings],
        environment={"STORAGE_KEYS": " ".join(keys)},
    )


def test_no_private_key_is_stored_in_clear(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    """After an order every file is free of private keys, and the next start serves the certificate without an order."""
    name = fresh_name()
    running = with_keys(proxy(start=False), OLD).start()
    first = handshake(running.https_port, name, root)
    eventually(lambda: store.get(f"certificates/{name}"))
    running.stop()

    assert secrets_in(store) == []
    contents = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"BEGIN CERTIFICATE" not in contents
    assert b"PRIVATE KEY" not in contents
    assert b'\\"d\\":' not in contents

    before = pebble.seen()
    assert handshake(running.start().https_port, name, root).leaf == first.leaf
    assert (pebble.seen() - before).by_path["/order-plz"] == 0


def test_wrong_key_orders_nothing_and_destroys_nothing(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    """With another key, or none, clients get the fallback, the CA is not asked, every byte stays; the log says why."""
    known, managed = fresh_name(), fresh_name()
    running = with_keys(proxy(start=False, acme_certificates=[managed]), OLD).start()
    served = handshake(running.https_port, known, root)
    handshake(running.https_port, managed, root)
    eventually(lambda: len(store.keys("certificates/")) == 2)
    running.stop()
    before, kept = pebble.seen(), bytes_of(tmp_path / "store")

    for keys, said in (
        ((NEW,), "is sealed by a key that acme_storage_key lacks"),
        ((), "acme_storage_key is not set"),
    ):
        begin = len(running.log.read_text())
        with_keys(running, *keys).start()
        for _ in range(3):
            for name in (known, managed, fresh_name()):
                assert not is_trusted(running.https_port, name, root)
        assert running.running
        log = running.log.read_text()[begin:]
        for record in store.keys("certificates/") + store.keys("accounts/"):
            lines = [line for line in log.splitlines() if f"the record {record} is sealed" in line and said in line]
            assert len([line for line in lines if "no certificate" not in line]) == 1
        assert "Traceback" not in log
        running.stop()

    assert (pebble.seen() - before).requests == 0
    assert bytes_of(tmp_path / "store") == kept
    with_keys(running, OLD).start()
    assert handshake(running.https_port, known, root).leaf == served.leaf


def test_wrong_key_is_told_at_the_start(proxy: StartProxy, store: Storage, root: str, fresh_name: FreshName) -> None:
    """Before any client comes there is one line, and after some seconds there is still one."""
    running = with_keys(proxy(start=False), OLD).start()
    handshake(running.https_port, fresh_name(), root)
    running.stop()
    begin = len(running.log.read_text())

    with_keys(running, NEW).start()

    def told() -> list[str]:
        return [line for line in running.log.read_text()[begin:].splitlines() if "acme_storage_key" in line]

    eventually(told)
    assert len(told()) == 1


def test_key_is_replaced_while_the_proxy_runs(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    """In clear, then an old key, then a new one in front, rotated under a running proxy: then the new key is enough."""
    names = [fresh_name() for _ in range(3)]
    running = with_keys(proxy(start=False)).start()
    served = [handshake(running.https_port, names[0], root)]
    running.stop()
    with_keys(running, OLD).start()
    served.append(handshake(running.https_port, names[1], root))
    running.stop()
    with_keys(running, NEW, OLD).start()
    served.append(handshake(running.https_port, names[2], root))
    eventually(lambda: store.get(f"certificates/{names[2]}"))

    refused = rotate(tmp_path / "store", NEW)
    assert refused.returncode == 1
    assert f"unreadable: certificates/{names[1]}: " in refused.stdout
    rotated = rotate(tmp_path / "store", NEW, OLD)

    assert (rotated.returncode, rotated.stderr) == (0, "")
    assert rotated.stdout == "re-sealed 1, already sealed by the newest key 3, not readable 0\n"
    assert secrets_in(store) == []
    newest = RecordCipher([NEW])
    assert all(
        newest.is_current(key, store.get(key) or b"") for key in store.keys("certificates/") + store.keys("accounts/")
    )
    before, later = pebble.seen(), fresh_name()
    assert [handshake(running.https_port, name, root).leaf for name in names] == [s.leaf for s in served]
    handshake(running.https_port, later, root)
    assert (pebble.seen() - before).certificates == 1
    running.stop()

    with_keys(running, NEW).start()
    assert [handshake(running.https_port, name, root).leaf for name in names] == [s.leaf for s in served]
    assert is_trusted(running.https_port, later, root)
    assert (pebble.seen() - before).certificates == 1
    assert "cannot be" not in running.log.read_text()


def test_writer_without_the_key_forges_nothing(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, fresh_name: FreshName
) -> None:
    """Certificates in each other's place, one in clear, one to be revoked, and a challenge, beside a running proxy."""
    one, other, clear = (fresh_name() for _ in range(3))
    running = with_keys(proxy(start=False, acme_storage_sealed_only=True), OLD).start()
    served = [handshake(running.https_port, name, root) for name in (one, other)]
    eventually(lambda: len(store.keys("certificates/")) == 2)
    running.stop()
    records = [store.get(f"certificates/{name}") or b"" for name in (one, other)]
    store.put(f"certificates/{one}", records[1])
    store.put(f"certificates/{other}", records[0])
    for name, record in zip((one, other), records, strict=True):
        store.put(f"compromised/{name}", record)
    forged = make_certificate([clear], now=time.time()).to_record()
    store.put(f"certificates/{clear}", forged)
    store.put("challenges/http-01/forged", b"forged.thumbprint")
    before = pebble.seen()

    running.start()

    assert not is_trusted(running.https_port, clear, root)
    anew = [handshake(running.https_port, name, root) for name in (one, other)]
    assert [found.names for found in anew] == [[one], [other]]
    assert not {found.leaf for found in anew} & {found.leaf for found in served}
    url = f"http://127.0.0.1:{running.http_port}/.well-known/acme-challenge/forged"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10)
    eventually(lambda: running.log.read_text().count("the record of a certificate to revoke cannot be used") == 2)
    assert store.get(f"certificates/{clear}") == forged
    assert (pebble.seen() - before).certificates == 2
    assert (pebble.seen() - before).by_path["/revoke-cert"] == 0


def test_rotation_and_orders_at_the_same_time(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    """Certificates that are ordered while records are sealed anew, to and fro, are all served and stored, once each."""
    running = with_keys(proxy(start=False), NEW, OLD).start()
    names = [fresh_name() for _ in range(20)]
    before = pebble.seen()
    with ThreadPoolExecutor(2) as pool:
        served = pool.submit(lambda: [handshake(running.https_port, name, root) for name in names])
        while not served.done():
            assert rotate(tmp_path / "store", OLD, NEW).returncode == 0
            assert rotate(tmp_path / "store", NEW, OLD).returncode == 0
    running.stop()
    assert secrets_in(store) == []
    with_keys(running, NEW).start()
    leaves = [handshake(running.https_port, name, root).leaf for name in names]
    assert leaves == [s.leaf for s in served.result()]
    assert (pebble.seen() - before).certificates == 20
