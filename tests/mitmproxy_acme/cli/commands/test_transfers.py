"""``copy``, ``backup`` and ``restore`` in this process: what they say, and their exit codes."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from acme_storage import Storage, open_storage
from mitmproxy_acme.store.transfer import encrypted_file
from mitmproxy_acme.store.transfer.kinds import MOVING
from tests.mitmproxy_acme.cli.commands.conftest import Run
from tests.mitmproxy_acme.fakes import Clock, make_certificate
from tests.mitmproxy_acme.store.transfer.test_transfer import everything, fill, put

_PASSPHRASE = "correct horse battery staple"


def opened(folder: Path) -> Storage:
    return open_storage(f"file:{folder}", default_folder=folder)


def moving(folder: Path) -> dict[str, bytes | None]:
    """Return what a transfer moves."""
    prefixes = tuple(kind.prefix for kind in MOVING)
    return {key: value for key, value in everything(opened(folder)).items() if key.startswith(prefixes)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The storage of the proxies, with a record of each kind."""
    clock = Clock()
    clock.advance(time.time() - clock())
    fill(opened(tmp_path / "acme"), clock)
    return tmp_path / "acme"


@pytest.fixture
def no_storage(tmp_path: Path) -> str:
    """The URL of a storage that fails: its folder is a file."""
    (tmp_path / "letter").write_text("to my mother")
    return f"file:{tmp_path}/letter"


@pytest.fixture
def backup(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Back up with more arguments; guessing the passphrase takes no time here."""
    monkeypatch.setattr(encrypted_file, "_COST", 2)
    monkeypatch.setenv("ACME_TEST_PASSPHRASE", _PASSPHRASE)
    return lambda *words: run("backup", *words, "--key", "env:ACME_TEST_PASSPHRASE")


# copy


def test_copy_says_what_was_copied_and_what_comes_next(run: Run, source: Path, tmp_path: Path) -> None:
    there = f"file:{tmp_path}/two"
    code, out, err = run("copy", "--to", there)

    assert code == 0
    assert moving(tmp_path / "two") == moving(source)
    assert [line.split() for line in out.splitlines()][:2] == [["records", "copied"], ["accounts", "1"]]
    assert f"next: set acme_storage={there} on every node" in err

    code, out, err = run("copy", "--to", there)
    assert code == 0
    assert out.splitlines()[0].split() == ["records", "the", "same", "at", "both"]


def test_copy_to_the_storage_in_use_is_the_last_one(run: Run, source: Path, tmp_path: Path) -> None:
    there = f"file:{tmp_path}/two"
    code, _, err = run("copy", "--from", f"file:{source}", "--to", there, settings=(f"acme_storage={there}",))

    assert code == 0
    assert "when the last proxy uses the new storage, run this once more" in err
    assert "next:" not in err


def test_dry_copy_writes_nothing(run: Run, source: Path, tmp_path: Path) -> None:
    code, out, err = run("copy", "--to", f"file:{tmp_path}/two", "--dry-run")

    assert code == 0
    assert out.splitlines()[0].split() == ["records", "would", "be", "copied"]
    assert "dry run: nothing was written" in err
    assert not (tmp_path / "two").exists()


def test_copy_into_itself_is_refused(run: Run, source: Path) -> None:
    code, _, err = run("copy", "--to", f"file:{source}")

    assert code == 2
    assert "source and destination are the same storage" in err


def test_broken_record_is_named_and_the_others_are_copied(run: Run, source: Path, tmp_path: Path) -> None:
    opened(source).put("certificates/bad.test", b"junk")

    code, out, err = run("copy", "--to", f"file:{tmp_path}/two")
    assert code == 1
    assert "broken at the source: certificates/bad.test" in err
    assert "certificates/bad.test" not in moving(tmp_path / "two")

    code, out, _ = run("copy", "--to", f"file:{tmp_path}/three", "--json")
    assert code == 1
    *steps, summary = map(json.loads, out.splitlines())
    assert [step["key"] for step in steps if step["outcome"] == "broken"] == ["certificates/bad.test"]
    assert summary["kinds"]["certificates"] == {"broken": 1, "copied": 1}
    assert (summary["summary"]["broken"], summary["dry_run"]) == (1, False)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_copy_to_a_storage_that_fails_is_to_be_continued(
    run: Run, source: Path, no_storage: str, more: tuple[str, ...]
) -> None:
    code, out, err = run("copy", "--to", no_storage, *more)

    assert code == 1
    assert "run the command again to continue" in err
    assert "next:" not in err
    if more:
        assert json.loads(out.splitlines()[-1])["error"]
    else:
        assert out == "no records were copied\n"


def test_following_copy_waits_for_a_storage_that_is_down(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so once, and copies what was written meanwhile; Ctrl-C is its proper end."""
    here, away = tmp_path / "two", tmp_path / "away"

    def write(name: str) -> None:
        put(opened(source), make_certificate([name], now=float(int(time.time()))))

    def go_down() -> None:
        here.rename(away)
        here.write_text("")

    def come_back() -> None:
        here.unlink()
        away.rename(here)

    def interrupt() -> None:
        raise KeyboardInterrupt

    steps = iter((lambda: write("new.test"), go_down, lambda: write("late.test"), come_back, lambda: None, interrupt))
    monkeypatch.setattr("mitmproxy_acme.cli.commands.copy.time.sleep", lambda seconds: next(steps)())

    code, _, err = run("copy", "--to", f"file:{here}", "--follow")

    assert code == 0
    lines = err.splitlines()
    assert "following what proxies write; Ctrl-C ends this" in lines
    assert "copied: certificates/new.test" in lines
    assert "copied: certificates/late.test" in lines
    assert sum(line.startswith("waiting: ") for line in lines) == 1
    assert moving(here) == moving(source)


# backup and restore


def test_backup_brings_everything_back(
    run: Run, backup: Callable[..., tuple[int, str, str]], source: Path, tmp_path: Path
) -> None:
    file = tmp_path / "acme.backup"
    code, out, err = backup(str(file))
    assert code == 0
    assert out.splitlines()[0].split() == ["records", "backed", "up"]
    assert f"wrote {file}; keep its passphrase" in err
    assert file.stat().st_mode & 0o777 == 0o600

    words = ("restore", str(file), "--to", f"file:{tmp_path}/two", "--key", "env:ACME_TEST_PASSPHRASE")
    code, out, err = run(*words, "--dry-run")
    assert code == 0
    assert out.splitlines()[0].split() == ["records", "would", "be", "restored"]
    assert "dry run: nothing was written" in err
    assert not (tmp_path / "two").exists()

    code, out, err = run(*words)
    assert code == 0
    assert out.splitlines()[0].split() == ["records", "restored"]
    assert f"{file}: {len(moving(source))} records of " in err
    assert moving(tmp_path / "two") == moving(source)


def test_backup_replaces_only_a_backup(
    backup: Callable[..., tuple[int, str, str]], source: Path, tmp_path: Path
) -> None:
    file, letter = tmp_path / "acme.backup", tmp_path / "letter"
    assert backup(str(file))[0] == 0
    before = file.read_bytes()
    assert backup(str(file))[0] == 0
    assert file.read_bytes() != before
    letter.write_text("to my mother")

    for path, why in (
        (letter, "exists and is no backup; name another file"),
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "none" / "x", "cannot be written: No such file or directory"),
    ):
        code, _, err = backup(str(path))
        assert (code, why in err) == (2, True), err
    assert letter.read_text() == "to my mother"


