"""Storage connections in plain text are reported, with what to write instead."""

import pytest

from mitmproxy_acme.store.plain_text import plain_text_warning

_VARIABLES = ("CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL", "VAULT_ADDR", "PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGSERVICE")

PLAIN = {
    "redis://db.internal": "rediss://",
    "redis://10.0.0.7:6379/0": "rediss://",
    "redis+sentinel://127.0.0.1,s2.internal/set": "ssl=true",
    "redis+cluster://c1.internal,c2.internal": "ssl=true",
    "consul://consul.internal:8500/acme": "consul+https://",
    "vault://vault.internal:8200/secret/acme": "vault+https://",
    "postgresql://u@db.internal/acme?sslmode=disable": "sslmode=verify-full",
    "postgresql://u@db.internal/acme?sslmode=prefer": "sslmode=verify-full",
    "postgresql://u@localhost,db.internal/acme?sslmode=allow": "sslmode=verify-full",
}
FINE = [
    "memory:", "file:", "sqlite:/x.db", "redis:", "redis://localhost", "redis://127.0.0.1:6379", "redis://[::1]:6379",
    "rediss://db.internal", "redis://db.internal?ssl=true", "unix:///run/redis.sock", "consul:", "consul://127.0.0.1:8500",
    "consul+https://consul.internal", "vault:", "vault://localhost:8200", "vault+https://vault.internal/secret/acme",
    "postgresql://u@db.internal/acme", "postgresql://u@db.internal/acme?sslmode=require", "postgresql:///acme",
    "postgresql://u@localhost/acme?sslmode=disable", "postgresql://u@/acme?host=/run/postgresql&sslmode=disable",
]  # fmt: skip


@pytest.fixture(autouse=True)
def silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("url", PLAIN)
def test_plain_text_to_another_machine_is_said(url: str) -> None:
    """In one sentence that names the option and what to write, and shows no URL, which may hold a password."""
    warning = plain_text_warning(url)
    assert warning.startswith("acme_storage: the storage is on another machine and is reached in plain text")
    assert f"write {PLAIN[url]}, so" in warning
    assert "internal" not in warning


@pytest.mark.parametrize("url", FINE)
def test_nothing_is_said_of_others(url: str) -> None:
    """TLS, this machine, or a store that is no server."""
    assert plain_text_warning(url) == ""


@pytest.mark.parametrize(
    ("url", "variable", "value"),
    [
        ("consul:", "CONSUL_HTTP_ADDR", "http://consul.internal:8500"),
        ("vault:", "VAULT_ADDR", "http://vault.internal:8200"),
        ("postgresql://u@db.internal/acme", "PGSSLMODE", "disable"),
        ("postgresql:///acme?sslmode=disable", "PGHOST", "db.internal"),
    ],
)
def test_environment_counts(monkeypatch: pytest.MonkeyPatch, url: str, variable: str, value: str) -> None:
    """If the URL does not say it, the tools' own variables tell where the store is and how it is reached."""
    monkeypatch.setenv(variable, value)
    assert "plain text" in plain_text_warning(url)
