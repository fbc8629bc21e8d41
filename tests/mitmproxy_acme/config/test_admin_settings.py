"""What the options of the admin API, the webhook and the deploy hook mean, and what they refuse."""

import re

import pytest

from mitmproxy_acme.config.admin_settings import (
    AdminAddress,
    AdminSocket,
    parse_admin_listen,
    parse_deploy_hook,
    parse_webhook_key,
    require_admin_token,
    require_token_beside,
)
from mitmproxy_acme.core.errors import ConfigError

_TOKEN = "a-token-that-is-hard-to-guess"


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8008", AdminAddress("127.0.0.1", 8008), True),
        (" [::1]:8008 ", AdminAddress("::1", 8008), True),
        ("localhost:1", AdminAddress("localhost", 1), True),
        ("0.0.0.0:65535", AdminAddress("0.0.0.0", 65535), False),
        ("[::]:8008", AdminAddress("::", 8008), False),
    ],
)
def test_address(text: str, address: AdminAddress, loopback: bool) -> None:
    """An IP address or localhost, with a port; it is written as it is read."""
    assert parse_admin_listen(text) == address
    assert address.is_loopback is loopback
    assert str(address) == text.strip()


_LONG_PORT = "127.0.0.1:" + "9" * 5_000


@pytest.mark.parametrize(
    "text",
    [
        *("8008", ":8008", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "host.test:80", "1.2.3.4:+1"),
        pytest.param(_LONG_PORT, id="a port of 5,000 digits"),
    ],
)
def test_wrong_address(text: str) -> None:
    """The message shows it, and one that is right."""
    with pytest.raises(ConfigError, match=r"acme_admin_listen: .*127.0.0.1:8008"):
        parse_admin_listen(text)


@pytest.mark.parametrize(
    ("text", "path", "mode"),
    [
        ("unix:/run/a.sock", "/run/a.sock", 0o600),
        (" unix:///run/a b.sock ", "/run/a b.sock", 0o600),
        ("unix:/run/a.sock?mode=0660", "/run/a.sock", 0o660),
        ("unix:/run/a.sock?mode=660", "/run/a.sock", 0o660),
        ("unix:/" + "a" * 102, "/" + "a" * 102, 0o600),
    ],
)
def test_unix_socket(text: str, path: str, mode: int) -> None:
    """An absolute path, for its owner or its group too; no mode of mitmproxy leads there, so no token is needed."""
    address = parse_admin_listen(text)
    assert address == AdminSocket(path, mode)
    assert str(address) == f"unix:{path}"
    require_admin_token(address, "")
    require_token_beside(["regular", "reverse:http://127.0.0.1:8008"], address, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unix:", "is not a Unix socket with an absolute path"),
        ("unix:run/a.sock", "is not a Unix socket with an absolute path"),
        ("unix:@abstract", "is not a Unix socket with an absolute path"),
        ("unix://run/a.sock", "is not a Unix socket with an absolute path"),
        ("unix:/", "is not a Unix socket with an absolute path"),
        ("unix:/run/a.sock?mode=0666", "is not a Unix socket with an absolute path"),
        ("unix:/run/a\nb", "is not a Unix socket with an absolute path"),
        ("unix:/" + "\u00e4" * 54, "has at most 10[37] bytes, and this one has 109"),
    ],
)
def test_wrong_unix_socket(text: str, said: str) -> None:
    """The message shows one that is right."""
    with pytest.raises(ConfigError, match=f"acme_admin_listen: .*{said}.*unix:/run/mitmproxy-acme/admin.sock"):
        parse_admin_listen(text)


def test_no_address() -> None:
    """Without one there is no API."""
    assert parse_admin_listen("") is None


@pytest.mark.parametrize("token", ["short", "with spaces in it", "tökén-that-no-header-carries", "line\nbreak-in!"])
def test_wrong_token(token: str) -> None:
    """One that can be guessed, or that no header carries; it is never quoted."""
    with pytest.raises(ConfigError, match=r"acme_admin_token: .*openssl rand -hex 32") as refused:
        require_admin_token(AdminAddress("127.0.0.1", 1), token)
    assert token not in str(refused.value)


def test_others_may_ask_with_a_token_only() -> None:
    """An address that others reach needs one; loopback does not, and no API needs none."""
    with pytest.raises(ConfigError, match="needed"):
        require_admin_token(AdminAddress("0.0.0.0", 1), "")
    require_admin_token(AdminAddress("0.0.0.0", 1), _TOKEN)
    require_admin_token(AdminAddress("127.0.0.1", 1), "")
    require_admin_token(None, "")


_LOOPBACK = AdminAddress("127.0.0.1", 8008)


@pytest.mark.parametrize(
    "mode",
    [
        *("regular", "regular@8080", "Socks5@127.0.0.1:1080", "transparent", "upstream:http://up.test", "wireguard"),
        *(
            "local:curl",
            "tun",
            "reverse:http://127.0.0.1:8008@443",
            "reverse:tcp://localhost:8008",
            "reverse:[::1]:8008",
        ),
        *("REVERSE:https://0.0.0.0:8008@443", "reverse:127.0.0.1:8008@[::]:443"),
    ],
)
def test_admin_api_beside_a_mode_that_leads_to_it_needs_a_token(mode: str) -> None:
    """A client of the proxy is no operator; the message says what to do, and a token solves it."""
    modes = ["reverse:http://127.0.0.1:8000@80", mode]
    with pytest.raises(ConfigError, match=rf"acme_admin_token: .*mode {re.escape(mode)} .*openssl rand -hex 32"):
        require_token_beside(modes, _LOOPBACK, "")
    require_token_beside(modes, _LOOPBACK, _TOKEN)
    require_token_beside(modes, None, "")


def test_admin_api_beside_modes_that_lead_elsewhere_needs_none() -> None:
    """Reverse modes of other upstreams, and DNS."""
    modes = [
        "reverse:http://127.0.0.1:8000@443",
        "reverse:https://up.test:8008",
        "dns@53",
        "reverse:http://[",
        "reverse:x",
    ]
    require_token_beside(modes, _LOOPBACK, "")
    require_token_beside(["reverse:http://127.0.0.1"], _LOOPBACK, "")


@pytest.mark.parametrize("secret", ["whsec_", "whsec_?!", "whsec_c2hvcnQ=", "whsec_" + "QQ" * 16 + "="])
def test_webhook_secret_that_cannot_sign(secret: str) -> None:
    """No bytes, too few, or no base64: it is refused before anything is sent without a signature, and never quoted."""
    with pytest.raises(ConfigError, match=r"acme_webhook_secret: .*openssl rand -base64 32") as refused:
        parse_webhook_key(secret)
    assert secret == "whsec_" or secret.removeprefix("whsec_") not in str(refused.value)


def test_webhook_key() -> None:
    """Text is taken as it is, random bytes are base64 behind whsec_; no secret is no key."""
    assert parse_webhook_key("any text") == b"any text"
    assert parse_webhook_key("whsec_" + "QUJD" * 8) == b"ABC" * 8
    assert parse_webhook_key("") == b""


def test_deploy_hook() -> None:
    """Words as a shell reads them, of which the first is a program."""
    assert parse_deploy_hook("sh -c 'a b'") == ("sh", "-c", "a b")
    assert parse_deploy_hook("") == ()
    with pytest.raises(ConfigError, match="there is no program"):
        parse_deploy_hook("no-such-program --now")
    with pytest.raises(ConfigError, match="close its quotes"):
        parse_deploy_hook("sh 'a")
