"""What an operator writes: values of options, durations, storage URLs, entries of CAs and upstreams, config.yaml."""

import json
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from acme_storage.registry import find_plain_text
from acme_storage.url import parse as parse_url
from mitmproxy_acme.cli import mitmproxy_options
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.config.options import OPTIONS
from mitmproxy_acme.config.upstreams import UpstreamRule
from mitmproxy_acme.core.backoff import BackoffSchedule
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.host_port import parse_host_port
from mitmproxy_acme.core.rate_limits import Limit
from mitmproxy_acme.core.renewal import RenewBefore, describe_duration, parse_duration

from ..mutators import json_mutator, text_mutator
from ..target import Target, require_message

_CENTURY = 100 * 366 * 86_400.0
_DEFAULTS = {option.name: option.default for option in OPTIONS}
_VALUES: tuple[dict[str, Any], ...] = (
    {"acme_domains": ["**.example.test", "re:[a-z]+\\.test"], "acme_tos_accepted": True},
    {"acme_domains": ["a.test"], "acme_ca": ["letsencrypt;orders=300/3h;profile=x",
    "https://ca.test/directory;eab_kid=a;eab_hmac_key=b"]},
    {"acme_domains": ["a.test"], "acme_upstreams": ["a.test=http://127.0.0.1:8000;host=b.test",
    "**.b.test=https://[::1]:1"]},
    {"acme_certificates": ["a.test,*.a.test", "192.0.2.1"], "acme_challenges": ["dns-01"],
    "acme_dns_zone": "acme.test", "acme_dns_nameservers": ["ns.test"]},
    {"acme_domains": ["a.test"], "acme_fail_backoff": "1m,10m,1d", "acme_renew_before": "25%",
    "acme_keep_expired": "30d", "acme_orders_per_client": "20/1h"},
    {"acme_domains": ["a.test"], "acme_admin_listen": "127.0.0.1:8008",
    "acme_admin_token": "0123456789abcdef0123456789abcdef", "acme_dns_resolver": "[::1]:53"},
    {"acme_domains": ["a.test"], "acme_webhook": "https://a.test/",
    "acme_webhook_secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=", "acme_key_type": ["rsa-2048", "ecdsa-p256"]},
)  # fmt: skip


