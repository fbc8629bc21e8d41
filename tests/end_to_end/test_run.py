"""``mitmproxy-acme run`` from outside: mitmdump with the addon in one process, and in several that share its ports."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.end_to_end.client import eventually, get, handshake, handshakes
from tests.end_to_end.conftest import default_options
from tests.servers import forked
from tests.servers.base import fetch, free_port, udp_sockets
from tests.servers.forked import ForkedRun, ForkedWeb
from tests.servers.mitmdump import SCRIPT, Mitmdump, Option, Run
from tests.servers.pebble import Pebble
from tests.servers.terminal import Terminal
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]


class StartRun(Protocol):
    """Prepare, or ``start``, ``mitmproxy-acme run`` as the fixture ``proxy`` does with mitmdump.

    It and its workers are forked, which costs no imports; with ``real`` they are executed.
    """

    def __call__(self, workers: int = 1, *, start: bool = True, real: bool = False, **options: Option) -> Run: ...


@pytest.fixture
def run(pebble: Pebble, upstream: Upstream, tmp_path: Path) -> Iterator[StartRun]:
    with ExitStack() as stack:

        def start_run(workers: int = 1, *, start: bool = True, real: bool = False, **options: Option) -> Run:
            defaults = default_options(pebble, tmp_path / "store")
            server = (Run if real else ForkedRun)(upstream.url, defaults | options, http_port=pebble.http_port)
            server.workers = workers
            stack.callback(server.close)
            return server.start() if start else server

        yield start_run


# One process


def test_handshake_through_run(run: StartRun, root: str, fresh_name: FreshName) -> None:
    """The addon is loaded without -s, and the log has lines about certificates, not about connections.

    What the start has made is kept out of garbage collection, which stops a handshake for it otherwise.
    """
    name, running = fresh_name(), run(real=True, start=False)
    script = running.folder / "frozen.py"
    script.write_text("import gc, logging\ndef client_connected(_): logging.info(f'frozen: {gc.get_freeze_count()}')\n")
    running.extra_arguments = ["-s", str(script)]
    running.start()

    assert handshake(running.https_port, name, root).names == [name]

    assert f"{name}: certificate by " in running.log_text()
    assert "client connect" not in running.log.read_text()
    # The probe that waits for the start may be accepted before it is over.
    *_, frozen = re.findall(r"frozen: (\d+)", running.log_text())
    assert int(frozen) > 50_000


def test_verbose_log_has_connections_and_the_event_loop(run: StartRun, root: str, fresh_name: FreshName) -> None:
    """With -v mitmproxy logs each connection, and one line names the event loop."""
    running = run(start=False)
    running.extra_arguments = ["-v"]
    running.start()

    handshake(running.https_port, fresh_name(), root)

    assert "the event loop is uvloop" in running.log.read_text()
    eventually(lambda: "client disconnect" in running.log_text())


def test_broken_uvloop_is_not_used(run: StartRun, root: str, fresh_name: FreshName, tmp_path: Path) -> None:
    """If uvloop fails where mitmproxy needs it, asyncio's own loop is used, and only debug output says so."""
    (tmp_path / "uvloop.py").write_text("class Loop:\n    def __init__(self): raise TypeError('no such Python')\n")
    name, running = fresh_name(), run(start=False)
    running.environment["PYTHONPATH"] = str(tmp_path)
    running.extra_arguments = ["-v"]
    running.start()

    assert handshake(running.https_port, name, root).names == [name]
    assert "asyncio's own: uvloop" in running.log.read_text()
    assert "no such Python" in running.log.read_text()


def test_script_of_config_yaml_is_not_loaded_twice(run: StartRun, root: str, fresh_name: FreshName) -> None:
    """``run`` accepts a config.yaml for mitmdump that lists our script and another; only the other is loaded."""
    name, running = fresh_name(), run(start=False)
    confdir = running.folder / "confdir"
    confdir.mkdir()
    (confdir / "other.py").write_text("import logging\ndef running(): logging.info('the other script runs')\n")
    (confdir / "config.yaml").write_text(json.dumps({"scripts": [str(SCRIPT), "other.py"]}))  # JSON is YAML
    running.start()

    assert handshake(running.https_port, name, root).names == [name]
    log = running.log.read_text()
    assert "acme_addon.py in the option scripts is ignored: run loads the addon itself" in log
    assert "the other script runs" in log
    assert "already exists" not in log


