"""``serve`` in this process, up to the start of the proxy: what it refuses, asks, and passes on."""

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from mitmproxy_acme.cli.commands import run as run_command
from mitmproxy_acme.cli.commands import serve
from mitmproxy_acme.config.ca_settings import CaSettings
from mitmproxy_acme.mitm.launch import Launch
from tests.mitmproxy_acme.cli.commands.conftest import Run
from tests.servers.base import free_port

_CA = "acme_ca=https://ca.test/dir"


class Steps:
    """What was done: the launches, the CAs whose terms a person was asked to accept, and whether a check was made."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.asked: list[str] = []
        self.checked = False

    @property
    def settings(self) -> Sequence[str]:
        """The settings of the only launch."""
        (launch,) = self.launches
        return launch.settings

    def ask(self, cas: Iterable[CaSettings]) -> None:
        self.asked += [entry.ca for entry in cas]

    def check(self, *_: object) -> None:
        self.checked = True

    def start(self, launch: Launch, workers: int) -> int:
        self.launches.append(launch)
        return 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    monkeypatch.setattr(serve, "require_agreement", made.ask)
    monkeypatch.setattr(serve, "report", made.check)
    monkeypatch.setattr(run_command, "start", made.start)
    monkeypatch.setattr(serve, "STATUS_PAGE", f"127.0.0.1:{free_port()}")
    return made


@pytest.fixture
def words() -> list[str]:
    """The words for one site, at ports that are free."""
    ports = ["--https-port", str(free_port()), "--http-port", str(free_port())]
    return ["serve", "a.example.test", "--to", "127.0.0.1:9", "--bind", "127.0.0.1", *ports]


def test_terms_are_accepted_once_and_passed_on(run: Run, steps: Steps, words: list[str]) -> None:
    assert run(*words, settings=(_CA,))[0] == 0

    assert steps.asked == ["https://ca.test/dir"]
    assert steps.checked
    assert "acme_tos_accepted=true" in steps.settings


def test_who_has_agreed_is_not_asked(run: Run, steps: Steps, words: list[str]) -> None:
    assert run(*words, "--agree-tos", settings=(_CA,))[0] == 0
    assert steps.asked == []


def test_option_that_the_arguments_decide_is_refused(run: Run, steps: Steps, words: list[str]) -> None:
    code, _, err = run(*words, settings=("acme_domains=b.test",))
    assert code == 2
    assert "--set acme_domains: serve sets it from its own arguments" in err
    assert steps.launches == []


def test_config_is_printed_and_nothing_started(run: Run, steps: Steps, words: list[str], tmp_path: Path) -> None:
    code, out, _ = run(*words, "--print-config", settings=(_CA,))
    assert code == 0
    assert "a.example.test" in out
    assert "https://ca.test/dir" in out
    assert (steps.launches, steps.checked, steps.asked) == ([], False, [])
    assert not (tmp_path / "acme").exists()


def test_port_that_is_taken_ends_it(run: Run, steps: Steps, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words[words.index("--http-port") + 1] = str(taken.getsockname()[1])
        code, _, err = run(*words, settings=(_CA,))
    assert code == 1
    assert "--http-port" in err
    assert steps.launches == []


def test_no_port_for_http_is_needed(run: Run, steps: Steps, words: list[str]) -> None:
    words[words.index("--http-port") + 1] = "off"
    assert run(*words, settings=(_CA,))[0] == 0
    assert len(steps.launches) == 1


def test_status_page_gives_way(run: Run, steps: Steps, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If another program has its port, there is none, and it is said how to have one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        page = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(serve, "STATUS_PAGE", page)
        code, _, err = run(*words, settings=(_CA,))
    assert code == 0
    assert f"warn  no status page, because {page} is in use; --status takes another address" in err
    assert "acme_admin_listen=" in steps.settings


def test_address_that_is_none_is_refused(run: Run, steps: Steps, words: list[str]) -> None:
    words[words.index("--bind") + 1] = "localhost"
    with pytest.raises(SystemExit):
        run(*words, settings=(_CA,))
    assert steps.launches == []
