"""What Kong and lua-resty-acme left in real Redis, Consul and OpenBao servers, written there by plain clients."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import consul
import hvac
import pytest
import redis
import redis.cluster

from acme_storage import StorageUnavailable, open_reader
from mitmproxy_acme.cli.importers.item import FoundCertificate, ImportItem, Rejected
from mitmproxy_acme.cli.importers.sources import read_source
from mitmproxy_acme.core.errors import SourceError
from tests.mitmproxy_acme.cli.importers import layouts
from tests.mitmproxy_acme.cli.importers.layouts import LETS_ENCRYPT
from tests.mitmproxy_acme.fakes import make_certificate
from tests.servers.bao import Bao
from tests.servers.base import free_port
from tests.servers.binaries import Missing, missing, need
from tests.servers.consul import Consul
from tests.servers.redis import Cluster, Redis

PEBBLE = "https://localhost:14000/dir"
KNOWN = (PEBBLE, LETS_ENCRYPT)
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
EMAIL = "bWVAZXhhbXBsZS5jb20="


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("CONSUL_", "VAULT_", "REDISCLI_"))]:
        monkeypatch.delenv(name)


class Place(Protocol):
    """Where Kong keeps its keys: one of the servers, as an operator configures it."""

    url: str

    def write(self, key: str, value: str) -> None: ...

    def everything(self) -> object:
        """All that is in the server, with its versions where it has some."""
        ...


class InRedis:
    """``storage_config.redis`` with a database and, where one is given, a namespace."""

    def __init__(self, server: Redis, namespace: str = "") -> None:
        self._client = redis.Redis(port=server.port, password="s3cret", db=2)
        self._client.flushdb()
        self._namespace = namespace
        asking = f"?namespace={namespace}" if namespace else ""
        self.url = f"redis://:s3cret@127.0.0.1:{server.port}/2{asking}"

    def write(self, key: str, value: str) -> None:
        self._client.set(self._namespace + key, value)

    def everything(self) -> object:
        return {key: self._client.dump(key) for key in self._client.scan_iter()}


class InConsul:
    """``storage_config.consul`` with a ``kv_path``; lua-resty-acme has no slash in a key."""

    def __init__(self, server: Consul, path: str) -> None:
        self._client = consul.Consul(port=server.port)
        self._client.kv.delete("", recurse=True)
        self._path = path or "acme"
        self.url = f"consul://127.0.0.1:{server.port}/{path}"

    def write(self, key: str, value: str) -> None:
        self._client.kv.put(f"{self._path}/{key.replace('/', '-')}", value)

    def everything(self) -> object:
        return self._client.kv.get("", recurse=True)[1]


class InVault:
    """``storage_config.vault`` with a ``kv_path``, whose first part is the mount."""

    def __init__(self, server: Bao, path: str) -> None:
        self._mount, _, folder = (path or "acme").partition("/")
        self._client = hvac.Client(server.url, token=server.token)
        mounts = self._client.sys.list_mounted_secrets_engines()["data"]
        if f"{self._mount}/" in mounts:
            self._client.sys.disable_secrets_engine(self._mount)
        self._client.sys.enable_secrets_engine("kv", self._mount, options={"version": "2"})
        server._wait_for(f"{self._mount}/config")
        self._folder = f"{folder}/" if folder else ""
        self.url = f"vault://127.0.0.1:{server.port}/{path}?token={server.token}"

    def write(self, key: str, value: str) -> None:
        secret = {"value": value, "note": "managed by lua-resty-acme"}
        path = self._folder + key.replace("/", "-")
        self._client.secrets.kv.v2.create_or_update_secret(path, secret, mount_point=self._mount)

    def everything(self) -> object:
        kv = self._client.secrets.kv.v2
        names = kv.list_secrets(self._folder, mount_point=self._mount)["data"]["keys"]
        return {name: kv.read_secret_metadata(self._folder + name, mount_point=self._mount)["data"] for name in names}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Redis]:
    need("redis-server", "redis-cli")
    with Redis(password="s3cret") as server:
        yield server


@pytest.fixture(scope="module")
def consul_server() -> Iterator[Consul]:
    need("consul")
    with Consul() as server:
        yield server


@pytest.fixture(scope="module")
def bao_server() -> Iterator[Bao]:
    server = Bao()
    try:
        server.program()
    except Missing as error:
        server.close()
        missing(error)
    with server:
        yield server


@pytest.fixture(params=["redis", "redis in a namespace", "consul", "consul path", "vault", "vault path"])
def place(request: pytest.FixtureRequest) -> Place:
    kind, _, more = request.param.partition(" ")
    if kind == "redis":
        return InRedis(request.getfixturevalue("redis_server"), "kong-1:" if more else "")
    if kind == "consul":
        return InConsul(request.getfixturevalue("consul_server"), "gateways/kong" if more else "")
    return InVault(request.getfixturevalue("bao_server"), "kong/certificates/acme" if more else "")


def read(place: Place) -> dict[str, ImportItem]:
    return {item.name: item for item in read_source(f"kong+{place.url}", KNOWN)}


def ca_of(item: ImportItem) -> str:
    assert isinstance(item, FoundCertificate), item
    return item.certificate.ca


def test_kong(place: Place) -> None:
    """Certificates of hosts are found, with the CA of the only account; nothing in the server changes."""
    certificates = [make_certificate([name]) for name in ("a.test", "b.a.test")]
    for certificate in certificates:
        place.write(f"kong_acme:cert_key:{certificate.id}", layouts.kong(certificate))
        place.write(f"kong_acme:renew_config:{certificate.id}", '{"host":"x","expire_at":1800000000}')
    place.write(f"kong_acme:account:{LETS_ENCRYPT}:{EMAIL}", '{"key":"-----BEGIN PRIVATE KEY-----"}')
    place.write("kong_acme:renew_last_run", "2026-11-24 12:00:00")
    place.write("Zm9v#http-01", "Zm9v.abc")
    before = place.everything()

    items = read(place)

    assert {name: ca_of(item) for name, item in items.items()} == {"a.test": LETS_ENCRYPT, "b.a.test": LETS_ENCRYPT}
    chains = [item.certificate.chain_pem for item in items.values() if isinstance(item, FoundCertificate)]
    assert chains == [certificate.chain_pem for certificate in certificates]
    assert place.everything() == before


def test_autossl(place: Place) -> None:
    """lua-resty-acme alone stores RSA and ECDSA certificates under keys of their own, without the CA."""
    one, two = make_certificate(["a.test"]), make_certificate(["b.test"])
    place.write("domain:rsa:a.test", layouts.autossl(one, "rsa"))
    place.write("domain:ecc:b.test", layouts.autossl(two, "ecc"))
    place.write("account_key:me@example.com", "-----BEGIN PRIVATE KEY-----")
    place.write("update_lock:a.test", "1")
    items = read(place)
    assert {name: ca_of(item) for name, item in items.items()} == {"a.test": "", "b.test": ""}


@pytest.mark.parametrize(
    ("accounts", "ca"),
    [
        ([], ""),
        ([PEBBLE], PEBBLE),
        (["https://acme-v02.api.letsencrypt.org"], LETS_ENCRYPT),  # Kong adds the rest
        ([LETS_ENCRYPT, PEBBLE], ""),
    ],
)
def test_ca_by_the_account(place: Place, accounts: list[str], ca: str) -> None:
    """One account tells the CA, as far as its URL is known; several do not."""
    place.write("kong_acme:cert_key:a.test", layouts.kong(make_certificate(["a.test"])))
    for account in accounts:
        place.write(f"kong_acme:account:{account}:{EMAIL}", "{}")
    assert ca_of(read(place)["a.test"]) == ca


def test_ca_that_is_not_known(redis_server: Redis) -> None:
    """Where slashes are kept, the account tells any CA."""
    place = InRedis(redis_server)
    place.write("kong_acme:cert_key:a.test", layouts.kong(make_certificate(["a.test"])))
    place.write(f"kong_acme:account:https://ca.test/acme:{EMAIL}", "{}")
    assert ca_of(read(place)["a.test"]) == "https://ca.test/acme/directory"


def test_values_that_cannot_be_used(place: Place) -> None:
    """Each is a line of its own, which shows nothing of a key; a host of Kong's database says where it is."""
    whole, other = make_certificate(["a.test"]), make_certificate(["b.test"])
    place.write("kong_acme:cert_key:a.test", layouts.kong(whole))
    place.write("kong_acme:cert_key:b.test", layouts.kong(whole)[:-300])
    place.write("kong_acme:cert_key:c.test", '{"cert": "x"}')
    place.write("kong_acme:cert_key:d.test", "[]")
    place.write("domain:rsa:e.test", layouts.autossl(other, "rsa").replace('"pkey"', '"key"'))
    place.write("kong_acme:renew_config:f.test", '{"host":"f.test","expire_at":1800000000}')
    items = read(place)
    assert isinstance(items.pop("a.test"), FoundCertificate)
    why = {name: item.why for name, item in items.items() if isinstance(item, Rejected)}
    assert why == {
        "b.test": "its value is not JSON with cert and key (JSONDecodeError)",
        "c.test": "its value is not JSON with cert and key (KeyError)",
        "d.test": "its value is not JSON with cert and key (TypeError)",
        "e.test": "its value is not JSON with cert and pkey (KeyError)",
        "f.test": "Kong keeps this certificate in its own database, not here",
    }