def test_options_of_the_addon_are_listed(run: StartRun) -> None:
    """``run --options`` prints what mitmdump with -s would."""
    server = run(start=False)

    listed = _output(server.program().path, "run", "--options")

    assert listed.returncode == 0
    assert listed.stdout == _output(Path(sys.executable).with_name("mitmdump"), "-s", SCRIPT, "--options").stdout


@pytest.mark.parametrize(
    ("workers", "arguments", "message"),
    [
        (1, ["--set", "acme_renew_before=soon"], "acme_renew_before: 'soon' is not a time to renew"),
        (2, ["--set", "acme_renew_before=soon"], "acme_renew_before: 'soon' is not a time to renew"),
        (2, ["--no-such-argument"], "unrecognized arguments: --no-such-argument"),
    ],
)
def test_wrong_argument_is_one_sentence_and_the_code_of_mitmdump(
    run: StartRun, workers: int, arguments: list[str], message: str
) -> None:
    """It is logged once, for any number of workers, and the exit code is that of mitmdump with -s."""
    server = run(workers, start=False)
    server.extra_arguments = arguments
    stock = Mitmdump.arguments(server)

    done = _output(server.program().path, *server.arguments())

    assert done.returncode == _output(Path(sys.executable).with_name("mitmdump"), *stock).returncode != 0
    assert (done.stdout + done.stderr).count(message) == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "worker" not in done.stderr


# mitmweb and the console


def test_web_shows_the_traffic_in_a_browser(run: StartRun, pebble: Pebble, root: str, fresh_name: FreshName) -> None:
    """``run --web`` is mitmweb with the addon: the flow is in its list, and its command bar has our commands."""
    name, running = fresh_name(), run(start=False)
    web = ForkedWeb(running.upstream, running.options, http_port=pebble.http_port)
    web.arguments = lambda: ["run", "--web", *web.mitmdump_arguments()]  # type: ignore[method-assign]
    web.program = running.program  # type: ignore[method-assign]
    with web:
        assert "hello" in get(web.https_port, name, root)

        assert [flow["response"]["status_code"] for flow in web.flows() if flow["request"]["path"] == "/"] == [200]
        eventually(lambda: name in [row[0] for row in web.command("acme.list")])


def test_console_shows_the_traffic_in_a_terminal(run: StartRun, root: str, fresh_name: FreshName) -> None:
    """``run --console`` is mitmproxy with the addon, on uvloop too."""
    name, server = fresh_name(), run(start=False)

    with Terminal([server.program().path, "run", "--console", *server.mitmdump_arguments()]) as terminal:
        terminal.wait_for("Flows")
        eventually(server.ready)
        assert "hello" in get(server.https_port, name, root)
        terminal.wait_for("GET")
        terminal.type("Q")
        assert terminal.wait_for_end() == 0


@pytest.mark.parametrize("tool", ["--web", "--console"])
def test_tool_with_workers_is_refused(run: StartRun, tool: str) -> None:
    """Each would show the traffic of one process only."""
    done = _output(run(start=False).program().path, "run", tool, "--workers", "2")

    assert done.returncode == 2
    assert f"mitmproxy-acme run: {tool}: mitm" in done.stderr
    assert f"shows the traffic of its own process only; leave out {tool} or --workers" in done.stderr


