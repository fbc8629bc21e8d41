"""``mitmproxy-acme``: script, completion, check and rotate-storage-key, and what all commands share."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from acme_storage import Storage, open_storage
from mitmproxy_acme.admin.certificate_rows import State
from mitmproxy_acme.cli.main import COMMANDS, main
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.core.revocation import REASONS
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.nodes import Node, Nodes
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import DIRECTORY, make_certificate
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.pebble import ChallTestSrv, Pebble


@pytest.fixture(scope="module")
def ca() -> Iterator[Pebble]:
    need("pebble")
    with Pebble(profiles={"classic": 90 * 86_400}) as server:
        yield server


@pytest.fixture(scope="module")
def dns() -> Iterator[ChallTestSrv]:
    """Every name is 127.0.0.1, where nothing listens on the ports of ``check``."""
    need("pebble-challtestsrv")
    with ChallTestSrv() as server:
        yield server


@pytest.fixture(autouse=True)
def _at(dns: ChallTestSrv, monkeypatch: pytest.MonkeyPatch) -> None:
    at = ["--dns", dns.address, "--http-port", str(free_port()), "--https-port", str(free_port())]
    monkeypatch.setattr(sys.modules[__name__], "AT", at)


AT: list[str] = []
WELL = ("block_global=false", "onboarding=false")


def check(confdir: Path, *settings: str) -> int:
    arguments = [word for setting in settings for word in ("--set", setting)]
    return main(["check", "--confdir", str(confdir), *AT, *arguments])


def without_ports(out: str) -> set[str]:
    """Return the outcomes of all lines but those of ports: no proxy runs here."""
    return {line.split()[0] for line in out.splitlines() if "refuses connections so far" not in line}


def test_script_is_a_file_that_mitmdump_loads(capsys: pytest.CaptureFixture[str]) -> None:
    """``script`` prints the path of the shim."""
    assert main(["script"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.name == "acme_addon.py"
    assert "AcmeAddon()" in path.read_text()


def test_check_passes_where_all_is_well(ca: Pebble, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a CA that answers and a storage that can be written every line passes."""
    (tmp_path / "config.yaml").write_text(
        f"acme_ca: ['{ca.directory}']\nacme_ca_bundle: {ca.ca_bundle}\nacme_certificates: ['a.test,www.a.test']\n"
        "acme_tos_accepted: true\nblock_global: false\nonboarding: false\nacme_profile: classic\n"
    )
    assert check(tmp_path) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert without_ports(out) == {"pass"}
    assert any("2 managed names" in line for line in lines)
    assert any("data:text/plain" in line or "terms of service" in line for line in lines)
    assert not list((tmp_path / "acme").rglob("*probe*.*"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["acme_profile=shortlived"], "fail  acme_profile: the CA does not offer 'shortlived'; it offers classic"),
        (["acme_ca_bundle="], "fail  https://localhost"),
        (["acme_storage=redis://x"], "fail  acme_storage: "),
        (["acme_on_dmand=off"], "warn  acme_on_dmand is not an option of this addon"),
        (["acme_domains="], "fail  acme_domains: '' is not a host name"),
        (["acme_tos_accepted=false"], "fail  acme_tos_accepted: https://localhost"),
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


def test_check_of_names_that_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On-demand names are in no option: only the given names are checked, and whether they are allowed."""
    options = ["--set", "acme_domains=**.b.test", "--set", "acme_domains=a.test", "--set", "acme_role=data"]
    assert main(["check", "--confdir", str(tmp_path), *AT, *options, "X.b.test", "c.test"]) == 1
    out = capsys.readouterr().out
    assert "x.b.test is 127.0.0.1" in out
    assert "fail  c.test: no option allows it a certificate; add it to acme_domains or acme_certificates" in out
    assert "x.b.test: no option" not in out
    assert " a.test" not in out


def test_check_of_a_data_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no CA to ask, needs no terms, and wants a control node."""
    assert check(tmp_path, "acme_role=data", "acme_domains=a.test", *WELL) == 0
    assert "warn  no control node is up to order for this data node" in capsys.readouterr().out
    storage = open_storage("file:", default_folder=tmp_path)
    Nodes(storage).heartbeat(Node("node", "control", "0", "host", 0.0), 0.0)
    assert check(tmp_path, "acme_role=data", "acme_domains=a.test", *WELL) == 1
    assert "fail  a.test: 127.0.0.1:" in (out := capsys.readouterr().out)
    assert "though a proxy is up" in out


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
        ("acme_domains: a.test", "x=y", "acme_domains: the value is a text; it must be a list of texts"),
        ("acme_domains: [a.test, 1]", "x=y", "acme_domains: an entry is not a text; write each entry as text"),
        ("acme_certificates: [[a.test]]", "x=y", "acme_certificates: an entry is not a text"),
        ("acme_tos_accepted: 'yes'", "x=y", "acme_tos_accepted: the value is a text; it must be true or false"),
        ("- a", "x=y", "is not a mapping of options"),
        ("a: [", "x=y", "config.yaml cannot be read: line 1: "),
        (
            "acme_email: a@a.test\nacme_email: b@a.test",
            "x=y",
            "config.yaml cannot be read: line 2: found duplicate key",
        ),
        ("", "acme_tos_accepted=yes", "acme_tos_accepted: 'yes' is neither true nor false"),
        ("", "acme_cache_size=many", "acme_cache_size: 'many' is not a whole number"),
        ("", "acme_cache_size=²", "acme_cache_size: '²' is not a whole number"),
    ],
)
def test_settings_that_cannot_be_read_are_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, setting: str, said: str
) -> None:
    """A config.yaml or --set that makes no sense is one sentence on standard error."""
    (tmp_path / "config.yaml").write_text(content)
    assert check(tmp_path, setting) == 2
    assert said in capsys.readouterr().err


