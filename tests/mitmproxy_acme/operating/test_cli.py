"""``mitmproxy-acme``: script and check."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mitmproxy_acme.operating.cli import main
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.pebble import Pebble


@pytest.fixture(scope="module")
def ca() -> Iterator[Pebble]:
    need("pebble")
    with Pebble(profiles={"classic": 90 * 86_400}) as server:
        yield server


def check(confdir: Path, *settings: str) -> int:
    arguments = [word for setting in settings for word in ("--set", setting)]
    return main(["check", "--confdir", str(confdir), *arguments])


def test_script_is_a_file_that_mitmdump_loads(capsys: pytest.CaptureFixture[str]) -> None:
    """``script`` prints the path of the shim."""
    assert main(["script"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.name == "acme_addon.py"
    assert "addons = [AcmeAddon()]" in path.read_text()


def test_check_passes_where_all_is_well(ca: Pebble, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a CA that answers and a storage that can be written every line passes."""
    (tmp_path / "config.yaml").write_text(
        f"acme_ca: ['{ca.directory}']\nacme_ca_bundle: {ca.ca_bundle}\nacme_certificates: ['a.test,www.a.test']\n"
        "acme_tos_accepted: true\nblock_global: false\nacme_profile: classic\n"
    )
    assert check(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"pass"}
    assert any("2 managed names" in line for line in lines)
    assert any("data:text/plain" in line or "terms of service" in line for line in lines)
    assert not list((tmp_path / "acme").rglob("*probe*.*"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["acme_profile=shortlived"], "fail  acme_profile: the CA does not offer 'shortlived'; it offers classic"),
        (["acme_ca_bundle="], "fail  https://localhost"),
        (["acme_storage=redis://x"], "fail  acme_storage: "),
        (["acme_on_dmand=off"], "warn  acme_on_dmand is no option of this addon"),
        (["acme_domains="], "fail  acme_domains: '' is not a host name"),
        (["acme_tos_accepted=false"], "fail  acme_tos_accepted: no certificate can be ordered"),
        (["acme_eab_kid=kid", "acme_eab_hmac_key=a2V5"], "warn  acme_eab_hmac_key is written out"),
    ],
)
def test_check_says_what_to_do(
    ca: Pebble, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], said: str
) -> None:
    """Each trouble is one line with its outcome, what was seen and what to do; a failure is exit code 1."""
    base = [
        f"acme_ca={ca.directory}",
        f"acme_ca_bundle={ca.ca_bundle}",
        "acme_domains=a.test",
        "acme_tos_accepted=true",
    ]
    names = {setting.partition("=")[0] for setting in settings}
    kept = [setting for setting in base if setting.partition("=")[0] not in names]
    status = check(tmp_path, *kept, *settings)
    out = capsys.readouterr().out
    assert said in out
    assert status == (1 if said.startswith("fail") else 0)


def test_check_of_a_ca_that_is_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A CA that cannot be reached fails, after everything else was looked at."""
    url = f"https://localhost:{free_port()}/dir"
    assert check(tmp_path, f"acme_ca={url}", "acme_domains=a.test", "acme_tos_accepted=true") == 1
    out = capsys.readouterr().out
    assert f"fail  {url} cannot be reached: no connection" in out
    assert "pass  storage can be read, written and locked" in out
    assert "warn  block_global is on" in out


@pytest.mark.parametrize(
    ("content", "setting", "said"),
    [
        ("acme_domains: a.test", "x=y", "acme_domains: a str is given, and it should be a list of texts"),
        ("- a", "x=y", "is not a list of options"),
        ("a: [", "x=y", "cannot be read"),
        ("", "acme_tos_accepted=yes", "acme_tos_accepted: 'yes' is neither true nor false"),
        ("", "acme_cache_size=many", "acme_cache_size: 'many' is not a whole number"),
    ],
)
def test_settings_that_cannot_be_read_are_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, setting: str, said: str
) -> None:
    """A config.yaml or --set that makes no sense is one sentence on standard error."""
    (tmp_path / "config.yaml").write_text(content)
    assert check(tmp_path, setting) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("value", ["[hunter2]", "5"])
def test_setting_of_the_wrong_type_is_not_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    """A secret that is given as a list, or a number, is not shown."""
    (tmp_path / "config.yaml").write_text(f"acme_eab_hmac_key: {value}")
    assert check(tmp_path) == 2
    err = capsys.readouterr().err
    assert "acme_eab_hmac_key: a " in err
    assert "hunter2" not in err
