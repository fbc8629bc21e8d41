"""What is offered under our certificates: what Mozilla recommends, unless the user changes it."""

import itertools
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from mitmproxy.certs import CertStore
from OpenSSL import SSL

from tests.end_to_end.client import Negotiated, handshake, negotiate
from tests.end_to_end.conftest import StartProxy, default_options
from tests.servers.binaries import Program
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

FreshName = Callable[[], str]
Offer = dict[str, object]

TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
ONLY_1_2: Offer = {"versions": (TLS_1_2, TLS_1_2)}
ONLY_1_3: Offer = {"versions": (TLS_1_3, TLS_1_3)}

# https://wiki.mozilla.org/Security/Server_Side_TLS, guidelines 5.7
MOZILLA_INTERMEDIATE = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-CHACHA20-POLY1305",
}


@dataclass(frozen=True)
class Edge:
    """A running proxy, and a name that has a certificate there."""

    proxy: Mitmdump
    name: str
    root: str

    @property
    def port(self) -> int:
        return self.proxy.https_port

    def negotiate(self, **offer: object) -> Negotiated:
        """Do a trusted handshake with a client that offers this. Raises ``SSL.Error``."""
        return negotiate(self.port, self.name, root=self.root, **offer)  # type: ignore[arg-type]  # its keywords

    def accepts(self, **offer: object) -> bool:
        """Say whether a client that offers this gets a handshake, for our name unless the offer has another."""
        try:
            negotiate(self.port, **({"name": self.name} | offer))  # type: ignore[arg-type]  # its keywords
        except SSL.Error:
            return False
        return True

    def accepted_ciphers(self, name: str | None = None) -> set[str]:
        """Return the accepted ones of all TLS 1.2 ciphers of this OpenSSL, tried one by one."""
        offer = ONLY_1_2 | {"name": name or self.name}
        return {c for c in known_ciphers() if self.accepts(ciphers=f"{c}:@SECLEVEL=0", **offer)}


def known_ciphers() -> list[str]:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return [cipher for cipher in SSL.Connection(context).get_cipher_list() if not cipher.startswith("TLS_")]


StartEdge = Callable[[dict[str, Option]], Edge]

# mitmproxy 12.2 ends at its start when a TLS version is set and OpenSSL is 4, which no longer knows SSL 3, not even to
# refuse it. No addon is loaded early enough to mend that.
MEND_VERSIONS = """
from mitmproxy.net import tls
from OpenSSL import SSL

is_supported_version = tls.is_supported_version

def is_supported(version):
    try:
        return is_supported_version(version)
    except SSL.Error:
        return False

tls.is_supported_version = is_supported

from mitmproxy.tools.main import mitmdump

mitmdump()
"""


class Mended(Forked):
    """mitmdump with MEND_VERSIONS."""

    def program(self) -> Program:
        file = self.folder / "mitmdump"
        file.write_text(f"#!{sys.executable}{MEND_VERSIONS}")
        file.chmod(0o755)
        return Program(str(file), {})


@pytest.fixture
def launch() -> type[Mitmdump]:
    return Mended


@pytest.fixture
def start(proxy: StartProxy, root: str, fresh_name: FreshName) -> StartEdge:
    """Start a proxy with these options, and obtain a certificate."""

    def start_edge(options: dict[str, Option]) -> Edge:
        name, server = fresh_name(), proxy(start=False)
        server.options |= options
        server.start()
        handshake(server.https_port, name, root)
        return Edge(server, name, root)

    return start_edge


def shared_edge(dns: ChallTestSrv, upstream: Upstream, **options: Option) -> Iterator[Edge]:
    with Pebble(dns, chain_length=3) as ca:
        given = default_options(ca, ca.folder / "store") | options
        with Forked(upstream.url, given, http_port=ca.http_port) as server:
            handshake(server.https_port, "edge.example.test", ca.root())
            yield Edge(server, "edge.example.test", ca.root())


@pytest.fixture(scope="module")
def edge(dns: ChallTestSrv, upstream: Upstream) -> Iterator[Edge]:
    """A proxy without any TLS option, and with a CA that has three intermediates."""
    yield from shared_edge(dns, upstream)


@pytest.fixture(scope="module")
def tuned(dns: ChallTestSrv, upstream: Upstream) -> Iterator[Edge]:
    """A proxy with all TLS options that mitmproxy has, except the versions."""
    yield from shared_edge(
        dns,
        upstream,
        ciphers_client="ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES256-GCM-SHA384",
        tls_ecdh_curve_client="secp384r1",
        http2=False,
        request_client_cert=True,
    )