def test_both_files_of_mitmproxy_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """config.yml goes over config.yaml, as in mitmproxy, and --set over both; a list may be emptied by it."""
    (tmp_path / "config.yaml").write_text("acme_domains: [a.test]\nacme_role: data")
    (tmp_path / "config.yml").write_text("acme_domains: ['not a name']")
    assert check(tmp_path) == 1
    assert "fail  acme_domains: 'not a name' is not a host name" in capsys.readouterr().out
    assert check(tmp_path, "acme_domains") == 1
    assert "fail  no name may have a certificate" in capsys.readouterr().out


def test_check_tells_what_mitmproxy_would_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There config.yaml goes over --set, where a person means the opposite; what is the same in both is no news."""
    (tmp_path / "config.yaml").write_text("acme_domains: [a.test]\nacme_role: data\nacme_email: a@a.test")
    check(tmp_path, "acme_email=b@a.test", "acme_role=data", "acme_cache_size=5")
    lines = [line for line in capsys.readouterr().out.splitlines() if "--set and config.yaml differ" in line]
    assert [line.split(":")[0] for line in lines] == ["warn  acme_email"]


def test_confdir_by_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mitmdump takes its folder from ``--set confdir=`` only; so does a command with that argument."""
    store = Store(open_storage("file:", default_folder=tmp_path), RecordCipher(()))
    assert store.replace(store.slot(ServerName("a.test")), make_certificate(["a.test"]))
    assert main(["list", "--set", f"confdir={tmp_path}"]) == 0
    assert "a.test" in capsys.readouterr().out


