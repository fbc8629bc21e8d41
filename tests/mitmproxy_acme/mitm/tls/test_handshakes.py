"""What a handshake costs, and which certificate it gets: mitmproxy's events, without sockets."""

import asyncio
import contextlib
import gc
import sys
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings, strategies
from mitmproxy import connection, options, tls
from mitmproxy.addons.tlsconfig import AppData, TlsConfig
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy import context, mode_specs
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import ClientTLSLayer, modes
from mitmproxy.proxy.layers.quic import QuicTlsData
from mitmproxy.test import taddons
from OpenSSL import SSL

import mitmproxy_acme
from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.errors import IssuerUnavailable
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm.challenge_lookup import ChallengeLookup
from mitmproxy_acme.mitm.tls import rejection, tls_alpn
from mitmproxy_acme.mitm.tls.contexts import TlsContexts
from mitmproxy_acme.mitm.tls.handshakes import Handshakes, _is_secure_web_proxy
from mitmproxy_acme.mitm.tls.hello_limits import ClientHelloLimit
from tests.costs import loop_seconds
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer, make_certificate, manager_on
from tests.mitmproxy_acme.mitm.tls.test_client_hello import hello

NAME = "a.example.test"
_PACKAGE = str(Path(mitmproxy_acme.__file__).parent)


REVERSE = "reverse:http://127.0.0.1:1"


def start_of(sni: str | None, opts: options.Options, mode: str = REVERSE, at: str = "127.0.0.1") -> tls.TlsData:
    client = connection.Client(
        peername=("127.0.0.1", 1), sockname=(at, 2), proxy_mode=mode_specs.ProxyMode.parse(mode), sni=sni
    )
    return tls.TlsData(client, context.Context(client, opts))


class Proxy:
    """A manager and the handshakes of one mitmproxy, whose options are set as keywords."""

    def __init__(self, manager: Manager, own: tuple[str, ...] = (), **opts: Any) -> None:
        """``own`` are the names for which mitmproxy has the operator's certificate."""
        with taddons.context(TlsConfig()) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
            tctx.options.update(**opts)
            self.options = tctx.options
        self.manager = manager
        self.seconds, self.drawn = 0.0, 0.0
        self.contexts = TlsContexts(
            self.options,
            manager.config.tls_profile,
            manager.config.cache_size,
            lambda: None,
            clock=lambda: self.seconds,
            draw=lambda: self.drawn,
        )
        self.handshakes = Handshakes(
            manager,
            ChallengeLookup(manager),
            self.contexts,
            self.options,
            Instrumentation(),
            has_own=own.__contains__,
            clock=lambda: self.seconds,
        )

    async def start(self, sni: str | None, mode: str = REVERSE, at: str = "127.0.0.1") -> tls.TlsData:
        data = start_of(sni, self.options, mode, at)
        await self.handshakes.start_tls(data)
        return data

    async def validate(self, sni: str | None) -> tls.TlsData:
        """Start as a validator of tls-alpn-01 does."""
        data = start_of(sni, self.options)
        data.conn.alpn_offers = [tls_alpn.PROTOCOL]
        await self.handshakes.start_tls(data)
        return data


@pytest.fixture
async def proxy(make_manager: MakeManager) -> Proxy:
    return Proxy(make_manager())


