"""A real CA whose certificates are spoilt on their way: what was served is served on, stored, and one line says why."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_storage import Storage
from tests.end_to_end.admin import with_api
from tests.end_to_end.client import handshake, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.gate import Gate
from tests.servers.pebble import Pebble

_DOWNLOADS = "/certZ/"
_END = b"-----END CERTIFICATE-----\n"


@pytest.fixture
def gate(lenient_ca: Pebble, tmp_path: Path) -> Iterator[Gate]:
    with Gate(lenient_ca, tmp_path / "gate") as door:
        yield door


def _links(body: bytes) -> list[bytes]:
    return [certificate.public_bytes(Encoding.PEM) for certificate in x509.load_pem_x509_certificates(body)]


def _ways(old: bytes, another: bytes) -> dict[str, tuple[Callable[[bytes], bytes], bool, str]]:
    """What is made of a delivery, whether its length is said, and what the log says of it.

    ``old`` is the chain that was delivered before, ``another`` an intermediate of another CA.
    """
    return {
        "leaf alone": (lambda body: _links(body)[0], False, "without its intermediate"),
        "another's intermediate": (lambda body: _links(body)[0] + another, False, "clients do not accept"),
        "intermediate first": (lambda body: b"".join(_links(body)[::-1]), False, "does not belong to its private key"),
        "second cut": (lambda body: body[:-200], False, "ends in the middle of a certificate"),
        "cut in its first line": (lambda body: _links(body)[0] + b"-----BEGIN", False, "is cut off"),
        "cut short": (lambda body: body[: len(_links(body)[0])], True, "cannot be reached"),
        "cut short in the leaf": (lambda body: body[:500], True, "cannot be reached"),
        "cut in the leaf": (lambda body: body[:500], False, "is not a PEM chain"),
        "empty": (lambda body: b"", False, "is not a PEM chain"),
        "the last one again": (lambda body: old, False, "does not belong to its private key"),
        "70 KiB": (lambda body: body + b"\n" * 70_000, False, "can be stored"),
    }


def test_spoilt_renewal_leaves_what_is_served(
    proxy: StartProxy, gate: Gate, lenient_ca: Pebble, store: Storage, fresh_name: Callable[[], str]
) -> None:
    """Each is one failure of its order; the next renewal that comes whole is taken."""
    name, kept = fresh_name(), list[bytes]()

    def keep(body: bytes) -> bytes:
        kept.append(body)
        return body

    running, api = with_api(proxy, start=False, acme_log_format="json")
    running.options |= {"acme_ca": [gate.directory], "acme_ca_bundle": str(gate.ca_bundle)}
    running.start()
    gate.alter(_DOWNLOADS, keep)
    good = handshake(running.https_port, name, lenient_ca.root())
    record = store.get(f"certificates/{name}")
    with Pebble(always_valid=True) as other:
        ways = _ways(kept[0], other.intermediate().encode())
    for way, (change, length, sentence) in ways.items():
        gate.alter(_DOWNLOADS, change, length=length)
        before = running.log_text()
        answer = api("POST", f"/acme/certificates/{name}/renew")
        said = [line for line in running.log_text().removeprefix(before).splitlines() if "no certificate: " in line]
        assert answer.status >= 400, way
        assert len(said) == 1, way
        assert sentence in said[0], (way, said)
        assert handshake(running.https_port, name, lenient_ca.root()).leaf == good.leaf, way
        assert store.get(f"certificates/{name}") == record, way
        assert is_trusted(running.https_port, name, lenient_ca.root()), way

    gate.open()
    assert api("POST", f"/acme/certificates/{name}/renew").status < 300
    assert handshake(running.https_port, name, lenient_ca.root()).leaf != good.leaf
    assert "Traceback" not in running.log_text()
