"""Options that work against each other: each conflict is reported with what to do, and good options are not."""

from typing import Any

import pytest

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.diagnostics import option_conflicts
from mitmproxy_acme.diagnostics.finding import Severity

GOOD: dict[str, Any] = {
    "acme_domains": ["a.test"],
    "acme_tos_accepted": True,
    "mode": ["reverse:http://127.0.0.1:8000@443", "reverse:http://127.0.0.1:8000@0.0.0.0:80"],
    "block_global": False,
    "onboarding": False,
}


def told(**settings: Any) -> dict[str, Severity]:
    given = GOOD | settings
    config = Config.from_options({name: value for name, value in given.items() if name.startswith("acme_")})
    return {finding.what: finding.outcome for finding in option_conflicts.inspect(config, given)}


def test_good_options_pass() -> None:
    """One line, that passes."""
    assert told() == {"options are valid: 0 managed names, names on demand": Severity.PASS}
    addresses = told(acme_ip_certificates=True, acme_domains=[], acme_certificates=["b.test,192.0.2.1"])
    assert addresses == {"options are valid: 2 managed names, addresses on demand": Severity.PASS}
    both = told(acme_certificates=["a.test,b.test"], acme_key_type=["ecdsa-p256", "rsa-2048"])
    assert both == {"options are valid: 2 managed names, names on demand": Severity.PASS}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"block_global": True}, "block_global is on: "),
        ({"acme_storage": "memory:"}, "acme_storage=memory: is lost when the process ends, so each start orders"),
        ({"acme_ip_certificates": True, "acme_challenges": ["dns-01"]}, "acme_ip_certificates orders nothing: "),
        ({"acme_on_demand": "off"}, "acme_on_demand is off and acme_certificates is empty, so "),
        (
            {"acme_on_demand": "background", "acme_fallback": "reject"},
            "acme_on_demand=background with acme_fallback=reject",
        ),
        ({"acme_handshake_wait": 31}, "acme_handshake_wait=31 is longer than most clients wait"),
        ({"mode": ["regular"]}, "mode has no reverse: entry"),
        ({"mode": "socks5@1080"}, "mode has no reverse: entry"),
        (
            {"mode": ["regular"], "acme_challenge_passthrough": True},
            "acme_challenge_passthrough works in",
        ),
        ({"mode": ["reverse:tls://u@443"]}, "http-01 cannot be answered in mode reverse:tls://u@443, which"),
        ({"mode": ["reverse:http://u@8443", "reverse:tcp://u@80"]}, "http-01 cannot be answered in mode reverse:tcp"),
        (
            {"mode": ["regular"], "acme_upstreams": ["a.test=http://up"]},
            "acme_upstreams has no effect in mode regular; requests are routed in the reverse modes http",
        ),
        (
            {"mode": ["reverse:tcp://u@443", "dns@53"], "acme_upstreams": ["a.test=http://up"]},
            "acme_upstreams has no effect in mode reverse:tcp://u@443; requests are routed",
        ),
        (
            {"mode": ["reverse:http://u@80", "reverse:tls://u@443"], "acme_upstreams": ["a.test=http://up"]},
            "acme_upstreams has no effect in mode reverse:tls://u@443, which does not read HTTP; use reverse:http: or",
        ),
        ({"ignore_hosts": ["x"]}, "ignore_hosts is set: "),
        ({"allow_hosts": "x"}, "allow_hosts is set: "),
        ({"onboarding": True}, "onboarding is on, and serves mitm.it on a public edge"),
        ({"acme_lazy": False}, "acme_lazy=false with connection_strategy=eager"),
        ({"acme_webhook_secret": "x"}, "acme_webhook_secret signs nothing without acme_webhook"),
    ],
)
def test_warnings(settings: dict[str, Any], said: str) -> None:
    """Each is a warning that says what to set."""
    found = {what: outcome for what, outcome in told(**settings).items() if what.startswith(said)}
    assert list(found.values()) == [Severity.WARN]


@pytest.mark.parametrize(
    "settings",
    [
        {"acme_on_demand": "off", "acme_certificates": ["b.test"]},
        {"acme_handshake_wait": 30},
        {"acme_handshake_wait": 99, "acme_on_demand": "background"},
        {"acme_lazy": False, "connection_strategy": "lazy"},
        {"acme_lazy": False, "acme_upstreams": ["a.test=http://up"]},
        {"acme_challenge_passthrough": True},
        {"mode": ["reverse:tls://u@443", "reverse:http://u@80"]},
        {"mode": ["reverse:tls://u@443"], "acme_challenges": ["tls-alpn-01"]},
        {"acme_upstreams": ["a.test=http://up"]},
        {"acme_upstreams": ["a.test=http://up"], "mode": ["reverse:u@443", "reverse:http3://u@8443", "dns@53"]},
        {"acme_admin_listen": "127.0.0.1:8008"},
        {"onboarding": "false"},
    ],
)
def test_what_is_no_conflict(settings: dict[str, Any]) -> None:
    """There are no findings about options that work together."""
    assert set(told(**settings).values()) == {Severity.PASS}


@pytest.mark.parametrize(
    ("settings", "port"),
    [({}, 443), ({}, 80), ({"mode": ["regular"]}, 8080), ({"mode": ["regular"], "listen_port": 9000}, 9000)],
)
def test_admin_api_on_a_proxied_port(settings: dict[str, Any], port: int) -> None:
    """It fails, wherever the mode says its port."""
    found = told(acme_admin_listen=f"127.0.0.1:{port}", **settings)
    assert [what for what, outcome in found.items() if outcome is Severity.FAIL and f":{port} has the port of" in what]


def test_admin_api_beside_a_forward_proxy() -> None:
    """It fails without a token, as the start would."""
    settings = {"acme_admin_listen": "127.0.0.1:8008", "mode": ["socks5@1080"]}
    fails = [what for what, outcome in told(**settings).items() if outcome is Severity.FAIL]
    assert [what.startswith("acme_admin_token: clients of mode socks5@1080") for what in fails] == [True]
    fails = [what for what, outcome in told(**settings, acme_admin_token="x" * 20).items() if outcome is Severity.FAIL]
    assert fails == []