async def test_cached_handshake_awaits_nothing_and_touches_no_storage_and_no_thread(
    proxy: Proxy, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second visit on the hook returns without a single await."""
    await proxy.start(NAME)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a cached handshake came here")

    for method in ("get", "put", "swap", "delete", "keys"):
        monkeypatch.setattr(memory, method, forbidden)
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", forbidden)
    monkeypatch.setattr(proxy.contexts, "_build", forbidden)
    data = start_of("A.Example.TEST.", proxy.options)
    hook = proxy.handshakes.start_tls(data)
    with pytest.raises(StopIteration):  # it ended at the first step: it never gave the loop back
        hook.send(None)
    assert data.ssl_conn is not None


async def test_cached_handshake_calls_few_functions(proxy: Proxy) -> None:
    """Ten of ours at most, with the hook that calls this one: each costs every handshake."""
    await proxy.start(NAME)
    data, called = start_of(NAME, proxy.options), list[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
            called.append(frame.f_code.co_qualname)

    hook = proxy.handshakes.start_tls(data)
    sys.setprofile(note)
    try:
        with pytest.raises(StopIteration):
            hook.send(None)
    finally:
        sys.setprofile(None)
    assert data.ssl_conn is not None
    assert len(called) <= 9, called


STRANGE = ["192.0.2.1", "2001:db8::1", "a_b.example.test", "www.elsewhere.test", "example.test", "a..test", "x" * 64]


def is_rejected(data: tls.TlsData) -> bool:
    """Say whether the connection has no certificate to offer, neither ours nor mitmproxy's."""
    return data.ssl_conn is not None and data.ssl_conn.get_certificate() is None


@pytest.mark.parametrize("sni", STRANGE)
async def test_unknown_name_is_refused_without_storage_certificate_or_log_line(
    proxy: Proxy,
    issuer: FakeIssuer,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sni: str,
) -> None:
    """Foreign names, addresses and garbage in the SNI end at once; a flood of them is one log line."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a refused name came here")

    for method in ("get", "put", "swap", "delete", "keys"):
        monkeypatch.setattr(memory, method, forbidden)
    caplog.set_level("INFO")
    for _ in range(50):
        assert is_rejected(await proxy.start(sni))
    assert len(caplog.records) == 1
    proxy.seconds += 60
    await proxy.start(sni)
    assert "refused 50 handshake(s)" in caplog.messages[1]


async def test_unknown_names_keep_no_memory(proxy: Proxy) -> None:
    """No object is kept for any of 10,000 names."""
    data = start_of("first.elsewhere.test", proxy.options)

    async def refuse(first: int, last: int) -> int:
        for n in range(first, last):
            data.conn.sni, data.ssl_conn = f"n{n}.elsewhere.test", None
            await proxy.handshakes.start_tls(data)
        gc.collect()
        return len(gc.get_objects())

    before = await refuse(0, 1_000)
    assert await refuse(1_000, 11_000) - before < 1_000


@pytest.mark.parametrize("sni", ["a." * 127 + "test", "x" * 255, "xn--" + "a" * 59 + ".test", "-" * 255, "1." * 127])
async def test_unknown_name_costs_the_loop_little(proxy: Proxy, sni: str) -> None:
    """mitmproxy's own certificate, which it got before, takes 5 ms."""
    assert await loop_seconds(lambda: proxy.start(sni)) < 0.002


@given(sni=strategies.text(max_size=300))
@settings(max_examples=50)
def test_any_text_for_a_name_is_answered(sni: str) -> None:
    """Any text that mitmproxy reads as SNI ends in a certificate, a rejection or mitmproxy's own; never in an error."""

    async def look() -> None:
        clock = Clock()
        manager = manager_on(Memory(now=clock), clock, acme_on_demand="off")
        data = await Proxy(manager).start(sni)
        assert data.ssl_conn is None or is_rejected(data)
        await manager.close()

    asyncio.run(look())


@pytest.mark.parametrize("sni", [None, "", "127.0.0.1"])
async def test_client_without_a_name_is_left_to_mitmproxy(proxy: Proxy, issuer: FakeIssuer, sni: str | None) -> None:
    """It gets mitmproxy's certificate for the address that it reached: the same for all clients."""
    assert (await proxy.start(sni)).ssl_conn is None
    assert issuer.orders == []


@pytest.mark.parametrize(
    "name", [b"*.example.test", b"a b.example.test", b"a..test", b"[::1]", b"\xff.test", b"xn--.test"]
)
@pytest.mark.parametrize("mode", [REVERSE, "regular"])
async def test_name_that_mitmproxy_cannot_read_is_refused(
    make_manager: MakeManager, issuer: FakeIssuer, name: bytes, mode: str
) -> None:
    """mitmproxy drops the name, and would serve a certificate for the address, or we would; in other modes it may."""
    proxy = Proxy(make_manager(acme_ip_certificates=True))
    start = start_of(None, proxy.options, mode, "192.0.2.1")
    said = hello(name=name)
    assert said.sni is None
    proxy.handshakes.read_hello(tls.ClientHelloData(start.context, said))
    await proxy.handshakes.start_tls(start)
    assert is_rejected(start) == (mode == REVERSE)
    assert issuer.orders == []


async def test_unknown_name_with_a_certificate_of_the_operator_is_left_to_mitmproxy(make_manager: MakeManager) -> None:
    """Names in mitmproxy's ``certs`` are served as before."""
    proxy = Proxy(make_manager(), own=("www.elsewhere.test",))
    assert (await proxy.start("www.elsewhere.test")).ssl_conn is None
    assert is_rejected(await proxy.start("www2.elsewhere.test"))


@pytest.mark.parametrize("sni", [None, *STRANGE])
async def test_unknown_names_are_left_to_mitmproxy_with_the_option(
    make_manager: MakeManager, issuer: FakeIssuer, sni: str | None
) -> None:
    """With ``acme_unknown_names=mitm`` they are not touched."""
    assert (await Proxy(make_manager(acme_unknown_names="mitm")).start(sni)).ssl_conn is None
    assert issuer.orders == []


async def test_new_names_that_mitmproxy_signs_for_are_bounded(make_manager: MakeManager) -> None:
    """A name of ours without a certificate falls back; for invented names 100 at once, then 5 a second."""
    proxy = Proxy(make_manager(acme_on_demand="off"), own=("own.example.test",))

    async def left(prefix: str, count: int) -> int:
        starts = [await proxy.start(f"{prefix}{n}.example.test") for n in range(count)]
        assert all(start.ssl_conn is None or is_rejected(start) for start in starts)
        return sum(start.ssl_conn is None for start in starts)

    assert await left("a", 200) == 100
    assert (await proxy.start("a99.example.test")).ssl_conn is None  # signed already
    assert (await proxy.start("own.example.test")).ssl_conn is None  # not to be signed
    assert (await proxy.start(None)).ssl_conn is None
    proxy.seconds += 2
    assert await left("b", 200) == 10


@pytest.mark.parametrize(
    "mode", ["regular", "transparent", "socks5", "upstream:http://127.0.0.1:1", "wireguard", "local"]
)
async def test_only_reverse_mode_orders(make_manager: MakeManager, issuer: FakeIssuer, mode: str) -> None:
    """In other modes clients go to any host: nothing is ordered, and only listed names are served."""
    proxy = Proxy(make_manager(acme_allow_any_domain=True, acme_certificates=("m.test",)))
    assert (await proxy.start("any.test", mode)).ssl_conn is None
    assert (await proxy.start("m.test", mode)).ssl_conn is None
    assert issuer.orders == []
    await proxy.start("any.test")
    await proxy.manager.ensure(proxy.manager.config.managed[0])
    assert (await proxy.start("any.test", mode)).ssl_conn is None
    assert (await proxy.start("m.test", mode)).ssl_conn is not None


async def test_connection_of_another_addon_is_respected(proxy: Proxy, issuer: FakeIssuer) -> None:
    """If another addon set the connection, or the client speaks DTLS, nothing changes."""
    data = start_of(NAME, proxy.options)
    data.ssl_conn = other = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD))
    await proxy.handshakes.start_tls(data)
    assert data.ssl_conn is other
    datagrams = start_of(NAME, proxy.options)
    datagrams.is_dtls = True
    await proxy.handshakes.start_tls(datagrams)
    assert datagrams.ssl_conn is None
    assert issuer.orders == []


