"""Which keys a client can use, according to ClientHellos that OpenSSL made."""

from collections.abc import Sequence
from typing import Any

import pytest
from mitmproxy.tls import ClientHello
from OpenSSL import SSL

from mitmproxy_acme.core.key_types import KEY_TYPES
from mitmproxy_acme.mitm.tls.client_hello import ClientCapabilities
from tests.costs import cpu_seconds

TLS_1_1, TLS_1_2, TLS_1_3 = SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
ECDSA = ("ecdsa-p256", "ecdsa-p384")
RSA = ("rsa-2048", "rsa-3072", "rsa-4096")


def hello(
    *,
    version: int = 0,
    schemes: str | None = None,
    ciphers: str | None = None,
    groups: str | None = None,
    name: bytes | None = None,
) -> ClientHello:
    """Return the ClientHello of an OpenSSL client; unless 0, ``version`` is both the lowest and the highest."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if ciphers is not None:
        context.set_cipher_list(ciphers.encode())
    if groups is not None:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1
    if schemes is not None:
        assert SSL._lib.SSL_CTX_set1_sigalgs_list(context._context, schemes.encode()) == 1
    client = SSL.Connection(context)
    if name is not None:
        client.set_tlsext_host_name(name)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return ClientHello(client.bio_read(65_536)[9:])  # behind the headers of the record and of the handshake


def read(said: ClientHello, *, tls13: bool = True) -> ClientCapabilities:
    return ClientCapabilities.read(said.cipher_suites, said.extensions, tls13=tls13)


def taken(said: ClientHello, *, tls13: bool = True) -> tuple[str, ...]:
    offer = read(said, tls13=tls13)
    return tuple(type for type in KEY_TYPES if offer.takes(type))


@pytest.mark.parametrize(
    ("offer", "types"),
    [
        ({}, KEY_TYPES),
        ({"schemes": "rsa_pss_rsae_sha256:rsa_pkcs1_sha256"}, RSA),
        ({"schemes": "rsa_pkcs1_sha256"}, ()),  # such a client speaks TLS 1.2 only, which it does not say here
        ({"schemes": "ecdsa_secp256r1_sha256"}, ("ecdsa-p256",)),
        ({"schemes": "ecdsa_secp384r1_sha384:rsa_pss_rsae_sha512"}, ("ecdsa-p384", *RSA)),
        ({"version": TLS_1_3}, KEY_TYPES),
        ({"version": TLS_1_3, "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}, KEY_TYPES),  # its suites say nothing of keys
        ({"version": TLS_1_2}, KEY_TYPES),
        ({"version": TLS_1_2, "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}, RSA),
        ({"version": TLS_1_2, "ciphers": "AES128-SHA"}, RSA),
        ({"version": TLS_1_2, "ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256"}, ECDSA),
        ({"version": TLS_1_2, "ciphers": "ECDHE-ECDSA-CHACHA20-POLY1305"}, ECDSA),
        ({"version": TLS_1_2, "schemes": "RSA+SHA256"}, RSA),
        ({"version": TLS_1_2, "schemes": "ECDSA+SHA256"}, ECDSA),  # until TLS 1.2 any hash goes with any curve
        ({"version": TLS_1_2, "schemes": "rsa_pss_rsae_sha256"}, RSA),
        ({"version": TLS_1_2, "groups": "P-256"}, ("ecdsa-p256", *RSA)),
        ({"version": TLS_1_2, "groups": "X25519:P-384"}, ("ecdsa-p384", *RSA)),
    ],
)
def test_keys_that_a_client_can_use(offer: dict[str, Any], types: Sequence[str]) -> None:
    """In TLS 1.3 only the schemes count; before it schemes, suites and curves must all fit."""
    assert taken(hello(**offer)) == tuple(types)


@pytest.mark.parametrize(
    ("ciphers", "types"),
    [("ECDHE-RSA-AES128-SHA", RSA), ("ECDHE-ECDSA-AES128-SHA", ECDSA), ("ALL", KEY_TYPES)],
)
def test_old_client_that_names_no_schemes(ciphers: str, types: Sequence[str]) -> None:
    """Its suites decide (RFC 5246 section 7.4.1.4.1)."""
    said = hello(version=TLS_1_1, ciphers=f"{ciphers}:@SECLEVEL=0")
    assert 13 not in dict(said.extensions)
    assert taken(said) == tuple(types)


def test_client_of_both_versions_is_judged_by_the_one_that_is_spoken() -> None:
    """If we speak TLS 1.2 at most, its suites count, though the client would speak TLS 1.3."""
    said = hello(ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    assert taken(said) == KEY_TYPES
    assert taken(said, tls13=False) == RSA


@pytest.mark.parametrize("key_types", [("ecdsa-p256", "rsa-2048"), ("rsa-2048", "ecdsa-p256")])
def test_preferred_type_comes_first(key_types: tuple[str, ...]) -> None:
    """A client that can use both types gets the first; one that can use one gets that."""
    assert read(hello()).choose(key_types) == key_types
    assert read(hello(schemes="rsa_pss_rsae_sha256")).choose(key_types) == ("rsa-2048",)
    assert read(hello(schemes="ecdsa_secp256r1_sha256")).choose(key_types) == ("ecdsa-p256",)


def test_rsa_if_nothing_is_known() -> None:
    """A client whose capabilities are unknown is taken for an old one."""
    nothing, eddsa = ClientCapabilities(), read(hello(schemes="ed25519"))
    for offer in (nothing, eddsa):
        assert offer.choose(("ecdsa-p256", "rsa-2048")) == ("rsa-2048",)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x03\x04", b"\xff\xff"])
def test_broken_list_is_empty(body: bytes) -> None:
    """A stranger wrote the ClientHello: a truncated list has no entry, and raises nothing."""
    assert (
        ClientCapabilities.read([0xC02B, 0xC02F], [(13, body), (10, body), (43, body)], tls13=True).schemes
        == frozenset()
    )


def test_signals_and_grease_are_no_suites() -> None:
    """Signalling values among the suites are no sign of a client that can use RSA (RFC 5746, 7507, 8701)."""
    offer = ClientCapabilities.read([0x0A0A, 0x00FF, 0x5600, 0x1301, 0xC02B], [], tls13=True)
    assert not offer.takes("rsa-2048")
    assert offer.takes("ecdsa-p256")


def test_longest_hello_costs_the_loop_little() -> None:
    """Its lists may have all possible numbers."""
    numbers = b"".join(n.to_bytes(2) for n in range(32_000))
    extensions = [(kind, b"\xff\xff" + numbers) for kind in (10, 13, 43)]
    suites = list(range(32_000))
    assert cpu_seconds(lambda: ClientCapabilities.read(suites, extensions, tls13=False)) < 0.2


@pytest.mark.parametrize(
    ("scheme", "types"), [(0x0403, ECDSA), (0x0401, RSA), (0x0803, ()), (0x0801, ()), (0x0903, ()), (0x0804, RSA)]
)
def test_schemes_of_tls13_are_read_whole(scheme: int, types: tuple[str, ...]) -> None:
    """Only those of TLS 1.2 have the kind of key in their second byte (RFC 8446 section 4.2.3)."""
    suites = [0xC02B, 0xC02F]  # with ECDSA, and with RSA
    offer = ClientCapabilities.read(suites, [(13, b"\x00\x02" + scheme.to_bytes(2))], tls13=False)
    assert tuple(type for type in KEY_TYPES if offer.takes(type)) == types