def test_ciphers_are_mozillas(edge: Edge) -> None:
    """Of all TLS 1.2 ciphers exactly Mozilla's intermediate ones for ECDSA are accepted."""
    assert edge.accepted_ciphers() == {c for c in MOZILLA_INTERMEDIATE if c.startswith("ECDHE-ECDSA")}


def test_ciphers_are_mozillas_under_rsa_certificates(start: StartEdge) -> None:
    """An RSA key allows neither RSA key exchange nor CBC."""
    accepted = start({"acme_key_type": ["rsa-2048"]}).accepted_ciphers()

    assert accepted <= MOZILLA_INTERMEDIATE
    assert {c for c in MOZILLA_INTERMEDIATE if c.startswith("ECDHE-RSA")} <= accepted


@pytest.mark.parametrize("version", [TLS_1_0, TLS_1_1], ids=["1.0", "1.1"])
def test_old_versions_are_refused(edge: Edge, version: int) -> None:
    """A client of TLS 1.0 or 1.1 gets no handshake."""
    assert not edge.accepts(versions=(version, version), ciphers="ALL:@SECLEVEL=0")


def test_current_versions_are_accepted(edge: Edge) -> None:
    """TLS 1.3 with clients that offer it, and 1.2 with others."""
    assert edge.negotiate().version == "TLSv1.3"
    assert edge.negotiate(**ONLY_1_2).version == "TLSv1.2"


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (None, "X25519MLKEM768"),
        ("X25519MLKEM768:X25519:P-256:P-384", "X25519MLKEM768"),  # as browsers do
        ("X25519MLKEM768", "X25519MLKEM768"),
        ("X25519", "x25519"),
        ("P-256", "secp256r1"),
        ("P-384", "secp384r1"),
    ],
)
def test_groups_are_mozillas_and_the_hybrid(edge: Edge, offered: str | None, agreed: str) -> None:
    """X25519MLKEM768 with clients that offer it first, and X25519, P-256 and P-384 with others."""
    assert edge.negotiate(groups=offered).group == agreed


@pytest.mark.parametrize("group", ["X448", "P-521", "ffdhe2048"])
def test_other_groups_are_refused(edge: Edge, group: str) -> None:
    """A group outside Mozilla's list gets no handshake."""
    assert not edge.accepts(groups=group)


def test_http2_is_offered(edge: Edge) -> None:
    """Clients that offer HTTP/2 get it."""
    assert edge.negotiate(alpn=[b"h2", b"http/1.1"]).alpn == b"h2"


def test_client_certificate_is_not_asked_for(edge: Edge) -> None:
    """Without request_client_cert no client is asked for a certificate."""
    assert not edge.negotiate().asked_for_certificate


def test_whole_chain_is_sent(edge: Edge) -> None:
    """The leaf comes first, then each intermediate, signed by the next, and no root."""
    chain = edge.negotiate().chain

    assert len(chain) == 4
    for certificate, issuer in itertools.pairwise(chain):
        certificate.verify_directly_issued_by(issuer)
    assert all(certificate.subject != certificate.issuer for certificate in chain)


