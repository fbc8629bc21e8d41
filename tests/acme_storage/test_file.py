"""The folder store: the contract, then what only a folder has: modes, other processes, kills, full disks."""

import errno
import fcntl
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_storage import StorageCorrupt, StorageUnavailable
from acme_storage import file_layout as layout
from acme_storage.checks import MAX_KEY, is_key
from acme_storage.file import Files
from acme_storage.file_disk import Locks
from acme_storage.file_errors import _ADVICE
from tests.acme_storage.child import CHURNED
from tests.acme_storage.contract import ManualClock, StorageContract, together
from tests.acme_storage.values import is_whole, uniform

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def files(folder: Path, clock: ManualClock) -> Files:
    return Files(folder, clock)


@pytest.fixture(autouse=True)
def restored_umask() -> Iterator[None]:
    umask = os.umask(0o022)
    yield
    os.umask(umask)


def start(task: str, folder: Path, number: int) -> subprocess.Popen[bytes]:
    """Start a task of ``child`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.acme_storage.child", task, str(folder), str(number)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "storage")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


class TestFiles(StorageContract):
    """The contract."""

    @pytest.fixture
    def storage(self, folder: Path, clock: ManualClock) -> Files:
        return Files(folder, clock)


class TestModes:
    """The files hold private keys."""

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
    def test_modes(self, folder: Path, files: Files, umask: int) -> None:
        """Whatever the umask, every folder made is 0700 and every file 0600, locks too."""
        os.umask(umask)
        files.put("a/b/c", b"x")
        files.put("a/b/c", b"y")
        files.swap("a/d", None, b"x", ttl=10)
        files.delete("a/d")
        found = [folder, *folder.rglob("*")]
        assert len(found) >= 6
        for path in found:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path

    def test_others_folder(self, folder: Path, files: Files, caplog: pytest.LogCaptureFixture) -> None:
        """An existing folder keeps its mode; if others can write to it, one warning says so, once."""
        folder.mkdir()
        folder.chmod(0o777)
        with caplog.at_level(logging.WARNING):
            files.put("a", b"x")
            files.put("a/b", b"x")
        assert folder.stat().st_mode & 0o777 == 0o777
        assert [record.getMessage() for record in caplog.records] == [
            f"{folder} can be written by other users, who could replace its files"
        ]
        assert (folder / "a=v").stat().st_mode & 0o777 == 0o600

    def test_leftover_of_others_mode(self, folder: Path, files: Files) -> None:
        """A killed process's temporary file is replaced, not filled, so its mode does not matter."""
        files.put("a", b"x")
        for shard in range(64):
            leftover = folder / ".locks" / f"{shard:02}.new"
            leftover.write_bytes(b"left")
            leftover.chmod(0o666)
        files.put("a", b"y")
        assert files.get("a") == b"y"
        assert (folder / "a=v").stat().st_mode & 0o777 == 0o600


class TestProcesses:
    """Several processes share a folder, and die in it."""

    def test_one_winner_each_round(self, folder: Path, files: Files) -> None:
        """Of four processes exactly one wins each swap, and no count is lost."""
        children = [start("race", folder, 60) for _ in range(4)]
        for child in children:
            assert child.stdout
            assert child.stdout.readline() == b"ready\n"
        for child in children:
            assert child.stdin
            child.stdin.write(b"go\n")
            child.stdin.flush()
        won = [int(child.communicate(timeout=60)[0]) for child in children]
        assert sum(won) == 60
        assert files.get("count") == b"240"
        winners = [files.get(f"round/{turn}") for turn in range(60)]
        assert [winners.count(b"%d" % child.pid) for child in children] == won

    def test_kill(self, folder: Path) -> None:
        """After a kill -9 at any moment values are whole, no lock is left, and the next swap works."""
        rng = random.Random(9)
        store = Files(folder, lock_wait=0)
        for seed in range(25):
            with start("churn", folder, seed) as child:
                assert child.stdout
                child.stdout.read(rng.randrange(1, 150))
                child.kill()
            for key in CHURNED:
                value = store.get(key)
                assert value is None or is_whole(value)
                assert store.swap(key, value, uniform(seed))
            assert store.keys("") == CHURNED
        assert len(list((folder / ".locks").iterdir())) <= 128

    def test_kill_in_company(self, folder: Path) -> None:
        """A killed process does not stop those that write the same keys."""
        with start("churn", folder, 1) as survivor:
            assert survivor.stdout
            for seed in range(2, 10):
                with start("churn", folder, seed) as child:
                    assert child.stdout
                    child.stdout.read(20)
                    child.kill()
                survivor.stdout.read(20)
            assert survivor.poll() is None
            survivor.kill()
        store = Files(folder)
        assert all(value is None or is_whole(value) for value in map(store.get, CHURNED))


