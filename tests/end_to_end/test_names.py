"""Names as clients spell them, and garbage instead: served, or cheap, and never the end of the proxy."""

import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509

from tests.end_to_end.client import handshake, negotiate, untrusted
from tests.end_to_end.conftest import default_options
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

FreshName = Callable[[], str]

HANDSHAKE, ALERT = 0x16, 0x15

NONSENSE = {
    "empty": b"",
    "a dot": b".",
    "dots": b"....",
    "empty first label": b".example.test",
    "empty label": b"a..example.test",
    "two trailing dots": b"a.example.test..",
    "underscore": b"a_b.example.test",
    "leading hyphen": b"-a.example.test",
    "trailing hyphen": b"a-.example.test",
    "wildcard": b"*.example.test",
    "64 characters in a label": b"a" * 64 + b".example.test",
    "254 characters": b"a." * 121 + b"example.test",
    "300 characters": b"a." * 144 + b"example.test",
    "16,000 characters": b"a" * 16_000 + b".example.test",
    "port": b"a.example.test:443",
    "URL": b"https://a.example.test/",
    "path": b"../../../../etc/passwd",
    "slash": b"a/b.example.test",
    "blank": b"a b.example.test",
    "line feed": b"a\nb.example.test",
    "NUL": b"a.example.test\x00.evil.test",
    "quotes": b"'\";--.example.test",
    "percent": b"%s%n%d.example.test",
    "U-label": "bücher.example.test".encode(),
    "not UTF-8": b"\xff\xfe\xfd.example.test",
    "A-label that decodes to nothing": b"xn--.example.test",
    "A-label that does not decode": b"xn--a\xff.example.test",
    "IPv4 address": b"127.0.0.1",
    "IPv6 address": b"::1",
    "IPv6 address in brackets": b"[::1]",
    "number": b"2130706433",
    "last label a number": b"a.example.1",
    "single label": b"localhost",
}


@pytest.fixture(scope="module")
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    with Pebble(dns) as server:
        yield server


@pytest.fixture(scope="module")
def running(ca: Pebble, upstream: Upstream) -> Iterator[Mitmdump]:
    """A proxy that may order for any name."""
    options = default_options(ca, ca.folder / "store") | {"acme_allow_any_domain": True}
    with Forked(upstream.url, options, http_port=ca.http_port) as server:
        yield server


@pytest.mark.parametrize(
    "spell",
    [
        str.upper,
        str.title,
        lambda name: f"{name}.",
        lambda name: f"{name.upper()}.",
    ],
    ids=["upper case", "mixed case", "trailing dot", "both"],
)
def test_spellings_of_a_name_share_its_certificate(
    running: Mitmdump, ca: Pebble, fresh_name: FreshName, spell: Callable[[str], str]
) -> None:
    """Case and a trailing dot do not make another name: there is one certificate, in lower case."""
    name = fresh_name()
    before = ca.seen()

    first = negotiate(running.https_port, spell(name), root=ca.root()).leaf
    second = handshake(running.https_port, name, ca.root())

    assert first == second.leaf
    assert second.names == [name]
    assert (ca.seen() - before).orders == 1


@pytest.mark.parametrize("label", ["xn--bcher-kva", "xn--n3h", "xn--fiqs8s", "a--b", "0", "1-2", "a" * 63])
def test_unusual_labels_are_served(running: Mitmdump, ca: Pebble, fresh_name: FreshName, label: str) -> None:
    """IDNA's A-labels, emoji among them, hyphens, digits and labels of 63 characters are ordinary names."""
    name = f"{label}.{fresh_name()}"

    assert handshake(running.https_port, name, ca.root()).names == [name]


def test_longest_name_is_served(running: Mitmdump, ca: Pebble, fresh_name: FreshName) -> None:
    """A name of 253 characters, too long for a common name, gets its certificate."""
    rest = fresh_name()
    name = ".".join(["a" * 61, "b" * 61, "c" * 61, "d" * (253 - 3 * 62 - 1 - len(rest)), rest])
    assert len(name) == 253

    assert negotiate(running.https_port, name, root=ca.root()).leaf.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.DNSName) == [name]


@pytest.mark.parametrize("name", [None, "127.0.0.1"])
def test_client_without_a_name_of_ours_gets_mitmproxys_certificate(
    running: Mitmdump, ca: Pebble, name: str | None
) -> None:
    """No SNI, or the address that was reached as SNI: mitmproxy's own certificate, and no order."""
    before = ca.seen()

    served = untrusted(running.https_port, name)

    assert "mitmproxy" in served.issuer.rfc4514_string()
    assert (ca.seen() - before).requests == 0