def test_nothing_there(place: Place) -> None:
    """Where there is nothing of Kong's, the sentence says where nothing was found, and shows no password."""
    place.write("other", "x")
    with pytest.raises(SourceError, match="no certificate found in storage ") as raised:
        read(place)
    assert "s3cret" not in str(raised.value)
    assert "root-token" not in str(raised.value)


def test_key_of_another_type(redis_server: Redis) -> None:
    """What is no string in Redis is one line; the rest is read."""
    place = InRedis(redis_server)
    place.write("kong_acme:cert_key:a.test", layouts.kong(make_certificate(["a.test"])))
    place._client.hset("kong_acme:cert_key:b.test", "x", "y")
    items = read(place)
    assert isinstance(items["a.test"], FoundCertificate)
    item = items["b.test"]
    assert isinstance(item, Rejected)
    assert item.why.endswith("kong_acme:cert_key:b.test is not a string")


def test_value_deleted_by_vault_is_none(bao_server: Bao) -> None:
    """A secret whose last version was deleted is listed still, and is passed over; one of other fields is a line."""
    place = InVault(bao_server, "kong/acme")
    for name in ("a.test", "b.test"):
        place.write(f"kong_acme:cert_key:{name}", layouts.kong(make_certificate([name])))
    kv: Any = place._client.secrets.kv.v2
    kv.delete_latest_version_of_secret("acme/kong_acme:cert_key:a.test", mount_point="kong")
    kv.create_or_update_secret("acme/kong_acme:cert_key:c.test", {"key": "x"}, mount_point="kong")
    items = read(place)
    assert list(items) == ["b.test", "c.test"]
    assert isinstance(items["c.test"], Rejected)


