"""What a request names as its host is passed on as the client wrote it."""

from mitmproxy.http import Headers, Request

from mitmproxy_acme.mitm.http.upstream_router import take_authority

_NAME = "xn--mnchen-3ya.test"


def _request(version: bytes, authority: bytes, *hosts: bytes) -> Request:
    headers = Headers([(b"Host", host) for host in hosts])
    return Request("127.0.0.1", 1, b"GET", b"https", authority, b"/", version, headers, b"", None, 0.0, 0.0)


def test_absolute_form_keeps_a_labels() -> None:
    request = _request(b"HTTP/1.1", _NAME.encode(), b"other.test")
    assert take_authority(request) == _NAME
    assert (request.headers["Host"], request.data.authority) == (_NAME, b"")


def test_pseudo_header_keeps_a_labels_and_other_bytes() -> None:
    for authority in (_NAME.encode(), "münchen.test".encode(), b"\xff.test", b"xn--mn999999999999999n"):
        request = _request(b"HTTP/2.0", authority, b"other.test")
        assert take_authority(request) == authority.decode("utf-8", "surrogateescape")
        assert (request.headers.get("Host"), request.data.authority) == (None, authority)
