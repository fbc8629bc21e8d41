"""``copy``, ``backup`` and ``restore`` as processes: between all real stores, killed, with a store down, damaged."""

import contextlib
import itertools
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.transfer.kinds import MOVING
from tests.end_to_end.client import end_of, eventually
from tests.end_to_end.shelf import put_many
from tests.mitmproxy_acme.fakes import UNSEALED, Clock, make_certificate
from tests.mitmproxy_acme.store.transfer.test_transfer import fill, put
from tests.servers import forked, stores
from tests.servers.chaos import Chaos

_PROGRAM = Path(sys.executable).with_name("mitmproxy-acme")
_PASSPHRASE = "correct horse battery staple"


@dataclass
class Commands:
    """The commands on storages and files in one folder."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {"ACME_TEST_PASSPHRASE": _PASSPHRASE})
    options: list[str] = field(default_factory=list)

    def __call__(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        done = forked.run([_PROGRAM, *self.words(*words)], environment=self.environment)
        assert "Traceback" not in done.stderr
        return done

    def start(self, *words: str | Path, at: int | None = None) -> "subprocess.Popen[str]":
        return forked.Popen([_PROGRAM, *self.words(*words)], environment=self.environment, at=at)

    def words(self, command: str | Path, *words: str | Path) -> list[str]:
        options = [word for option in self.options for word in ("--set", option)]
        return [str(command), "--confdir", str(self.folder / "confdir"), *options, *map(str, words)]

    def back_up(self, url: str, file: Path) -> "subprocess.CompletedProcess[str]":
        return self("backup", file, "--from", url, "--key", "env:ACME_TEST_PASSPHRASE")

    def restore(self, file: Path, url: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return self("restore", file, "--to", url, "--key", "env:ACME_TEST_PASSPHRASE", *words)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def now() -> Clock:
    return Clock(time.time())


@contextlib.contextmanager
def opened(url: str) -> Iterator[Storage]:
    with closing(open_storage(url, default_folder=Path("/none"))) as storage:
        yield storage


def moving(storage: Storage) -> dict[str, bytes | None]:
    """Everything that a copy moves, and that has not ended."""
    return {key: storage.get(key) for kind in MOVING for key in storage.keys(kind.prefix)}


def filled(url: str, cipher: RecordCipher = UNSEALED) -> dict[str, bytes | None]:
    """Store one record of each kind, and some certificates; return what is to move."""
    with opened(url) as storage:
        fill(storage, now(), cipher)
        for name in ("*.a.test", "b.test+rsa", "2001:db8::1", "c" * 60 + ".test"):
            certificate = make_certificate([name.partition("+")[0]], now=int(time.time()) - 30 * DAY)
            record = cipher.seal(f"certificates/{name}", certificate.to_record())
            storage.put(f"certificates/{name}", record)
        return moving(storage)


# Every store


def test_round_trip_through_every_store(commands: Commands, tmp_path: Path) -> None:
    """file -> sqlite -> PostgreSQL -> Redis -> Consul -> Vault -> file, with sealed records: nothing changes."""
    key = Fernet.generate_key().decode()
    with ExitStack() as stack:
        places = [stack.enter_context(stores.running(kind, tmp_path)) for kind in stores.KINDS]
        for place in places:
            commands.environment |= place.environment
        secrets = [secret for place in places for secret in place.secrets]
        first = filled(places[0].open_url, RecordCipher([key]))
        ring = [*((place.url, place.open_url) for place in places), (f"file:{tmp_path}/end", f"file:{tmp_path}/end")]

        for (source, _), (destination, destination_open) in itertools.pairwise(ring):
            done = commands("copy", "--from", source, "--to", destination)
            assert done.returncode == 0, done.stderr
            with opened(destination_open) as storage:
                assert moving(storage) == first, destination
            again = commands("copy", "--from", source, "--to", destination)
            assert again.returncode == 0
            assert "the same at both" in again.stdout
            assert "copied" not in again.stdout
            assert not any(secret in text for secret in secrets for text in (done.stdout, done.stderr))


def test_configured_storage_is_the_source(commands: Commands, tmp_path: Path) -> None:
    """And the next steps are said, with commands that work."""
    first = filled(f"file:{tmp_path}/one")
    commands.options = [f"acme_storage=file:{tmp_path}/one"]

    done = commands("copy", "--to", f"sqlite:{tmp_path}/two.db")

    assert done.returncode == 0
    assert f"set acme_storage=sqlite:{tmp_path}/two.db on every node" in done.stderr
    with opened(f"sqlite:{tmp_path}/two.db") as storage:
        assert moving(storage) == first
    (command,) = [line.split() for line in done.stderr.splitlines() if line.startswith("  mitmproxy-acme copy")]
    commands.options = [f"acme_storage=sqlite:{tmp_path}/two.db"]
    again = commands(*command[1:])
    assert again.returncode == 0
    assert "when the last proxy uses the new storage" in again.stderr


def test_dry_run_and_documents(commands: Commands, tmp_path: Path) -> None:
    first = filled(f"file:{tmp_path}/one")
    with opened(f"file:{tmp_path}/one") as storage:
        storage.put("certificates/bad.test", b"junk")
    arguments = ("copy", "--from", f"file:{tmp_path}/one", "--to", f"file:{tmp_path}/two", "--json")

    dry = commands(*arguments, "--dry-run")

    assert dry.returncode == 1
    assert not (tmp_path / "two").exists()
    done = commands(*arguments)
    assert done.returncode == 1
    *steps, summary = map(json.loads, done.stdout.splitlines())
    assert summary["summary"]["copied"] == len(first)
    assert summary["kinds"]["certificates"] == {"broken": 1, "copied": 5}
    (broken,) = [step for step in steps if step["outcome"] == "broken"]
    assert broken["key"] == "certificates/bad.test"
    assert "PRIVATE" not in done.stdout


# Interrupted


@contextlib.contextmanager
def ending(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kill it if the test fails, which would otherwise wait for it."""
    try:
        yield
    finally:
        process.kill()


