"""``mitmproxy-acme run``: which arguments go where, and what becomes of workers that die."""

import argparse
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
from mitmproxy_acme.mitm.supervisor import Supervisor, wait_after


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
    assert f"--workers: {number!r} is not a whole number from 1 on" in capsys.readouterr().err


def test_unknown_arguments_of_other_commands_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """Only ``run`` hands on what it does not know."""
    with pytest.raises(SystemExit) as ended:
        run.parse(main._parser(), ["script", "--mode"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --mode" in capsys.readouterr().err


def test_command_line_does_not_import_mitmproxy() -> None:
    """Nothing of mitmproxy is imported before ``run`` starts it: ``script`` is to answer at once."""
    code = "import sys; from mitmproxy_acme.cli import main; sys.exit('mitmproxy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}; {code}"]).returncode == 0


# Workers

_IN_TURN = """
import os, signal, sys, time
from pathlib import Path
from mitmproxy_acme.mitm.supervisor import take_post
post = take_post(told)
turn = Path(told["folder"], f"turn of {post.number}")
turns = len(turn.read_text()) if turn.exists() else 0
turn.write_text("x" * (turns + 1))
exec(told["deeds"].get(f"{post.number}.{turns + 1}", "post.say_up(); signal.pause()"))
"""

END_ALL = "os.kill(os.getppid(), signal.SIGTERM); post.say_up(); signal.pause()"


@pytest.fixture
def crew(tmp_path: Path) -> Callable[..., int]:
    """Run a crew whose workers do as they are told, worker by worker and turn by turn; return its exit code.

    Its clock leaps, so that no wait lasts, and one that is asked to end has no time for it.
    """
    ticks: Iterator[int] = count(step=100)

    def run_crew(size: int, deeds: dict[str, str], *, clock: Callable[[], float] = lambda: float(next(ticks))) -> int:
        return Supervisor(size, _IN_TURN.strip(), {"folder": str(tmp_path), "deeds": deeds}, clock).run()

    return run_crew


def turns(folder: Path) -> dict[int, int]:
    """How many processes each worker has been."""
    return {int(file.name.rpartition(" ")[2]): len(file.read_text()) for file in folder.glob("turn of *")}


def test_what_keeps_the_first_from_starting_ends_all(
    crew: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its exit code is that of the whole, nothing is added to what it said, and no other worker is started."""
    assert crew(3, {"1.1": "print('the reason', file=sys.stderr); sys.exit(3)"}) == 3
    assert capfd.readouterr().err == "the reason\n"
    assert turns(tmp_path) == {1: 1}


def test_worker_killed_while_it_starts_ends_all(crew: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    """A signal is named, for nobody else says why, and the exit code is the shell's for it."""
    assert crew(2, {"1.1": "os.kill(os.getpid(), signal.SIGKILL)"}) == 137
    assert capfd.readouterr().err == "mitmproxy-acme run: worker 1 was killed by SIGKILL while it started\n"


def test_any_that_cannot_start_ends_all_at_first(
    crew: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before all have been up, one that ends in its start ends the others too."""
    assert crew(2, {"2.1": "sys.exit(4)"}) == 4
    assert turns(tmp_path) == {1: 1, 2: 1}


def test_worker_that_dies_is_started_again(
    crew: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also when it cannot start at once, as long as another is up; what is said names worker and cause."""
    deeds = {"2.1": "post.say_up(); sys.exit(5)", "2.2": "sys.exit(6)", "2.3": END_ALL}
    assert crew(2, deeds) == 0
    said = capfd.readouterr().err
    assert "worker 2 ended with code 5; it starts again in 1 s" in said
    assert "worker 2 ended with code 6; it starts again in 2 s" in said
    assert turns(tmp_path) == {1: 1, 2: 3}


def test_nobody_up_and_none_can_start_is_the_end(crew: Callable[..., int], tmp_path: Path) -> None:
    """When all have died, and the next cannot start, its exit code is that of the whole."""
    die = "post.say_up(); sys.exit(1)"
    deeds = {f"{number}.{turn}": die if turn == 1 else "sys.exit(7)" for number in (1, 2) for turn in range(1, 9)}
    assert crew(2, deeds) == 7


def test_ends_when_told_to(crew: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    """SIGTERM is passed on, and the end of all, each in its own time, is a success."""
    leave = "signal.signal(signal.SIGTERM, lambda *_: sys.exit('left')); post.say_up(); signal.pause()"
    assert crew(2, {"1.1": leave, "2.1": END_ALL}, clock=time.monotonic) == 0
    assert "left" in capfd.readouterr().err


def test_worker_that_does_not_end_is_killed(crew: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    """Its time over, nobody waits for it."""
    stay = "signal.signal(signal.SIGTERM, signal.SIG_IGN); post.say_up(); signal.pause()"
    assert crew(2, {"1.1": stay, "2.1": END_ALL}) == 0
    assert "worker 1 does not end and is killed" in capfd.readouterr().err


def test_first_worker_alone_is_early(crew: Callable[..., int], tmp_path: Path) -> None:
    """Only the first worker, at its first start, may take it that nobody shares its ports yet."""
    note = f"Path({str(tmp_path)!r}, 'early').open('a').write(f'{{post.number}}.{{turns + 1}} {{post.early}},'); "
    deeds = {"1.1": note + "post.say_up(); signal.pause()", "2.1": note + "post.say_up(); " + END_ALL}
    assert crew(2, deeds) == 0
    assert (tmp_path / "early").read_text() == "1.1 True,2.1 False,"


def test_signals_are_as_before_when_it_has_ended(crew: Callable[..., int]) -> None:
    """The process of the command gets its own answers to signals back."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    crew(1, {"1.1": "sys.exit(0)"})
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before


def test_waits_double_up_to_half_a_minute() -> None:
    """A worker that keeps dying is started less and less often."""
    assert [wait_after(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