def test_socket_and_cluster(redis_server: Redis) -> None:
    """A socket is as good as a port, and of a cluster all nodes are read."""
    place = InRedis(redis_server)
    place.write("kong_acme:cert_key:a.test", layouts.kong(make_certificate(["a.test"])))
    url = f"kong+unix://:s3cret@{redis_server.socket}?db=2"
    assert [item.name for item in read_source(url, KNOWN)] == ["a.test"]
    with Cluster() as cluster:
        client = redis.cluster.RedisCluster(host="127.0.0.1", port=cluster.ports[0])
        names = [f"n{number}.test" for number in range(9)]
        for name in names:
            client.set(f"kong_acme:cert_key:{name}", layouts.kong(make_certificate([name])))
        client.close()
        url = f"kong+redis+cluster://127.0.0.1:{cluster.ports[0]}"
        assert [item.name for item in read_source(url, KNOWN)] == names


def test_tls() -> None:
    """rediss: and consul+https: are asked over TLS that is verified, with the parameters of the stores' URLs."""
    need("redis-server", "consul")
    value = layouts.kong(make_certificate(["a.test"]))
    with Redis(tls=True) as server, Consul(acl=True, mtls=True) as guarded:
        assert server.ca
        server.ask("set", "kong_acme:cert_key:a.test", value)
        url = f"rediss://localhost:{server.port}?ssl_ca_certs={server.ca.bundle}"
        assert [item.name for item in read_source(f"kong+{url}", KNOWN)] == ["a.test"]
        with pytest.raises(StorageUnavailable, match="TLS could not be verified"):
            read_source(f"kong+rediss://localhost:{server.port}", KNOWN)

        guarded.request("PUT", "kv/acme/kong_acme:cert_key:a.test", value)
        files = f"ca_file={guarded.ca.bundle}&cert_file={guarded.client.certificate}&key_file={guarded.client.key}"
        url = f"consul+https://localhost:{guarded.port}/acme?{files}"
        token = guarded.make_token('key_prefix "acme" { policy = "read" }')
        assert [item.name for item in read_source(f"kong+{url}&token={token}", KNOWN)] == ["a.test"]
        with pytest.raises(StorageUnavailable, match="the token may not read here"):
            read_source(f"kong+{url}", KNOWN)


