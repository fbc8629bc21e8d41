"""``mitmproxy-acme serve`` from outside: what a newcomer types, sees and gets wrong."""

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from acme_storage import Storage
from tests.end_to_end.client import eventually, get, handshake
from tests.servers import forked
from tests.servers.base import fetch, free_port
from tests.servers.forked import ForkedServe
from tests.servers.mitmdump import Option, Run, Serve
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.terminal import Terminal
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]


class StartServe(Protocol):
    """Prepare, or ``start``, ``mitmproxy-acme serve`` with names of the test's Pebble."""

    def __call__(self, *sites: str, arguments: Sequence[str] = ..., start: bool = ..., **options: Option) -> Serve: ...


def options_for(ca: Pebble, folder: Path) -> dict[str, Option]:
    """What a newcomer with a CA of their own has in config.yaml, and no more."""
    return {"acme_ca": ca.directory, "acme_ca_bundle": str(ca.ca_bundle), "acme_storage": f"file:{folder}"}


@pytest.fixture
def serve(pebble: Pebble, tmp_path: Path) -> Iterator[StartServe]:
    with ExitStack() as stack:

        def start_serve(
            *sites: str, arguments: Sequence[str] = ("--agree-tos",), start: bool = True, **options: Option
        ) -> Serve:
            status = {"acme_admin_listen": f"127.0.0.1:{free_port()}"}
            everything = options_for(pebble, tmp_path / "store") | status | options
            server = ForkedServe(sites, everything, http_port=pebble.http_port, arguments=arguments)
            stack.callback(server.close)
            return server.start() if start else server

        yield start_serve