def test_handshake_in_small_pieces_is_served(edge: Edge) -> None:
    """A ClientHello in many segments, as the long hybrid ones may be, is put together."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = ssl.create_default_context(cadata=edge.root).wrap_bio(incoming, outgoing, server_hostname=edge.name)
    with pytest.raises(ssl.SSLWantReadError):
        secure.do_handshake()
    hello = outgoing.read()

    with socket.create_connection(("127.0.0.1", edge.port), 30) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin in range(0, len(hello), 40):
            plain.sendall(hello[begin : begin + 40])
        while secure.version() is None:
            incoming.write(plain.recv(65_536))
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                continue

    assert secure.version() == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("which", ["edge", "tuned"])
def test_sessions_are_resumed(request: pytest.FixtureRequest, which: str, version: ssl.TLSVersion) -> None:
    """Also with request_client_cert, which makes each resumption fail in stock mitmproxy."""
    edge: Edge = request.getfixturevalue(which)
    context = ssl.create_default_context(cadata=edge.root)
    context.minimum_version = context.maximum_version = version
    session, resumed = None, []

    for _ in range(3):
        reused, session = visit(context, edge, session)
        resumed.append(reused)

    assert resumed == [False, True, True]


def visit(
    context: ssl.SSLContext, edge: Edge, session: ssl.SSLSession | None
) -> tuple[bool | None, ssl.SSLSession | None]:
    with (
        socket.create_connection(("127.0.0.1", edge.port), 30) as plain,
        context.wrap_socket(plain, server_hostname=edge.name, session=session) as secure,
    ):
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {edge.name}\r\nConnection: close\r\n\r\n".encode())
        assert secure.recv(65_536).startswith(b"HTTP/1.1 200")  # and with it came the tickets of TLS 1.3
        return secure.session_reused, secure.session


def test_ciphers_of_the_user_win(tuned: Edge) -> None:
    """TLS 1.2 clients can use exactly ciphers_client, even if it is weaker than the profile."""
    assert tuned.accepted_ciphers() == {"ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES256-GCM-SHA384"}


def test_curve_of_the_user_wins(tuned: Edge) -> None:
    """tls_ecdh_curve_client is the only group."""
    assert tuned.negotiate().group == "secp384r1"
    assert not tuned.accepts(groups="X25519")


def test_http2_of_the_user_wins(tuned: Edge) -> None:
    """With http2=false the protocol is HTTP/1.1."""
    assert tuned.negotiate(alpn=[b"h2", b"http/1.1"]).alpn == b"http/1.1"


def test_request_client_cert_of_the_user_wins(tuned: Edge) -> None:
    """With request_client_cert the client is asked for a certificate, and may have none."""
    assert tuned.negotiate().asked_for_certificate


@pytest.mark.parametrize("profile", ["intermediate", "modern"])
def test_maximum_version_of_the_user_wins(start: StartEdge, profile: str) -> None:
    """tls_version_client_max=TLS1_2 allows TLS 1.2 only, with any profile."""
    edge = start({"acme_tls_profile": profile, "tls_version_client_max": "TLS1_2"})

    assert edge.negotiate().version == "TLSv1.2"
    assert not edge.accepts(**ONLY_1_3)


def test_higher_minimum_version_of_the_user_wins(start: StartEdge) -> None:
    """tls_version_client_min=TLS1_3 refuses what the intermediate profile would accept."""
    edge = start({"tls_version_client_min": "TLS1_3"})

    assert edge.negotiate().version == "TLSv1.3"
    assert not edge.accepts(**ONLY_1_2)


def test_lower_minimum_version_of_the_user_wins(start: StartEdge) -> None:
    """tls_version_client_min=TLS1 allows versions that the profiles refuse, the modern profile too."""
    weak = "ALL:@SECLEVEL=0"
    edge = start({"acme_tls_profile": "modern", "tls_version_client_min": "TLS1", "ciphers_client": weak})

    assert edge.negotiate(versions=(TLS_1_0, TLS_1_0), ciphers=weak).version == "TLSv1"
    assert edge.negotiate(versions=(TLS_1_1, TLS_1_1), ciphers=weak).version == "TLSv1.1"
    assert edge.negotiate(**ONLY_1_2).version == "TLSv1.2"


def test_modern_profile_refuses_tls_1_2(start: StartEdge) -> None:
    """With acme_tls_profile=modern our names speak TLS 1.3 only; other names stay as mitmproxy has them."""
    edge = start({"acme_tls_profile": "modern", "acme_unknown_names": "mitm"})

    assert edge.negotiate().version == "TLSv1.3"
    assert not edge.accepts(**ONLY_1_2)
    assert edge.accepts(name="www.elsewhere.test", **ONLY_1_2)


def test_mitmproxy_profile_accepts_what_stock_does(start: StartEdge, tmp_path: Path) -> None:
    """With acme_tls_profile=mitmproxy our names accept the ciphers and groups that other names do."""
    CertStore.create_store(tmp_path, "mitmproxy", 2048)  # an RSA key, as mitmproxy makes one; Forked brings an EC key
    options: dict[str, Option] = {"acme_key_type": ["rsa-2048"], "acme_unknown_names": "mitm"}
    edge = start(options | {"acme_tls_profile": "mitmproxy", "confdir": str(tmp_path)})
    stock = "www.elsewhere.test"

    assert edge.accepted_ciphers() == edge.accepted_ciphers(stock)
    assert edge.accepts(ciphers="AES128-SHA", **ONLY_1_2)
    assert edge.accepts(groups="X448")
    assert edge.accepts(name=stock, groups="X448")


def test_keys_are_ecdsa_on_p_256(edge: Edge) -> None:
    """The default of acme_key_type."""
    key = edge.negotiate().leaf.public_key()

    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


@pytest.mark.parametrize(("key_type", "size"), [("ecdsa-p384", 384), ("rsa-2048", 2048)])
def test_keys_are_of_the_type_that_was_asked_for(start: StartEdge, key_type: str, size: int) -> None:
    """acme_key_type sets the type and the size of the key."""
    key = start({"acme_key_type": [key_type]}).negotiate().leaf.public_key()

    assert isinstance(key, rsa.RSAPublicKey if key_type.startswith("rsa") else ec.EllipticCurvePublicKey)
    assert key.key_size == size
