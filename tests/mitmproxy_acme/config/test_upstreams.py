"""acme_upstreams: what an entry means, which one decides, and the messages for wrong ones."""

import pytest

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.config.upstreams import UpstreamRules
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.names import ServerName
from tests.costs import cpu_seconds


def found(rules: UpstreamRules, host: str) -> str:
    return str(rules.find(ServerName(host)) or "")


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("http://127.0.0.1:8001/", "http://127.0.0.1:8001"),
        ("HTTP://App.Internal", "http://app.internal:80"),
        ("https://10.0.0.5", "https://10.0.0.5:443"),
        ("https://name:8443", "https://name:8443"),
        ("http://my_app:3000", "http://my_app:3000"),
        ("http://[::1]:8001", "http://[::1]:8001"),
        ("https://[2001:DB8::0:1]", "https://[2001:db8::1]:443"),
        ("https://bücher.internal", "https://xn--bcher-kva.internal:443"),
    ],
)
def test_url(url: str, upstream: str) -> None:
    rules = UpstreamRules.parse([f" a.example.com = {url} "])
    assert found(rules, "a.example.com") == upstream


def test_address_of_an_upstream_has_no_brackets() -> None:
    upstream = UpstreamRules.parse(["a.test=https://[::1]:8001"]).find(ServerName("a.test"))
    assert upstream is not None
    assert upstream.address == ("::1", 8001)
    assert upstream.tls


@pytest.mark.parametrize("header", ["app.example.com", "app.example.com:8443", "203.0.113.7", "[2001:db8::7]:80"])
def test_entry_may_set_the_host_header(header: str) -> None:
    upstream = UpstreamRules.parse([f"a.test=https://up;host={header}"]).find(ServerName("a.test"))
    assert upstream is not None
    assert (str(upstream), upstream.host_header) == ("https://up:443", header)


def test_most_specific_entry_decides() -> None:
    """The name itself, then *., then the longest **., then the first expression, whatever the order of the entries."""
    rules = UpstreamRules.parse(
        [
            r"re:a.*\.example\.com=http://regexp-1",
            r"re:.*=http://regexp-2",
            "**.example.com=http://depth",
            "**.shop.example.com=http://shop-depth",
            "*.shop.example.com=http://shop",
            "a.shop.example.com=http://exact",
            "203.0.113.7=http://address",
            "[2001:db8::7]=http://address-6",
        ]
    )
    assert {
        host: found(rules, host).removeprefix("http://").removesuffix(":80")
        for host in (
            *("a.shop.example.com", "b.shop.example.com", "c.b.shop.example.com", "a.example.com", "a.b.example.com"),
            *("example.com", "a.example.org", "203.0.113.7", "203.0.113.8", "2001:db8::7"),
        )
    } == {
        "a.shop.example.com": "exact",
        "b.shop.example.com": "shop",
        "c.b.shop.example.com": "shop-depth",
        "a.example.com": "depth",
        "a.b.example.com": "depth",
        "example.com": "regexp-2",
        "a.example.org": "regexp-2",
        "203.0.113.7": "address",
        "203.0.113.8": "regexp-2",
        "2001:db8::7": "address-6",
    }


def test_expressions_are_tried_in_their_order() -> None:
    entries = [r"re:a.*=http://first", r"re:.*b=http://second"]
    assert found(UpstreamRules.parse(entries), "ab") == "http://first:80"
    assert found(UpstreamRules.parse(entries[::-1]), "ab") == "http://second:80"
    assert found(UpstreamRules.parse(entries), "c") == ""


def test_wildcard_is_one_label() -> None:
    rules = UpstreamRules.parse(["*.example.com=http://up"])
    assert [host for host in ("a.example.com", "example.com", "a.b.example.com") if found(rules, host)] == [
        "a.example.com"
    ]


def test_expression_may_contain_an_equals_sign() -> None:
    assert found(UpstreamRules.parse(["re:[a=]=http://up:81"]), "a") == "http://up:81"


