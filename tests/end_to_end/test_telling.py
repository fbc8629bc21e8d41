"""What an operator is told from a running proxy: log lines, webhook, deploy hook, and what the flow list shows."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dns import message, query, rcode
from mitmproxy import http
from mitmproxy.dns import DNSFlow
from mitmproxy.flow import Flow
from mitmproxy.io import FlowReader

from acme_storage import Storage
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.store.store import Store
from tests.end_to_end.client import eventually, get, handshake, pem, untrusted
from tests.end_to_end.conftest import StartProxy, default_options
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import fetch, free_port
from tests.servers.forked import ForkedWeb
from tests.servers.listener import Listener
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_CHALLENGE = "/.well-known/acme-challenge/"
_ZONE = "acme.example.test"


def test_json_has_a_line_for_each_change_of_state(
    proxy: StartProxy, dns: ChallTestSrv, root: str, fresh_name: FreshName
) -> None:
    """A certificate that came and one that did not are an object each, with name, node, CA and duration."""
    good, bad = fresh_name(), fresh_name()
    dns.set_servfail(bad)
    running = proxy(acme_log_format="json")
    handshake(running.https_port, good, root)
    untrusted(running.https_port, bad)
    eventually(lambda: _events(running, "certificate_failed"))
    (obtained,), (failed,) = _events(running, "certificate_obtained"), _events(running, "certificate_failed")
    assert (obtained["name"], failed["name"]) == (good, bad)
    assert obtained["node"] == failed["node"]
    assert obtained["ca"] == failed["ca"]
    assert obtained["seconds"] > 0
    assert failed["seconds"] > 0
    assert (failed["level"], failed["failures"]) == ("warning", 1)
    assert obtained["message"].startswith(f"{good}: certificate by ")
    assert any("server connect" in line or "client connect" in line for line in _plain(running))


def test_json_says_whose_what_is_told_elsewhere_is(
    proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """What the deploy hook prints, its failure and the webhook's are found by name and node, as a certificate is."""
    name, hook = fresh_name(), tmp_path / "hook"
    hook.write_text("#!/bin/sh\necho no such server; exit 1")
    hook.chmod(0o700)
    with Listener(503) as listener:
        running = proxy(acme_log_format="json", acme_webhook=listener.url, acme_deploy_hook=str(hook))
        handshake(running.https_port, name, root)
        eventually(lambda: _events(running, "deploy_failed") and _events(running, "webhook_down"))
        running.stop()
    (obtained,), (down,) = _events(running, "certificate_obtained"), _events(running, "webhook_down")
    (printed,) = _events(running, "deploy_output")
    assert printed["message"] == f"{name}: deploy hook: no such server"
    for line in (printed, *_events(running, "deploy_failed"), *_events(running, "webhook_lost")):
        assert (line["name"], line["node"]) == (name, obtained["node"])
    assert (down["node"], down["reason"]) == (obtained["node"], "it replies 503")


def test_text_says_the_same(proxy: StartProxy, dns: ChallTestSrv, root: str, fresh_name: FreshName) -> None:
    """Without the option the lines are mitmproxy's, and a person finds name, node, CA and duration in them."""
    good, bad = fresh_name(), fresh_name()
    dns.set_servfail(bad)
    running = proxy()
    handshake(running.https_port, good, root)
    untrusted(running.https_port, bad)
    eventually(lambda: f"{bad}: no certificate: " in running.log_text())
    (obtained,) = [line for line in running.log_text().splitlines() if f"{good}: certificate by" in line]
    (failed,) = [line for line in running.log_text().splitlines() if f"{bad}: no certificate" in line]
    for line in (obtained, failed):
        assert line.startswith("[")
        assert " s" in line
        assert "(node " in line or ", node " in line
    assert not _lines(running)


