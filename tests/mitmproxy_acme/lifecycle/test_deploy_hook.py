"""The deploy hook with real scripts: what they get, and what happens when they fail, hang or print."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mitmproxy_acme.core.events import CertificateObtained, CertificateRemoved, CheckScheduled
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.operating_system import Command, start_group
from mitmproxy_acme.core.structured_logging import fields
from mitmproxy_acme.lifecycle.deploy.files import make_folder, write_files
from mitmproxy_acme.lifecycle.deploy.hook import DeployHook
from mitmproxy_acme.lifecycle.deploy.output import HookOutput
from mitmproxy_acme.lifecycle.manager import Manager
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import make_certificate

NAME = ServerName("a.example.test")

type Start = Callable[..., tuple[Manager, DeployHook]]


@pytest.fixture
def start(make_manager: MakeManager, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Start:
    """Start a deploy hook that is a shell script, whose folder is ``tmp_path``."""
    caplog.set_level("INFO")

    def start_deploy(script: str, **arguments: Any) -> tuple[Manager, DeployHook]:
        path = tmp_path / "hook"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        path.chmod(0o700)
        manager = make_manager(acme_deploy_hook=str(path))
        return manager, DeployHook(manager.config, manager.threads, manager.events, **arguments)

    return start_deploy


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def obtained(*names: str, renewal: bool = False) -> CertificateObtained:
    subject = Subject(tuple(ServerName(name) for name in names or (NAME,)))
    certificate = make_certificate(subject.names)
    return CertificateObtained(subject, certificate, "fake-ca", 1.0, renewal=renewal, node="node-1")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # another process wakes no task
            await asyncio.sleep(0.01)


async def test_script_is_not_given_the_secrets_of_the_options(
    make_manager: MakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what an option refers to, wherever it does, nor what the stores and dns-lexicon read; the rest it is."""
    secrets = (
        *("ACME_STORAGE_KEY", "ACME_ADMIN_TOKEN", "HOOK_SECRET", "EAB.KEY", "REDIS_PW", "SENTINEL_PW", "PGPASSWORD"),
        *("VAULT_TOKEN", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH", "REDISCLI_AUTH", "LEXICON_CLOUDFLARE_AUTH_TOKEN"),
    )
    for name in (*secrets, "KEPT", "VAULT_ADDR"):
        monkeypatch.setenv(name, f"the-value-of-{name}")
    manager = make_manager(
        acme_deploy_hook=f"sh -c 'env > {tmp_path}/found; echo env:KEPT'",
        acme_admin_token="env:ACME_ADMIN_TOKEN",
        acme_webhook_secret="env:HOOK_SECRET",
        acme_ca=("https://ca.test/directory;eab_kid=k;eab_hmac_key=env:EAB.KEY",),
        acme_storage="redis+sentinel://u:env%3AREDIS_PW@h/s?sentinel_password=env:SENTINEL_PW&namespace=a:",
    )
    deploy = DeployHook(manager.config, manager.threads, manager.events)

    manager.events.publish(obtained())
    await deploy.wait_idle()

    found = dict(line.split("=", 1) for line in (tmp_path / "found").read_text().splitlines())
    assert [name for name in secrets if name in found] == []
    assert {"KEPT", "VAULT_ADDR", "ACME_KEY_FILE", "PATH"} <= found.keys()
    assert "the-value-of-KEPT" in found["KEPT"]


async def test_script_finds_the_files_that_certbot_would_give_it(
    start: Start, tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Four files, readable by this user only, under certbot's names and ours; they are gone afterwards."""
    manager, deploy = start(
        'cp "$RENEWED_LINEAGE"/*.pem . && stat -c %a "$RENEWED_LINEAGE" "$ACME_KEY_FILE" > modes\n'
        'echo "$RENEWED_DOMAINS|$ACME_NAMES|$ACME_EVENT|$ACME_CA|$(basename "$RENEWED_LINEAGE")" > said\n'
        'cmp "$ACME_CERT_FILE" cert.pem && cmp "$ACME_CHAIN_FILE" chain.pem && cmp "$ACME_FULLCHAIN_FILE" fullchain.pem'
    )
    event = obtained("*.example.test", "example.test", renewal=True)
    manager.events.publish(event)
    await deploy.wait_idle()
    certificate = event.certificate
    assert "the deploy hook succeeded in" in caplog.text
    said = (tmp_path / "said").read_text()
    assert said == "*.example.test example.test|*.example.test,example.test|renewed|fake-ca|example.test\n"
    assert (tmp_path / "modes").read_text().split() == ["700", "600"]
    assert (tmp_path / "fullchain.pem").read_text() == certificate.chain_pem
    assert (tmp_path / "cert.pem").read_text() + (tmp_path / "chain.pem").read_text() == certificate.chain_pem
    key = load_pem_private_key((tmp_path / "privkey.pem").read_bytes(), None)
    assert key.public_key() == certificate.leaf.public_key()
    assert os.listdir(temporary) == []


async def test_failure_is_a_warning_with_the_exit_code(
    start: Start, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what the script said, how it ended and what to do, and the files are gone."""
    manager, deploy = start("echo nginx: no such file >&2; exit 3")
    manager.events.publish(obtained())
    await deploy.wait_idle()
    assert f"{NAME}: deploy hook: nginx: no such file" in caplog.text
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{NAME}: the deploy hook failed with exit code 3 after")
    assert "acme.renew runs it again" in warning
    assert os.listdir(temporary) == []


async def test_missing_program_is_a_warning(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A script that was removed since the start neither raises nor leaves anything behind."""
    manager, deploy = start("true")
    (tmp_path / "hook").unlink()
    manager.events.publish(obtained())
    await deploy.wait_idle()
    assert f"{NAME}: the deploy hook cannot be run" in caplog.text


async def test_hanging_script_is_ended_with_all_that_it_started(
    start: Start, tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After the timeout its process group is gone, though it ignores SIGTERM."""
    manager, deploy = start("trap '' TERM; sleep 600 & echo $! > child; wait; sleep 600", timeout=0.5, grace=0.1)
    manager.events.publish(obtained())
    await deploy.wait_idle()
    child = int((tmp_path / "child").read_text())
    await until(lambda: not is_running(child))
    assert "was killed because it did not end within 0.5 s" in caplog.text
    assert os.listdir(temporary) == []


async def test_hanging_script_may_tidy_up(start: Start, tmp_path: Path) -> None:
    """It is asked to end before it is killed."""
    tidy = "trap 'echo yes > tidied; exit' TERM; while :; do sleep 0.02; done"
    manager, deploy = start(tidy, timeout=0.5, grace=10.0)
    manager.events.publish(obtained())
    await deploy.wait_idle()
    assert (tmp_path / "tidied").read_text() == "yes\n"


async def test_end_of_the_process_ends_the_script(start: Start, tmp_path: Path, temporary: Path) -> None:
    """The running group is killed, what waits is dropped, and no key stays behind."""
    manager, deploy = start("echo $$ >> pids; sleep 600")
    manager.events.publish(obtained())
    await until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    manager.events.publish(obtained())
    await deploy.close()
    (pid,) = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert not is_running(pid)
    assert os.listdir(temporary) == []


async def test_what_a_killed_process_left_is_removed_and_nothing_else(
    start: Start, temporary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that a process or its command still holds stays; so does a file with such a name."""
    _, deploy = start("true")
    left, held, link, file = (temporary / f"mitmproxy-acme-deploy-{word}" for word in ("left", "held", "link", "file"))
    for folder in (left, held, tmp_path / "others"):
        folder.mkdir()
        write_files(folder, obtained().certificate)
    link.symlink_to(tmp_path / "others")
    file.touch()
    descriptor = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        deploy.start()
        await until(lambda: "was killed (certificates: 1)" in caplog.text)
        assert sorted(name.rpartition("-")[2] for name in os.listdir(temporary)) == ["file", "held", "link"]
        assert list((tmp_path / "others").rglob("privkey.pem"))
        assert list(held.rglob("privkey.pem"))
    finally:
        os.close(descriptor)


async def test_background_process_does_not_hold_up_the_hook(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that the script starts keeps its output open, and goes on; the hook has ended."""
    manager, deploy = start("sleep 600 & echo $! > child; echo started")
    manager.events.publish(obtained())
    await deploy.wait_idle()
    child = int((tmp_path / "child").read_text())
    running = is_running(child)
    os.kill(child, signal.SIGKILL)
    assert running
    assert "deploy hook: started" in caplog.text
    assert "the deploy hook succeeded" in caplog.text


async def test_one_at_a_time_for_a_name_and_the_newest_of_those_that_wait(start: Start, tmp_path: Path) -> None:
    """While a script runs for a name, certificates that come for it wait, and only the last of them is deployed."""
    manager, deploy = start(
        'mkdir busy || echo overlap >> trouble\necho "$ACME_EVENT" >> order\n'
        "while [ ! -e go ]; do sleep 0.02; done; rmdir busy"
    )
    manager.events.publish(obtained())
    await until(lambda: (tmp_path / "order").exists())
    manager.events.publish(obtained())
    manager.events.publish(obtained(renewal=True))
    (tmp_path / "go").touch()
    await deploy.wait_idle()
    assert not (tmp_path / "trouble").exists()
    assert (tmp_path / "order").read_text().split() == ["obtained", "renewed"]


async def test_only_a_new_certificate_runs_the_command(start: Start, tmp_path: Path) -> None:
    """No failure, and no deletion."""
    manager, hook = start("touch ran")
    manager.events.publish(CertificateRemoved(NAME, None, "node-1"))
    manager.events.publish(CheckScheduled(1.0))
    assert hook._tasks == {}
    manager.events.publish(obtained())
    await hook.wait_idle()
    assert (tmp_path / "ran").exists()
    assert hook._tasks == {}


async def test_few_at_once_for_all_names(start: Start, tmp_path: Path) -> None:
    """Thirty certificates at the start are not thirty processes."""
    manager, deploy = start(
        "mkdir -p running; touch running/$$; ls running | wc -l >> counts\n"
        "while [ ! -e go ]; do sleep 0.02; done; rm running/$$"
    )
    for number in range(10):
        manager.events.publish(obtained(f"n{number}.example.test"))
    await until(lambda: (tmp_path / "counts").exists() and len((tmp_path / "counts").read_text().split()) == 4)
    (tmp_path / "go").touch()
    await deploy.wait_idle()
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert (len(counts), max(counts)) == (10, 4)


async def test_huge_output_is_cut(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Neither many lines nor a long one fill the log, and the script is not held up by them."""
    manager, deploy = start("yes | head -n 100000; head -c 1000000 /dev/zero | tr '\\0' x; echo; printf '\\033[2Jlast'")
    manager.events.publish(obtained())
    await deploy.wait_idle()
    assert "the deploy hook succeeded" in caplog.text
    assert caplog.text.count("deploy hook: y") == 200
    assert "deploy hook: and 99802 more lines" in caplog.text
    assert len(caplog.text) < 100_000


async def test_output_cannot_move_the_terminal(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Control characters are shown as question marks, and a line that has no end is shown."""
    manager, deploy = start("printf '\\033[2Jlast'")
    manager.events.publish(obtained())
    await deploy.wait_idle()
    assert "deploy hook: ?[2Jlast" in caplog.text


@pytest.mark.parametrize(
    "print_key",
    [
        'cat "$ACME_KEY_FILE"',
        'tr -d "\\n" < "$ACME_KEY_FILE"',
        'grep -v -e "-----" "$ACME_KEY_FILE" | fold -w 20',
        'sed "s/^/key: /" "$ACME_KEY_FILE"',
        'head -c 470 /dev/zero | tr "\\0" x; tr -d "\\n" < "$ACME_KEY_FILE"',
    ],
    ids=["cat", "one line", "short lines", "with a prefix", "at the edge of what is shown"],
)
async def test_private_key_is_never_logged(start: Start, print_key: str, caplog: pytest.LogCaptureFixture) -> None:
    """In every form that a script prints it, no part of the key is in the log; the rest of the output is."""
    manager, deploy = start(f"echo before; {print_key}; echo; echo after")
    event = obtained()
    manager.events.publish(event)
    await deploy.wait_idle()
    body = "".join(line for line in event.certificate.key_pem.splitlines() if "-----" not in line)
    assert [body[at : at + 16] for at in range(len(body) - 15) if body[at : at + 16] in caplog.text] == []
    assert "PRIVATE KEY" not in caplog.text
    assert "deploy hook: before" in caplog.text
    assert "deploy hook: (a line with a part of the private key is left out)" in caplog.text
    assert "deploy hook: after" in caplog.text


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_script_has_nothing_to_read(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """What is typed into mitmproxy is not the script's: one that asks a question gets no answer, and goes on."""
    typed, typing = os.pipe()
    kept = os.dup(0)
    os.write(typing, b"typed-into-mitmproxy\n")
    os.close(typing)
    try:
        os.dup2(typed, 0)
        manager, deploy = start("echo got-$(cat)-so-far; exit 1")
        manager.events.publish(obtained())
        await deploy.wait_idle()
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(typed)
    assert "got--so-far" in caplog.text


async def test_end_of_what_a_command_prints_is_seen() -> None:
    """This process keeps no end of the pipe open: the reader comes to an end with the command."""
    async with start_group(Command(("sh", "-c", "echo said"), {**os.environ}, ())) as (process, reader):
        async with asyncio.timeout(5):
            assert await reader.read() == b"said\n"
        assert await process.wait() == 0


async def test_lines_of_a_script_are_told_with_their_name_and_node(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """In the structured log too."""
    manager, deploy = start("echo reloaded")
    manager.events.publish(obtained())
    await deploy.wait_idle()
    (line,) = [record for record in caplog.records if "reloaded" in record.getMessage()]
    told = fields("deploy_output", name=NAME, node="node-1")
    assert {name: getattr(line, name) for name in told} == told


def test_folder_whose_name_says_twice_that_it_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder around it may be named so too: nothing but the folder itself is renamed."""
    around = tmp_path / "mitmproxy-acme-new-folder"
    around.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(around))
    with make_folder() as deployed:
        assert deployed.folder.parent == around
        assert deployed.folder.name.startswith("mitmproxy-acme-deploy-")
        assert deployed.folder.stat().st_mode & 0o777 == 0o700
    assert list(around.iterdir()) == []


def test_long_line_is_shown_in_part_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Five hundred letters of it."""
    caplog.set_level("INFO")
    output = HookOutput("hook", "")
    output.add(b"a" * 500 + b"\n" + b"b" * 501 + b"\n")
    assert caplog.messages == [f"hook: {'a' * 500}", f"hook: {'b' * 500}…"]


def test_output_that_is_no_text_is_shown_as_far_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A script may print any bytes: the lines around them are shown, and no error of ours."""
    caplog.set_level("INFO")
    output = HookOutput("hook", "")
    output.add(b"caf\xe9\n\xff\xfe\nafter\n")
    assert caplog.messages == ["hook: caf\ufffd", "hook: \ufffd\ufffd", "hook: after"]


def test_last_line_is_shown_once(caplog: pytest.LogCaptureFixture) -> None:
    """And the number of those that were left out is told once, however often it is closed."""
    caplog.set_level("INFO")
    output = HookOutput("hook", "")
    output.add(b"line\n" * 202 + b"the last one has no end")
    output.close()
    output.close()
    assert caplog.messages[200:] == ["hook: and 3 more lines"]
