"""Who agrees to the terms of service of a CA: a person at a terminal, once for each CA."""

import io
from dataclasses import replace

import pytest

from mitmproxy_acme.ca import directory_probe
from mitmproxy_acme.ca.directory_probe import Directory
from mitmproxy_acme.cli import terminal
from mitmproxy_acme.cli.terms_of_service import require_agreement
from mitmproxy_acme.config.ca_settings import CaSettings
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import ConfigError, IssuerUnavailable

_CAS = ("https://one.test/dir", "https://two.test/dir")
_DIRECTORY = Directory(_CAS[0], "https://one.test/terms", (), needs_eab=False, caa_identities=(), clock_ahead=None)


@pytest.fixture
def cas(monkeypatch: pytest.MonkeyPatch) -> tuple[CaSettings, ...]:
    """Two CAs, of which the first has terms."""

    def fetch(entry: CaSettings, now: float) -> Directory:
        return _DIRECTORY if entry.ca == _CAS[0] else replace(_DIRECTORY, terms_of_service="")

    monkeypatch.setattr(directory_probe, "fetch", fetch)
    return Config.from_options({"acme_ca": _CAS}).issuers


@pytest.mark.parametrize("answer", ["y", "yes", "Y", "no", ""])
def test_person_is_asked_where_there_are_terms(
    cas: tuple[CaSettings, ...], answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "is_asked_here", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))

    if answer.lower().startswith("y"):
        require_agreement(cas)
    else:
        with pytest.raises(ConfigError, match=f"{_CAS[0]} issues no certificate before you accept its terms"):
            require_agreement(cas)

    said = capsys.readouterr().err
    assert said.count("has terms of service: https://one.test/terms") == said.count("Do you accept them?") == 1


def test_without_a_terminal_the_flag_is_needed(cas: tuple[CaSettings, ...]) -> None:
    """The tests have none; a CA without terms needs no flag."""
    with pytest.raises(ConfigError, match=r"--agree-tos: .* read https://one.test/terms, then add --agree-tos"):
        require_agreement(cas)
    require_agreement(cas[1:])


def test_terms_of_a_silent_ca_are_not_known(monkeypatch: pytest.MonkeyPatch, cas: tuple[CaSettings, ...]) -> None:
    def fetch(entry: CaSettings, now: float) -> Directory:
        raise IssuerUnavailable("it is down")

    monkeypatch.setattr(directory_probe, "fetch", fetch)
    with pytest.raises(ConfigError, match="are not known, because it does not answer: it is down; add --agree-tos"):
        require_agreement(cas)
