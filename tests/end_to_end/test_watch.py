"""``mitmproxy-acme watch`` beside real proxies: the events of all nodes, through whatever happens to them."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.client import handshake, untrusted
from tests.end_to_end.conftest import StartProxy
from tests.end_to_end.test_cli import Command
from tests.servers import stores
from tests.servers.base import free_port
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv
from tests.servers.stores import Place

type FreshName = Callable[[], str]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Place]:
    with stores.running("redis", tmp_path) as place:
        yield place


@pytest.fixture
def nodes(proxy: StartProxy, redis: Place) -> tuple[Mitmdump, Mitmdump]:
    """Two nodes on one Redis; the first has an admin API, and answers the CA."""
    first = proxy(start=False, acme_storage=redis.url, acme_admin_listen=f"127.0.0.1:{free_port()}")
    second = proxy(start=False, acme_storage=redis.url, http_port=free_port())
    for node in (first, second):
        node.environment.update(redis.environment)
        node.start()
    return first, second


class Watch:
    """A running ``watch``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def event(self) -> Any:
        return json.loads(self.line())

    def remark(self) -> str:
        assert self.process.stderr
        return self.process.stderr.readline()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@contextmanager
def watching(beside: Mitmdump, *words: str) -> Iterator[Watch]:
    with Command(beside).start("watch", *words) as process:
        yield Watch(process)
        process.kill()


def test_events_of_both_nodes_come_through_the_admin_api(
    nodes: tuple[Mitmdump, Mitmdump], root: str, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """Also after the proxy was away, which is said once; Ctrl-C ends it."""
    first, second = nodes
    one, two, three, failing = (fresh_name() for _ in range(4))
    dns.set_servfail(failing)
    with watching(first, "--json") as watch:
        assert watch.remark().startswith("using the admin API of the proxy at http://127.0.0.1:")
        handshake(second.https_port, one, root)
        event = watch.event()
        assert (event["event"], event["host"], event["seconds"] > 0) == ("obtained", one, True)
        handshake(first.https_port, two, root)
        other = watch.event()
        assert (other["event"], other["host"]) == ("obtained", two)
        assert other["node"] != event["node"]
        untrusted(first.https_port, failing)
        assert failing in watch.event()["reason"]

        first.stop()
        assert watch.remark().endswith(" does not answer any more; waiting for it\n")
        first.start()
        assert watch.remark() == "the proxy answers again\n"
        handshake(first.https_port, three, root)
        assert watch.event()["host"] == three
        assert watch.interrupt() == 130
        assert watch.remark() == "interrupted\n"


def test_events_of_both_nodes_come_from_the_storage(
    nodes: tuple[Mitmdump, Mitmdump], root: str, fresh_name: FreshName
) -> None:
    """Where no proxy has an admin API; first the last ones, then what comes, as lines."""
    first, second = nodes
    before, one, two = (fresh_name() for _ in range(3))
    handshake(first.https_port, before, root)
    with watching(second, "--last", "1") as watch:
        assert watch.remark() == "using the redis storage directly, without the admin API\n"
        assert f"  obtained  {before}: by " in watch.line()
        handshake(first.https_port, one, root)
        assert f"  obtained  {one}: by " in watch.line()
        handshake(second.https_port, two, root)
        assert f"  obtained  {two}: by " in watch.line()
        assert watch.interrupt() == 130


def test_reader_that_goes_away_ends_it_quietly(
    nodes: tuple[Mitmdump, Mitmdump], root: str, fresh_name: FreshName
) -> None:
    """As head does."""
    first, _ = nodes
    with watching(first, "--last", "0") as watch:
        watch.remark()
        handshake(first.https_port, fresh_name(), root)
        assert "obtained" in watch.line()
        assert watch.process.stdout
        watch.process.stdout.close()
        handshake(first.https_port, fresh_name(), root)
        assert watch.process.wait(20) == 1
        assert watch.remark() == ""