async def test_fallback_reject_closes(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """With ``reject`` a name of ours without a certificate gets a connection that fails."""
    proxy = Proxy(make_manager(acme_fallback="reject", acme_on_demand="off"))
    assert is_rejected(await proxy.start(NAME))
    quic = QuicTlsData(start_of(NAME, proxy.options).conn, start_of(NAME, proxy.options).context)
    await proxy.handshakes.start_quic(quic)
    assert quic.settings is not None
    assert quic.settings.cipher_suites == []


async def test_handshake_is_held_for_acme_handshake_wait_at_most(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it goes on with the fallback, and the order goes on too."""
    manager = make_manager(acme_handshake_wait=1)
    released = asyncio.Event()
    obtain = issuer.obtain

    async def slow(*arguments: Any) -> Any:
        await released.wait()
        return await obtain(*arguments)

    monkeypatch.setattr(issuer, "obtain", slow)
    proxy = Proxy(manager)
    assert (await proxy.start(NAME)).ssl_conn is None
    released.set()
    subject = manager.config.subject(ServerName(NAME))
    assert subject is not None
    await manager.obtain(subject)
    assert (await proxy.start(NAME)).ssl_conn is not None


async def test_quic_gets_the_same_certificate(proxy: Proxy) -> None:
    """HTTP/3 is served leaf and chain of the same certificate."""
    await proxy.start(NAME)
    start = start_of(NAME, proxy.options)
    start.conn.alpn_offers = [b"h3"]
    quic = QuicTlsData(start.conn, start.context)
    await proxy.handshakes.start_quic(quic)
    certificate = proxy.manager.cache.get(ServerName(NAME))
    assert quic.settings is not None
    assert certificate is not None
    assert quic.settings.certificate == certificate.leaf
    assert quic.settings.certificate_chain == list(certificate.chain)
    assert quic.settings.alpn_protocols == ["h3"]
    other = QuicTlsData(start.conn, start.context, settings=quic.settings)
    await proxy.handshakes.start_quic(other)
    assert other.settings is quic.settings


async def test_served_certificate_is_noted_for_its_client(proxy: Proxy) -> None:
    """Over TCP and over QUIC: what no client is served is not renewed for ever."""
    notes = proxy.manager.usage.served
    await proxy.start(NAME)
    assert set(notes) == {NAME}
    notes.clear()
    start = start_of(NAME, proxy.options)
    await proxy.handshakes.start_quic(QuicTlsData(start.conn, start.context))
    assert set(notes) == {NAME}
    notes.clear()
    refused = start_of("not.ours.test", proxy.options)
    await proxy.handshakes.start_quic(QuicTlsData(refused.conn, refused.context))
    assert notes == {}


MODERN: dict[str, Any] = {}
RSA_ONLY = {"schemes": "rsa_pss_rsae_sha256"}
ECDSA_ONLY = {"schemes": "ecdsa_secp256r1_sha256"}
BOTH = {"acme_key_type": ("ecdsa-p256", "rsa-2048")}


async def served(proxy: Proxy, offer: dict[str, Any]) -> str | None:
    """Return the type of the key that a client with this offer gets; None if it gets no certificate of ours."""
    data = start_of(NAME, proxy.options)
    proxy.handshakes.read_hello(tls.ClientHelloData(data.context, hello(**offer)))
    await proxy.handshakes.start_tls(data)
    leaf = data.ssl_conn.get_certificate(as_cryptography=True) if data.ssl_conn is not None else None
    if leaf is None:
        return None
    return "rsa" if isinstance(leaf.public_key(), rsa.RSAPublicKey) else "ecdsa"


async def test_key_type_is_one_that_the_client_can_use(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """A client that can use the preferred type gets it, and never causes an order of the other."""
    proxy = Proxy(make_manager(**BOTH))
    for offer, kind, orders in [
        (MODERN, "ecdsa", 1),
        (ECDSA_ONLY, "ecdsa", 1),
        (MODERN, "ecdsa", 1),
        (RSA_ONLY, "rsa", 2),
        (MODERN, "ecdsa", 2),
        (RSA_ONLY, "rsa", 2),
    ]:
        assert (await served(proxy, offer), len(issuer.orders)) == (kind, orders)


async def test_version_that_is_spoken_decides(make_manager: MakeManager) -> None:
    """If the user allows TLS 1.2 at most, the suites of a client that speaks TLS 1.3 count."""
    offer = {"ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}
    manager = make_manager(**BOTH)
    assert await served(Proxy(manager), offer) == "ecdsa"
    assert await served(Proxy(manager, tls_version_client_max="TLS1_2"), offer) == "rsa"


async def test_client_of_unknown_capabilities_gets_rsa(make_manager: MakeManager) -> None:
    """It may be the oldest."""
    proxy = Proxy(make_manager(**BOTH))
    data = await proxy.start(NAME)
    assert data.ssl_conn is not None
    leaf = data.ssl_conn.get_certificate(as_cryptography=True)
    assert leaf is not None
    assert isinstance(leaf.public_key(), rsa.RSAPublicKey)


async def test_other_key_type_is_served_if_the_preferred_one_cannot_be_obtained(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To clients that can use it; the others get the fallback."""
    proxy, counted = Proxy(make_manager(**BOTH)), Counted()
    assert await served(proxy, RSA_ONLY) == "rsa"
    issuer.error = IssuerUnavailable("down")
    monkeypatch.setattr(proxy.handshakes, "_measures", counted)
    assert await served(proxy, MODERN) == "rsa"
    assert await served(proxy, MODERN) == "rsa"
    assert await served(proxy, ECDSA_ONLY) is None
    assert counted.ends == ["cached", "cached", "fallback"]
    assert [subject.key_type for subject in issuer.orders] == ["rsa-2048", "ecdsa-p256"]


async def test_old_certificate_that_the_client_cannot_use_is_not_served(
    make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """The certificate under the plain name may be from before the options changed."""
    before = Proxy(make_manager())
    assert await served(before, MODERN) == "ecdsa"
    proxy = Proxy(make_manager(acme_key_type=("rsa-2048", "ecdsa-p256")))
    issuer.error = IssuerUnavailable("down")
    assert await served(proxy, MODERN) == "ecdsa"
    assert await served(proxy, RSA_ONLY) is None


async def test_hello_is_not_read_with_one_key_type(proxy: Proxy) -> None:
    """Reading it would cost every handshake, and decide nothing."""
    start = start_of(NAME, proxy.options)
    proxy.handshakes.read_hello(tls.ClientHelloData(start.context, object()))  # type: ignore[arg-type]  # would raise if read
    await proxy.handshakes.start_tls(start)
    assert start.ssl_conn is not None


async def test_cached_handshake_with_two_key_types_awaits_nothing(make_manager: MakeManager) -> None:
    """Both types are in memory."""
    proxy = Proxy(make_manager(**BOTH))
    for offer in (MODERN, RSA_ONLY):
        assert await served(proxy, offer)
        data = start_of(NAME, proxy.options)
        proxy.handshakes.read_hello(tls.ClientHelloData(data.context, hello(**offer)))
        with pytest.raises(StopIteration):
            proxy.handshakes.start_tls(data).send(None)
        assert data.ssl_conn is not None


async def test_quic_gets_a_key_type_that_the_client_can_use(make_manager: MakeManager) -> None:
    """HTTP/3 has a ClientHello too."""
    proxy = Proxy(make_manager(**BOTH))
    for offer, kind in [(MODERN, ec.EllipticCurvePublicKey), (RSA_ONLY, rsa.RSAPublicKey)]:
        start = start_of(NAME, proxy.options)
        proxy.handshakes.read_hello(tls.ClientHelloData(start.context, hello(**offer)))
        quic = QuicTlsData(start.conn, start.context)
        await proxy.handshakes.start_quic(quic)
        assert quic.settings is not None
        assert quic.settings.certificate is not None
        assert isinstance(quic.settings.certificate.public_key(), kind)


async def test_context_is_built_once_per_certificate_and_again_after_a_change(proxy: Proxy) -> None:
    """Connections share a certificate's context; a renewed certificate, or other options, make another."""
    old, new = make_certificate([NAME]), make_certificate([NAME])
    context = proxy.contexts.get(old)
    assert proxy.contexts.get(old) is context
    assert proxy.contexts.get(new) is not context
    proxy.contexts.clear()
    assert proxy.contexts.get(old) is not context


HOUR = 3_600.0


def resumes(
    offering: SSL.Context, context: SSL.Context, session: SSL.Session | None = None
) -> tuple[bool, SSL.Session | None]:
    """Do one handshake in memory; return whether the server resumed the session, and the next session."""
    client, server = SSL.Connection(offering), SSL.Connection(context)
    if session is not None:
        client.set_session(session)
    client.set_connect_state()
    server.set_accept_state()
    server.set_app_data(AppData(client_alpn=None, server_alpn=None, http2=True))
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65_536))
    with contextlib.suppress(SSL.WantReadError):
        client.recv(1)  # tickets of TLS 1.3 come behind the handshake
    client.shutdown()  # OpenSSL takes up no session of a connection that was not closed
    return bool(SSL._lib.SSL_session_reused(server._ssl)), client.get_session()


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
async def test_session_tickets_do_not_outlive_some_hours(proxy: Proxy, version: int) -> None:
    """Sessions are resumed for three hours; then the context is replaced, and with it the key of its tickets."""
    certificate, client = make_certificate([NAME]), SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_max_proto_version(version)
    taken, session = resumes(client, proxy.contexts.get(certificate))
    assert not taken
    proxy.seconds += 3 * HOUR - 1
    assert resumes(client, proxy.contexts.get(certificate), session)[0]
    proxy.seconds += 2
    assert not resumes(client, proxy.contexts.get(certificate), session)[0]


async def test_contexts_are_not_replaced_all_at_once(proxy: Proxy) -> None:
    """Their lifetimes differ by up to an hour."""
    early, late = make_certificate([NAME]), make_certificate([NAME])
    contexts = [proxy.contexts.get(early)]
    proxy.drawn = 0.9
    contexts.append(proxy.contexts.get(late))
    proxy.seconds += 3.5 * HOUR
    assert proxy.contexts.get(early) is not contexts[0]
    assert proxy.contexts.get(late) is contexts[1]
    proxy.seconds += 0.5 * HOUR
    assert proxy.contexts.get(late) is not contexts[1]


async def test_contexts_are_no_more_than_the_certificates_in_memory(make_manager: MakeManager) -> None:
    """A small ``acme_cache_size`` limits the contexts too, which take far more memory than certificates."""
    proxy = Proxy(make_manager(acme_cache_size=2))
    first = make_certificate(["n0.example.test"])
    context = proxy.contexts.get(first)
    for n in range(1, 3):
        proxy.contexts.get(make_certificate([f"n{n}.example.test"]))
    assert proxy.contexts.get(first) is not context


# Clients that send no name: certificates for addresses (RFC 8738)


@pytest.mark.parametrize(
    ("sni", "at", "address"),
    [
        (None, "192.0.2.1", "192.0.2.1"),
        (None, "2001:db8:0::1", "2001:db8::1"),
        (None, "::ffff:192.0.2.1", "192.0.2.1"),
        ("", "192.0.2.1", "192.0.2.1"),
        ("198.51.100.7", "192.0.2.1", "192.0.2.1"),  # what it says is not where it is
        ("2001:db8::7", "::1", "::1"),
        (NAME, "192.0.2.1", NAME),
    ],
)
async def test_client_without_a_name_gets_the_address_that_it_reached(
    make_manager: MakeManager, issuer: FakeIssuer, sni: str | None, at: str, address: str
) -> None:
    """Ordered like any name, and once; a server name takes precedence."""
    proxy = Proxy(make_manager(acme_ip_certificates=True))
    first, second = await proxy.start(sni, at=at), await proxy.start(sni, at=at)
    assert [subject.names for subject in issuer.orders] == [(address,)]
    assert first.ssl_conn is not None
    assert second.ssl_conn is not None
    assert first.ssl_conn.get_context() is second.ssl_conn.get_context()


@pytest.mark.parametrize(
    ("sni", "at"),
    [(None, "fe80::1%eth0"), (None, "fe80::1"), (None, "169.254.1.1"), (None, ""), ("a_b", "192.0.2.1")],
)
async def test_client_that_reached_no_address_of_ours(
    make_manager: MakeManager, issuer: FakeIssuer, sni: str | None, at: str
) -> None:
    """A link-local address belongs to no host, and an invalid name does not ask for an address."""
    proxy = Proxy(make_manager(acme_ip_certificates=True, acme_unknown_names="mitm"))
    assert (await proxy.start(sni, at=at)).ssl_conn is None
    assert issuer.orders == []


async def test_address_is_that_of_the_proxy_in_reverse_mode_only(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """In other modes a client without a name means the host behind the proxy, even if our address is listed."""
    proxy = Proxy(make_manager(acme_ip_certificates=True, acme_certificates=("192.0.2.1",)))
    await proxy.manager.ensure(proxy.manager.config.managed[0])
    for mode in ("regular", "transparent", "socks5"):
        assert (await proxy.start(None, mode, at="192.0.2.1")).ssl_conn is None
    assert (await proxy.start(None, at="192.0.2.1")).ssl_conn is not None
    assert len(issuer.orders) == 1


@pytest.mark.parametrize(
    ("at", "address"),
    [
        ("10.0.0.5", "8.8.8.8"),
        ("fd00::5", "2001:4860:4860::8888"),
        ("10.0.0.9", "10.0.0.9"),
        ("8.8.4.4", "8.8.4.4"),
        ("9.9.9.9", None),
    ],
)
async def test_behind_nat_the_managed_address_is_served(
    make_manager: MakeManager, issuer: FakeIssuer, at: str, address: str | None
) -> None:
    """A client that reached an unlisted private address means the first listed public one of its family."""
    listed = ("m.test,8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "10.0.0.9")
    proxy = Proxy(make_manager(acme_certificates=listed, acme_ca=("https://ca.test/dir",)))
    assert ((await proxy.start(None, at=at)).ssl_conn is not None) is (address is not None)
    assert [address in subject.names for subject in issuer.orders] == [True] * (address is not None)


async def test_managed_address_is_served_without_the_option(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Under its names and its address; other addresses are left to mitmproxy."""
    proxy = Proxy(make_manager(acme_certificates=("m.test,192.0.2.1",)))
    for sni, at in (("m.test", "192.0.2.2"), (None, "192.0.2.1")):
        assert (await proxy.start(sni, at=at)).ssl_conn is not None
    assert (await proxy.start(None, at="192.0.2.2")).ssl_conn is None
    assert [subject.names for subject in issuer.orders] == [("m.test", "192.0.2.1")]


async def test_validator_of_an_unknown_name_is_refused(proxy: Proxy) -> None:
    """No order of ours exists for it, and mitmproxy would sign a certificate."""
    assert is_rejected(await proxy.validate("www.elsewhere.test"))
    assert is_rejected(await proxy.validate("1.2.0.192.in-addr.arpa"))


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("name", ["1.2.0.192.in-addr.arpa", f"1.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa"])
async def test_validator_of_an_address(make_manager: MakeManager, issuer: FakeIssuer, name: str, ours: bool) -> None:
    """Without a challenge it is rejected if we order for addresses, else treated as an unknown name (RFC 8738)."""
    proxy = Proxy(make_manager(acme_ip_certificates=ours, acme_unknown_names="mitm"))
    assert ((await proxy.validate(name)).ssl_conn is not None) is ours
    proven = f"2{name[1:]}"
    proxy.manager.store.put_proof(Proof("tls-alpn-01", proven, "00" * 32))
    assert (await proxy.validate(proven)).ssl_conn is not None
    assert issuer.orders == []


async def test_validator_of_a_foreign_name_costs_no_storage(
    proxy: Proxy, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger may ask for a challenge of any name: storage is read only for names that the options allow."""
    read: list[str] = []
    get = memory.get
    monkeypatch.setattr(memory, "get", lambda key: read.append(key) or get(key))  # type: ignore[func-returns-value]
    monkeypatch.setattr(memory, "keys", lambda prefix, **_: read.append(prefix) or [])  # type: ignore[func-returns-value]
    for name in ("www.elsewhere.test", "example.test", "1.2.0.192.in-addr.arpa", "not a name", None):
        await proxy.validate(name)
    assert read == []
    await proxy.validate(NAME)
    assert read == [f"challenges/tls-alpn-01/{NAME}"]


async def test_quic_client_without_a_name(make_manager: MakeManager) -> None:
    """HTTP/3 behaves in the same way."""
    proxy = Proxy(make_manager(acme_ip_certificates=True))
    client = start_of(None, proxy.options, at="2001:db8::1")
    data = QuicTlsData(client.conn, client.context)
    await proxy.handshakes.start_quic(data)
    assert data.settings is not None
    assert data.settings.certificate is not None


async def test_ciphers_of_another_addon_are_for_that_connection_only(proxy: Proxy) -> None:
    """Contexts are shared by connections with the same ciphers, and by no others."""
    certificate = make_certificate([NAME])
    usual, chosen = proxy.contexts.get(certificate), proxy.contexts.get(certificate, ("ECDHE-ECDSA-AES128-GCM-SHA256",))
    assert usual is proxy.contexts.get(certificate)
    assert chosen is not usual
    offered = SSL.Connection(chosen).get_cipher_list()
    assert [cipher for cipher in offered if not cipher.startswith("TLS_")] == ["ECDHE-ECDSA-AES128-GCM-SHA256"]


@pytest.mark.parametrize(
    ("options", "minimum"),
    [
        ({}, net_tls.Version.TLS1_3),
        ({"tls_version_client_max": "TLS1_3"}, net_tls.Version.TLS1_3),
        ({"tls_version_client_max": "TLS1_2"}, net_tls.Version.TLS1_2),
        ({"tls_version_client_min": "TLS1"}, net_tls.Version.TLS1),
    ],
)
async def test_lowest_version_is_the_profiles_unless_the_user_chose_one(
    make_manager: MakeManager, options: dict[str, str], minimum: net_tls.Version
) -> None:
    """A highest version below it is such a choice too, and one above it is none."""
    assert Proxy(make_manager(acme_tls_profile="modern"), (), **options).contexts._minimum() is minimum


async def test_old_versions_get_ciphers_that_they_can_speak(make_manager: MakeManager) -> None:
    """The profile's suites exist since TLS 1.2: a user who allows TLS 1.0 gets mitmproxy's own."""
    contexts = Proxy(make_manager(acme_tls_profile="intermediate")).contexts
    assert "ECDHE-RSA-AES128-SHA" not in contexts._ciphers(net_tls.Version.TLS1_2)
    assert len(contexts._ciphers(net_tls.Version.TLS1)) > len(contexts._ciphers(net_tls.Version.TLS1_2))


async def test_challenge_that_is_no_digest_is_not_shown(proxy: Proxy, memory: Memory) -> None:
    """It may be in the storage: the validator is refused, and no handshake raises."""
    memory.put(f"challenges/tls-alpn-01/{NAME}", b"not a digest")
    assert is_rejected(await proxy.validate(NAME))
    memory.put(f"challenges/tls-alpn-01/{NAME}", b"00" * 32 + b"\n")
    assert is_rejected(await proxy.validate(NAME))


async def test_handshake_goes_on_while_the_storage_is_down(
    proxy: Proxy, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mitmproxy's own certificate, and without a traceback."""

    def down(key: str) -> bytes:
        raise StorageUnavailable("down")

    monkeypatch.setattr(memory, "get", down)
    assert (await proxy.start(NAME)).ssl_conn is None


class Counted(Instrumentation):
    """Keeps how handshakes ended."""

    def __init__(self) -> None:
        self.ends = list[str]()

    def handshake(self, result: str) -> None:
        self.ends.append(result)


async def test_each_handshake_is_counted_once(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the client got: the operator's dashboard shows how many got none of ours."""
    proxy, counted = Proxy(make_manager()), Counted()
    monkeypatch.setattr(proxy.handshakes, "_measures", counted)
    await proxy.start(NAME)
    await proxy.start(NAME)
    assert counted.ends[-1] == "cached"
    issuer.error = IssuerUnavailable("down")
    await proxy.start("b.example.test")
    assert (counted.ends[-1], len(counted.ends)) == ("fallback", 3)


async def test_wait_of_a_handshake_that_was_held_is_measured(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a cached one is none, and is not in the histogram."""
    proxy, waits = Proxy(make_manager()), list[float]()
    monkeypatch.setattr(Instrumentation, "held", lambda _, seconds: waits.append(seconds))
    await proxy.start(NAME)
    await proxy.start(NAME)
    assert len(waits) == 1
    assert waits[0] > 0


async def test_connection_has_what_mitmproxy_needs_to_choose_a_protocol(proxy: Proxy) -> None:
    """Its own callback reads it, and would fail without."""
    data = start_of(NAME, proxy.options)
    data.conn.alpn, data.context.server.alpn = b"h2", b"http/1.1"
    await proxy.handshakes.start_tls(data)
    assert data.ssl_conn is not None
    assert data.ssl_conn.get_app_data() == AppData(client_alpn=b"h2", server_alpn=b"http/1.1", http2=True)


async def test_who_asks_is_told_by_his_address(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one client cannot use up what all clients have."""
    asked = list[object]()

    async def note(id: ServerName, *, on_demand: bool, client: str | None) -> None:
        asked.append((id, on_demand, client))

    monkeypatch.setattr(proxy.manager, "certificate_for", note)
    await proxy.start(NAME)
    data = start_of(NAME, proxy.options, "regular")
    data.conn.peername = None  # as of a client that has gone
    await proxy.handshakes.start_tls(data)
    assert asked == [(NAME, True, "127.0.0.1"), (NAME, False, None)]


async def test_ciphers_of_the_options_are_the_connections(make_manager: MakeManager) -> None:
    """Unless another addon has set some."""
    proxy = Proxy(make_manager(), ciphers_client="AES128-SHA:AES256-SHA")
    data = await proxy.start(NAME)
    assert data.conn.cipher_list == ["AES128-SHA", "AES256-SHA"]
    other = start_of(NAME, proxy.options)
    other.conn.cipher_list = ["AES256-SHA"]
    await proxy.handshakes.start_tls(other)
    assert other.conn.cipher_list == ["AES256-SHA"]
    assert proxy.contexts._ciphers(net_tls.Version.TLS1_2) == ("AES128-SHA", "AES256-SHA")


@pytest.mark.parametrize(
    ("options", "profile", "offered"),
    [({}, None, 1), ({"tls_ecdh_curve_client": "secp256r1"}, None, 0), ({}, "mitmproxy", 0)],
)
async def test_groups_are_the_profiles_unless_the_user_chose_a_curve(
    make_manager: MakeManager,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    profile: str | None,
    offered: int,
) -> None:
    """The profile of mitmproxy changes nothing."""
    groups = list[str]()
    monkeypatch.setattr("mitmproxy_acme.mitm.tls.contexts._offer_groups", lambda _, chosen: groups.append(chosen))
    proxy = Proxy(make_manager(**({"acme_tls_profile": profile} if profile else {})), **options)
    await proxy.start(NAME)
    assert len(groups) == offered


class Retries:
    """Notes what is asked of Retry tokens."""

    def __init__(self, *, validated: bool) -> None:
        self.calls: list[str] = []
        self._validated = validated

    def __getattr__(self, call: str) -> Any:
        self.calls.append(call)
        return lambda _: self._validated


@pytest.mark.parametrize(("protocol", "calls"), [("udp", ["read_token"]), ("tcp", [])])
async def test_tokens_are_read_of_quic_alone(proxy: Proxy, protocol: str, calls: list[str]) -> None:
    """TCP has proved its address."""
    retries: Any = Retries(validated=True)
    proxy.handshakes._quic_retry = retries
    client = start_of(NAME, proxy.options).context.client
    client.transport_protocol = protocol  # type: ignore[assignment]  # one of the two
    proxy.handshakes.read_hello(tls.ClientHelloData(context.Context(client, proxy.options), hello()))
    assert retries.calls == calls
    proxy.handshakes.connected(client)
    proxy.handshakes.done(client)
    assert retries.calls == [*calls, "connected", "done"]


@pytest.mark.parametrize(
    ("mode", "protocol", "limited"),
    [
        (REVERSE, "tcp", True),
        ("reverse:http3://127.0.0.1:1", "udp", True),
        ("reverse:dns://127.0.0.1:1", "udp", False),
        ("regular", "tcp", False),
    ],
)
async def test_strangers_may_send_no_more_than_a_hello(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, mode: str, protocol: str, limited: bool
) -> None:
    """In reverse mode, where TLS begins with it: over TCP and QUIC. Another protocol of UDP has none."""
    start = start_of(NAME, proxy.options, mode)
    start.conn.transport_protocol = protocol  # type: ignore[assignment]  # one of the two
    handler = SimpleNamespace(layer=NextLayer(start.context))
    monkeypatch.setattr(rejection, "connection_handler", lambda client: handler)
    proxy.handshakes.connected(start.context.client)
    assert isinstance(handler.layer, ClientHelloLimit) is limited


@pytest.mark.parametrize("validated", [False, True])
async def test_quic_client_of_a_forged_address_orders_nothing(
    proxy: Proxy, issuer: FakeIssuer, validated: bool
) -> None:
    """It is asked to come again with a token; a certificate in memory is served at once."""
    retries: Any = Retries(validated=validated)
    proxy.handshakes._quic_retry = retries
    start = start_of(NAME, proxy.options)
    start.conn.transport_protocol = "udp"
    data = QuicTlsData(start.conn, start.context, settings=None)
    await proxy.handshakes.start_quic(data)
    assert len(issuer.orders) == int(validated)
    assert ("retry" in retries.calls) is not validated
    assert (data.settings is not None) is validated
    if not validated:
        await proxy.start(NAME)
        await proxy.handshakes.start_quic(data)
        assert data.settings is not None


def test_secure_web_proxy_is_told_by_its_layers() -> None:
    """TLS directly behind the proxy's own layer, and no second one: CONNECT over HTTP/2 is not supported there."""

    def layers(*kinds: Any) -> context.Context:
        ctx = start_of(NAME, options.Options()).context
        for kind in kinds:
            kind(ctx)
        return ctx

    proxy_layer, inner, other = modes.HttpProxy, ClientTLSLayer, modes.TransparentProxy
    assert _is_secure_web_proxy(layers(proxy_layer, inner))
    assert not _is_secure_web_proxy(layers())
    assert not _is_secure_web_proxy(layers(proxy_layer))
    assert not _is_secure_web_proxy(layers(other, inner))
    assert not _is_secure_web_proxy(layers(proxy_layer, other, inner))
    assert not _is_secure_web_proxy(layers(proxy_layer, inner, inner))


async def test_refused_handshake_is_counted(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the options want no fallback; and a stranger's name as one that is not ours."""
    proxy, counted = Proxy(make_manager(acme_fallback="reject")), Counted()
    monkeypatch.setattr(proxy.handshakes, "_measures", counted)
    issuer.error = IssuerUnavailable("down")
    await proxy.start(NAME)
    await proxy.start("www.elsewhere.test")
    assert counted.ends == ["refused", "not_ours"]


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
async def test_session_is_resumed_though_a_certificate_of_the_client_is_asked_for(
    make_manager: MakeManager, version: int
) -> None:
    """OpenSSL refuses that without an id of the context, and each second visit would fail."""
    proxy, certificate = Proxy(make_manager(), request_client_cert=True), make_certificate([NAME])
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_max_proto_version(version)
    _, session = resumes(client, proxy.contexts.get(certificate))
    assert resumes(client, proxy.contexts.get(certificate), session)[0]


async def test_new_name_is_not_asked_for_at_the_end(
    proxy: Proxy, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the storage is being closed, what is in memory is served, and nothing else is read or ordered."""
    held = (await proxy.start(NAME)).ssl_conn
    proxy.handshakes.is_ending = True

    def read(key: str) -> bytes:
        raise AssertionError(f"{key} was read")

    monkeypatch.setattr(memory, "get", read)
    assert held is not None
    assert (await proxy.start(NAME)).ssl_conn is not None
    assert (await proxy.start("b.example.test")).ssl_conn is None
    assert len(issuer.orders) == 1


async def test_protocol_is_narrowed_for_a_secure_web_proxy_alone(make_manager: MakeManager) -> None:
    """A client that only passes through one speaks what it likes."""
    proxy = Proxy(make_manager(acme_certificates=(NAME,)))
    await proxy.manager.ensure(proxy.manager.config.managed[0])
    for layers, alpn in (([modes.HttpProxy, ClientTLSLayer], b"http/1.1"), ([modes.HttpProxy], b"h2")):
        data = start_of(NAME, proxy.options, "regular")
        for layer in layers:
            layer(data.context)
        data.conn.alpn = b"h2"
        await proxy.handshakes.start_tls(data)
        assert data.ssl_conn is not None
        assert data.ssl_conn.get_app_data()["client_alpn"] == alpn


async def test_certificate_that_was_served_is_in_use(proxy: Proxy) -> None:
    """From memory too: else its name would count as one that no client asks for."""
    for _ in range(2):
        await proxy.start(NAME)
        held = proxy.manager.cache.get(ServerName(NAME))
        assert proxy.manager.usage.served == {NAME: held}
        proxy.manager.usage.served.clear()