def test_killed_copy_is_continued(commands: Commands, tmp_path: Path) -> None:
    """What was copied stays, and the second run copies the rest."""
    with stores.running("redis", tmp_path) as redis, Chaos(redis.port) as way:
        commands.environment |= redis.environment
        with opened(f"file:{tmp_path}/one") as source, opened(redis.open_url) as destination:
            fill(source, now())
            put_many(source, 800, "a.test")
            way.delay(0.005)
            with commands.start("copy", "--from", f"file:{tmp_path}/one", "--to", redis.url_at(way.port)) as process:
                eventually(lambda: len(destination.keys("certificates/")) > 50, timeout=30)
                process.kill()
            copied = len(destination.keys("certificates/"))
            assert copied < 800
            way.delay(0)

            done = commands("copy", "--from", f"file:{tmp_path}/one", "--to", redis.url)

            assert done.returncode == 0
            assert moving(destination) == moving(source)
            (line,) = [line for line in done.stdout.splitlines() if line.startswith("certificates")]
            assert int(line.split()[1]) <= 801 - copied


def test_following_until_ctrl_c(commands: Commands, tmp_path: Path) -> None:
    """What proxies write is copied within seconds; Ctrl-C is the proper end, with the counts and what to do next."""
    urls = [f"file:{tmp_path}/{name}" for name in ("one", "two")]
    filled(urls[0])
    with opened(urls[0]) as source, opened(urls[1]) as destination:
        with commands.start("copy", "--from", urls[0], "--to", urls[1], "--follow") as process, ending(process):
            assert process.stderr
            assert any("following what proxies write" in line for line in process.stderr)
            put(source, make_certificate(["new.test"], now=int(time.time())))
            assert any("copied: certificates/new.test" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            out, err = end_of(process)
        assert process.returncode == 0, err
        assert "next: set acme_storage=" in err
        assert out.startswith("records ")
        assert moving(destination) == moving(source)


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_destination_that_goes_down(commands: Commands, tmp_path: Path, kind: str) -> None:
    """The copy ends with what happened and what to do; the next run goes on."""
    with stores.running(kind, tmp_path) as place, Chaos(place.port) as way:
        commands.environment |= place.environment
        with opened(f"file:{tmp_path}/one") as source, opened(place.open_url) as destination:
            put_many(source, 400, "a.test")
            way.delay(0.005)
            arguments = ("copy", "--from", f"file:{tmp_path}/one", "--to", place.url_at(way.port))
            with commands.start(*arguments) as process:
                eventually(lambda: len(destination.keys("certificates/")) > 20, timeout=30)
                way.refuse()
                out, err = process.communicate(timeout=60)
            assert process.returncode == 1
            assert "run the command again to continue" in err
            assert "certificates" in out
            assert "Traceback" not in err
            assert not any(secret in out + err for secret in place.secrets)
            way.heal()
            way.delay(0)
            assert commands(*arguments).returncode == 0
            assert moving(destination) == moving(source)


def test_full_destination(commands: Commands, tmp_path: Path) -> None:
    """A small disk: what fits is there and whole, and the error says what to do."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"may not mount a small filesystem: {mounted.stderr.strip()}")
    try:
        with opened(f"file:{tmp_path}/one") as source:
            put_many(source, 500, "a.test")
            done = commands("copy", "--from", f"file:{tmp_path}/one", "--to", f"file:{disk}/two")
            assert done.returncode == 1
            assert "the disk is full" in done.stderr
            with opened(f"file:{disk}/two") as destination:
                copied = moving(destination)
            assert copied
            assert copied.items() <= moving(source).items()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


# Mistakes


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--to", "file:{0}/one"), "source and destination are the same storage"),
        (("--to", "file://{0}/one"), "source and destination are the same storage|has a host"),
        (("--to", "memory:"), "--to: memory: belongs to one process"),
        (("--to", "nowhere:x"), "--to: the storage URL's scheme nowhere: is unknown"),
        (("--from", "memory:", "--to", "file:{0}/two"), "--from: memory: belongs to one process"),
        ((), "--to"),
    ],
)
def test_wrong_storages(commands: Commands, tmp_path: Path, words: Sequence[str], why: str) -> None:
    commands.options = [f"acme_storage=file:{tmp_path}/one"]
    done = commands("copy", *(word.format(tmp_path) for word in words))
    assert done.returncode == 2
    assert any(part in done.stderr for part in why.split("|"))


def test_secrets_in_urls_are_not_shown(commands: Commands, tmp_path: Path) -> None:
    url = "redis://user:secret-1@127.0.0.1:9/0?password=secret-2"
    done = commands("copy", "--from", f"file:{tmp_path}/one", "--to", url)
    assert done.returncode == 1
    assert "secret-" not in done.stdout + done.stderr
    assert "--to: a secret is written out in its URL" in done.stderr


# Backups


@pytest.fixture(scope="module")
def first_backup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes | None]]:
    """A folder with a storage and its backup, and what is in both; made once, for a key takes 0.4 s to derive."""
    folder = tmp_path_factory.mktemp("backed-up")
    content = filled(f"file:{folder}/one")
    done = Commands(folder).back_up(f"file:{folder}/one", folder / "acme.backup")
    assert done.returncode == 0, done.stderr
    return folder, content


@pytest.fixture
def backed_up(
    first_backup: tuple[Path, dict[str, bytes | None]], tmp_path: Path
) -> tuple[Path, dict[str, bytes | None]]:
    """A backup, and what is in it; the storage is beside it."""
    folder, content = first_backup
    shutil.copytree(folder / "one", tmp_path / "one")
    shutil.copy2(folder / "acme.backup", tmp_path)
    return tmp_path / "acme.backup", content


def test_backup_and_restore(
    commands: Commands, tmp_path: Path, backed_up: tuple[Path, dict[str, bytes | None]]
) -> None:
    """The file shows nothing, belongs to its owner alone, and brings everything back, into another kind of store."""
    file, content = backed_up
    data = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(word in data for word in (b"PRIVATE", b"a.test", b"accounts", b"BEGIN"))
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == [file.name]

    done = commands.restore(file, f"sqlite:{tmp_path}/two.db")

    assert done.returncode == 0, done.stderr
    assert f"{len(content)} records of " in done.stderr
    with opened(f"sqlite:{tmp_path}/two.db") as storage:
        assert moving(storage) == content
    assert "restored" not in commands.restore(file, f"sqlite:{tmp_path}/two.db").stdout


def test_backup_replaces_the_last_one_and_nothing_else(
    commands: Commands, tmp_path: Path, backed_up: tuple[Path, dict[str, bytes | None]]
) -> None:
    file, _ = backed_up
    before = file.read_bytes()
    assert commands.back_up(f"file:{tmp_path}/one", file).returncode == 0
    assert file.read_bytes() != before
    letter = tmp_path / "letter"
    letter.write_text("to my mother")
    done = commands.back_up(f"file:{tmp_path}/one", letter)
    assert done.returncode == 2
    assert "exists and is no backup; name another file" in done.stderr
    assert letter.read_text() == "to my mother"
    assert "is a folder" in commands.back_up(f"file:{tmp_path}/one", tmp_path).stderr
    assert "cannot be written" in commands.back_up(f"file:{tmp_path}/one", tmp_path / "none" / "x").stderr


def test_killed_backup_leaves_the_last_one(
    commands: Commands, tmp_path: Path, backed_up: tuple[Path, dict[str, bytes | None]]
) -> None:
    file, _ = backed_up
    before = file.read_bytes()
    with opened(f"file:{tmp_path}/one") as storage:
        put_many(storage, 3_000, "a.test")
    words = ("backup", file, "--from", f"file:{tmp_path}/one", "--key", "env:ACME_TEST_PASSPHRASE")
    with commands.start(*words) as process:
        eventually(lambda: any(path.stat().st_size > 200_000 for path in _drafts(tmp_path)), timeout=30)
        process.kill()
    assert file.read_bytes() == before
    (draft,) = _drafts(tmp_path)
    assert draft.stat().st_mode & 0o777 == 0o600
    done = commands.restore(draft, f"file:{tmp_path}/two")
    assert done.returncode == 1
    assert "nothing was written" in done.stderr
    assert not (tmp_path / "two").exists()


def _drafts(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [path for path in folder.iterdir() if path.name.startswith(".acme.backup.")]
    return []


def test_damaged_backups_are_refused_before_anything_is_written(
    commands: Commands, tmp_path: Path, backed_up: tuple[Path, dict[str, bytes | None]]
) -> None:
    """Changed in the middle, or no backup at all; in how many other ways, ``test_transfers.py`` says."""
    file, _ = backed_up
    data = file.read_bytes()
    middle = len(data) // 2
    for content in (data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], b"-----BEGIN CERTIFICATE-----\n"):
        (tmp_path / "damaged").write_bytes(content)
        done = commands.restore(tmp_path / "damaged", f"file:{tmp_path}/two")
        assert done.returncode == 1
        assert "nothing was written" in done.stderr
        assert not (tmp_path / "two").exists()
    assert "cannot be read" in commands.restore(tmp_path / "nowhere", f"file:{tmp_path}/two").stderr


def test_passphrases(commands: Commands, tmp_path: Path, backed_up: tuple[Path, dict[str, bytes | None]]) -> None:
    """Each mistake has a sentence, and no passphrase is shown."""
    file, _ = backed_up
    (tmp_path / "short").write_text("tiny")
    (tmp_path / "wrong").write_text("another passphrase")
    storage = ("--to", f"file:{tmp_path}/two")

    wrong = commands("restore", file, *storage, "--key", f"file:{tmp_path}/wrong")
    missing = commands("restore", file, *storage)
    unset = commands("restore", file, *storage, "--key", "env:ACME_TEST_UNSET")
    shown = commands("restore", file, *storage, "--key", _PASSPHRASE)
    short = commands("backup", tmp_path / "new", "--key", f"file:{tmp_path}/short")

    assert (wrong.returncode, "the passphrase is wrong" in wrong.stderr) == (1, True)
    assert (missing.returncode, "the passphrase of the backup is missing" in missing.stderr) == (2, True)
    assert (unset.returncode, "the environment has no variable ACME_TEST_UNSET" in unset.stderr) == (2, True)
    assert (shown.returncode, "visible in the list of processes" in shown.stderr) == (2, True)
    assert (short.returncode, "has 4 characters; use at least 12" in short.stderr) == (2, True)
    for done in (wrong, missing, unset, shown, short):
        assert _PASSPHRASE not in done.stderr + done.stdout
    assert not (tmp_path / "two").exists()
    assert not (tmp_path / "new").exists()


def test_passphrase_is_asked_on_a_terminal(commands: Commands, tmp_path: Path) -> None:
    """Twice for a new backup, and not shown there."""
    filled(f"file:{tmp_path}/one")
    asked, terminal = pty.openpty()
    process = commands.start("backup", tmp_path / "new", "--from", f"file:{tmp_path}/one", at=terminal)
    os.close(terminal)
    said = b""
    for question in (b"passphrase of the backup: ", b"again: "):
        while question not in said:
            said += os.read(asked, 4_096)
        os.write(asked, _PASSPHRASE.encode() + b"\n")
    with contextlib.suppress(OSError):  # the terminal ends with the process
        while more := os.read(asked, 4_096):
            said += more
    assert process.wait(30) == 0
    os.close(asked)
    assert _PASSPHRASE.encode() not in said
    assert commands.restore(tmp_path / "new", f"file:{tmp_path}/two").returncode == 0