def duration(data: bytes) -> None:
    """Durations, and what is made of them: each a time that a person may mean."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(ValueError):
        seconds = parse_duration(text)
        assert 0 < seconds <= _CENTURY, seconds
        describe_duration(seconds)
    with suppress(ConfigError):
        longest = BackoffSchedule.parse(text).longest
        assert longest <= 100 * _CENTURY
    with suppress(ConfigError):
        assert 0 < RenewBefore.parse(text).margin(90 * 86_400.0) <= 90 * 86_400.0
    with suppress(ValueError):
        limit = Limit.parse(text)
        assert 0 < limit.capacity <= 10**9
        assert 0 < limit.period <= _CENTURY
    with suppress(ValueError):
        place = parse_host_port(text)
        assert 0 < place.port < 65_536


def config(data: bytes) -> None:
    """Options by name: one sentence says what is wrong, or all of it is right."""
    try:
        given = json.loads(data)
        json.dumps(given, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except (ValueError, RecursionError):  # among them what neither a file nor an argument can hold
        return
    if not isinstance(given, dict):
        return
    try:
        for name, value in given.items():
            mitmproxy_options._check_type(name, value)
        made = Config.from_options({name: value for name, value in given.items() if name in _DEFAULTS})
    except ConfigError as error:
        require_message(error)
        return
    repr(made)


def config_yaml(data: bytes) -> None:
    """A config.yaml: one sentence says what is wrong."""
    file = _folder() / "config.yaml"
    file.write_bytes(data)
    with suppress(ConfigError):
        settings = mitmproxy_options.read_settings(_folder(), [])
        mitmproxy_options.overruled(_folder(), ["acme_email=a@b.test"])
        repr(settings)


def set_argument(data: bytes) -> None:
    """An argument of ``--set``."""
    with suppress(ConfigError):
        mitmproxy_options.given_settings([data.decode("utf-8", "surrogateescape")])


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp())


def storage_url(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(ValueError):
        parsed = parse_url(text, ("namespace", "timeout", "x"))
        repr(parsed)
        with suppress(ValueError):
            parsed.number("timeout", 1.0)
    with suppress(ValueError):
        find_plain_text(text)


def upstream(data: bytes) -> None:
    with suppress(ConfigError):
        rule = UpstreamRule.parse(data.decode("utf-8", "surrogateescape"))
        again = UpstreamRule.parse(f"{rule.hosts}={rule.upstream}")
        assert again.upstream.address == rule.upstream.address
        assert again.hosts == rule.hosts


def _durations() -> list[bytes]:
    return [
        b"90s",
        b"1.5h",
        b"1m,10m,1d",
        b"25%",
        b"auto",
        b"20/1h",
        b"off",
        b"127.0.0.1:8008",
        b"[::1]:53",
        b"0.1s",
        b"99w",
    ]


def _configs() -> list[bytes]:
    return [json.dumps(values).encode() for values in _VALUES]


def _files() -> list[bytes]:
    odd = (
        b"a: &a [1]\nb: *a\n", b"acme_email: !!binary aGk=\n", b"acme_domains:\n  - 2026-11-29\n  - 0x10\n",
        b"<<: {a: 1}\n", b"? [a]\n: b\n",
        b"a: 1\na: 2\n", b"%YAML 1.1\n---\na: 0o17\n...\n---\nb\n", b"- a\n", b"acme_email: |\n  a\n",
        b"a: {b: {c: [d]}}\n", b"a: !!timestamp 2026-99-99\n",
    )  # fmt: skip
    return [
        *odd,
        *("".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()).encode() for values in _VALUES),
    ]


def _urls() -> list[bytes]:
    return [
        b"redis://user:p%40ss@h1:6379,h2/0?namespace=x", b"postgresql://u:p@[::1]:5432/db?sslmode=require",
        b"consul:https://c.test:8501/p?timeout=5",
        b"vault:https://v.test/secret/x", b"sqlite:/tmp/x.db", b"file:/tmp/x", b"memory:",
        b"rediss://:env:HOME@h?x=1&timeout=1e999",
    ]  # fmt: skip


def _upstreams() -> list[bytes]:
    return [
        entry.encode()
        for entry in (
            "a.test=http://127.0.0.1:8000",
            "**.b.test=https://[::1]",
            "re:a=b=http://up",
            "[::1]=http://x_y:1;host=a.test:1",
        )
    ]


_YAML = (
    "!!binary ",
    "!!timestamp ",
    "!!int ",
    "!!float ",
    "!!set ",
    "!!omap ",
    "!!python/object:a",
    "&a ",
    "*a",
    "<<: ",
    "- ",
    ": ",
    "? ",
    "[" * 700,
    "{a: " * 500,
    "\t",
    "---\n",
    "2026-99-99",
    "0b",
    "190:20:30",
    ".inf",
    "1__0",
    '"\\x',
    "|2\n",
)
TARGETS = (
    Target("duration", duration, _durations, [text_mutator(["s", "m", "d", "w", ",", "%", "/", "."])], longest=5_500),
    Target("config", config, _configs, [json_mutator(tuple(_DEFAULTS))], seconds=2.0, longest=20_000),
    Target("config_yaml", config_yaml, _files, [text_mutator((*_YAML, *_DEFAULTS))], seconds=4.0, longest=6_000),
    Target(
        "set_argument",
        set_argument,
        lambda: [f"{option}=1".encode() for option in _DEFAULTS],
        [text_mutator(tuple(_DEFAULTS))],
        longest=6_000,
    ),
    Target(
        "storage_url",
        storage_url,
        _urls,
        [text_mutator(["://", "@", ":", "/", "?", "&", "%", "[", "]", "redis", "env:"])],
        longest=1_000,
    ),
    Target(
        "upstream",
        upstream,
        _upstreams,
        [text_mutator(["=", "http://", "https://", ";host=", "[", "]", "re:"])],
        longest=1_000,
    ),
)
