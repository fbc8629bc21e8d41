"""A writer of the storage, against proxies that have a storage key: what comes of each forgery."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from acme_storage import Storage, StorageCorrupt, open_storage
from acme_storage.memory import Memory
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import RecordRefused
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.issuance_requests import IssuanceRequests
from mitmproxy_acme.store.keys import account_key
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, Clock, FakeIssuer, make_certificate, manager_on
from tests.servers.base import started
from tests.servers.binaries import need
from tests.servers.redis import Redis

KEY = Fernet.generate_key().decode()
A, B = ServerName("a.example.test"), ServerName("b.example.test")
OF_A, OF_B = f"certificates/{A}", f"certificates/{B}"
JUNK = {
    "text": b"junk",
    "long": b"\x00" * 65_536,
    "deep": b'{"version": 1, "key": ' + b"[" * 30_000,
    "deep and sealed": b'{"sealed": ' + b"[" * 30_000,
    "sealed and empty": b'{"sealed": {}}',
}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    need("redis-server")
    with started(Redis()) as server:
        yield server


@pytest.fixture(params=["memory", "file", "redis"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "memory":
        yield Memory()
        return
    url = f"file:{tmp_path}/store"
    if request.param == "redis":
        server: Redis = request.getfixturevalue("redis")
        server.ask("flushall")
        url = f"redis://127.0.0.1:{server.port}"
    opened = open_storage(url, default_folder=tmp_path)
    yield opened
    opened.close()


@dataclass
class Tamperer:
    """Somebody who may write to the storage, and has no key."""

    storage: Storage

    def copy(self, source: str, target: str) -> None:
        self.storage.put(target, self.storage.get(source) or b"")

    def swap(self, one: str, other: str) -> None:
        first, second = self.storage.get(one) or b"", self.storage.get(other) or b""
        self.storage.put(one, second)
        self.storage.put(other, first)

    def cut(self, key: str, length: int) -> None:
        self.storage.put(key, (self.storage.get(key) or b"")[:length])

    def certificate_in_clear(self, name: ServerName) -> Certificate:
        """Put a certificate of their own there, with a key that they know."""
        own = make_certificate([name])
        self.storage.put(f"certificates/{name}", own.to_record())
        return own


class Proxy:
    """A manager with a storage key, on a fake CA."""

    def __init__(self, storage: Storage, clock: Clock, **options: Any) -> None:
        self.issuer = FakeIssuer(clock)
        self.manager: Manager = manager_on(storage, clock, self.issuer, acme_storage_key=KEY, **options)

    async def serve(self, name: ServerName) -> Certificate:
        found = await self.manager.certificate_for(name, on_demand=True)
        assert found is not None
        return found

    @property
    def orders(self) -> list[ServerName]:
        return [subject.id for subject in self.issuer.orders]


@pytest.fixture
async def proxy(storage: Storage, clock: Clock) -> AsyncIterator[Proxy]:
    proxy = Proxy(storage, clock)
    yield proxy
    await proxy.manager.wait_idle()
    proxy.manager.threads.close()


@pytest.fixture
async def strict(storage: Storage, clock: Clock) -> AsyncIterator[Proxy]:
    proxy = Proxy(storage, clock, acme_storage_sealed_only=True)
    yield proxy
    await proxy.manager.wait_idle()
    proxy.manager.threads.close()


@pytest.fixture
def tamperer(storage: Storage) -> Tamperer:
    return Tamperer(storage)


@pytest.fixture
def shelf(storage: Storage) -> Store:
    """The store of a node that has the key."""
    return Store(storage, RecordCipher([KEY]))


def keep(shelf: Store, *names: ServerName) -> None:
    for name in names:
        assert shelf.replace(shelf.slot(name), make_certificate([name]))


class TestTampering:
    """Each on every storage."""

    async def test_copied_certificate_is_not_served(self, proxy: Proxy, shelf: Store, tamperer: Tamperer) -> None:
        """A record under another name does not open; a certificate is ordered in its place, as for a broken one."""
        keep(shelf, A)
        tamperer.copy(OF_A, OF_B)
        served = await proxy.serve(B)
        assert served.names == {B}
        assert proxy.orders == [B]

    async def test_swapped_certificates_are_not_served(self, proxy: Proxy, shelf: Store, tamperer: Tamperer) -> None:
        """Two authentic records that were exchanged are both broken."""
        keep(shelf, A, B)
        tamperer.swap(OF_A, OF_B)
        assert [(await proxy.serve(name)).names for name in (A, B)] == [{A}, {B}]
        assert proxy.orders == [A, B]

    @pytest.mark.parametrize("length", [0, 5, 12, 40, 500])
    async def test_cut_certificate_is_ordered_anew(
        self, proxy: Proxy, shelf: Store, tamperer: Tamperer, length: int
    ) -> None:
        """Wherever it is cut."""
        keep(shelf, A)
        tamperer.cut(OF_A, length)
        assert (await proxy.serve(A)).names == {A}
        assert proxy.orders == [A]

    @pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
    async def test_junk_costs_one_order(self, proxy: Proxy, storage: Storage, junk: bytes) -> None:
        """Long, deep or empty: it is a broken record, and raises nothing else."""
        storage.put(OF_A, junk)
        storage.put(account_key(DIRECTORY), junk)
        assert (await proxy.serve(A)).names == {A}
        assert proxy.orders == [A]
        assert proxy.manager.store.account_uri(DIRECTORY) is None

    @pytest.mark.parametrize("storage", ["file", "redis"], indirect=True)
    async def test_huge_value_is_ordered_anew(
        self, request: pytest.FixtureRequest, proxy: Proxy, shelf: Store, storage: Storage, tmp_path: Path
    ) -> None:
        """10 MB, written without the adapter, are not parsed."""
        keep(shelf, A)
        if (folder := tmp_path / "store" / "certificates").exists():
            (path,) = (path for path in folder.rglob("*") if path.is_file())
            path.write_bytes(b"x" * 10_000_000)
        else:
            name = f"acme:{{acme}}:value:{OF_A}"
            server: Redis = request.getfixturevalue("redis")
            server.ask("eval", "redis.call('HSET', KEYS[1], 'v', string.rep('x', 10000000))", "1", name)
        with pytest.raises(StorageCorrupt):
            storage.get(OF_A)
        assert (await proxy.serve(A)).names == {A}
        assert proxy.orders == [A]

    async def test_certificate_in_clear_is_refused_by_sealed_only(
        self, strict: Proxy, storage: Storage, tamperer: Tamperer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Among sealed ones it is neither used nor replaced, and logged once."""
        tamperer.certificate_in_clear(A)
        before = storage.get(OF_A)
        for _ in range(3):
            with pytest.raises(RecordRefused, match="acme_storage_sealed_only"):
                await strict.serve(A)
        assert strict.orders == []
        assert storage.get(OF_A) == before
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1

    async def test_certificate_in_clear_is_used_without_sealed_only(self, proxy: Proxy, tamperer: Tamperer) -> None:
        """Records from before there was a key are used; so until sealed only is set, a writer may forge one."""
        forged = tamperer.certificate_in_clear(A)
        assert (await proxy.serve(A)).fingerprint == forged.fingerprint

    async def test_account_in_clear_is_refused_by_sealed_only(self, strict: Proxy, storage: Storage) -> None:
        """A forged account does not replace ours, and no new one is created in its place."""
        forged = Account(DIRECTORY, "x", "https://ca.test/evil", "{}")
        storage.put(account_key(DIRECTORY), forged.to_record())
        with pytest.raises(RecordRefused):
            strict.manager.store.account(DIRECTORY)
        with pytest.raises(RecordRefused):
            strict.manager.store.claim_account(Account(DIRECTORY, "1", key="{}"))
        assert storage.get(account_key(DIRECTORY)) == forged.to_record()

    def test_copied_account_is_not_used(self, storage: Storage, shelf: Store, tamperer: Tamperer) -> None:
        """The key of one CA's account is never used at another CA."""
        other = "https://other.test/directory"
        shelf.save_account(Account(DIRECTORY, "1", "https://ca.test/1", "{}"))
        tamperer.copy(account_key(DIRECTORY), account_key(other))
        assert shelf.account(other) is None

    async def test_copy_in_compromised_revokes_nothing(
        self, proxy: Proxy, shelf: Store, storage: Storage, tamperer: Tamperer
    ) -> None:
        """Nor does one in clear text, or of the first format; a certificate that a node with the key put there is
        revoked.
        """
        keep(shelf, A, B)
        tamperer.copy(OF_A, f"compromised/{A}")
        plain = Store(storage, UNSEALED)
        plain.save_compromised(make_certificate([B]))
        await proxy.manager.make_revocation_retrier().round()
        assert proxy.issuer.revoked == []
        assert proxy.orders == []

        stolen = shelf.slot(A).certificate
        assert stolen is not None
        shelf.save_compromised(stolen)
        tamperer.copy(f"compromised/{A}", f"compromised/{B}")
        await proxy.manager.make_revocation_retrier().round()
        assert proxy.issuer.revoked == [(A, "keyCompromise")]

    async def test_copy_in_compromised_revokes_nothing_without_a_key(
        self, storage: Storage, clock: Clock, tamperer: Tamperer
    ) -> None:
        """Without a key a copy alone, as by a wrong backup, is no reason to revoke."""
        issuer = FakeIssuer(clock)
        manager = manager_on(storage, clock, issuer)
        tamperer.certificate_in_clear(A)
        tamperer.copy(OF_A, f"compromised/{A}")
        await manager.make_revocation_retrier().round()
        assert issuer.revoked == []
        await manager.wait_idle()
        manager.threads.close()

    def test_forged_challenges_are_not_answered(
        self, storage: Storage, shelf: Store, tamperer: Tamperer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No proxy of ours validates a stranger's order, by HTTP, TLS or DNS; this is logged once."""
        for number in range(20):
            storage.put(f"challenges/http-01/token{number}", b"token.evil")
            storage.put(f"challenges/tls-alpn-01/n{number}.test", b"00" * 32)
            storage.put(f"challenges/txt/_acme-challenge.n{number}.test~evil", b"evil")
            storage.put(f"challenges/txt/_acme-challenge.n{number}.test~evil~{'0' * 32}", b"evil")
        ours = Proof("http-01", "ours", "ours.thumbprint"), Proof("dns-01", "_acme-challenge.a.test", "ours")
        for proof in ours:
            shelf.put_proof(proof)
        tamperer.copy("challenges/http-01/ours", "challenges/http-01/copied")

        elsewhere = Store(storage, RecordCipher([KEY]))

        for number in range(20):
            assert elsewhere.proof("http-01", f"token{number}") is None
            assert elsewhere.proof("tls-alpn-01", f"n{number}.test") is None
        assert elsewhere.proof("http-01", "copied") is None
        assert elsewhere.proof("http-01", "ours") == "ours.thumbprint"
        assert elsewhere.txt_records() == {("_acme-challenge.a.test", "ours")}
        assert caplog.text.count("a challenge is not answered") == 1
        for proof in ours:
            shelf.delete_proof(proof)
        assert elsewhere.proof("http-01", "ours") is None
        assert elsewhere.txt_records() == set()

    async def test_forged_request_orders_nothing(self, storage: Storage, clock: Clock) -> None:
        """A control node orders what a node with the key asks for."""
        control = Proxy(storage, clock, acme_role="control", acme_storage="file:")
        storage.put(f"requests/{A}", b"")
        storage.put(f"requests/{A}~{'0' * 32}", b"")
        assert IssuanceRequests(storage, RecordCipher([KEY])).ask(B).refusal is None
        feed = control.manager.make_cluster_sync()
        await feed.sync()
        await feed.close()
        assert control.orders == [B]
        control.manager.threads.close()

    def test_forged_refusal_is_none(self, storage: Storage) -> None:
        """A data node keeps asking, whatever a forger writes in a control node's name."""
        requests, forged = IssuanceRequests(storage, RecordCipher([KEY])), Backoff(1, EPOCH + 900, "forged")
        storage.put(f"refusals/{A}", forged.to_record())
        assert requests.ask(A).refusal is None
        assert requests.pending(EPOCH) == [A]
        requests.refuse(A, forged, 60.0, for_person=False)
        assert requests.ask(A).refusal == forged
        assert requests.pending(EPOCH) == []

    async def test_earlier_certificate_does_not_come_back(
        self, proxy: Proxy, shelf: Store, storage: Storage, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A replay of a replaced record, announced as news, moves no node that serves its successor."""
        keep(shelf, A)
        replaced = storage.get(OF_A) or b""
        clock.advance(30 * 86_400)
        served = make_certificate([A], now=clock())
        assert shelf.replace(shelf.slot(A), served)
        assert (await proxy.serve(A)).fingerprint == served.fingerprint

        storage.put(OF_A, replaced)
        for number in range(3):
            ChangeFeed(storage, f"evil{number}").announce(A, clock(), deleted=number == 1)
            await proxy.manager.make_cluster_sync().sync()

        held = proxy.manager.cache.get(A)
        assert held is not None
        assert held.fingerprint == served.fingerprint
        assert caplog.text.count("somebody put back an earlier record") == 1


async def test_sealed_records_are_left_alone_by_the_release_before() -> None:
    """It finds the field ``sealed_key``, which none of its keys opens, and replaces nothing."""
    fields = json.loads(RecordCipher([KEY]).seal(OF_A, b"{}"))
    assert isinstance(fields["sealed_key"], str)
    assert "key" not in fields