def test_each_upstream_is_listed_once() -> None:
    rules = UpstreamRules.parse(["a.test=http://up", "b.test=http://up:80/", "c.test=https://up"])
    assert [str(upstream) for upstream in rules.upstreams] == ["http://up:80", "https://up:443"]
    assert rules.has_upstream(("up", 443), tls=True)
    assert rules.has_upstream(("up", 80), tls=False)
    assert not rules.has_upstream(("up", 80), tls=True)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["http://127.0.0.1:8001"], "an entry is not HOST=URL; write one such as a.example.com=http://127.0.0.1:8000"),
        (["a.test"], "an entry is not HOST=URL"),
        (["=http://up"], "an entry is not HOST=URL"),
        (["a.test=127.0.0.1:8001"], "a.test has no URL behind the =; write one such as"),
        (["a.test=ftp://up"], "the URL of a.test begins with 'ftp'; write http:// or https://"),
        (["a.test=://up"], "the URL of a.test begins with ''; write http:// or https://"),
        (["a.test=http://me:hunter2@up"], "the URL of a.test has a user name or password"),
        (["a.test=http://up/app"], "the URL of a.test has a path, and an upstream gets the paths that clients ask for"),
        (["a.test=http://up?x=1"], "the URL of a.test has a path"),
        (["a.test=http://up#x"], "the URL of a.test has a path"),
        (["a.test=http://"], "the URL of a.test has no valid host and port; write one such as http://127.0.0.1:8000"),
        (["a.test=http://up:99999"], "the URL of a.test has no valid host and port"),
        (["a.test=http://up:80:90"], "the URL of a.test has no valid host and port"),
        (["a.test=http://300.0.0.1"], "the URL of a.test has no valid host and port"),
        (["a.test=http://::1"], "the URL of a.test has no valid host and port"),
        (["a.test=http://[::1%eth0]"], "the URL of a.test has no valid host and port"),
        (["a.test=http://[::1"], "the URL of a.test has no valid host and port"),
        (["a.test=http://a b"], "the URL of a.test has no valid host and port"),
        (["a.test=http://up;host="], "what is behind the URL of a.test is not the Host header to send; write ;host="),
        (["a.test=http://up;host=a b"], "what is behind the URL of a.test is not the Host header"),
        (["a.test=http://up;host=x\r\ny: z"], "what is behind the URL of a.test is not the Host header"),
        (["a.test=http://up;hots=app.test"], "what is behind the URL of a.test is not the Host header"),
        (["a..test=http://up"], "'a..test' is not a host name"),
        (["*.*.test=http://up"], "'*.test' is not a host name"),
        (["re:(=http://up"], "'re:(' is not a regular expression"),
        (["a.test=http://up", "A.test.=http://other"], "a.test is listed twice; keep one upstream for it"),
        (["*.a.test=http://up", "*.a.test=http://up"], "*.a.test is listed twice"),
        (["re:a=http://up", "re:a=http://other"], "re:a is listed twice"),
        (["::1=http://up", "[::1]=http://up"], "::1 is listed twice"),
    ],
)
def test_wrong_entry_is_explained(entries: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        UpstreamRules.parse(entries)
    assert str(error.value).startswith("acme_upstreams: ")
    assert said in str(error.value)
    assert "hunter2" not in str(error.value)


def test_upstreams_alone_are_refused() -> None:
    """Without a name of ours the addon does nothing, and every host would reach the mode's own upstream."""
    with pytest.raises(ConfigError, match="acme_upstreams: it has no effect while no name may have a certificate"):
        Config.from_options({"acme_upstreams": ("a.test=http://up",)})


def test_finding_costs_little_with_many_entries() -> None:
    """A stranger chooses the host: the cost follows its length, not the number of entries."""
    entries = [f"{kind}n{number}.example.com=http://up" for number in range(5_000) for kind in ("", "*.", "**.")]
    rules, longest = UpstreamRules.parse(entries), ServerName("a." * 125 + "com")
    assert rules.find(longest) is None
    assert cpu_seconds(lambda: rules.find(longest)) < 0.001
