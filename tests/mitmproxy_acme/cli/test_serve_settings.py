"""What the command line of ``serve`` means in options."""

import argparse
import re
from typing import Any

import pytest

from mitmproxy_acme.cli import main
from mitmproxy_acme.cli.commands import run
from mitmproxy_acme.cli.serve_settings import Site, parse_sites, parse_upstream, serve_settings, specs
from mitmproxy_acme.core.errors import ConfigError


def parse(*words: str) -> argparse.Namespace:
    return run.parse(main._parser(), ["serve", *words])


def meant(*words: str, **configured: Any) -> dict[str, Any]:
    settings = serve_settings(parse(*words), configured)
    return settings.defaults | settings.chosen


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("8000", "http://127.0.0.1:8000"),
        ("localhost:3000", "http://localhost:3000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("app.internal", "http://app.internal"),
        ("http://10.0.0.5/", "http://10.0.0.5"),
        ("https://10.0.0.5:8443", "https://10.0.0.5:8443"),
        (" 8000 ", "http://127.0.0.1:8000"),
    ],
)
def test_upstream_is_a_url_or_less(text: str, url: str) -> None:
    """An address means HTTP, and a port means this machine."""
    assert parse_upstream(text, "--to") == url


def test_names_have_the_common_upstream_or_their_own() -> None:
    """``NAME=UPSTREAM`` needs no --to, and a pattern may contain an equals sign."""
    sites = parse_sites(["A.example.com", "*.b.example.com=8001", "re:x=y=:8002"], "8000")

    assert sites == (
        Site("a.example.com", "http://127.0.0.1:8000"),
        Site("*.b.example.com", "http://127.0.0.1:8001"),
        Site("re:x=y", "http://127.0.0.1:8002"),
    )


@pytest.mark.parametrize(
    ("words", "to", "sentence"),
    [
        (["a.example.com"], "", "NAME: a.example.com has no upstream; add --to 127.0.0.1:8000 for all names"),
        (["a.example.com="], "", "a.example.com=: the upstream is missing"),
        (["a.example.com", "A.example.com"], "8000", "NAME: a.example.com is given twice"),
        (["a.example.com=8001"], "8000", "--to: each name has an upstream of its own"),
        (["a.example.com:8443"], "8000", "write the name alone, and the port as --https-port"),
        (["https://a.example.com"], "8000", "is a URL, not a host name"),
        (["a_b.example.com"], "8000", "is not a host name"),
        ([""], "8000", "'' is not a host name"),
    ],
)
def test_wrong_name_or_upstream_is_a_sentence(words: list[str], to: str, sentence: str) -> None:
    """The sentence says what is wrong with which word, and what is right."""
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        parse_sites(words, to)


def test_names_are_held_from_the_start_and_patterns_are_on_demand() -> None:
    """An address is a name too."""
    options = meant("a.example.com", "203.0.113.5", "*.b.example.com", "**.c.example.com", "--to", "8000")

    assert options["acme_certificates"] == ["a.example.com", "203.0.113.5"]
    assert options["acme_domains"] == ["*.b.example.com", "**.c.example.com"]
    assert options["acme_upstreams"][1:3] == [
        "203.0.113.5=http://127.0.0.1:8000",
        "*.b.example.com=http://127.0.0.1:8000",
    ]


def test_upstream_can_get_its_own_host() -> None:
    """As the entry of acme_upstreams has it, with the port of the URL."""
    options = meant("a.example.com", "b.example.com=8001", "--to", "https://api.example.org", "--change-host-header")
    assert options["acme_upstreams"] == [
        "a.example.com=https://api.example.org;host=api.example.org",
        "b.example.com=http://127.0.0.1:8001;host=127.0.0.1:8001",
    ]


def test_ports_are_modes_on_tcp_and_udp() -> None:
    """``reverse:https`` listens on UDP too; nothing on port 80 with off, which leaves tls-alpn-01."""
    assert meant("a.example.com", "--to", "8000")["mode"] == [
        "reverse:https://127.0.0.1:8000@443",
        "reverse:http://127.0.0.1:8000@80",
    ]
    other = meant("a.example.com", "--to", "8000", "--https-port", "8443", "--http-port", "off", "--bind", "[::1]")
    assert other["mode"] == ["reverse:https://127.0.0.1:8000@::1:8443"]
    assert other["acme_challenges"] == ["tls-alpn-01"]


def test_what_a_public_edge_needs_yields_to_config_yaml() -> None:
    """They are defaults of serve; what the command line says is not."""
    settings = serve_settings(parse("a.example.com", "--to", "8000", "--email", "me@example.com"), {})

    assert settings.defaults == {"block_global": False, "onboarding": False, "acme_admin_listen": "127.0.0.1:8008"}
    assert settings.chosen["acme_email"] == "me@example.com"
    assert "acme_ca" not in settings.chosen


def test_dns_challenge_holds_a_wildcard() -> None:
    """``*.`` is one certificate then; a provider means dns-01, and without one the proxy answers in DNS."""
    options = meant("*.example.com", "--to", "8000", "--dns-provider", "hetzner")
    assert options["acme_certificates"] == ["*.example.com"]
    assert options["acme_challenges"] == ["dns-01"]
    assert not any(mode.startswith("dns") for mode in options["mode"])

    own = meant("*.example.com", "--to", "8000", "--dns-port", "5353", acme_challenges=["dns-01"])
    assert own["acme_certificates"] == ["*.example.com"]
    assert own["mode"][-1] == "dns@5353"


@pytest.mark.parametrize(
    ("words", "configured", "cas"),
    [
        ("", [], ["letsencrypt-staging"]),
        ("--ca google", [], ["google-staging"]),
        ("--ca letsencrypt-staging", [], ["letsencrypt-staging"]),
        ("--ca letsencrypt;profile=shortlived", [], ["letsencrypt-staging;profile=shortlived"]),
        ("", ["google"], ["google-staging"]),
    ],
)
def test_staging_is_that_of_the_ca(words: str, configured: list[str], cas: list[str]) -> None:
    """Of the CA of the command line, of config.yaml, or of Let's Encrypt."""
    assert meant("a.example.com", "--to", "8000", "--staging", *words.split(), acme_ca=configured)["acme_ca"] == cas


def test_staging_of_a_ca_without_one_is_refused() -> None:
    """The sentence names the CAs that have one."""
    with pytest.raises(ConfigError, match="no staging directory of zerossl is known; it is known for letsencrypt and"):
        meant("a.example.com", "--to", "8000", "--staging", "--ca", "zerossl")


def test_status_page_can_be_elsewhere_or_off() -> None:
    """An empty option is said, so that it overrides config.yaml."""
    assert meant("a.example.com", "--to", "8000", "--status", "127.0.0.1:9000")["acme_admin_listen"] == "127.0.0.1:9000"
    assert meant("a.example.com", "--to", "8000", "--status", "off")["acme_admin_listen"] == ""


def test_specs_are_what_set_takes() -> None:
    """A list is repeated, an empty one is emptied."""
    assert specs({"a": ["x", "y"], "b": False, "c": 5, "d": [], "e": ""}) == ["a=x", "a=y", "b=false", "c=5", "d", "e="]
