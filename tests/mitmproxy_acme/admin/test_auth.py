"""Who may use the admin API, by the headers alone."""

from collections.abc import Mapping

import pytest

from mitmproxy_acme.admin.auth import Guard
from mitmproxy_acme.admin.problems import HttpError

_TOKEN = "a-token-that-is-hard-to-guess"
_LOCAL = {"Host": "127.0.0.1:8008"}
_JSON = {"Content-Type": "application/json; charset=utf-8"}


def _refusal(guard: Guard, method: str, headers: Mapping[str, str], *, public: bool = False) -> int:
    """Return the status of the refusal; 0 without one."""
    try:
        guard.admit(method, headers, public=public)
    except HttpError as error:
        return error.problem.status
    return 0


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8008", "127.0.0.1", "127.8.9.1:8008", "[::1]:8008", "[::1]", "LOCALHOST:8008"]
)
def test_without_token_loopback_may_ask(host: str) -> None:
    """The Host header may spell this machine in any way."""
    assert _refusal(Guard(""), "GET", {"Host": host}) == 0


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.test",
        "localhost.evil.test",
        "evillocalhost",
        "127.0.0.1.evil.test",
        "10.0.0.1",
        "[::]",
        "[",
        "localhost.",
        "2130706433",
    ],
)
@pytest.mark.parametrize("public", [False, True])
def test_without_token_other_names_may_not(host: str, public: bool) -> None:
    """A name that DNS could point here is refused, even for what tells nothing."""
    assert _refusal(Guard(""), "GET", {"Host": host}, public=public) == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {_TOKEN}"},
        {"Authorization": f"bearer  {_TOKEN} "},
        {"Kong-Admin-Token": _TOKEN},
    ],
)
def test_token_admits_from_anywhere(headers: dict[str, str]) -> None:
    """By any host name, from any origin, with any content type: who has the token is no web page."""
    elsewhere = {"Host": "proxy.internal", "Origin": "https://else.test", "Content-Type": "text/plain"}
    for method in ("GET", "POST", "PATCH", "DELETE"):
        assert Guard(_TOKEN).admit(method, headers | elsewhere) is True


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {_TOKEN}"},
        {"Authorization": f"Bearer {_TOKEN[:-1]}"},
        {"Authorization": "Bearer \xff\u0100\ud800"},
        {"Kong-Admin-Token": ""},
    ],
)
def test_no_token_or_a_wrong_one(headers: dict[str, str]) -> None:
    """401; only public resources are answered, and other sites cannot change even those."""
    for method in ("GET", "POST", "DELETE"):
        assert _refusal(Guard(_TOKEN), method, _LOCAL | headers) == 401
    assert Guard(_TOKEN).admit("GET", _LOCAL | headers, public=True) is False


def test_an_empty_token_is_no_token() -> None:
    """Without acme_admin_token no request is authorized."""
    assert Guard("").admit("GET", _LOCAL | {"Authorization": "Bearer "}) is False


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (_JSON, 0),
        (_JSON | {"Origin": "http://127.0.0.1:8008", "Sec-Fetch-Site": "same-origin"}, 0),
        (_JSON | {"Sec-Fetch-Site": "none"}, 0),
        (_JSON | {"Origin": "http://127.0.0.1:9999"}, 403),
        (_JSON | {"Origin": "null"}, 403),
        (_JSON | {"Origin": ""}, 403),
        (_JSON | {"Origin": "http://["}, 403),
        (_JSON | {"Origin": "https://evil.test"}, 403),
        (_JSON | {"Sec-Fetch-Site": "same-site"}, 403),
        ({}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json-seq"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_changes_without_token(headers: dict[str, str], status: int) -> None:
    """A POST is one that no other web site can have sent."""
    assert _refusal(Guard(""), "POST", _LOCAL | headers) == status


def test_flood_without_token_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """However many guess: the rest is counted until the next line is due. The token itself is never shown."""
    caplog.set_level("INFO")
    guard = Guard(_TOKEN)
    assert [_refusal(guard, "GET", {"Authorization": f"Bearer {number}"}) for number in range(100)] == [401] * 100
    assert [record.args for record in caplog.records] == [(1,)]
    assert _TOKEN not in repr(guard)


@pytest.mark.parametrize("host", [":8008", "@", "user@", "[", "]", "[::1", "//"])
def test_host_that_is_none_is_refused(host: str) -> None:
    """And is no error of ours."""
    assert _refusal(Guard(""), "GET", {"Host": host}) == 421


def test_nothing_is_public_unless_it_says_so() -> None:
    """A handler that forgets it needs the token."""
    with pytest.raises(HttpError) as caught:
        Guard(_TOKEN).admit("GET", _LOCAL)
    assert caught.value.problem.status == 401
