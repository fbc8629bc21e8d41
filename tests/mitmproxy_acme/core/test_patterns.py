"""Patterns of names: linear, and like Python's own in all that both can do."""

import re

import pytest

from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.host_policy import HostPolicy
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.patterns import Pattern
from tests.costs import cpu_seconds

_NESTED = r"re:([a-z0-9]+-?)+\.apps\.example\.test"


@pytest.mark.parametrize(
    "entry",
    [
        _NESTED,
        r"re:(a+)+b",
        r"re:(a|a)*b",
        r"re:(\w+\.?)+!",
        r"re:.*a.{240}b.*",
    ],
)
@pytest.mark.parametrize("name", ["a" * 40 + "!.apps.example.test", "a" * 63 + ".apps.example.tesz", "ab" * 126 + "a"])
def test_no_name_makes_a_pattern_expensive(entry: str, name: str) -> None:
    """One ClientHello of 40 letters kept the event loop for hours: now the longest name takes under a millisecond."""
    policy = HostPolicy.parse((entry,))
    assert cpu_seconds(lambda: policy.allows(ServerName(name))) < 0.01


@pytest.mark.parametrize(
    "text",
    [
        r"([a-z0-9]+-?)+\.apps\.example\.test",
        r"[a-z]+\.example\.com",
        r"(?:eu|us)-\d{1,3}\.example\.com",
        r"(?P<customer>\w+)\.(?i:Shop)\.example\.com$",
        r"^www\d?\.example\.com",
        r"[^.]+\.(a|b)\.example\.(com|net)",
        r"www.*",
        r".*\.example\.com",
        r"EU-\d+\.example\.com",
    ],
)
def test_ordinary_patterns_match_as_before(text: str) -> None:
    """Syntax that Python's engine and RE2 share has the same meaning: the whole name, in any case."""
    pattern, before = Pattern.parse(f"re:{text}", "acme_domains"), re.compile(text, re.IGNORECASE)
    names = (
        "a1-b2.apps.example.test",
        "-.apps.example.test",
        "www.example.com",
        "www1.example.com",
        "eu-17.example.com",
        "eu-1734.example.com",
        "joe.shop.example.com",
        "x.a.example.net",
        "x.c.example.net",
        "www.example.com.evil.test",
        "evil-www.example.com",
        "example.com",
    )
    assert [pattern.matches(name) for name in names] == [before.fullmatch(name) is not None for name in names]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (r"re:(a)\1\.test", r"invalid escape sequence: \1"),
        (r"re:(?=a)b\.test", "invalid perl operator: (?="),
        (r"re:(?<!a)b\.test", "invalid perl operator: (?<"),
        (r"re:[a-z]++\.test", "bad repetition operator: ++"),
        (r"re:((a{100}){100}){100}", "invalid repetition size"),
        (r"re:a.test\Z", r"invalid escape sequence: \Z"),
        ("re:" + "([a-z0-9]?){500}" * 4, "too large"),
        ("re:(", "missing )"),
        ("re:\udcff", "surrogates not allowed"),
    ],
)
def test_pattern_that_is_not_linear_stops_the_start(entry: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One sentence names the option, the pattern and what to write; nothing goes to stderr past the log."""
    with pytest.raises(ConfigError) as caught:
        HostPolicy.parse((entry,))
    message = str(caught.value)
    assert message.startswith(f"acme_domains: {entry!r} is not a regular expression that RE2 can compile (")
    assert reason in message
    assert "write one without backreferences, lookaround and large repetitions" in message
    assert capfd.readouterr() == ("", "")


def test_repetition_without_its_least_number_stops_the_start() -> None:
    """RE2 would read ``{,5}`` as four characters, and the pattern would match nothing, without a word."""
    with pytest.raises(ConfigError, match=r"acme_domains: .* write \{0,5\} for \{,5\}"):
        HostPolicy.parse((r"re:[a-z]{,5}\.example\.com",))