@pytest.mark.parametrize("hide", [True, False], ids=["hidden", "shown"])
def test_answered_challenges_are_shown_or_nowhere(
    proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path, hide: bool
) -> None:
    """In mitmdump's log and in saved flows; an unknown token's 404 and all other traffic are there either way."""
    name, saved = fresh_name(), tmp_path / "flows"
    running = proxy(start=False, acme_hide_challenges=hide, save_stream_file=str(saved), flow_detail=2)
    running.start()
    assert "hello" in get(running.https_port, name, root)
    assert fetch(f"http://127.0.0.1:{running.http_port}{_CHALLENGE}unknown").status == 404
    eventually(lambda: f"{_CHALLENGE}unknown" in running.log_text())
    running.stop()

    log, flows = running.log_text(), _flows(saved)
    answered = [flow for flow in flows if flow.response and flow.response.status_code == 200 and _is_challenge(flow)]
    assert bool(answered) is not hide
    assert bool(re.findall(rf"{_CHALLENGE}[\w-]{{22,}}", log)) is not hide
    assert {flow.comment for flow in answered} <= {"ACME http-01 challenge"}
    assert {flow.marked for flow in answered} <= {":closed_lock_with_key:"}
    assert [flow for flow in flows if flow.request.path == f"{_CHALLENGE}unknown"]
    assert [flow for flow in flows if flow.request.path == "/"]
    assert "Addon error" not in log


@pytest.mark.parametrize("hide", [True, False], ids=["hidden", "shown"])
@pytest.mark.parametrize("mode", ["dns", "reverse:dns://127.0.0.1:9"], ids=["dns", "reverse"])
def test_answered_challenges_in_dns_are_shown_or_nowhere(
    proxy: StartProxy, store: Storage, tmp_path: Path, hide: bool, mode: str
) -> None:
    """The same by DNS: a query without a record is listed and marked, and other queries are listed as they are."""
    port, saved = free_port(), tmp_path / "flows"
    running = proxy(
        start=False,
        dns_port=port,
        acme_hide_challenges=hide,
        acme_challenges=["dns-01"],
        acme_dns_zone=_ZONE,
        save_stream_file=str(saved),
    )
    running.dns_mode = mode
    running.start()
    Store(store, UNSEALED).put_proof(Proof("dns-01", "_acme-challenge.a.example.test", "the-value"))
    for ask in (query.udp, query.tcp):
        (answer,) = ask(message.make_query(f"a.example.test.{_ZONE}", "TXT"), "127.0.0.1", 5, port).answer
        assert answer[0].to_text() == '"the-value"'
    for name, type in ((f"b.example.test.{_ZONE}", "TXT"), (_ZONE, "SOA")):
        query.udp(message.make_query(name, type), "127.0.0.1", 5, port)
    eventually(lambda: "DNS QUERY (SOA)" in running.log_text())
    running.stop()

    log = running.log_text()
    comments = [flow.comment for flow in _read(saved) if isinstance(flow, DNSFlow) and flow.marked]
    assert comments.count("ACME challenge in DNS") == (0 if hide else 2)
    assert comments.count("ACME challenge in DNS without a record") == 1
    assert [flow for flow in _read(saved) if isinstance(flow, DNSFlow) and not flow.marked]
    assert ("the-value" in log) is not hide
    assert f"b.example.test.{_ZONE}" in log
    assert "Addon error" not in log


def test_message_without_a_question_is_not_shown(proxy: StartProxy) -> None:
    """It is answered; what shows flows in mitmproxy takes it for granted that there is one (seen: IndexError)."""
    port = free_port()
    running = proxy(dns_port=port, acme_challenges=["dns-01"], acme_dns_zone=_ZONE)
    empty = message.Message()
    assert query.udp(empty, "127.0.0.1", 5, port).rcode() == rcode.FORMERR
    query.udp(message.make_query(_ZONE, "SOA"), "127.0.0.1", 5, port)
    eventually(lambda: "DNS QUERY (SOA)" in running.log_text())
    assert "Addon error" not in running.log_text()


@pytest.mark.parametrize("hide", [True, False], ids=["hidden", "shown"])
def test_mitmweb_shows_answered_challenges_or_not(
    pebble: Pebble, upstream: Upstream, root: str, fresh_name: FreshName, tmp_path: Path, hide: bool
) -> None:
    """Its flow list has the marked challenge, or nothing of it; a visitor's request is there either way."""
    options = default_options(pebble, tmp_path / "store") | {"acme_hide_challenges": hide}
    with ForkedWeb(upstream.url, options, http_port=pebble.http_port) as web:
        assert "hello" in get(web.https_port, fresh_name(), root)
        eventually(lambda: any(flow["request"]["path"] == "/" for flow in web.flows()))
        answered = [flow for flow in web.flows() if flow["comment"] == "ACME http-01 challenge"]
        assert bool(answered) is not hide
        assert {flow["marked"] for flow in answered} <= {"🔐"}


