"""Which processes count as dead: those of this machine that can be seen to be, and no others."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_acme.core import process_identity
from mitmproxy_acme.core.process_identity import ProcessIdentity

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is known of processes")

_SAY_WHO = (
    "from mitmproxy_acme.core.process_identity import ProcessIdentity; import sys; "
    "print(ProcessIdentity.of_this_process(), flush=True); sys.stdin.read()"
)
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")


@contextmanager
def process(*before: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process, and what it says that it is; ``before`` is what starts it."""
    with subprocess.Popen(
        [*before, sys.executable, "-c", _SAY_WHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def identity(text: str) -> ProcessIdentity:
    found = ProcessIdentity.parse(text)
    assert found is not None
    return found


@pytest.fixture
def own() -> ProcessIdentity:
    found = ProcessIdentity.of_this_process()
    assert found is not None
    return found


def test_this_process_lives(own: ProcessIdentity) -> None:
    assert own.pid == os.getpid()
    assert not own.has_died()
    assert ProcessIdentity.parse(str(own)) == own


def test_killed_process_is_dead() -> None:
    """Also while its parent has not asked for it yet; a stopped process lives."""
    with process() as (running, text):
        other = identity(text)
        assert not other.has_died()
        running.send_signal(signal.SIGSTOP)
        assert not other.has_died()
        running.kill()
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, and stays one
        assert other.has_died()
        running.wait()
        assert other.has_died()


def test_forked_process_has_an_identity_of_its_own(own: ProcessIdentity) -> None:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, str(ProcessIdentity.of_this_process()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    other = identity(os.read(reading, 200).decode())
    assert (other.pid, own.pid) == (child, os.getpid())
    assert other.has_died()
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_number_that_is_used_again_is_another_process(own: ProcessIdentity) -> None:
    assert replace(own, start=own.start - 1).has_died()


def test_processes_of_other_places_are_never_dead(own: ProcessIdentity) -> None:
    """Another machine, another boot of this one, another container: a process with this number is not theirs."""
    dead = replace(own, start=own.start - 1)
    assert not replace(dead, boot="0" * 8 + own.boot[8:]).has_died()
    assert not replace(dead, pid_namespace=own.pid_namespace + 1).has_died()
    assert not replace(dead, time_namespace=own.time_namespace + 1).has_died()


def test_process_of_another_user_lives(own: ProcessIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ``hidepid`` /proc does not show it, and a signal is not permitted."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(process_identity, "_stat", lambda pid: None)
    assert not own.has_died()


def _may_unshare() -> bool:
    return subprocess.run([*_UNSHARE, "--mount-proc", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(sys.platform != "linux" or not _may_unshare(), reason="may not make PID namespaces")
class TestNamespaces:
    """As two containers of one machine, which share its boot."""

    def test_live_process_of_another_namespace_is_not_dead(self, own: ProcessIdentity) -> None:
        """Nor is it once it has died: that cannot be seen from here."""
        with process(*_UNSHARE, "--mount-proc") as (running, text):
            other = identity(text)
            assert other.boot == own.boot
            assert other.pid_namespace != own.pid_namespace
            assert not other.has_died()
            running.kill()
            running.wait()
            assert not other.has_died()

    def test_processes_outside_are_not_dead_inside(self, own: ProcessIdentity) -> None:
        """A number of outside means nothing inside, where no such process is."""
        code = (
            "import sys; from mitmproxy_acme.core.process_identity import ProcessIdentity as Identity; "
            "print(Identity.parse(sys.argv[1]).has_died())"
        )
        done = subprocess.run(
            [*_UNSHARE, "--mount-proc", sys.executable, "-c", code, str(own)], capture_output=True, text=True
        )
        assert done.stdout == "False\n", done.stderr

    def test_nothing_is_known_with_the_proc_of_outside(self) -> None:
        """The numbers there are those of other processes."""
        with process(*_UNSHARE) as (_, text):
            assert text == "None"


def test_nothing_is_known_without_proc(own: ProcessIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other systems: nothing is dead."""

    def fail(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "readlink", fail)
    process_identity._identity.cache_clear()
    try:
        assert ProcessIdentity.of_this_process() is None
        assert not replace(own, start=own.start - 1).has_died()
    finally:
        process_identity._identity.cache_clear()


def test_name_of_the_program_does_not_matter() -> None:
    """It may contain what separates the fields."""
    code = (
        "open('/proc/self/comm', 'w').write(') Z 1 (x'); "
        "from mitmproxy_acme.core.process_identity import ProcessIdentity as Identity; "
        "print(Identity.of_this_process().has_died())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@given(st.text() | st.from_regex(r"[0-9a-f-]{36}(:\d{0,30}){4}", fullmatch=True))
def test_any_text_is_read(text: str) -> None:
    """A writer of the storage writes anything."""
    found = ProcessIdentity.parse(text)
    if found is not None:
        assert str(found) == text or ProcessIdentity.parse(str(found)) == found
        assert found.has_died() in (True, False)
