"""``mitmproxy-acme run``: which arguments go where, and what becomes of workers that die."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mitmproxy_acme.cli import main
from mitmproxy_acme.cli.commands import run
from mitmproxy_acme.mitm.supervisor import Supervisor, _cause, wait_after


def parse(*words: str) -> argparse.Namespace:
    return run.parse(main._parser(), ["run", *words])


@pytest.mark.parametrize(
    ("words", "workers", "arguments"),
    [
        ("", 1, ""),
        ("--workers 3", 3, ""),
        ("--mode reverse:http://a@443 --set x=y --workers=2 -q ~d", 2, "--mode reverse:http://a@443 --set x=y -q ~d"),
        ("--version --confdir x -s a.py -n", 1, "--version --confdir x -s a.py -n"),
        ("--work 2 --set -x", 1, "--work 2 --set -x"),
        ("--workers 2 -- --mode regular --workers 3 -h", 2, "--mode regular --workers 3 -h"),
        ("--mode regular -- ~d", 1, "--mode regular -- ~d"),
    ],
)
def test_all_arguments_but_workers_go_to_mitmdump(words: str, workers: int, arguments: str) -> None:
    """What is not --workers is kept as it is and in order, and so is all behind a first ``--``."""
    chosen = parse(*words.split())
    assert chosen.workers == workers
    assert chosen.arguments == arguments.split()


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5", ""])
def test_wrong_number_of_workers_is_exit_code_2(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but a whole number from 1 on is refused in a sentence."""
    with pytest.raises(SystemExit) as ended:
        parse(f"--workers={number}")
    assert ended.value.code == 2
    assert f"--workers: {number!r} is not a whole number of at least 1" in capsys.readouterr().err


def test_unknown_arguments_of_other_commands_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """Only ``run`` hands on what it does not know."""
    with pytest.raises(SystemExit) as ended:
        run.parse(main._parser(), ["script", "--mode"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --mode" in capsys.readouterr().err


def test_command_line_does_not_import_mitmproxy() -> None:
    """mitmproxy takes a second to import: only ``run`` imports it, so that ``script`` answers at once."""
    code = "import sys; from mitmproxy_acme.cli import main; sys.exit('mitmproxy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}; {code}"]).returncode == 0


# Workers

_WORK = """
import os, signal, sys, time
from pathlib import Path
from mitmproxy_acme.mitm.supervisor import take_slot
slot = take_slot(task)
file = Path(task["folder"], f"starts of {slot.number}")
start = len(file.read_text()) + 1 if file.exists() else 1
file.write_text("x" * start)
exec(task["actions"].get(f"{slot.number}.{start}", "slot.report_ready(); signal.pause()"))
"""

END_ALL = "os.kill(os.getppid(), signal.SIGTERM); slot.report_ready(); signal.pause()"


@pytest.fixture
def supervise(tmp_path: Path) -> Callable[..., int]:
    """Run a supervisor, and return its exit code. ``actions`` are what each worker does at each of its starts.

    Each reading of the clock is 100 s later: no wait takes time, and a worker that is told to end has none left.
    """
    ticks: Iterator[int] = count(step=100)

    def run(size: int, actions: dict[str, str], *, clock: Callable[[], float] = lambda: float(next(ticks))) -> int:
        return Supervisor(size, _WORK.strip(), {"folder": str(tmp_path), "actions": actions}, clock).run()

    return run


def starts(folder: Path) -> dict[int, int]:
    """Return how often each worker was started."""
    return {int(file.name.rpartition(" ")[2]): len(file.read_text()) for file in folder.glob("starts of *")}


