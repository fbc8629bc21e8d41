"""Other scripts and mitmproxy's own options: none of them spoils the reply to a challenge."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader, FlowWriter
from mitmproxy.test import tflow

from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import default_options
from tests.servers.base import fetch
from tests.servers.forked import Forked
from tests.servers.mitmdump import Option
from tests.servers.pebble import Pebble
from tests.servers.upstream import Upstream

_CHALLENGE = "/.well-known/acme-challenge/"

# A script that spoils all it sees, in each hook of a flow, and notes what it saw; what it raises keeps events of
# connections from the scripts behind it.
_SPOILER = """
import asyncio
from mitmproxy import exceptions, http

def note(flow, event):
    with open({seen!r}, "a") as file:
        file.write(event + " " + flow.request.path + "\\n")

async def requestheaders(flow):
    note(flow, "requestheaders")
    await asyncio.sleep(0)
    flow.response = http.Response.make(503)

def request(flow):
    note(flow, "request")
    flow.response = http.Response.make(503, b"maintenance")

def responseheaders(flow):
    note(flow, "responseheaders")
    flow.response.headers["content-type"] = "text/html"

def response(flow):
    note(flow, "response")
    flow.response.content += b"<!-- seen -->"

def tls_start_client(data):
    raise ValueError("a fault of this script")

tls_clienthello = tls_start_client

def update(flows):
    for flow in flows:
        note(flow, "update")
"""

# mitmproxy's own options that answer, change or refuse whatever they meet.
_OPTIONS: dict[str, Option] = {
    "proxyauth": "user:password",
    "block_list": ["|~all|503"],
    "map_local": [f"|.*|{__file__}"],
    "map_remote": ["|.*|http://127.0.0.1:9/"],
    "modify_body": ["/~s/thumbprint|[.]/changed"],
    "modify_headers": ["/~s/content-type/text/html"],
    "server_replay_extra": "404",
    "stickyauth": ".*",
    "anticache": True,
    "upstream_auth": "user:password",
    "stream_large_bodies": "1",
    "keep_host_header": True,
    "http2": False,
}


class Beside(Forked):
    """mitmdump with one script loaded before the addon and one behind it."""

    before = after = ""

    def arguments(self) -> list[str]:
        return ["-s", self.before, *super().arguments(), "-s", self.after]


@pytest.fixture
def beside(pebble: Pebble, upstream: Upstream, tmp_path: Path) -> Iterator[Callable[..., Beside]]:
    """Start it with options; each script writes what it sees to a file with its name."""
    started: list[Beside] = []

    def start(**options: Option) -> Beside:
        defaults = default_options(pebble, tmp_path / "store")
        server = Beside(upstream.url, defaults | options, http_port=pebble.http_port)
        server.before, server.after = (str(_script(tmp_path / name)) for name in ("before.py", "after.py"))
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


def _script(path: Path) -> Path:
    path.write_text(_SPOILER.format(seen=str(path.with_suffix(".seen"))))
    return path


def _seen(tmp_path: Path, name: str) -> list[str]:
    """Return the events of known challenges that a script saw."""
    lines = (tmp_path / f"{name}.seen").read_text().splitlines() if (tmp_path / f"{name}.seen").exists() else []
    return [line.split()[0] for line in lines if len(line.rpartition("/")[2]) >= 22]


def test_everything_that_spoils_replies_spoils_no_challenge(
    beside: Callable[..., Beside], root: str, fresh_name: Callable[[], str], tmp_path: Path
) -> None:
    """The certificate is obtained, and scripts and saved flows see no challenge, but requests with other tokens."""
    recorded, saved, name = tmp_path / "recorded", tmp_path / "saved", fresh_name()
    with recorded.open("wb") as file:
        FlowWriter(file).add(tflow.tflow(resp=True))  # type: ignore[no-untyped-call]
    running = beside(**_OPTIONS, server_replay=[str(recorded)], save_stream_file=str(saved))
    assert handshake(running.https_port, name, root).names == [name]
    assert _seen(tmp_path, "before") == _seen(tmp_path, "after") == []
    other = fetch(f"http://127.0.0.1:{running.http_port}{_CHALLENGE}{'u' * 43}")
    assert (other.status, other.text) == (404, 2 * "<!-- seen -->")
    running.stop()
    with saved.open("rb") as flows:
        paths = [flow.request.path for flow in FlowReader(flows).stream() if isinstance(flow, http.HTTPFlow)]
    assert set(paths) <= {f"{_CHALLENGE}{'u' * 43}", f"{_CHALLENGE}ready"}
    assert "was changed" not in running.log_text()


def test_challenges_that_are_shown_are_not_spoiled_either(
    beside: Callable[..., Beside], root: str, fresh_name: Callable[[], str], tmp_path: Path
) -> None:
    """The scripts see a copy, and may change it; the log reports it once for each script."""
    running = beside(acme_hide_challenges=False)
    for name in (fresh_name(), fresh_name()):
        assert handshake(running.https_port, name, root).names == [name]
    events = {"requestheaders", "request", "responseheaders", "response", "update"}
    eventually(lambda: events == set(_seen(tmp_path, "before")) == set(_seen(tmp_path, "after")))
    for script in (running.before, running.after):
        assert running.log_text().count(f"was changed by {script}; the true one was sent") == 1