def ended(server: Serve, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it until it ends by itself."""
    return forked.run([server.program().path, *server.arguments()], stdin=stdin)


def test_one_line_serves_a_name(
    serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName, pebble: Pebble
) -> None:
    """The name is held from the start, HTTPS and HTTP reach the server, and one screen says where what is."""
    name, before = fresh_name(), pebble.seen()
    running = serve(name, "--to", upstream.url)
    eventually(lambda: "Ctrl-C ends it" in running.log.read_text())

    assert (pebble.seen() - before).certificates == 1
    assert "hello from upstream /path" in get(running.https_port, name, root, "/path")
    assert "hello from upstream /plain" in fetch(f"http://127.0.0.1:{running.http_port}/plain", host=name).text
    assert (pebble.seen() - before).certificates == 1

    screen = running.log.read_text().partition("mitmproxy-acme serves these sites")[2]
    status = running.options["acme_admin_listen"]
    assert (
        f"https://{name}:{running.https_port}/\n    upstream     {upstream.url}\n    certificate  valid until "
        in screen
    )
    assert f"status page    http://{status}/\n" in screen
    assert fetch(f"http://{status}/").status == 200


def test_host_that_no_site_knows_gets_421(serve: StartServe, upstream: Upstream, fresh_name: FreshName) -> None:
    """Never another's site (RFC 9110 section 15.5.20)."""
    running = serve(fresh_name(), "--to", upstream.url)

    assert fetch(f"http://127.0.0.1:{running.http_port}/", host="other.example.test").status == 421


def test_each_name_has_its_own_upstream(serve: StartServe, root: str, fresh_name: FreshName) -> None:
    """Names are held from the start; a pattern is on demand, and says so."""
    one, two = fresh_name(), fresh_name()
    with Upstream() as first, Upstream() as second, Upstream() as third:
        running = serve(f"{one}={first.url}", f"{two}={second.url.removeprefix('http://')}", f"*.{one}={third.url}")

        for name in (one, two, f"shop.{one}"):
            assert "hello" in get(running.https_port, name, root, f"/{name}")
        asked = [[request.rpartition("/")[2] for request in server.requests] for server in (first, second, third)]
        assert asked == [[one], [two], [f"shop.{one}"]]
    eventually(lambda: "Ctrl-C ends it" in running.log.read_text())
    assert "certificate  one for each name, obtained when a client first asks for it" in running.log.read_text()


def test_upstream_gets_its_own_host_if_that_is_wanted(serve: StartServe, root: str, fresh_name: FreshName) -> None:
    """A public service would not know the name of the proxy."""
    name = fresh_name()
    with Upstream() as public:
        running = serve(name, "--to", public.url, "--change-host-header")
        assert "hello" in get(running.https_port, name, root)
        assert public.requests == [f"GET 127.0.0.1:{public.port} /"]


def test_second_start_asks_and_orders_nothing(
    serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName, pebble: Pebble
) -> None:
    """The stored account shows that the terms were accepted; the screen comes at once, without the CA."""
    name = fresh_name()
    first = serve(name, "--to", upstream.url)
    serial = handshake(first.https_port, name, root).leaf.serial_number
    first.close()

    before = pebble.seen()
    again = serve(name, "--to", upstream.url, arguments=[])

    assert handshake(again.https_port, name, root).leaf.serial_number == serial
    eventually(lambda: "certificate  valid until" in again.log.read_text())
    assert (pebble.seen() - before).requests == 0


def test_terms_of_service_are_asked_on_a_terminal(
    serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName
) -> None:
    """The question has the CA's own URL; y goes on, with everything before the person's eyes."""
    name = fresh_name()
    server = serve(name, "--to", upstream.url, arguments=[], start=False)

    with Terminal([server.program().path, *server.arguments()]) as terminal:
        terminal.wait_for("has terms of service: data:text/plain,Do%20what%20thou%20wilt\nDo you accept them? [y/N]")
        terminal.type("y\n")
        terminal.wait_for("certificate  valid until")
        assert "hello" in get(server.https_port, name, root)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_for_end() == 0


def test_trouble_is_said_before_the_question(serve: StartServe, fresh_name: FreshName) -> None:
    """No terms are accepted for a start that cannot work."""
    upstream = f"127.0.0.1:{free_port()}"
    server = serve(fresh_name(), "--to", upstream, arguments=[], start=False)

    with Terminal([server.program().path, *server.arguments()]) as terminal:
        terminal.wait_for("[y/N]")
        assert "so its hosts get 502; start it" in terminal.text.partition("has terms of service")[0]
        terminal.type("n\n")
        assert terminal.wait_for_end() == 2


def test_refused_terms_end_the_start(serve: StartServe, fresh_name: FreshName, store: Storage) -> None:
    """Enter is no; the CA has been asked for nothing but its directory."""
    server = serve(fresh_name(), "--to", "8000", arguments=[], start=False)

    with Terminal([server.program().path, *server.arguments()]) as terminal:
        terminal.wait_for("[y/N]")
        terminal.type("\n")
        assert terminal.wait_for_end() == 2
    assert "issues no certificate before you accept its terms of service" in terminal.text
    assert store.keys("accounts/") == []


def test_terms_without_a_terminal_need_the_flag(serve: StartServe, fresh_name: FreshName) -> None:
    """The sentence has the URL to read and the flag to add."""
    done = ended(serve(fresh_name(), "--to", "8000", arguments=[], start=False))

    assert done.returncode == 2
    assert "read data:text/plain,Do%20what%20thou%20wilt, then add --agree-tos" in done.stderr


def test_port_in_use_ends_the_start(
    serve: StartServe, fresh_name: FreshName, pebble: Pebble, root: str, upstream: Upstream
) -> None:
    """Before the CA is asked for anything, and with the flag that chooses another."""
    before = pebble.seen()
    server = serve(fresh_name(), "--to", upstream.url, start=False)
    with socket.create_server(("127.0.0.1", server.https_port)):
        done = ended(server)

    assert done.returncode == 1
    assert f"fail  TCP port {server.https_port} is in use by another program; stop that one, or" in done.stderr
    assert (pebble.seen() - before).orders == 0


def test_status_page_in_use_is_left_out(serve: StartServe, upstream: Upstream, fresh_name: FreshName) -> None:
    """The default address is a convenience: without it the sites are served all the same."""
    server = serve(fresh_name(), "--to", upstream.url, start=False)
    del server.options["acme_admin_listen"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8008))
            other.listen()
        except OSError:
            pass  # another program has it
        server.start()
        eventually(lambda: "status page    none" in server.log.read_text())
    assert (
        "warn  no status page, because 127.0.0.1:8008 is in use; --status takes another address"
        in server.log.read_text()
    )


def test_upstream_that_is_down_is_said_and_served_later(serve: StartServe, root: str, fresh_name: FreshName) -> None:
    """The certificate comes all the same; requests get 502 until the server is up."""
    name = fresh_name()
    with Upstream() as later:
        url = later.url
    running = serve(name, "--to", url)

    assert "502" in get(running.https_port, name, root)
    assert f"warn  acme_upstreams: {url} cannot be reached (Connection refused)" in running.log.read_text()


def test_ca_that_is_down_is_said_and_does_not_end_the_start(
    serve: StartServe, upstream: Upstream, fresh_name: FreshName, dns: ChallTestSrv, tmp_path: Path
) -> None:
    """It goes on where it can: the proxy is up, and tries again by itself."""
    with Pebble(dns) as ca:
        ca.kill()
        running = serve(fresh_name(), "--to", upstream.url, start=False)
        running.options |= options_for(ca, tmp_path / "other")
        running.start()
        eventually(lambda: "Ctrl-C ends it" in running.log.read_text(), timeout=60)
    assert "fail  " in running.log.read_text()
    assert "certificate  none: " in running.log.read_text()
    assert "next attempt at " in running.log.read_text()