class TestLocks:
    """A lock that stays taken must not hang the proxy."""

    def test_process_holds(self, folder: Path, clock: ManualClock) -> None:
        """While another process holds the lock, writes give up after the wait, and reads work."""
        store = Files(folder, clock, lock_wait=0.002)
        store.put("a", b"x", ttl=10)
        locks = [os.open(path, os.O_RDWR) for path in (folder / ".locks").iterdir()]
        for lock in locks:
            fcntl.flock(lock, fcntl.LOCK_EX)
        calls: list[Callable[[], object]] = [
            lambda: store.put("a", b"y"),
            lambda: store.swap("a", b"x", b"y"),
            lambda: store.delete("a"),
        ]
        for call in calls:
            with pytest.raises(StorageUnavailable, match="stays locked by another process"):
                call()
        assert store.get("a") == b"x"
        assert not store.swap("a", b"other", b"y")
        clock.advance(11)
        assert store.get("a") is None
        assert store.keys("") == []
        for lock in locks:
            os.close(lock)
        assert store.swap("a", None, b"z")

    def test_thread_holds(self, folder: Path) -> None:
        """When another thread keeps the lock, writing gives up after the wait."""
        store = Files(folder, lock_wait=0)
        with store._locks.of_key("a", 0), pytest.raises(StorageUnavailable, match="locked by another thread"):
            store.put("a", b"x")
        store.put("a", b"x")

    def test_folders_are_held(self, folder: Path) -> None:
        """While another holds the lock of the folders, a value is deleted all the same; its folder goes later."""
        store = Files(folder, lock_wait=0)
        for key in ("a/b", "a/c"):
            store.put(key, b"x")
        store.delete("a/b")
        with store._locks.of_folders(0):
            store.delete("a/c")
        assert store.get("a/c") is None
        assert sorted(os.listdir(folder)) == [".locks", "a"]
        store.put("a/d", b"x")
        store.delete("a/d")
        assert os.listdir(folder) == [".locks"]

    def test_forked_child(self, tmp_path: Path) -> None:
        """A child forked while the lock is held, which has its file open for life, does not keep the lock."""
        locks = Locks(str(tmp_path))
        with locks.of_key("a", 0) as spare:
            lock = spare.removesuffix(".new")
            held = [int(name) for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
            inherited = os.dup(next(file for file in held if os.path.samestat(os.fstat(file), os.stat(lock))))
        with locks.of_key("a", 0):
            pass
        os.close(inherited)

    def test_folder_made_anew(self, folder: Path, files: Files) -> None:
        """A folder that was removed while the store was open is made again."""
        files.put("a/b", b"x")
        subprocess.run(["rm", "-r", folder], check=True)
        assert files.get("a/b") is None
        files.put("a/b", b"y")
        assert files.get("a/b") == b"y"

    def test_folders_come_and_go(self, folder: Path, files: Files) -> None:
        """Writers whose folder others remove as empty just then lose nothing, and no empty folder is left."""

        def work(number: int) -> None:
            for turn in range(100):
                files.put(f"a/b/{number}", b"x", ttl=None if turn % 9 == 0 else 60)
                files.delete(f"a/b/{number}")

        together(work, 8)
        assert os.listdir(folder) == [".locks"]

    def test_shards(self, tmp_path: Path) -> None:
        """However many keys, there are at most 64 locks, and two keys seldom share one."""
        locks = Locks(str(tmp_path))
        spares = set()
        for number in range(1000):
            with locks.of_key(f"key/{number}", 0) as spare:
                spares.add(spare)
        assert len(spares) == 64


class TestDisk:
    """Every error of the operating system is one sentence that says where, why, and what would mend it."""

    def test_below_a_file(self, tmp_path: Path) -> None:
        """A store below a regular file cannot be read, listed or written."""
        (tmp_path / "file").write_text("x")
        for folder in (tmp_path / "file", tmp_path / "file" / "store"):
            store = Files(folder)
            calls: list[Callable[[], object]] = [
                lambda: store.get("a"),  # noqa: B023 - called in this very round
                lambda: store.put("a", b"x"),  # noqa: B023
                lambda: store.swap("a", None, b"x"),  # noqa: B023
                lambda: store.delete("a"),  # noqa: B023
                lambda: store.keys(""),  # noqa: B023
                lambda: store.keys("a/"),  # noqa: B023
            ]
            for call in calls:
                with pytest.raises(StorageUnavailable, match="a part of the path is a file, not a folder"):
                    call()

    def test_not_allowed(self) -> None:
        """A user who may not use the folder learns who he is, where it is, and what to do."""
        with tempfile.TemporaryDirectory() as name:
            parent = Path(name)
            parent.chmod(0o555)
            with start("stranger", parent / "store", 0) as child:
                output = child.communicate(timeout=60)[0].decode()
            assert f"{parent}/store: user " in output
            assert "may not do this there; run as the owner of the folder, or chown -R " in output
            parent.chmod(0o755)
            Files(parent / "store").put("a", b"x")
            (parent / "store").chmod(0)
            with start("stranger", parent / "store", 0) as child:
                output = child.communicate(timeout=60)[0].decode()
            (parent / "store").chmod(0o700)
            assert output.count("may not do this there") == 3

    def test_full_disk(self, tmp_path: Path) -> None:
        """On a full disk writing fails with that word, all that was written stays, and space lets it go on."""
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True)
        if mounted.returncode:
            pytest.skip("only root can mount a small disk")
        try:
            store = Files(tmp_path / "store")

            def fill() -> None:
                for number in range(100):
                    store.put(f"a/{number}", bytes([number]) * 30_000)

            with pytest.raises(StorageUnavailable, match="store: the disk is full; free some space"):
                fill()
            written = len(store.keys("a/"))
            assert list(tmp_path.rglob("*.new")) == []  # what could not be written takes no space
            assert 3 < written < 9
            with pytest.raises(StorageUnavailable, match="disk is full"):
                store.swap("a/0", bytes([0]) * 30_000, b"x" * 30_000)
            assert [store.get(key) for key in store.keys("a/")] == [bytes([n]) * 30_000 for n in range(written)]
            store.delete("a/0")
            store.put("a/0", b"small again")
        finally:
            subprocess.run(["umount", tmp_path], check=True)

    def test_read_only(self, tmp_path: Path) -> None:
        """On a read-only filesystem values can be read and listed, and a write reports what is wrong."""
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
        if mounted.returncode:
            pytest.skip("only root can mount")
        try:
            clock = ManualClock()
            store = Files(tmp_path / "store", clock)
            store.put("a", b"x")
            store.put("b", b"x", ttl=10)
            clock.advance(11)
            subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
            assert store.get("a") == b"x"
            assert store.get("b") is None
            assert store.keys("") == ["a"]
            calls: list[Callable[[], object]] = [lambda: store.put("a", b"y"), lambda: store.delete("a")]
            for call in calls:
                with pytest.raises(StorageUnavailable, match="it is mounted read-only"):
                    call()
        finally:
            subprocess.run(["umount", tmp_path], check=True)

    @pytest.mark.parametrize("number", [*sorted(_ADVICE), errno.ETXTBSY], ids=errno.errorcode.get)
    def test_every_error(self, folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """Each error of the map, and any other, becomes ``StorageUnavailable`` with its cause; the old value stays."""
        files.put("a", b"old")

        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as broken:
            broken.setattr(os, "replace", fail)
            with pytest.raises(StorageUnavailable, match=f"^storage {folder}: [^{{}}\n]+$") as caught:
                files.put("a", b"new")
        assert isinstance(caught.value.__cause__, OSError)
        assert files.get("a") == b"old"
        files.put("a", b"new")

    def test_failing_sync(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        """A value that does not reach the disk is an error and not there; one that expires need not reach it."""

        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        files.put("a", b"old")
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageUnavailable, match="the disk failed"):
            files.put("a", b"new")
        assert files.get("a") == b"old"
        files.put("lease", b"me", ttl=10)
        assert files.swap("lease", b"me", None)

    def test_nameless_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A user without a name, as in containers, is shown by number."""
        monkeypatch.setattr(os, "geteuid", lambda: 54_321)
        monkeypatch.setattr(os, "listdir", lambda _: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
        with pytest.raises(StorageUnavailable, match="user 54321 may not"):
            Files(tmp_path).keys("")


def damages() -> dict[str, Callable[[bytes], bytes]]:
    """Return ways in which a record that stays can be spoilt."""
    return {
        "foreign": lambda _: b"-----BEGIN CERTIFICATE-----\n",
        "one letter": lambda _: b"x",
        "cut in the header": lambda data: data[:20],
        "cut after the header": lambda data: data[:33],
        "cut at the end": lambda data: data[:-1],
        "longer": lambda data: data + b"\n",
        "much longer": lambda data: data + b"x" * 200_000,
        "bit in the header": lambda data: data[:16] + bytes([data[16] ^ 1]) + data[17:],
        "bit in the value": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        "future": lambda data: data[:4] + b"\2" + data[5:],
        "of another key": lambda _: layout.pack("a/other", layout.Record(b"x" * 100, float("inf"))),
    }


class TestCorrupt:
    """Records that the store did not write."""

    @pytest.mark.parametrize("damage", damages().values(), ids=damages())
    def test_damage(self, folder: Path, files: Files, damage: Callable[[bytes], bytes]) -> None:
        """A spoilt record is corrupt to get, equals no old value, is listed, and can be deleted or written over."""
        value = b"x" * 100
        path = folder / "a" / "b=v"
        files.put("a/b", value)
        spoilt = damage(path.read_bytes())
        path.write_bytes(spoilt)
        with pytest.raises(StorageCorrupt, match=f"^{path} ") as caught:
            files.get("a/b")
        assert "x" * 10 not in str(caught.value)
        assert not files.swap("a/b", None, b"y")
        assert not files.swap("a/b", value, b"y")
        assert files.keys("") == ["a/b"]
        files.delete("a/b")
        assert files.get("a/b") is None
        files.put("a/b", value)
        path.write_bytes(spoilt)
        files.put("a/b", b"y")
        assert files.get("a/b") == b"y"

    @pytest.mark.parametrize("length", [0, 1, 33, 4096])
    def test_zeros_after_power_cut(self, folder: Path, files: Files, length: int) -> None:
        """Empty files and zeros, which a power cut leaves of a value that expires, are absent."""
        files.put("a", b"x", ttl=10)
        (folder / "a=v").write_bytes(bytes(length))
        assert files.get("a") is None
        assert files.keys("") == ([] if length < 4096 else ["a"])  # the size of a whole number of blocks tells nothing
        assert files.swap("a", None, b"y", ttl=10)
        assert files.get("a") == b"y"

    def test_holes_after_power_cut(self, folder: Path, files: Files) -> None:
        """A value that expires, of which a power cut lost blocks, is absent and not corrupt."""
        files.put("a", b"x" * 9000, ttl=10)
        data = (folder / "a=v").read_bytes()
        (folder / "a=v").write_bytes(data[:4096] + bytes(len(data) - 4096))
        assert files.get("a") is None
        assert files.keys("") == []
        assert files.swap("a", None, b"y")

    def test_folder_in_place(self, folder: Path, files: Files) -> None:
        """A folder in place of a value is corrupt, and is not deleted with its content."""
        (folder / "a=v" / "sub").mkdir(parents=True)
        with pytest.raises(StorageCorrupt, match="is a folder and not a record"):
            files.get("a")
        calls: list[Callable[[], object]] = [lambda: files.put("a", b"x"), lambda: files.delete("a")]
        for call in calls:
            with pytest.raises(StorageUnavailable):
                call()
        assert (folder / "a=v" / "sub").is_dir()

    def test_foreign_names(self, folder: Path, files: Files) -> None:
        """Files and folders whose names belong to no key are not listed, and do no harm."""
        files.put("a/b", b"x")
        files.put("a.b", b"x")
        foreign = ["README", "lost+found=v", "a b=v", "%41=v", "%2F=v", "%2E%2E=v", "x=t", "x=", "a/.hidden", "y" * 90]
        foreign += ["y" * 84 + "=v", "y" * 83 + "=c", "é=v", "%2A", "%=v", "%2E=v", "a%2Fb=v", ".=v", "a%2Eb=v"]
        for name in foreign:
            (folder / name).write_text("x")
        (folder / "=").mkdir()
        (folder / "=" / "z=v").write_text("x")
        (folder / "c d").mkdir()
        (folder / "c d" / "z=v").write_text("x")
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff=v")).write_text("x")
        assert files.keys("") == ["a.b", "a/b"]


class TestPowerCut:
    """What is on the disk when a call returns, as far as a power cut is concerned."""

    @pytest.fixture
    def events(self, monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
        """The inodes that are synced, and the names that are made or taken away, in their order."""
        events: list[int | str] = []

        def noted(call: Callable[..., None], event: Callable[..., int | str]) -> Callable[..., None]:
            def note_and_call(*arguments: object) -> None:
                events.append(event(*arguments))
                call(*arguments)

            return note_and_call

        monkeypatch.setattr(os, "fsync", noted(os.fsync, lambda file: os.fstat(file).st_ino))
        monkeypatch.setattr(os, "replace", noted(os.replace, lambda *_: "replace"))
        monkeypatch.setattr(os, "mkdir", noted(os.mkdir, lambda path, _: f"mkdir {path}"))
        monkeypatch.setattr(os, "unlink", noted(os.unlink, lambda _: "unlink"))
        return events

    def test_value_then_its_name(self, folder: Path, files: Files, events: list[int | str]) -> None:
        """The bytes are there before the name is, and the name before the call returns."""
        files.put("a/b", b"x")
        events.clear()
        for number in range(2):
            files.put("a/b", b"%d" % number)
            assert events == [(folder / "a" / "b=v").stat().st_ino, "replace", (folder / "a").stat().st_ino]
            events.clear()
        assert files.swap("a/b", b"1", b"2")
        assert events[1:] == ["replace", (folder / "a").stat().st_ino]

    def test_folders_of_a_first_value(self, folder: Path, files: Files, events: list[int | str]) -> None:
        """Each new folder has its name on the disk before anything is written into it."""
        files.put("a/b", b"x")
        made = [event for event in events if str(event).startswith("mkdir")]
        assert made == [f"mkdir {folder}", f"mkdir {folder}/.locks", f"mkdir {folder}/a"]
        for event, parent in zip(made, (folder.parent, folder, folder), strict=True):
            assert events[events.index(event) + 1] == parent.stat().st_ino

    def test_end_of_a_value(self, folder: Path, files: Files, events: list[int | str]) -> None:
        """A deleted certificate does not come back."""
        for key in ("a/b", "a/c", "a/d"):
            files.put(key, b"x")
        events.clear()
        files.delete("a/b")
        assert files.swap("a/c", b"x", None)
        assert events == ["unlink", (folder / "a").stat().st_ino] * 2

    def test_what_expires_waits_for_no_disk(self, files: Files, events: list[int | str]) -> None:
        """A lease costs no fsync: neither to take it, nor to give it back."""
        files.put("a/b", b"x")
        events.clear()
        assert files.swap("a/lease", None, b"x", ttl=10)
        assert files.swap("a/lease", b"x", None)
        assert events == ["replace", "unlink"]

    def test_bytes_come_in_pieces(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        """The kernel may take fewer than it is given, as on a disk that is nearly full."""
        write = os.write
        with monkeypatch.context() as slow:
            slow.setattr(os, "write", lambda file, data: write(file, data[:1000]))
            files.put("a", b"x" * 9_000)
        assert files.get("a") == b"x" * 9_000

    def test_what_does_not_fit_takes_no_space(
        self, folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The unfinished file is removed, and the value stays as it was."""
        files.put("a", b"old")

        def fill(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as full:
            full.setattr(os, "write", fill)
            with pytest.raises(StorageUnavailable, match="the disk is full"):
                files.put("a", b"new")
        assert list(folder.rglob("*.new")) == []
        assert files.get("a") == b"old"

    def test_no_more_is_read_than_a_record_can_have(
        self, folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file of a gigabyte in the place of a value is corrupt, and not read into memory."""
        files.put("a", b"x")
        with (folder / "a=v").open("r+b") as file:
            file.truncate(1 << 40)  # which no machine could read whole
        with pytest.raises(StorageCorrupt):
            files.get("a")

    def test_left_over_link_is_not_followed(self, folder: Path, files: Files, tmp_path: Path) -> None:
        """Where another user once had rights, a key must not be written into a file of his."""
        victim = tmp_path / "victim"
        victim.write_bytes(b"as it was")
        files.put("a", b"x")
        for shard in range(64):
            (folder / ".locks" / f"{shard:02}.new").symlink_to(victim)
        files.put("a", b"y")
        assert victim.read_bytes() == b"as it was"
        assert files.get("a") == b"y"
        assert not (folder / "a=v").is_symlink()


class TestExpired:
    """Values that expired leave the disk, and no newer one with them."""

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.rglob("*") if ".locks" not in path.parts)

    def test_removed_by_get(self, folder: Path, files: Files, clock: ManualClock) -> None:
        """To read an expired value removes it, and its folder when empty."""
        files.put("a/b/c", b"x", ttl=10)
        files.put("a/d", b"x")
        clock.advance(11)
        assert files.get("a/b/c") is None
        assert self.names(folder) == ["a", "d=v"]

    def test_removed_by_keys(self, folder: Path, files: Files, clock: ManualClock) -> None:
        """To list expired values removes them."""
        files.put("a/b", b"x", ttl=10)
        files.put("a/c", b"x", ttl=12)
        clock.advance(11)
        assert files.keys("") == ["a/c"]
        assert self.names(folder) == ["a", "c=v"]

    @pytest.mark.parametrize("write", [Files.put, lambda files, key, value, ttl: files.swap(key, None, value, ttl=ttl)])
    def test_removed_by_the_next(
        self, folder: Path, files: Files, clock: ManualClock, write: Callable[..., object]
    ) -> None:
        """To write a value that expires clears, once an hour, those under the same first part of the key."""
        files.put("a/b/1", b"x", ttl=10)
        files.put("other/1", b"x", ttl=10)
        clock.advance(11)
        files.put("a/2", b"x", ttl=10_000)
        assert self.names(folder) == ["1=v", "1=v", "2=v", "a", "b", "other"]
        clock.advance(3600)
        write(files, "a/3", b"x", ttl=10)
        assert self.names(folder) == ["1=v", "2=v", "3=v", "a", "other"]

    def test_permanent_value_clears_nothing(self, folder: Path, files: Files, clock: ManualClock) -> None:
        """It may be one of 100,000, and to list them all would cost more than what it removes."""
        files.put("a/1", b"x", ttl=10)
        clock.advance(7200)
        files.put("a/2", b"x")
        assert files.swap("a/2", b"x", b"y")
        assert files.swap("a/2", b"y", None)
        assert self.names(folder) == ["1=v", "a"]

    def test_newer_one_stays(self, files: Files, clock: ManualClock) -> None:
        """A value written just when an expired one is removed stays."""
        files.put("a", b"x", ttl=10)
        clock.advance(11)
        files.put("a", b"y")
        files._drop_expired("a")
        assert files.get("a") == b"y"

    def test_vanished_while_listing(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key that goes while it is listed is left out, and so is a folder."""
        files.put("a", b"x")
        files.put("b/c", b"x")
        listdir = os.listdir

        def stale(folder: str) -> list[str]:
            return [*listdir(folder), "gone=v", "gone"]

        monkeypatch.setattr(os, "listdir", lambda folder: stale(folder) if "gone" not in folder else listdir(folder))
        assert files.keys("") == ["a", "b/c"]


part = st.text("aZ09._~:*@=+-", min_size=1, max_size=12) | st.text("a*", min_size=80, max_size=200)
any_key = st.lists(part, min_size=1, max_size=4).map("/".join).filter(is_key)


class TestLayout:
    """Names and records, without a disk."""

    @given(any_key)
    def test_names_fit(self, key: str) -> None:
        """Every name in a path fits a filesystem, needs no quoting, is not reserved, and can be decoded."""
        names = layout.path_of(key).split("/")
        assert all(len(name) <= 255 for name in names)
        assert all(re.fullmatch(r"(?!\.)[A-Za-z0-9._%-]*(=[vc])?|=", name) for name in names)
        assert "".join(layout.text_of(name) or "" for name in names) == key

    def test_longest(self) -> None:
        """The longest keys make paths that a filesystem takes."""
        for key in ("*" * MAX_KEY, "/".join("*" * (MAX_KEY // 2)), "*" * 84 + "/" + "x" * 400):
            path = layout.path_of(key)
            assert len(path) < 2000
            assert max(map(len, path.split("/"))) <= 255

    @given(any_key, st.binary(max_size=300), st.none() | st.floats(0, 1e12))
    def test_record(self, key: str, value: bytes, expires: float | None) -> None:
        """A record reads back, and its size says whether it expires."""
        record = layout.Record(value, float("inf") if expires is None else expires)
        data = layout.pack(key, record)
        assert layout.unpack(key, data) == record
        assert layout.may_expire(len(data)) == (expires is not None)
        assert len(data) <= layout.MAX_RECORD

    def test_header_is_in_the_digest(self) -> None:
        """A damaged expiry is not believed: the value that would expire is absent."""
        data = layout.pack("a", layout.Record(b"x", 1_700_000_000.0))
        assert layout.unpack("a", data[:10] + bytes([data[10] ^ 1]) + data[11:]) is None
