"""Secrets stay where they belong: not in the log, however much is logged, and in no file that others can read."""

import base64
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import josepy as jose
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from acme_storage import Storage, open_storage
from mitmproxy_acme.store.encryption import RecordCipher
from tests.end_to_end.client import eventually, get, handshake, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble

type FreshName = Callable[[], str]
type PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_STORAGE_KEY = Fernet.generate_key().decode()
_EAB_KEY = base64.urlsafe_b64encode(bytes(range(100, 148))).decode().rstrip("=")


@pytest.mark.parametrize("own_key", ["rsa", "ec", ""], ids=["own RSA key", "own EC key", "generated key"])
def test_no_secret_is_logged(
    proxy: StartProxy, dns: ChallTestSrv, tmp_path: Path, fresh_name: FreshName, own_key: str
) -> None:
    """With everything logged, orders that succeed, fail and are refused show no private, binding or storage key."""
    secrets = {_EAB_KEY, _STORAGE_KEY, base64.urlsafe_b64decode(_STORAGE_KEY).hex()}
    with Pebble(dns, eab={"kid-1": _EAB_KEY}) as ca:
        running = proxy(ca=ca, start=False, acme_eab_kid="kid-1", acme_eab_hmac_key="env:EAB_KEY", flow_detail=4)
        running.environment |= {"EAB_KEY": _EAB_KEY, "STORAGE_KEY": _STORAGE_KEY}
        running.options["acme_storage_key"] = "env:STORAGE_KEY"
        running.options |= {"termlog_verbosity": "debug", "acme_fail_backoff": "1s", "acme_renew_before": "1d"}
        if own_key:
            key = (
                rsa.generate_private_key(65_537, 2048) if own_key == "rsa" else ec.generate_private_key(ec.SECP256R1())
            )
            (tmp_path / "account").write_text(_pem(key))
            running.options["acme_account_key"] = f"file:{tmp_path / 'account'}"
            secrets |= shapes_of(key)

        secrets |= _succeed_and_fail(running, ca, dns, fresh_name, tmp_path)

    log = running.log.read_text()
    assert "the handshake goes on without a certificate" in log  # debugging is on
    assert [secret for secret in secrets if secret in log] == []
    assert "PRIVATE KEY" not in log


@pytest.mark.parametrize("option", ["acme_account_key", "acme_eab_hmac_key", "acme_storage_key"])
def test_wrong_secret_is_not_quoted(proxy: StartProxy, option: str) -> None:
    """A secret that cannot be used stops the start with the option's name, and is not shown itself."""
    running = proxy(start=False)
    running.options |= {"acme_eab_kid": "", option: "hunter2-not-a-key"}

    log = running.fail_to_start()

    assert option in log
    assert "hunter2" not in log


def test_files_of_the_store_are_the_owners_alone(
    proxy: StartProxy, dns: ChallTestSrv, root: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    """Every file of the store is 0600 and every folder 0700."""
    running = proxy()
    failing = fresh_name()
    dns.set_servfail(failing)
    handshake(running.https_port, fresh_name(), root)
    assert not is_trusted(running.https_port, failing, root)

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in _tree(tmp_path / "store")}

    assert {path.name: oct(mode) for path, mode in modes.items() if path.is_dir() and mode != 0o700} == {}
    assert {path.name: oct(mode) for path, mode in modes.items() if path.is_file() and mode != 0o600} == {}
    kinds = {path.relative_to(tmp_path / "store").parts[0] for path in modes if path.is_file()}
    assert kinds >= {"accounts", "backoffs", "calendar", "certificates"}


def _succeed_and_fail(
    running: Mitmdump, ca: Pebble, dns: ChallTestSrv, fresh_name: FreshName, folder: Path
) -> set[str]:
    """Let happen what can: certificates, requests, failures, broken records that hold a key; return the keys."""
    good, bad = fresh_name(), fresh_name()
    dns.set_servfail(bad)
    running.start()
    handshake(running.https_port, good, ca.root())
    assert "hello" in get(running.https_port, good, ca.root())
    assert not is_trusted(running.https_port, bad, ca.root())
    store = open_storage(f"file:{folder / 'store'}", default_folder=folder)
    eventually(lambda: store.get(f"certificates/{good}"))
    running.stop()
    secrets = _secrets_of(store)
    record = store.get(f"certificates/{good}")
    assert record
    opened = _opened(f"certificates/{good}", record)
    store.put(f"certificates/{good}", opened.replace(b"BEGIN CERTIFICATE", b"BEGIN NONSENSE"))
    store.put(f"certificates/{bad}", record[:-20])
    foreign = fresh_name()
    foreign_key = f"certificates/{foreign}"
    store.put(foreign_key, RecordCipher([Fernet.generate_key().decode()]).seal(foreign_key, opened))
    running.start()
    handshake(running.https_port, good, ca.root())
    assert not is_trusted(running.https_port, bad, ca.root())
    assert not is_trusted(running.https_port, foreign, ca.root())
    assert f"certificates/{foreign} is sealed" in running.log.read_text()
    eventually(lambda: store.get(f"certificates/{good}") not in (None, record))
    running.stop()
    for name in (bad, foreign):
        store.delete(f"certificates/{name}")
    return secrets | _secrets_of(store)


def _secrets_of(store: Storage) -> set[str]:
    """Every private key that is stored, in each shape that could be logged."""
    found: set[str] = set()
    for key in store.keys("certificates/"):
        record = _opened(key, store.get(key) or b"")
        start, end = record.index(b"-----BEGIN PRIVATE"), record.index(b"-----END PRIVATE")
        pem = record[start:end].decode().replace("\\n", "\n") + "-----END PRIVATE KEY-----\n"
        found |= shapes_of(load_pem_private_key(pem.encode(), None))  # type: ignore[arg-type]  # ours are EC or RSA
    for key in store.keys("accounts/"):
        if text := json.loads(_opened(key, store.get(key) or b""))["key"]:
            found |= shapes_of(jose.JWK.json_loads(text).key._wrapped)
    assert found
    return found


def _opened(key: str, record: bytes) -> bytes:
    return RecordCipher([_STORAGE_KEY]).open(key, record)


def shapes_of(key: PrivateKey) -> set[str]:
    """The key as PEM lines, as the private members of a JWK, and as numbers."""
    jwk = jose.JWKRSA(key=key) if isinstance(key, rsa.RSAPrivateKey) else jose.JWKEC(key=key)
    members = {value for member, value in jwk.to_json().items() if member in ("d", "p", "q", "dp", "dq", "qi")}
    numbers = key.private_numbers()
    number = numbers.d if isinstance(numbers, rsa.RSAPrivateNumbers) else numbers.private_value
    # the first line and the last are mostly, or may be, too short to tell
    return {*_pem(key).splitlines()[2:-2], *members, str(number), f"{number:x}"}


def _pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _tree(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")
