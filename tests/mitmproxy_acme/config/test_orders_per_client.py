"""Which clients count together, and how many new names they may bring."""

import pytest

from mitmproxy_acme.config.orders_per_client import OrdersPerClient
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.rate_limits import Limit


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("auto", OrdersPerClient(Limit(20, 3_600.0), everywhere=False)),
        (" off\n", OrdersPerClient(None, everywhere=False)),
        (" 5/10m ", OrdersPerClient(Limit(5, 600.0), everywhere=True)),
    ],
)
def test_option_is_read(text: str, read: OrdersPerClient) -> None:
    """Whatever is around it."""
    assert OrdersPerClient.parse(text) == read


@pytest.mark.parametrize("text", ["", "20", "20/soon", "0/1h", "on"])
def test_other_value_is_explained(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^acme_orders_per_client: .*; or auto, or off for no limit$"):
        OrdersPerClient.parse(text)


@pytest.mark.parametrize(
    ("address", "auto", "everywhere"),
    [
        ("203.0.114.7", "203.0.114.0/24", "203.0.114.0/24"),
        ("203.0.114.255", "203.0.114.0/24", "203.0.114.0/24"),
        ("203.0.115.0", "203.0.115.0/24", "203.0.115.0/24"),
        ("::ffff:203.0.114.7", "203.0.114.0/24", "203.0.114.0/24"),
        ("2a00:1:2:ffff::1", "2a00:1:2::/48", "2a00:1:2::/48"),
        ("2a00:1:3::1", "2a00:1:3::/48", "2a00:1:3::/48"),
        ("10.1.2.3", None, "10.1.2.0/24"),
        ("127.0.0.1", None, "127.0.0.0/24"),
        ("fe80::1%eth0", None, "fe80::/48"),
        ("/run/client.sock", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_clients_of_a_network_count_together(address: str | None, auto: str | None, everywhere: str | None) -> None:
    """Those in private networks only where the operator set a limit of his own."""
    assert OrdersPerClient.parse("auto").key(address) == auto
    assert OrdersPerClient.parse("20/1h").key(address) == everywhere
    assert OrdersPerClient.parse("off").key(address) is None
