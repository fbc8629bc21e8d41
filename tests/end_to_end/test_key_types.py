"""ECDSA and RSA served from one port, depending on what the client can use: a real CA and real clients."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from acme_storage import Storage
from tests.end_to_end.admin import Api
from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble

type FreshName = Callable[[], str]
type Client = tuple[str, ...]

BOTH = ["ecdsa-p256", "rsa-2048"]
MODERN: Client = ()
RSA_BY_SCHEMES: Client = ("-sigalgs", "rsa_pss_rsae_sha256:rsa_pkcs1_sha256")
RSA_BY_SUITES: Client = ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
ECDSA_BY_SCHEMES: Client = ("-sigalgs", "ecdsa_secp256r1_sha256")
ECDSA_BY_SUITES: Client = ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
ANY_TLS_1_2: Client = ("-tls1_2",)
CHOICES = [
    (MODERN, "ECDSA"),
    (ECDSA_BY_SCHEMES, "ECDSA"),
    (ECDSA_BY_SUITES, "ECDSA"),
    (ANY_TLS_1_2, "ECDSA"),
    (RSA_BY_SCHEMES, "RSA"),
    (RSA_BY_SUITES, "RSA"),
]
_KINDS = {"id-ecPublicKey": "ECDSA", "rsaEncryption": "RSA"}


def served(running: Mitmdump, name: str, client: Client, root: Path) -> str | None:
    """Return the type of key that OpenSSL's client is served; None if it does not trust the certificate."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{running.https_port}", "-servername", name, *client]
    trust = ["-CAfile", str(root), "-verify_return_error", "-verify_hostname", name]
    done = subprocess.run([*command, *trust], input=b"", capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        return None
    leaf = subprocess.run(["openssl", "x509", "-noout", "-text"], input=done.stdout, capture_output=True, check=True)
    algorithm = re.search(r"Public Key Algorithm: (\S+)", leaf.stdout.decode())
    assert algorithm is not None
    return _KINDS[algorithm[1]]


@pytest.fixture
def trust(root: str, tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_text(root)
    return path


def test_key_type_is_one_that_the_client_can_use(
    proxy: StartProxy, pebble: Pebble, trust: Path, fresh_name: FreshName
) -> None:
    """RSA is ordered once, when the first client comes that needs it; after a restart nothing is ordered."""
    name, before = fresh_name(), pebble.seen()
    running = proxy(acme_key_type=BOTH)
    for client, kind in CHOICES[:4]:
        assert served(running, name, client, trust) == kind
    assert (pebble.seen() - before).orders == 1
    for client, kind in CHOICES[4:] + CHOICES[:1]:
        assert served(running, name, client, trust) == kind
    assert (pebble.seen() - before).orders == 2
    assert "Traceback" not in running.log_text()

    running.close()
    again = proxy(acme_key_type=BOTH)
    assert [served(again, name, client, trust) for client, _ in CHOICES] == [kind for _, kind in CHOICES]
    assert (pebble.seen() - before).orders == 2
    assert "Traceback" not in again.log_text()


def test_rsa_may_be_preferred(proxy: StartProxy, pebble: Pebble, trust: Path, fresh_name: FreshName) -> None:
    """Then all clients that can use it get it; the curve of the ECDSA key is respected too."""
    name, before = fresh_name(), pebble.seen()
    running = proxy(acme_key_type=["rsa-2048", "ecdsa-p384"])
    assert served(running, name, MODERN, trust) == "RSA"
    assert (pebble.seen() - before).orders == 1
    assert served(running, name, ("-sigalgs", "ecdsa_secp384r1_sha384"), trust) == "ECDSA"
    assert served(running, name, ECDSA_BY_SCHEMES, trust) is None  # P-256 alone, which nothing of ours is
    assert (pebble.seen() - before).orders == 2


def test_managed_certificates_have_both_key_types(
    proxy: StartProxy, pebble: Pebble, store: Storage, root: str, trust: Path, fresh_name: FreshName
) -> None:
    """Both are there before any client comes; each is shown, renewed and deleted by its own name."""
    names, before = [fresh_name(), fresh_name()], pebble.seen()
    api = Api(free_port(), token="")
    running = proxy(acme_key_type=BOTH, acme_certificates=[",".join(names)], acme_admin_listen=f"127.0.0.1:{api.port}")
    ids = [names[0], f"{names[0]}+rsa"]
    eventually(lambda: store.keys("certificates/") == [f"certificates/{id}" for id in ids])
    assert (pebble.seen() - before).orders == 2
    assert [served(running, name, client, trust) for name in names for client in (MODERN, RSA_BY_SUITES)] == [
        *("ECDSA", "RSA"),
        *("ECDSA", "RSA"),
    ]
    assert (pebble.seen() - before).orders == 2

    assert api.create(ids[1]).message == f"certificate for host {ids[1]} is created"  # it is there
    assert api.show(ids[1].replace("+", "%2B"))["host"] == ids[1]
    assert (pebble.seen() - before).orders == 2

    shown = [api.show(id) for id in ids]
    assert [document["key_type"] for document in shown] == BOTH
    assert [(document["host"], document["managed"]) for document in shown] == [(id, True) for id in ids]
    for id in ids:
        assert api("POST", f"/acme/certificates/{id}/renew", json_body={}).status == 200
    renewed = [api.show(id) for id in ids]
    assert [document["key_type"] for document in renewed] == BOTH
    assert all(new["serial_number"] != old["serial_number"] for new, old in zip(renewed, shown, strict=True))
    assert served(running, names[1], RSA_BY_SCHEMES, trust) == "RSA"
    leaf = handshake(running.https_port, names[0], root).leaf
    assert f"{leaf.serial_number:X}" in renewed[0]["serial_number"].replace(":", "")


def test_both_key_types_are_renewed_when_they_are_due(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """Each is scheduled by itself, and gets its own new key each time."""
    name, api = fresh_name(), Api(free_port(), token="")
    with Pebble(dns, profiles={"short": 7}) as ca:
        address = f"127.0.0.1:{api.port}"
        proxy(
            ca=ca,
            acme_admin_listen=address,
            acme_key_type=BOTH,
            acme_certificates=[name],
            acme_renew_before="70%",
        )

        def serials() -> list[str]:
            data = api("GET", "/acme/certificates").document["data"]
            return [document["serial_number"] for document in data if document["key_type"] in BOTH]

        eventually(lambda: len(serials()) == 2)
        first = serials()
        eventually(lambda: set(first).isdisjoint(serials()))
        assert len(serials()) == 2