def test_vault_over_tls_with_few_rights() -> None:
    """A token that may list and read is enough; without, the sentence says what it lacks."""
    server = Bao(tls=True)
    try:
        server.program()
    except Missing as error:
        server.close()
        missing(error)
    with server:
        secret = {"data": {"value": layouts.kong(make_certificate(["a.test"]))}}
        server.request("POST", "secret/data/acme/kong_acme:cert_key:a.test", secret)
        rights = 'path "secret/data/acme/*" { capabilities = ["read"] }\n'
        poor = server.make_token(rights)
        token = server.make_token(
            rights + 'path "secret/metadata/acme/*" { capabilities = ["list"] }\n'
            'path "secret/metadata/acme" { capabilities = ["list"] }'
        )
        url = f"kong+vault+https://localhost:{server.port}/secret/acme?ca_file={server.ca.bundle}&token="
        assert [item.name for item in read_source(url + token, KNOWN)] == ["a.test"]
        with pytest.raises(StorageUnavailable, match="refused"):
            read_source(url + "wrong", KNOWN)
        assert poor


def test_poor_redis_user() -> None:
    """A user who may scan and get is enough; an error names what another user lacks."""
    need("redis-server", "redis-cli")
    users = ("user kong on >pw ~kong_acme:* -@all +scan +get", "user poor on >pw ~kong_acme:* -@all +get")
    with Redis(*users) as server:
        server.ask("set", "kong_acme:cert_key:a.test", layouts.kong(make_certificate(["a.test"])))
        url = f"@127.0.0.1:{server.port}"
        assert [item.name for item in read_source(f"kong+redis://kong:pw{url}", KNOWN)] == ["a.test"]
        with pytest.raises(StorageUnavailable, match=r"grant its user .*\+scan \+get") as raised:
            read_source(f"kong+redis://poor:pw{url}", KNOWN)
        assert "pw" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["redis", "unix", "consul", "vault"])
def test_server_that_is_down(scheme: str, tmp_path: Path) -> None:
    """One sentence names the server and what to look at."""
    where = f"{tmp_path}/none.sock" if scheme == "unix" else f"127.0.0.1:{free_port()}"
    with pytest.raises(StorageUnavailable, match=f"{scheme}|http"):
        read_source(f"kong+{scheme}://{where}", KNOWN)


def test_mount_that_is_missing(bao_server: Bao) -> None:
    """A path that begins with no mount differs from an empty one."""
    with pytest.raises(StorageUnavailable, match="nothing is mounted there"):
        read_source(f"kong+vault://127.0.0.1:{bao_server.port}/nowhere/acme?token={bao_server.token}", KNOWN)


def test_raw_is_closed_twice(place: Place) -> None:
    """Closing what was never asked, and again, does nothing."""
    raw = open_reader(place.url)
    raw.close()
    raw.close()