def _output(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return forked.run(command)


# Workers


def test_two_workers_share_a_port_and_a_store(run: StartRun, pebble: Pebble, root: str, fresh_name: FreshName) -> None:
    """20 new names at once are 20 orders; then each worker alone serves what either of them ordered."""
    names, before = [fresh_name() for _ in range(20)], pebble.seen()
    running = run(2)

    served = handshakes(running.https_port, names, root)

    assert [s.names for s in served] == [[name] for name in names]
    assert (pebble.seen() - before).orders == (pebble.seen() - before).certificates == 20
    serials = {s.leaf.serial_number for s in served}
    for number in (1, 2):
        with _only(running, number):
            assert _served(running, names, root) == serials


def test_killed_worker_is_replaced_while_the_other_serves(run: StartRun, root: str, fresh_name: FreshName) -> None:
    """After a worker's death every new connection is served; another process replaces it and serves too."""
    name, running = fresh_name(), run(2)
    first, killed = running.worker_pids(), "worker 2 was killed by SIGKILL; it starts again in 1 s"
    serial = handshake(running.https_port, name, root).leaf.serial_number

    os.kill(first[2], signal.SIGKILL)
    eventually(lambda: killed in running.log_text())  # reaped, so its socket is closed

    assert {s.leaf.serial_number for s in handshakes(running.https_port, [name] * 20, root)} == {serial}
    eventually(lambda: running.worker_pids()[2] != first[2], timeout=20)
    assert running.worker_pids()[1] == first[1]
    with _only(running, 2):
        assert _served(running, [name], root) == {serial}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_all(run: StartRun, number: signal.Signals) -> None:
    """SIGTERM, or SIGINT, to the parent alone ends every worker properly."""
    running = run(2, real=number is signal.SIGTERM)
    pids = running.worker_pids()

    os.kill(running.pid, number)
    eventually(lambda: not running.running)

    assert not [pid for pid in pids.values() if _is_alive(pid)]
    assert "is killed" not in running.log_text()


def test_killed_parent_leaves_no_worker(run: StartRun) -> None:
    """When the parent is killed -9 its workers end by themselves."""
    running = run(2, real=True)
    pids = running.worker_pids()

    os.kill(running.pid, signal.SIGKILL)

    eventually(lambda: not [pid for pid in pids.values() if _is_alive(pid)])


def test_second_run_does_not_share_the_ports_of_the_first(run: StartRun) -> None:
    """The kernel would allow it; the log says that the port is in use, as for a second mitmdump."""
    running, other = run(2), run(2, start=False)
    other.https_port = running.https_port

    done = _output(other.program().path, *other.arguments())

    assert done.returncode == 1
    assert "address already in use" in done.stdout
    assert running.running


def test_no_worker_leads_to_the_admin_api(run: StartRun) -> None:
    """One worker has it, and a client could reach it through any: each of them refuses."""
    running, admin, regular = run(2, start=False), free_port(), free_port()
    running.options |= {"acme_admin_listen": f"127.0.0.1:{admin}", "acme_admin_token": "a-token-that-cannot-be-guessed"}
    running.extra_arguments = ["--mode", f"regular@127.0.0.1:{regular}"]
    running.start()

    asked = [fetch(f"http://127.0.0.1:{regular}/health", host=f"127.0.0.1:{admin}") for _ in range(20)]

    assert [reply.status for reply in asked] == [502] * 20
    assert fetch(f"http://127.0.0.1:{admin}/health").status == 200
    assert running.log_text().count("asked the proxy for its admin API and was refused") == 2


def test_only_the_first_worker_listens_on_udp(run: StartRun) -> None:
    """reverse:https listens on UDP for HTTP/3 too, which cannot be shared: one socket, and no worker fails."""
    running = run(2, start=False)
    running.upstream = running.upstream.replace("http:", "https:")
    running.start()

    assert udp_sockets(running.https_port) == 1
    assert sorted(running.worker_pids()) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "acme_storage=memory:"], "acme_storage: each worker would have its own certificates in memory:"),
        (["--mode", "wireguard"], "mode: wireguard cannot be shared by several workers"),
        (["-w", "FOLDER/flows"], "save_stream_file: several workers cannot write one file"),
    ],
)
def test_what_workers_cannot_share_is_refused(
    run: StartRun, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """One sentence names the problem and the solution, and nothing is started."""
    server = run(2, start=False)
    del server.options["acme_storage"]
    arguments = [argument.replace("FOLDER", str(tmp_path)) for argument in arguments]
    server.extra_arguments = ["--set", "server=false", *arguments]

    done = _output(server.program().path, *server.arguments())

    assert done.returncode == 1
    assert done.stdout.count(message) == 1
    assert "is up" not in done.stderr


@contextlib.contextmanager
def _only(running: Run, number: int) -> Iterator[None]:
    """Let only one of the workers run, so that it serves every connection."""
    others = [pid for worker, pid in running.worker_pids().items() if worker != number]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def _served(running: Run, names: Sequence[str], root: str) -> set[int]:
    """Return the serial numbers that running workers serve: the kernel gives some connections to stopped ones."""
    served: dict[str, int] = {}

    def ask(name: str) -> None:
        with contextlib.suppress(TimeoutError):
            served[name] = handshake(running.https_port, name, root, timeout=1).leaf.serial_number

    for _ in range(10):
        asked = [name for name in names if name not in served] * 5
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(ask, asked))
    assert served.keys() == set(names)
    return set(served.values())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A worker whose parent was killed waits until the process that inherits it reaps it.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
