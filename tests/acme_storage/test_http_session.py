"""The common part of stores with an HTTP API: what its URL may have, and what a failure means."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from urllib3.exceptions import HTTPError

from acme_storage import http_session
from acme_storage.http_session import (
    Tls,
    client_certificate,
    configure,
    parse_http_url,
    reason,
    retry_after_cut,
    timeouts,
)

_KNOWN = ("timeout", "token")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("x:host:80", r"needs two slashes before the host: x://host:port/path"),
        ("x:/path", r"needs two slashes before the host"),
        ("x://user@h", r"takes no user or password before the host; known parameters are timeout, token"),
        ("x://:pw@h", r"takes no user or password"),
        ("x://h?token=", r"has the parameter token without a value"),
        ("x://h,i", r"takes one host: x://host:port/path"),
    ],
)
def test_wrong_url_is_explained(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_http_url(url, _KNOWN)


@pytest.mark.parametrize("url", ["x:", "x:?token=a", "x://?token=a", "x://h", "x://h:80/path?timeout=1&token=a"])
def test_url_may_leave_the_host_to_the_environment(url: str) -> None:
    assert parse_http_url(url, _KNOWN).scheme == "x"


@pytest.mark.parametrize(
    ("url", "both"), [("x://h", (1.0, 1.8)), ("x://h?timeout=0.5", (0.5, 0.5)), ("x://h?timeout=30", (1.0, 30.0))]
)
def test_timeout_limits_both_parts(url: str, both: tuple[float, float]) -> None:
    """But a server that is there connects within a second."""
    assert timeouts(parse_http_url(url, _KNOWN)) == both


@pytest.mark.parametrize(
    ("certificate", "key", "both"),
    [(None, None, None), ("", "", ""), ("c.pem", None, "c.pem"), ("c.pem", "k.pem", ("c.pem", "k.pem"))],
)
def test_certificate_of_the_client(certificate: str | None, key: str | None, both: Any) -> None:
    """In one file with its key, or in two."""
    assert client_certificate(certificate, key, parse_http_url("x://h", ())) == both


@pytest.mark.parametrize("certificate", [None, ""])
def test_key_without_a_certificate_is_explained(certificate: str | None) -> None:
    with pytest.raises(ValueError, match="has a client key but no client certificate; set cert_file too"):
        client_certificate(certificate, "k.pem", parse_http_url("x://h", ()))


@pytest.mark.parametrize("name", [None, "db.internal"])
def test_session_uses_nothing_of_the_environment(name: str | None) -> None:
    """No proxy, no other CA bundle, no .netrc; a server name is sent and checked if it is set."""
    session = configure(requests.Session(), Tls("ca.pem", ("c.pem", "k.pem"), name))
    assert (session.trust_env, session.verify, session.cert) == (False, "ca.pem", ("c.pem", "k.pem"))
    for url in ("http://h", "https://h"):
        adapter: Any = session.get_adapter(url)
        assert (adapter._pool_connections, adapter._pool_maxsize) == (2, 32)
        options = adapter.poolmanager.connection_pool_kw
        assert (options.get("server_hostname"), options.get("assert_hostname")) == (name, name)


class Calls:
    """A call that takes its time, and fails the first times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, *errors: Exception) -> None:
        self._errors, self._seconds, self.made, self.now = list(errors), seconds, 0, 100.0
        monkeypatch.setattr(http_session, "time", SimpleNamespace(monotonic=lambda: self.now))

    def __call__(self) -> str:
        self.made += 1
        self.now += self._seconds
        if self._errors:
            raise self._errors.pop(0)
        return "done"


def test_connection_that_was_cut_at_once_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restart of the server; once."""
    call = Calls(monkeypatch, 0.49, requests.ConnectionError())
    assert (retry_after_cut(call), call.made) == ("done", 2)
    call = Calls(monkeypatch, 0.49, requests.ConnectionError(), requests.ConnectionError())
    with pytest.raises(requests.ConnectionError):
        retry_after_cut(call)
    assert call.made == 2


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (requests.ConnectionError(), 0.5),
        (requests.ConnectTimeout(), 0.0),
        (requests.ReadTimeout(), 0.0),
        (requests.exceptions.SSLError(), 0.0),
        (requests.exceptions.ChunkedEncodingError(), 0.0),
        (ValueError(), 0.0),
    ],
)
def test_other_failure_is_told_at_once(monkeypatch: pytest.MonkeyPatch, error: Exception, seconds: float) -> None:
    """A second try would double a timeout, and a certificate would not get better."""
    call = Calls(monkeypatch, seconds, error)
    with pytest.raises(type(error)):
        retry_after_cut(call)
    assert call.made == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (requests.exceptions.SSLError(), "its TLS certificate is not trusted, or it does not trust ours"),
        (requests.ConnectTimeout(), "no connection in time; check the address"),
        (requests.ReadTimeout(), "it does not answer in time"),
        (requests.ConnectionError(), "no connection; is it running"),
        (requests.exceptions.ChunkedEncodingError("token"), "the exchange failed (ChunkedEncodingError); check"),
        (HTTPError("token"), "the exchange failed (HTTPError)"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/ca.pem"), "No such file; check /ca.pem"),
        (OSError("token"), "a file is missing; check ca_file, cert_file and key_file"),
        (KeyError("token"), "its answer is malformed (KeyError); check host and port"),
    ],
)
def test_failure_is_told_in_words_and_without_the_request(error: Exception, said: str) -> None:
    assert said in reason(error)
    assert "token" not in reason(error)
