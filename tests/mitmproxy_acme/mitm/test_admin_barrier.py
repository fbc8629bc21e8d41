"""Connections that reach the proxy's own admin API are recognized by the address that they reached."""

import socket
from typing import Any

import pytest
from mitmproxy.connection import Server
from mitmproxy.proxy import mode_specs

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.mitm.admin_barrier import AdminBarrier

_TOKEN = "a-token-that-is-hard-to-guess"
_REGULAR = mode_specs.ProxyMode.parse("regular")


def barrier(listen: str, *, token: str = _TOKEN, clock: Any = lambda: 0.0, **options: Any) -> AdminBarrier:
    given = {"acme_admin_listen": listen, "acme_admin_token": token}
    return AdminBarrier(Config.from_options(given | options), clock)


def reached(*peer: Any, address: tuple[str, int] = ("name.test", 8008)) -> Server:
    server = Server(address=address)
    server.peername = peer
    return server


@pytest.mark.parametrize(
    ("listen", "peer"),
    [
        ("127.0.0.1:8008", ("127.0.0.1", 8008)),
        ("localhost:8008", ("127.0.0.1", 8008)),
        ("127.0.0.1:8008", ("::ffff:127.0.0.1", 8008, 0, 0)),
        ("[::1]:8008", ("::1", 8008, 0, 0)),
        ("192.0.2.1:8008", ("192.0.2.1", 8008)),
        ("[fe80::1]:8008", ("fe80::1%eth0", 8008, 0, 2)),
        ("0.0.0.0:8008", ("127.0.0.1", 8008)),
        ("0.0.0.0:8008", ("127.0.0.2", 8008)),
        ("[::]:8008", ("fe80::1%eth0", 8008, 0, 2)),
    ],
)
def test_own_admin_api_is_refused(listen: str, peer: tuple[Any, ...]) -> None:
    """By any address of this machine; the name that the client gave does not matter."""
    assert barrier(listen).refuses(reached(*peer), _REGULAR)


@pytest.mark.parametrize(
    ("listen", "peer"),
    [
        ("127.0.0.1:8008", ("127.0.0.1", 8009)),
        ("127.0.0.1:8008", ("192.0.2.1", 8008)),
        ("0.0.0.0:8008", ("192.0.2.1", 8008)),
        ("[::]:8008", ("2001:db8::1", 8008, 0, 0)),
        ("", ("127.0.0.1", 8008)),
    ],
)
def test_other_servers_are_not(listen: str, peer: tuple[Any, ...]) -> None:
    """Another port, another machine, or no admin API at all."""
    assert not barrier(listen).refuses(reached(*peer), _REGULAR)


def test_every_address_of_this_machine_is_known() -> None:
    """Also the one by which it reaches others, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect(("127.0.0.1", 9))
        assert barrier("0.0.0.0:8008").refuses(reached(way.getsockname()[0], 8008), _REGULAR)


def test_reverse_mode_that_names_the_admin_api_reaches_it_with_a_token_only() -> None:
    """It puts TLS in front of the admin API, for clients with the token; no other reverse mode leads there."""
    mode = mode_specs.ProxyMode.parse("reverse:http://127.0.0.1:8008@443")
    other = mode_specs.ProxyMode.parse("reverse:http://127.0.0.1:8000@443")
    server = reached("127.0.0.1", 8008, address=("127.0.0.1", 8008))
    assert not barrier("127.0.0.1:8008").refuses(server, mode)
    assert barrier("127.0.0.1:8008").refuses(server, other)
    assert barrier("127.0.0.1:8008", token="").refuses(server, mode)


def test_entry_of_upstreams_that_names_the_admin_api_reaches_it_with_a_token() -> None:
    """It puts TLS in front of the admin API for one host; without a token it is a wrong option."""
    mode = mode_specs.ProxyMode.parse("reverse:http://127.0.0.1:8000@443")
    server = reached("127.0.0.1", 8008, address=("127.0.0.1", 8008))
    options: dict[str, Any] = {
        "acme_upstreams": ("admin.example.com=http://127.0.0.1:8008",),
        "acme_domains": ("admin.example.com",),
        "acme_tos_accepted": True,
    }
    assert not barrier("127.0.0.1:8008", **options).refuses(server, mode)
    assert barrier("127.0.0.1:8008", **options).refuses(server, _REGULAR)
    for upstream in ("127.0.0.1", "localhost", "127.0.0.2", "[::1]"):
        options["acme_upstreams"] = (f"admin.example.com=http://{upstream}:8008",)
        with pytest.raises(ConfigError, match="acme_upstreams leads clients of admin"):
            barrier("127.0.0.1:8008", token="", **options)


def test_flood_is_one_line_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    """A client that asks again and again does not fill the log."""
    now = 0.0
    one = barrier("127.0.0.1:8008", clock=lambda: now)
    for _ in range(1_000):
        one.refuses(reached("127.0.0.1", 8008), _REGULAR)
    now = 61.0
    one.refuses(reached("127.0.0.1", 8008), _REGULAR)
    assert [record.args for record in caplog.records] == [("regular", 1), ("regular", 1_000)]