def test_first_worker_that_cannot_start_ends_all(
    supervise: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its exit code is returned, no line is added to its output, and no other worker is started."""
    assert supervise(3, {"1.1": "print('the reason', file=sys.stderr); sys.exit(3)"}) == 3
    assert capfd.readouterr().err == "the reason\n"
    assert starts(tmp_path) == {1: 1}


def test_worker_killed_while_it_starts_ends_all(
    supervise: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    """The signal is named, because the worker cannot log it, and the exit code is that of the shell."""
    assert supervise(2, {"1.1": "os.kill(os.getpid(), signal.SIGKILL)"}) == 137
    assert capfd.readouterr().err == "mitmproxy-acme: worker 1 was killed by SIGKILL while it started\n"


def test_worker_that_cannot_start_ends_all_before_all_were_up(
    supervise: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends the workers that are up as well."""
    assert supervise(2, {"2.1": "sys.exit(4)"}) == 4
    assert starts(tmp_path) == {1: 1, 2: 1}


def test_worker_that_dies_is_started_again(
    supervise: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also after a failed start, as long as another worker is up; the log names worker and cause."""
    actions = {"2.1": "slot.report_ready(); sys.exit(5)", "2.2": "sys.exit(6)", "2.3": END_ALL}
    assert supervise(2, actions) == 0
    said = capfd.readouterr().err
    assert "worker 2 ended with code 5; it starts again in 1 s" in said
    assert "worker 2 ended with code 6; it starts again in 2 s" in said
    assert starts(tmp_path) == {1: 1, 2: 3}


def test_worker_that_was_up_for_long_starts_again_soon(
    supervise: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    """However often it has died before: only deaths in a row make the wait longer. None leaves a pipe open."""
    die = "slot.report_ready(); sys.exit(5)"
    before = len(os.listdir("/dev/fd"))
    assert supervise(1, {"1.1": die, "1.2": die, "1.3": die, "1.4": END_ALL}) == 0
    assert capfd.readouterr().err.count("worker 1 ended with code 5; it starts again in 1 s") == 3
    assert len(os.listdir("/dev/fd")) == before


def test_no_worker_up_and_none_that_can_start_ends_all(supervise: Callable[..., int], tmp_path: Path) -> None:
    """When all have died, and the next cannot start, its exit code is returned."""
    die = "slot.report_ready(); sys.exit(1)"
    actions = {f"{number}.{turn}": die if turn == 1 else "sys.exit(7)" for number in (1, 2) for turn in range(1, 9)}
    assert supervise(2, actions) == 7


def test_sigterm_ends_all(supervise: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    """SIGTERM is passed on, each worker takes its time, and the exit code is 0."""
    leave = "signal.signal(signal.SIGTERM, lambda *_: sys.exit('left')); slot.report_ready(); signal.pause()"
    assert supervise(2, {"1.1": leave, "2.1": END_ALL}, clock=time.monotonic) == 0
    assert "left" in capfd.readouterr().err


def test_worker_that_does_not_end_is_killed(supervise: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    """It is not waited for any longer."""
    stay = "signal.signal(signal.SIGTERM, signal.SIG_IGN); slot.report_ready(); signal.pause()"
    assert supervise(2, {"1.1": stay, "2.1": END_ALL}) == 0
    assert "worker 1 does not end and is killed" in capfd.readouterr().err


def test_only_the_first_worker_starts_alone(supervise: Callable[..., int], tmp_path: Path) -> None:
    """Only at its first start it can be sure that no other worker shares its ports yet."""
    note = f"Path({str(tmp_path)!r}, 'alone').open('a').write(f'{{slot.number}}.{{start}} {{slot.starts_alone}},'); "
    actions = {"1.1": note + "slot.report_ready(); signal.pause()", "2.1": note + "slot.report_ready(); " + END_ALL}
    assert supervise(2, actions) == 0
    assert (tmp_path / "alone").read_text() == "1.1 True,2.1 False,"


def test_signal_handlers_are_restored(supervise: Callable[..., int]) -> None:
    """The process of the command gets its own handlers back."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    supervise(1, {"1.1": "sys.exit(0)"})
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before


@pytest.mark.parametrize(
    ("code", "said"), [(-9, "was killed by SIGKILL"), (0, "ended with code 0"), (5, "ended with code 5")]
)
def test_cause_of_an_end_is_a_signal_or_a_code(code: int, said: str) -> None:
    assert _cause(code) == said


def test_waits_double_up_to_half_a_minute() -> None:
    """A worker that keeps dying is started less and less often."""
    assert [wait_after(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
