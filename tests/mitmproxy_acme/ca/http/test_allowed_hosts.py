"""Which URLs a CA may send us to."""

import pytest

from mitmproxy_acme.ca.http.allowed_hosts import AllowedHosts, UrlRefused, origin

DIRECTORY = "https://ca.example/directory"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://ca.example", "ca.example:443"),
        ("HTTPS://CA.example:443/a?b=c%20d", "ca.example:443"),
        ("https://[::1]:8443/", "[::1]:8443"),
        ("https://my_ca/acme", "my_ca:443"),
    ],
)
def test_origin(url: str, found: str) -> None:
    """Host and port, as every other spelling has them."""
    assert origin(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "http://ca.example/",
        "ftp://ca.example/",
        "//ca.example/",
        "/order/1",
        "",
        "https://",
        "https://ca.example@evil.example/",
        "https://user:secret@ca.example/",
        "https://evil.example\\@ca.example/",
        "https://ca.example:0/",
        "https://ca.example:65536/",
        "https://ca.example:443:443/",
        "https://ca.example/\n",
        " https://ca.example/",
        "https://ca.example/a b",
        "https://ca.example/#fragment",
        "https://c\u0430.example/",
        "https://ca.example/" + "a" * 2_000,
        "https://" + "a" * 254,
        None,
        7,
        ["https://ca.example/"],
    ],
)
def test_what_is_no_url_to_ask(url: object) -> None:
    """Nor a URL that two parsers could read differently; the message is one short line."""
    with pytest.raises(UrlRefused, match="which is not an https:// URL") as caught:
        origin(url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9:8443",
        "[::1]",
        "0.0.0.0",
        "[::]",
        "0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::ffff:7f00:1]",
    ],
)
def test_this_machine_is_not_asked_for_a_ca_elsewhere(host: str) -> None:
    """Though its directory names it; a CA on this machine may."""
    with pytest.raises(UrlRefused, match="which is this machine"):
        AllowedHosts(DIRECTORY).allow({"newOrder": f"https://{host}/order"})
    here = AllowedHosts("https://localhost:14000/dir")
    here.allow({"newOrder": f"https://{host}/order"})
    here.require(f"https://{host}/order/1")


def test_hosts_that_the_directory_names() -> None:
    """Its endpoints', and no other field's."""
    origins = AllowedHosts(DIRECTORY)
    origins.allow({"newOrder": "https://orders.example:8443/new", "keyChange": None, "x": "https://forum.example/t"})
    origins.require(DIRECTORY, "https://orders.example:8443/order/1")
    for url in ("https://forum.example/t", "https://orders.example/", "https://ca.example:8443/"):
        with pytest.raises(UrlRefused, match=r"names only ca\.example:443, orders\.example:8443"):
            origins.require(url)
        assert origins.among([url, DIRECTORY]) == (DIRECTORY,)
