"""The passphrase of a backup: how it may be given, and what is wrong with one."""

import getpass
from pathlib import Path

import pytest

from mitmproxy_acme.cli import terminal
from mitmproxy_acme.cli.passphrase import read_passphrase
from mitmproxy_acme.core.errors import ConfigError

_GOOD = "correct horse battery staple"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person at a terminal types, one text for each question."""
    answers: list[str] = []
    monkeypatch.setattr(terminal, "is_asked_here", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda question: answers.pop(0))
    return answers


def test_variable_and_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACME_TEST_PASSPHRASE", _GOOD)
    (tmp_path / "passphrase").write_text(_GOOD + "\n")
    (tmp_path / "passphrase").chmod(0o600)

    assert read_passphrase("env:ACME_TEST_PASSPHRASE", new=True) == _GOOD
    assert read_passphrase(f"file:{tmp_path}/passphrase", new=False) == _GOOD


def test_passphrase_itself_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="would be visible in the list of processes") as error:
        read_passphrase(_GOOD, new=False)
    assert _GOOD not in str(error.value)


@pytest.mark.parametrize(("length", "is_enough"), [(11, False), (12, True)])
def test_new_one_must_be_long(typed: list[str], length: int, is_enough: bool) -> None:
    """That of an old backup may be short: it is what it is."""
    typed[:] = ["x" * length] * 3
    assert read_passphrase("", new=False) == "x" * length
    if is_enough:
        assert read_passphrase("", new=True) == "x" * length
    else:
        with pytest.raises(ConfigError, match="has 11 characters; use at least 12"):
            read_passphrase("", new=True)


def test_new_one_is_asked_twice(typed: list[str]) -> None:
    typed[:] = [_GOOD, _GOOD + "!"]
    with pytest.raises(ConfigError, match="the two passphrases differ"):
        read_passphrase("", new=True)
    assert typed == []


def test_without_a_terminal_it_must_be_given() -> None:
    """The tests have none."""
    with pytest.raises(ConfigError, match="the passphrase of the backup is missing; write --key env:NAME"):
        read_passphrase("", new=False)