def test_hello_of_these_tests_gets_a_name_ordered(running: Mitmdump, ca: Pebble, fresh_name: FreshName) -> None:
    """The ClientHello that carries the garbage below gets a certificate with a valid name."""
    before = ca.seen()

    reply = answer_to(running.https_port, client_hello(server_name(fresh_name().encode())))

    assert reply[0] == HANDSHAKE
    assert (ca.seen() - before).orders == 1


@pytest.mark.parametrize("raw", NONSENSE.values(), ids=NONSENSE)
def test_garbage_for_a_name_is_answered_and_orders_nothing(running: Mitmdump, ca: Pebble, raw: bytes) -> None:
    """For any bytes the client gets a handshake, an alert or the end of its connection, at once, and no order."""
    before = ca.seen()

    reply = answer_to(running.https_port, client_hello(server_name(raw)))

    assert reply == b"" or reply[0] in (HANDSHAKE, ALERT)
    assert (ca.seen() - before).requests == 0


@pytest.mark.parametrize(
    "extension",
    [
        struct.pack("!HHH", 0, 2, 0),
        struct.pack("!HHHBH", 0, 5, 3, 0, 200),
        struct.pack("!HHHB", 0, 3, 1, 7),
        struct.pack("!HH", 0, 0),
    ],
    ids=["empty list", "length beyond the end", "unknown type", "no list"],
)
def test_malformed_server_name_extension_is_answered(running: Mitmdump, ca: Pebble, extension: bytes) -> None:
    """A server_name extension in a wrong format ends only its own connection."""
    before = ca.seen()

    reply = answer_to(running.https_port, client_hello(extension))

    assert reply == b"" or reply[0] in (HANDSHAKE, ALERT)
    assert (ca.seen() - before).requests == 0


def test_two_names_in_one_hello_are_answered(running: Mitmdump, ca: Pebble) -> None:
    """RFC 6066 allows only one host name: a client that sends two gets an answer, and no order."""
    before = ca.seen()

    reply = answer_to(running.https_port, client_hello(server_name(b"a.example.test", b"b.example.test")))

    assert reply == b"" or reply[0] in (HANDSHAKE, ALERT)
    assert (ca.seen() - before).requests == 0


def test_proxy_serves_new_names_after_all_garbage(running: Mitmdump, ca: Pebble, fresh_name: FreshName) -> None:
    """After all garbage at once the same process serves a new name, and has logged no error of ours."""
    process = running.pid
    for raw in NONSENSE.values():
        answer_to(running.https_port, client_hello(server_name(raw)))

    name = fresh_name()

    assert handshake(running.https_port, name, ca.root()).names == [name]
    assert running.running
    assert running.pid == process
    assert "mitmproxy_acme" not in running.log_text()
    assert "Addon error" not in running.log_text()


def server_name(*names: bytes) -> bytes:
    """Make the extension of RFC 6066 section 3, around any bytes."""
    entries = b"".join(struct.pack("!BH", 0, len(name)) + name for name in names)
    return struct.pack("!HHH", 0, len(entries) + 2, len(entries)) + entries


def client_hello(extension: bytes) -> bytes:
    """Make a ClientHello of TLS 1.2 (RFC 5246 section 7.4.1.2) with this extension before the usual ones."""
    groups = struct.pack("!HHHHH", 10, 6, 4, 29, 23)
    signatures = struct.pack("!HHHHHH", 13, 8, 6, 0x0403, 0x0804, 0x0401)
    extensions = extension + groups + signatures
    ciphers = struct.pack("!HHHHHH", 10, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9)
    body = b"\x03\x03" + bytes(32) + b"\x00" + ciphers + b"\x01\x00" + struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3) + body
    fragments = [message[begin : begin + 16_000] for begin in range(0, len(message), 16_000)]
    return b"".join(struct.pack("!BHH", HANDSHAKE, 0x0301, len(fragment)) + fragment for fragment in fragments)


def answer_to(port: int, hello: bytes) -> bytes:
    """Return the first bytes that come back; none for a closed connection. Raises ``TimeoutError`` after 5 s."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        plain.sendall(hello)
        try:
            return plain.recv(65_536)
        except ConnectionResetError:
            return b""