def test_webhook_is_told_at_the_end_of_the_process(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """A message that waits for its next attempt is tried once more before mitmdump ends."""
    name = fresh_name()
    with Listener(503) as listener:
        running = proxy(acme_webhook=listener.url, acme_webhook_secret="a-secret-for-tests")
        handshake(running.https_port, name, root)
        eventually(lambda: len(listener.received) >= 1)
        listener.answer_from_now_on(200)
        running.stop()
        last = listener.received[-1]
    document = json.loads(last.body)
    assert (document["event"], document["certificate"]["host"]) == ("certificate_obtained", name)
    assert last.headers["webhook-signature"].startswith("v1,")
    assert "was not delivered" not in running.log_text()
    assert listener.url not in running.log_text()


def test_deploy_hook_has_what_is_served(proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path) -> None:
    """The script is given the certificate that the client saw, and its folder is gone when it has ended."""
    name, hook = fresh_name(), tmp_path / "hook"
    hook.write_text(
        f'#!/bin/sh\ncat "$ACME_CERT_FILE" > {tmp_path}/cert && echo "$RENEWED_LINEAGE" && cat "$ACME_KEY_FILE"'
    )
    hook.chmod(0o700)
    running = proxy(acme_deploy_hook=str(hook))
    served = handshake(running.https_port, name, root)
    eventually(lambda: f"{name}: the deploy hook succeeded in" in running.log_text())
    assert (tmp_path / "cert").read_text() == pem(served.leaf)
    (folder,) = [line.rpartition(" ")[2] for line in running.log_text().splitlines() if "acme-deploy-" in line]
    assert not os.path.exists(folder)
    assert "PRIVATE KEY" not in running.log_text()


def _with_hook(proxy: StartProxy, folder: Path, script: str) -> tuple[Mitmdump, Path]:
    """Start a proxy with a script as its hook; return it, and a temporary folder of its own."""
    hook, temporary = folder / "hook", folder / "tmp"
    temporary.mkdir()
    hook.write_text(f"#!/bin/sh\n{script}")
    hook.chmod(0o700)
    running = proxy(start=False, acme_deploy_hook=str(hook))
    running.environment["TMPDIR"] = str(temporary)
    return running.start(), temporary


def test_deploy_hook_ends_with_the_process(proxy: StartProxy, fresh_name: FreshName, root: str, tmp_path: Path) -> None:
    """A script that hangs is ended when mitmdump is, with what it started, and leaves no key."""
    running, temporary = _with_hook(proxy, tmp_path, f"sleep 600 &\necho $! > {tmp_path}/pid; wait")
    handshake(running.https_port, fresh_name(), root)
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    assert os.listdir(temporary) != []
    running.stop()
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text())
    assert os.listdir(temporary) == []


def test_keys_that_a_killed_process_left_are_removed_by_the_next(
    proxy: StartProxy, fresh_name: FreshName, root: str, tmp_path: Path
) -> None:
    """But not while the script, which outlived it, still needs them."""
    script = f"cd {tmp_path}; touch begun; until [ -e go ]; do sleep 0.02; done; cp $ACME_KEY_FILE key; touch ended"
    running, temporary = _with_hook(proxy, tmp_path, script)
    handshake(running.https_port, fresh_name(), root)
    eventually((tmp_path / "begun").exists)
    running.kill()
    (left,) = temporary.iterdir()
    another = temporary / "mitmproxy-acme-deploy-another"
    another.mkdir()

    running.start()
    eventually(lambda: not another.exists())
    assert list(temporary.iterdir()) == [left]
    (tmp_path / "go").touch()
    eventually((tmp_path / "ended").exists)
    assert "PRIVATE KEY" in (tmp_path / "key").read_text()
    running.stop()
    running.start()
    eventually(lambda: not left.exists())


def _lines(running: Mitmdump) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.log_text().splitlines() if line.startswith("{")]


def _plain(running: Mitmdump) -> Iterator[str]:
    return (line for line in running.log_text().splitlines() if line.startswith("["))


def _events(running: Mitmdump, event: str) -> list[dict[str, Any]]:
    return [line for line in _lines(running) if line.get("event") == event]


def _flows(path: Path) -> list[http.HTTPFlow]:
    return [flow for flow in _read(path) if isinstance(flow, http.HTTPFlow)]


def _read(path: Path) -> list[Flow]:
    with path.open("rb") as file:
        return list(FlowReader(file).stream())


def _is_challenge(flow: http.HTTPFlow) -> bool:
    return flow.request.path.startswith(_CHALLENGE)