def test_backup_of_a_storage_that_fails_leaves_the_last_one(
    backup: Callable[..., tuple[int, str, str]], source: Path, no_storage: str, tmp_path: Path
) -> None:
    file = tmp_path / "acme.backup"
    assert backup(str(file))[0] == 0
    before = file.read_bytes()

    code, out, err = backup(str(file), "--from", no_storage, "--json")

    assert code == 1
    assert f"{file} was not written" in err
    assert json.loads(out)["error"]
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == [file.name]


def test_restore_of_what_is_no_whole_backup_writes_nothing(
    run: Run, backup: Callable[..., tuple[int, str, str]], source: Path, tmp_path: Path
) -> None:
    """Changed at several positions, cut short, with more behind it, empty, no backup at all, or not there."""
    file = tmp_path / "acme.backup"
    assert backup(str(file))[0] == 0
    data = file.read_bytes()
    damaged = {
        "beginning": b"x" + data[1:],
        "version": data.replace(b"backup 1\n", b"backup 7\n", 1),
        "salt": data[:30] + bytes([data[30] ^ 1]) + data[31:],
        "middle": data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        "end": data[:-1] + bytes([data[-1] ^ 1]),
        "cut": data[:-1],
        "half": data[: len(data) // 2],
        "head": data[:40],
        "longer": data + b"x",
        "empty": b"",
        "other": b"-----BEGIN CERTIFICATE-----\n",
    }
    for what, content in damaged.items():
        (tmp_path / what).write_bytes(content)

    for what in (*damaged, "nowhere"):
        words = ("restore", str(tmp_path / what), "--to", f"file:{tmp_path}/two", "--key", "env:ACME_TEST_PASSPHRASE")
        code, _, err = run(*words)
        why = "cannot be read" if what == "nowhere" else "nothing was written"
        assert (code, why in err) == (1, True), (what, err)
        assert not (tmp_path / "two").exists(), what


def test_restore_into_a_storage_that_fails_is_to_be_continued(
    run: Run, backup: Callable[..., tuple[int, str, str]], source: Path, no_storage: str, tmp_path: Path
) -> None:
    file = tmp_path / "acme.backup"
    assert backup(str(file))[0] == 0

    code, out, err = run("restore", str(file), "--to", no_storage, "--key", "env:ACME_TEST_PASSPHRASE")

    assert code == 1
    assert out == "no records were copied\n"
    assert "mitmproxy-acme restore: " in err
    assert "run the command again to continue" in err