def test_certificate_of_another_ca_is_served_until_the_new_one_comes(
    serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName, dns: ChallTestSrv
) -> None:
    """As after ``--staging``: the screen waits for the new one, and says why there is none."""
    name = fresh_name()
    first = serve(name, "--to", upstream.url)
    handshake(first.https_port, name, root)
    first.close()

    with Pebble(dns) as ca:
        ca.kill()
        again = serve(name, "--to", upstream.url, start=False)
        again.options |= {"acme_ca": ca.directory, "acme_ca_bundle": str(ca.ca_bundle)}
        again.start()
        eventually(lambda: "Ctrl-C ends it" in again.log.read_text(), timeout=60)
        handshake(again.https_port, name, root)
    assert "; a new one failed: " in again.log.read_text()


def test_workers_share_the_sites(serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName) -> None:
    """One of them prints the screen."""
    name = fresh_name()
    server = serve(name, "--to", upstream.url, start=False)
    server.workers = 2
    server.start()

    assert "hello" in get(server.https_port, name, root)
    eventually(lambda: "Ctrl-C ends it" in server.log.read_text())
    assert server.log.read_text().count("mitmproxy-acme serves these sites") == 1


def test_web_shows_where_the_traffic_is(
    serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName
) -> None:
    """``--web`` starts mitmweb; the screen has its URL."""
    name, port = fresh_name(), free_port()
    flags = ["--agree-tos", "--web", "--set", "web_open_browser=false", "--set", f"web_port={port}"]
    running = serve(name, "--to", upstream.url, arguments=flags)

    assert "hello" in get(running.https_port, name, root)
    eventually(lambda: f"traffic        http://127.0.0.1:{port}/?token=" in running.log.read_text())


def test_printed_config_serves_the_same(
    serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName, pebble: Pebble
) -> None:
    """Written to config.yaml, it is what ``run`` needs; nothing is started, and the CA is not asked."""
    name, before = fresh_name(), pebble.seen()
    server = serve(name, "--to", upstream.url, arguments=["--agree-tos", "--print-config"], start=False)
    printed = ended(server)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert (pebble.seen() - before).requests == 0

    confdir = server.folder / "confdir"
    confdir.mkdir(exist_ok=True)
    (confdir / "config.yaml").write_text(printed.stdout)
    run = Run(upstream.url, {"confdir": str(confdir)}, http_port=server.http_port, https_port=server.https_port)
    run.mitmdump_arguments = lambda: ["--set", f"confdir={confdir}"]  # type: ignore[method-assign]
    with run:
        assert "hello from upstream /" in get(run.https_port, name, root)


def test_config_yaml_goes_under_the_command_line(
    serve: StartServe, upstream: Upstream, root: str, fresh_name: FreshName
) -> None:
    """The names and ports are those of the line; what serve only assumes yields to the file."""
    name = fresh_name()
    server = serve(name, "--to", upstream.url, start=False)
    confdir = server.folder / "confdir"
    confdir.mkdir(exist_ok=True)
    status = server.options.pop("acme_admin_listen")
    (confdir / "config.yaml").write_text(
        f"mode: [regular]\nacme_certificates: [other.example.test]\nacme_admin_listen: {status}\n"
    )
    server.start()

    assert "hello" in get(server.https_port, name, root)
    assert "other.example.test" not in server.log.read_text()
    assert fetch(f"http://{status}/health").status == 200


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["www.example.test"], 2, "NAME: www.example.test has no upstream; add --to 127.0.0.1:8000"),
        (["https://www.example.test", "--to", "8000"], 2, "'https://www.example.test' is a URL, not a host name"),
        (["www.example.test:8443", "--to", "8000"], 2, "write the name alone, and the port as --https-port"),
        (["www_1.example.test", "--to", "8000"], 2, "NAME: 'www_1.example.test' is not a host name"),
        (["www.example.test", "--to", "ftp://10.0.0.5"], 2, "acme_upstreams: the URL of www.example.test begins with"),
        (["www.example.test", "--to", "http://10.0.0.5/app"], 2, "has a path, and an upstream gets the paths"),
        (["www.example.test", "--to", "8000", "--ca", "letsencypt"], 2, "'letsencypt' is neither a known CA"),
        (["www.example.test", "--to", "8000", "--storage", "redis"], 2, "acme_storage: "),
        (["*.example.test", "--to", "8000", "--challenge", "http-02"], 2, "acme_challenges: 'http-02'"),
        (["www.example.test", "--to", "8000", "--bind", "eth0"], 2, "'eth0' is not an IP address of this machine"),
        (["www.example.test", "--to", "8000", "--set", "mode=regular"], 2, "--set mode: serve sets it from its own"),
        (["www.example.test", "--to", "8000", "--web", "--workers", "2"], 2, "; leave out --web or --workers"),
        (["www.example.test", "--to", "8000", "--bind", "192.0.2.1"], 1, "--bind takes an address of this machine"),
    ],
)
def test_typical_mistake_is_one_sentence(tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    """It says what is wrong and what would be right, and there is no traceback."""
    program = Path(Run("", {}).program().path)

    done = forked.run([program, "serve", *words, "--agree-tos", "--confdir", tmp_path])

    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