def test_misspelt_option_is_told_by_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or it would work on another storage than was meant, and say nothing."""
    assert main(["list", "--confdir", str(tmp_path), "--set", "acme_storge=file:/elsewhere", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"data": []}
    assert "acme_storge is not an option of this addon and has no effect; did you mean acme_storage?" in err


@pytest.mark.parametrize("port", ["0", "-1", "65536", "²", "http"])
def test_check_of_a_port_that_is_none(capsys: pytest.CaptureFixture[str], port: str) -> None:
    """It is a wrong argument, not a port on which nothing listens."""
    with pytest.raises(SystemExit) as ended:
        main(["check", f"--http-port={port}"])
    assert ended.value.code == 2
    assert "is not a port from 1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [("script",), ("list",), ("list", "--json")])
def test_reader_that_is_gone(tmp_path: Path, buffered: bool, arguments: tuple[str, ...]) -> None:
    """Whatever reads may leave: exit code 1, and nothing of Python's on standard error."""
    store = Store(open_storage("file:", default_folder=tmp_path), RecordCipher(()))
    assert store.replace(store.slot(ServerName("a.test")), make_certificate(["a.test"]))
    confdir = ["--confdir", str(tmp_path)] if arguments[0] != "script" else []
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    reads, writes = os.pipe()
    os.close(reads)
    command = [str(Path(sys.executable).with_name("mitmproxy-acme")), *arguments, *confdir]
    try:
        done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    finally:
        os.close(writes)
    assert done.returncode == 1
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("buffered", [True, False])
def test_disk_that_is_full(buffered: bool) -> None:
    """One sentence, and exit code 1."""
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    command = [str(Path(sys.executable).with_name("mitmproxy-acme")), "script"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (1, "mitmproxy-acme script: No space left on device\n")


@pytest.mark.parametrize("value", ["[hunter2]", "5"])
def test_setting_of_the_wrong_type_is_not_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    """A secret that is given as a list, or a number, is not shown."""
    (tmp_path / "config.yaml").write_text(f"acme_eab_hmac_key: {value}")
    assert check(tmp_path) == 2
    err = capsys.readouterr().err
    assert "acme_eab_hmac_key: the value is a " in err
    assert "hunter2" not in err


# rotate-storage-key

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """What ``file:`` means with ``tmp_path`` as the confdir."""
    return open_storage("file:", default_folder=tmp_path)


def rotate(confdir: Path, *keys: str, storage: str = "file:") -> int:
    (confdir / "keys").write_text("\n".join(keys))
    settings = (f"acme_storage={storage}", f"acme_storage_key=file:{confdir}/keys")
    return main(
        ["rotate-storage-key", "--confdir", str(confdir), *(w for setting in settings for w in ("--set", setting))]
    )


def put(storage: Storage, *keys: str, name: str) -> None:
    store = Store(storage, RecordCipher(keys))
    assert store.replace(store.slot(ServerName(name)), make_certificate([name]))


def test_rotation_counts_what_it_did(tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    """Old, new and unsealed records are counted; with all of them sealed by the newest key the exit code is 0."""
    Store(storage, RecordCipher([OLD])).save_account(Account(DIRECTORY, "thumbprint", "https://ca.test/1", "{}"))
    put(storage, name="clear.test")
    put(storage, OLD, name="old.test")
    put(storage, NEW, name="new.test")

    assert rotate(tmp_path, NEW, OLD) == 0
    assert capsys.readouterr().out == "re-sealed 3, already sealed by the newest key 1, not readable 0\n"
    assert rotate(tmp_path, NEW) == 0
    assert capsys.readouterr().out == "re-sealed 0, already sealed by the newest key 4, not readable 0\n"


def test_rotation_says_what_it_could_not_open(
    tmp_path: Path, storage: Storage, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each such record has a line, all others are encrypted again, and the exit code is 1."""
    put(storage, OLD, name="old.test")
    put(storage, name="clear.test")

    assert rotate(tmp_path, NEW) == 1

    said = capfd.readouterr()
    assert "unreadable: certificates/old.test: " in said.out
    assert "add the key that sealed it" in said.out
    assert said.out.endswith("re-sealed 1, already sealed by the newest key 0, not readable 1\n")
    assert said.err == ""
    assert not any(key in said.out for key in (OLD, NEW))


def test_rotation_where_storage_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store that cannot be read is one sentence, and not a success."""
    (tmp_path / "file").write_text("no folder")
    assert rotate(tmp_path, NEW, storage=f"file:{tmp_path}/file/store") == 1
    assert "acme_storage: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "acme_storage_key is not set; give the new key first"),
        (["acme_storage_key=hunter2"], "acme_storage_key: the value is not a Fernet key"),
        ([f"acme_storage_key={NEW}", "acme_storage=memory:"], "acme_storage: memory: belongs to one process"),
        ([f"acme_storage_key={NEW}", "acme_storage=nowhere:x"], "acme_storage: the storage URL's scheme nowhere:"),
        ([f"acme_storage_key={NEW}", "acme_renew_before=soon"], "acme_renew_before: 'soon'"),
    ],
)
def test_rotation_with_wrong_arguments_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], said: str
) -> None:
    """One sentence on standard error, and no key in it."""
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["rotate-storage-key", "--confdir", str(tmp_path), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("mitmproxy-acme rotate-storage-key: ")
    assert said in err
    assert err.count("\n") == 1
    assert not any(secret in err for secret in (NEW, "hunter2"))


def test_check_tells_of_a_wrong_storage_key(
    ca: Pebble, tmp_path: Path, storage: Storage, capfd: pytest.CaptureFixture[str]
) -> None:
    """A key that opens nothing of what is stored is found before a visitor finds it."""
    put(storage, OLD, name="a.test")
    (tmp_path / "key").write_text(NEW)
    settings = (f"acme_ca={ca.directory}", f"acme_ca_bundle={ca.ca_bundle}", "acme_domains=a.test")
    assert check(tmp_path, *settings, "acme_tos_accepted=true", f"acme_storage_key=file:{tmp_path}/key") == 1
    said = capfd.readouterr()
    assert "fail  the record certificates/a.test is sealed by a key that acme_storage_key lacks" in said.out
    assert said.err == ""


# what all commands share


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    """Commands, reasons, states and what to export are all in the script."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    words = [*COMMANDS, *REASONS, *State, "fullchain", "--all-due", "--dry-run"]
    assert [word for word in words if word not in script] == []


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ex", ["export"]),
        ("revoke --reason key", ["keyCompromise"]),
        ("list --state valid --state e", ["expiring", "expired"]),
        ("issue -f na", ["names.txt"]),
        ("export a.test --out na", ["names.txt"]),
        ("check --confdir co", ["conf"]),
    ],
)
def test_completed_by_bash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, completed: list[str]
) -> None:
    """Words, files and folders, each where they are wanted."""
    (tmp_path / "names.txt").touch()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf.txt").touch()
    assert main(["completion", "bash"]) == 0
    ask = (
        f'COMP_WORDS=(mitmproxy-acme {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); LAST="${{COMP_WORDS[-1]}}"\n'
        '_shtab_mitmproxy_acme mitmproxy-acme "$LAST" "${COMP_WORDS[-2]}"; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    script = capsys.readouterr().out + ask
    said = subprocess.run(["bash", "--norc", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.split() == completed


@pytest.mark.parametrize("closed", [1, 2])
def test_stream_that_is_closed(tmp_path: Path, closed: int) -> None:
    """As by ``>&-``: the output is discarded, and nothing else changes."""
    code = "import os, sys; from mitmproxy_acme.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "issue", "a.test", "--confdir", str(tmp_path), "--set", "acme_domains=b.test"]
    shell = ["sh", "-c", f'exec "$@" {closed}>&-', "sh"]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*shell, *words, "--set", "acme_tos_accepted=true"], env=paths, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert ("failed 1" in done.stdout, "failed a.test: " in done.stderr) == (closed == 2, closed == 1)


def test_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the whole, and of each command but ``run``, whose exit codes are mitmdump's."""
    for words in ([], *([name] for name in COMMANDS if name != "run")):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "exit codes: 0 success; 1 something failed; 2 an argument or option is wrong" in said


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError])
def test_interrupted(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    """Ctrl-C is exit code 130, and no traceback."""

    def interrupted(_: object) -> int:
        raise error

    monkeypatch.setattr(COMMANDS["list"], "run", interrupted)
    assert main(["list", "--confdir", str(tmp_path)]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_every_command_but_three_takes_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A completion script is what it is, and ``run`` is mitmdump's."""
    without = []
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        if "--json" not in capsys.readouterr().out:
            without.append(name)
    assert without == ["serve", "run", "completion"]


def test_documents_of_other_commands(tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    """``script``, ``check`` and ``rotate-storage-key`` print one document each."""
    assert main(["script", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"].endswith("acme_addon.py")
    assert main(["check", "--json", "--confdir", str(tmp_path)]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"outcome", "what"} == set(findings[0])
    put(storage, OLD, name="old.test")
    (tmp_path / "keys").write_text(NEW)
    settings = ["--set", f"acme_storage_key=file:{tmp_path}/keys"]
    assert main(["rotate-storage-key", "--json", "--confdir", str(tmp_path), *settings]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["unreadable"], said["trouble"][0]["key"]) == (1, "certificates/old.test")


# what check says of what is stored, and of names


def test_check_tells_of_what_is_stored(tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    """Certificates that expire, and names in backoff."""
    store, now = Store(storage, RecordCipher(())), time.time()
    for name, age in (("a.test", 0.0), ("b.test", 70 * DAY), ("c.test", 91 * DAY)):
        store.replace(store.slot(ServerName(name)), make_certificate([name], now=now - age))
    store.save_backoff("d.test", Backoff(1, now + 600, "no route"))
    storage.put("certificates/e.test", b"garbage")
    check(tmp_path, "acme_role=data", "acme_domains=**.test")
    out = capsys.readouterr().out
    assert "warn  the certificate of b.test expires in 20 days; " in out
    assert "warn  the certificate of c.test has expired; " in out
    assert "warn  d.test failed; the next attempt is in 10 min: no route" in out
    assert "warn  the stored certificate of e.test cannot be read and counts as absent; " in out
    assert "a.test" not in out


def test_check_of_many_names_is_bounded(tmp_path: Path, dns: ChallTestSrv, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty are looked at, managed ones first, and how many were left out is said."""
    names = ",".join(f"m{number}.test" for number in range(18))
    domains = [f"acme_domains=d{number}.test" for number in range(7)]
    dns.add_a("m0.test", "192.0.2.1")
    check(tmp_path, "acme_role=data", f"acme_certificates={names}", *domains)
    out = capsys.readouterr().out
    looked_at = {line.split()[1] for line in out.splitlines() if " is 127.0.0.1" in line or " is 192.0.2.1" in line}
    assert looked_at == {*(f"m{number}.test" for number in range(18)), "d0.test", "d1.test"}
    assert "warn  m1.test is 127.0.0.1, which letsencrypt cannot reach; " in out
    assert "warn  5 more names were not checked" in out
