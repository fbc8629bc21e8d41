"""A server's storage URL: its parts, where secrets come from, and what is wrong with it."""

from math import inf

import pytest

from acme_storage.url import StorageUrl, is_here, parse

_KNOWN = ("timeout", "token", "tls", "name")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis:", ("redis", "", "", (), "")),
        ("REDIS://h", ("redis", "", "", (("h", None),), "")),
        ("x://u:p@h:1,[::1]:65535,[::2]/a%20b/c", ("x", "u", "p", (("h", 1), ("::1", 65535), ("::2", None)), "/a b/c")),
        ("x://u%40:p%3A%2F%40@h", ("x", "u@", "p:/@", (("h", None),), "")),
        ("x://u@v:p@h", ("x", "u@v", "p", (("h", None),), "")),
        ("x:/path", ("x", "", "", (), "/path")),
        ("x://%2Frun%2Fdb", ("x", "", "", (("/run/db", None),), "")),
        ("x:///path", ("x", "", "", (), "/path")),
    ],
)
def test_parts_are_decoded(url: str, parts: tuple[str, str, str, tuple[tuple[str, int | None], ...], str]) -> None:
    """Missing ones are empty."""
    found = parse(url, ())
    assert (found.scheme, found.user, found.password, found.hosts, found.path) == parts
    assert found.parameters == {}


def test_parameters_are_texts_and_no_form_fields() -> None:
    """A plus is a plus; what is empty is there; none shows in a repr, nor does a password."""
    found = parse("x://u:hunter2@h?token=a+b%20c&name=", _KNOWN)
    assert found.parameters == {"token": "a+b c", "name": ""}
    assert "hunter2" not in repr(found)
    assert "a+b" not in repr(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("x://h#a", "must not contain a #"),
        ("x://h:0", "the port is not a number"),
        ("x://h:65536", "the port is not a number"),
        ("x://h:hunter2", "the port is not a number"),
        ("x://h?hunter2", "text behind a ? or & that is no parameter"),
        ("x://h?hunter-2=1", "text behind a ? or & that is no parameter"),
        ("x://h?hunter3=", "text behind a ? or & that is no parameter"),
        ("x://h?other=1", "has the unknown parameter 'other'; known are name, timeout, tls, token"),
        (f"x://h?{'o' * 41}=1", f"has the unknown parameter '{'o' * 40}'; known are"),
        ("x://h?name=1&name=1", "has the parameter name twice"),
        ("x://u:env:NO_SUCH_VARIABLE@h", "the password is in the environment variable 'NO_SUCH_VARIABLE', which is"),
    ],
)
def test_wrong_url_is_one_sentence(url: str, said: str) -> None:
    """It begins with the scheme, and shows no more than the names of parameters."""
    with pytest.raises(ValueError, match=r"^the storage URL x: ") as caught:
        parse(url, _KNOWN)
    assert said in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_secret_may_be_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the password, or as a parameter; only a parameter's: what the environment has itself is the secret."""
    monkeypatch.setenv("PW", "secret")
    monkeypatch.setenv("TOKEN", "env:PW")
    found = parse("x://u:env:PW@h?token=env:PW&name=env:PW", _KNOWN)
    assert found.password == "secret"
    assert (found.secret("token"), found.text("token"), found.text("name")) == ("secret", "env:PW", "env:PW")
    assert parse("x://h", _KNOWN).secret("token", "TOKEN") == "env:PW"
    assert parse("x://h", _KNOWN).secret("token") is None
    monkeypatch.setenv("PW", "")
    with pytest.raises(ValueError, match="token is in the environment variable 'PW', which is not set"):
        found.secret("token")


def test_url_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of several variables the first that is set and not empty."""
    monkeypatch.setenv("FIRST", "")
    monkeypatch.setenv("SECOND", "2")
    monkeypatch.setenv("THIRD", "3")
    assert parse("x://h?name=url", _KNOWN).text("name", "SECOND") == "url"
    assert parse("x://h?name=", _KNOWN).text("name", "SECOND") == ""
    assert parse("x://h", _KNOWN).text("name", "FIRST", "SECOND", "THIRD") == "2"
    assert parse("x://h", _KNOWN).text("name", "FIRST") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("1", True),
        ("YES", True),
        ("on", True),
        ("False", False),
        ("0", False),
        ("no", False),
        ("off", False),
    ],
)
def test_flag_is_read_in_any_spelling(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("FLAG", text)
    assert parse(f"x://h?tls={text}", _KNOWN).flag("tls", default=not value) is value
    assert parse("x://h", _KNOWN).flag("", "FLAG", default=not value) is value
    assert parse("x://h", _KNOWN).flag("tls", default=not value) is not value


def test_flag_that_is_none_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAG", "maybe")
    with pytest.raises(ValueError, match="x: tls must be true or false"):
        parse("x://h?tls=", _KNOWN).flag("tls", "FLAG", default=True)
    with pytest.raises(ValueError, match="x: FLAG or OTHER must be true or false"):
        parse("x://h", _KNOWN).flag("tls", "FLAG", "OTHER", default=True)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon", ""])
def test_number_is_above_zero_and_finite(text: str) -> None:
    with pytest.raises(ValueError, match=r"x: timeout must be a number above zero, such as 1\.8"):
        parse(f"x://h?timeout={text}", _KNOWN).number("timeout", 1.8)
    assert parse("x://h?timeout=0.001", _KNOWN).number("timeout", 1.8) == 0.001
    assert parse("x://h", _KNOWN).number("timeout", 1.8) == 1.8
    assert inf > StorageUrl("x", "", "", (), "", {"timeout": "1e300"}).number("timeout", 1.8) > 1e299


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("", True),
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("/run/db", True),
        ("@abstract", True),
        ("db.internal", False),
        ("128.0.0.1", False),
        ("::2", False),
        ("localhost.example.com", False),
    ],
)
def test_this_machine_is_known(host: str, here: bool) -> None:
    """No network carries what goes there."""
    assert is_here(host) is here
