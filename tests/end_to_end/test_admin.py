"""What the admin API does beyond Kong's: renew, revoke, watch; on one node, on several, and without a storage."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.revocation import COMPROMISED, REASONS
from mitmproxy_acme.store.encryption import RecordCipher
from tests.end_to_end.admin import TOKEN, Api, with_api
from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import StartProxy, default_options
from tests.mitmproxy_acme.fakes import make_certificate
from tests.servers.base import fetch, free_port, started
from tests.servers.chaos import Chaos
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.redis import Redis
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]


class Place:
    """One proxy for most of these tests, its CA behind something that breaks it, and what it stores."""

    def __init__(self, dns: ChallTestSrv, upstream: Upstream, folder: Path, stack: ExitStack) -> None:
        self.ca = stack.enter_context(Pebble(dns))
        self.way = stack.enter_context(Chaos(self.ca.port))
        self.storage: Storage = open_storage(f"file:{folder}", default_folder=folder)
        self.api = Api(free_port())
        options = default_options(self.ca, folder) | {
            "acme_ca": [f"https://localhost:{self.way.port}/dir"],
            "acme_admin_listen": f"127.0.0.1:{self.api.port}",
            "acme_admin_token": "env:T",
            "acme_certificates": ["managed.example.test,second.example.test"],
        }
        self.running = Forked(upstream.url, options, http_port=self.ca.http_port)
        self.running.environment["T"] = TOKEN
        stack.enter_context(self.running)

    def created(self, name: str) -> int:
        """Have a certificate made; return its serial number."""
        assert self.api.create(name).status == 201
        return _serial(self.api.show(name))


@pytest.fixture(scope="module")
def place(dns: ChallTestSrv, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(dns, upstream, tmp_path_factory.mktemp("admin"), stack)


def _serial(shown: Any) -> int:
    return int(shown["serial_number"].replace(":", ""), 16)


def test_renew_orders_a_new_one_at_once(place: Place, fresh_name: FreshName) -> None:
    """The reply has the new certificate, which clients get from then on."""
    name = fresh_name()
    old = place.created(name)

    answer = place.api("POST", f"/acme/certificates/{name}/renew")

    assert answer.status == 200
    assert _serial(answer.document["data"]) != old
    served = handshake(place.running.https_port, name, place.ca.root()).leaf.serial_number
    assert served == _serial(answer.document["data"])


def test_renew_overrides_the_backoff_of_the_name(place: Place, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """A person who has mended what was wrong need not wait; the failure is history then."""
    name, directory = fresh_name(), f"https://localhost:{place.way.port}/dir"
    old = make_certificate([name], now=time.time(), ca=directory)  # the CA has validated no such name, and reuses none
    place.storage.put(f"certificates/{name}", old.to_record())
    dns.set_servfail(name)
    failed = place.api("POST", f"/acme/certificates/{name}/renew")
    assert failed.status == 500
    failure = place.api.show(name)["last_failure"]
    assert (failure["host"], failure["failures"]) == (name, 1)
    dns.clear_servfail(name)

    answer = place.api("POST", f"/acme/certificates/{name}/renew")

    assert answer.status == 200
    assert _serial(answer.document["data"]) != old.leaf.serial_number
    assert answer.document["data"]["last_failure"] is None


def test_renew_overrides_the_backoff_of_the_ca(proxy: StartProxy, pebble: Pebble, fresh_name: FreshName) -> None:
    """A person need not wait until the CA is asked again by itself; while it is down the old certificate stays."""
    name = fresh_name()
    with Chaos(pebble.port) as way:
        running, api = with_api(proxy, acme_ca=[f"https://localhost:{way.port}/dir"])
        assert api.create(name).status == 201
        old = api.show(name)
        running.restart()  # so that it has no connection to the CA
        way.refuse()
        failed = api("POST", f"/acme/certificates/{name}/renew")
        way.heal()

        assert failed.status == 500
        assert api.show(name)["serial_number"] == old["serial_number"]
        assert api("GET", "/acme/status").document["cas"][0]["state"] == "backing_off"

        answer = api("POST", f"/acme/certificates/{name}/renew")

        assert answer.status == 200
        assert api.show(name)["serial_number"] != old["serial_number"]
        assert api("GET", "/acme/status").document["cas"][0]["state"] == "ok"


@pytest.mark.parametrize("reason", REASONS)
def test_delete_revokes_with_the_reason(place: Place, fresh_name: FreshName, reason: str) -> None:
    """The CA has the reason, and the certificate is gone (204), or another is in its place where the key is stolen."""
    name = fresh_name()
    serial = place.created(name)

    answer = place.api("DELETE", f"/acme/certificates/{name}?reason={reason}")

    stolen = reason == COMPROMISED
    assert answer.status == (200 if stolen else 204)
    assert ("replaced by a certificate with a new key" in answer.text) is stolen
    status = place.ca.cert_status(serial)
    assert status["Status"] == "Revoked"
    assert int(status.get("Reason", 0)) == REASONS[reason]
    assert place.api("GET", f"/acme/certificates/{name}").status == (200 if stolen else 404)


def test_delete_without_revoking(place: Place, fresh_name: FreshName) -> None:
    """With reason=none the CA is not asked; an unknown reason is refused before anything is done."""
    name = fresh_name()
    serial = place.created(name)

    refused = place.api("DELETE", f"/acme/certificates/{name}?reason=boredom")
    answer = place.api("DELETE", f"/acme/certificates/{name}?reason=none")

    assert (refused.status, answer.status) == (400, 204)
    assert place.ca.cert_status(serial)["Status"] == "Valid"
    assert place.api("DELETE", f"/acme/certificates/{name}").status == 404


def test_delete_what_is_revoked_already(place: Place, fresh_name: FreshName) -> None:
    """The CA's alreadyRevoked is as good as a revocation."""
    name = fresh_name()
    serial = place.created(name)
    record = place.storage.get(f"certificates/{name}")
    assert record is not None
    assert place.api("DELETE", f"/acme/certificates/{name}").status == 204
    place.storage.put(f"certificates/{name}", record)

    answer = place.api("DELETE", f"/acme/certificates/{name}")

    assert answer.status == 204
    assert place.ca.cert_status(serial)["Status"] == "Revoked"
    assert place.storage.get(f"certificates/{name}") is None


def test_managed_certificate_is_found_by_each_name_and_comes_back(place: Place) -> None:
    """What acme_certificates lists is obtained again as soon as it is deleted."""
    eventually(lambda: place.api("GET", "/acme/certificates/managed.example.test").status == 200)
    shown = place.api.show("second.example.test")
    assert (shown["host"], shown["managed"]) == ("managed.example.test", True)
    assert shown["names"] == ["managed.example.test", "second.example.test"]

    assert place.api("DELETE", "/acme/certificates/second.example.test?reason=superseded").status == 204

    eventually(lambda: place.api("GET", "/acme/certificates/managed.example.test").status == 200)
    assert _serial(place.api.show("managed.example.test")) != _serial(shown)
    assert place.ca.cert_status(_serial(shown))["Status"] == "Revoked"


def test_deletion_is_seen_by_another_node(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """Within ten seconds it serves the old certificate no more, and lists it no more."""
    name = fresh_name()
    _, api = with_api(proxy)
    second, other = with_api(proxy, start=False, acme_on_demand="off")
    second.http_port = free_port()
    second.start()
    assert api.create(name).status == 201
    old = handshake(second.https_port, name, root).leaf
    eventually(lambda: other("GET", f"/acme/certificates?search={name}").document["data"])

    assert api("DELETE", f"/acme/certificates/{name}").status == 204

    eventually(lambda: _served(second, name, root) != old, timeout=10)
    eventually(lambda: not other("GET", f"/acme/certificates?search={name}").document["data"])


def _served(running: Mitmdump, name: str, root: str) -> object:
    try:
        return handshake(running.https_port, name, root).leaf
    except OSError:
        return None


def test_data_node_says_who_does_it(proxy: StartProxy, fresh_name: FreshName) -> None:
    """409 where the CA is needed; what it may, it does: it creates through the control node, lists and deletes."""
    name = fresh_name()
    _, commanding = with_api(proxy, acme_role="control")
    data, api = with_api(proxy, start=False, acme_role="data")
    data.http_port = free_port()
    data.start()

    assert api.create(name).status == 201
    assert commanding.show(name)["serial_number"] == api.show(name)["serial_number"]
    answers = [
        api("PATCH", "/acme"),
        api("POST", f"/acme/certificates/{name}/renew"),
        api("DELETE", f"/acme/certificates/{name}"),
    ]
    assert [answer.status for answer in answers] == [409] * 3
    assert {answer.message for answer in answers} == {
        "this is a data node, which never talks to a CA; ask a control node"
    }
    assert commanding("POST", f"/acme/certificates/{name}/renew").status == 200
    assert commanding("DELETE", f"/acme/certificates/{name}").status == 204
    roles = {node["role"] for node in api("GET", "/acme/status").document["nodes"]}
    assert roles == {"control", "data"}


def test_storage_that_is_down(proxy: StartProxy, fresh_name: FreshName, tmp_path: Path) -> None:
    """503 as a problem document, /health 503, the status tells; all of it ends when the storage is back."""
    name = fresh_name()
    with started(Redis()) as redis:
        _, api = with_api(proxy, acme_storage=f"redis://127.0.0.1:{redis.port}/0")
        assert api.create(name).status == 201
        assert (api("GET", "/health").status, api("GET", f"/acme/certificates/{name}").status) == (200, 200)
        redis.kill()

        answers = [
            api("GET", f"/acme/certificates/{name}"),
            api.create(fresh_name()),
            api("DELETE", f"/acme/certificates/{name}"),
            api("POST", f"/acme/certificates/{name}/renew"),
            api("PATCH", "/acme"),
        ]
        health, status = api("GET", "/health"), api("GET", "/acme/status")
        redis.start()

        assert [answer.status for answer in answers] == [503] * 5
        assert all("Content-Type: application/problem+json" in answer.headers for answer in answers)
        assert (health.status, health.document) == (503, {"status": "storage is down"})
        assert (status.status, status.document["storage"]["state"]) == (200, "down")
        eventually(lambda: api("GET", "/health").status == 200)
        assert api.create(fresh_name()).status == 201


@contextmanager
def _watching(api: Api) -> Iterator[Callable[[], Any]]:
    """Watch the events with curl; yields what reads the next status."""
    command = ["curl", "-q", "-sSN", "--noproxy", "*", "-H", f"Authorization: Bearer {api.token}"]
    with subprocess.Popen([*command, f"{api.url}/acme/events"], stdout=subprocess.PIPE, text=True) as watcher:

        def read() -> Any:
            assert watcher.stdout
            lines = iter(watcher.stdout.readline, "")
            assert "event: status\n" in lines
            return json.loads(next(lines).removeprefix("data: "))

        yield read
        watcher.kill()


def test_events_tell_the_status_whenever_it_changes(place: Place, fresh_name: FreshName) -> None:
    """At once what is, and then what has become of it: no second call is needed."""
    place.created(name := fresh_name())
    hosts = {name, "managed.example.test"}
    eventually(lambda: hosts <= {row["host"] for row in place.api("GET", "/acme/certificates").document["data"]})
    with _watching(place.api) as read:
        first = read()
        place.created(fresh_name())
        seen = read()
        while seen["certificates"]["total"] == first["certificates"]["total"]:
            seen = read()

    assert set(first) == set(place.api("GET", "/acme/status").document)
    assert seen["certificates"]["total"] == first["certificates"]["total"] + 1
    assert seen["certificates"]["revision"] > first["certificates"]["revision"]


def test_events_tell_what_happens(place: Place, fresh_name: FreshName) -> None:
    """With or without the other documents; a word that is none is refused."""
    place.created(name := fresh_name())
    happened = place.api("GET", "/acme/history").document["data"]
    obtained = next(event for event in happened if event["host"] == name)
    assert (obtained["event"], obtained["seconds"] > 0, obtained["reason"]) == ("obtained", True, None)
    command = [
        "curl",
        "-q",
        "-sSN",
        "--noproxy",
        "*",
        "-H",
        f"Authorization: Bearer {place.api.token}",
        "--max-time",
        "1",
    ]
    for query, names in (("", ["status", "history", "traffic"]), ("?only=history", ["history"])):
        read = subprocess.run([*command, f"{place.api.url}/acme/events{query}"], capture_output=True, text=True)
        lines = [line for line in read.stdout.splitlines() if line.startswith("event: ")]
        assert lines[: len(names)] == [f"event: {name}" for name in names]
    assert place.api("GET", "/acme/events?only=status").message.startswith("only is history;")
    assert set(place.api("GET", "/acme/traffic").document) == {"begin_at", "handshakes", "holds"}


def test_more_watchers_than_there_may_be(place: Place) -> None:
    """The 65th is refused; another is admitted as soon as one has gone."""
    with ExitStack() as stack:
        watchers = [stack.enter_context(_watching(place.api)) for _ in range(64)]
        assert all(read()["node"]["self"] for read in watchers)

        refused = place.api("GET", "/acme/events")

        assert refused.status == 503
        assert refused.message == "too many clients watch the status; close some pages"
    with _watching(place.api) as read:
        assert read()["node"]["self"]


def test_records_that_cannot_be_read(place: Place, fresh_name: FreshName) -> None:
    """Broken and sealed ones are listed as such, shown alone, not revoked, and deleted when one insists."""
    broken, sealed = fresh_name(), fresh_name()
    record = make_certificate([sealed]).to_record()
    place.storage.put(f"certificates/{broken}", b"{broken")
    key = f"certificates/{sealed}"
    place.storage.put(key, RecordCipher([Fernet.generate_key().decode()]).seal(key, record))

    shown = [place.api.show(name) for name in (broken, sealed)]
    listed = place.api("GET", "/acme/certificates?state=unreadable").document["data"]

    assert listed == sorted(shown, key=lambda row: str(row["host"]))
    assert [row["state"] for row in shown] == ["unreadable"] * 2
    assert shown[0]["trouble"] == "the record is broken"
    assert "acme_storage_key" in shown[1]["trouble"]
    assert [(row["digest"], row["names"], row["valid"]) for row in shown] == [(None, [], False)] * 2
    assert place.api("DELETE", f"/acme/certificates/{sealed}").status == 500
    created = place.api.create(sealed)
    assert (created.status, created.message.startswith("failed to update certificate: ")) == (500, True)
    assert "acme_storage_key is not set" in created.message
    for name in (broken, sealed):
        assert place.api("DELETE", f"/acme/certificates/{name}?reason=none").status == 204
    assert place.api("GET", "/acme/certificates?state=unreadable").document["data"] == []


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/acme/status", "/acme/certificates", "/"])
def test_head_is_get_without_the_body(place: Place, path: str) -> None:
    """Load balancers and monitors ask so; the headers are those of GET."""
    head, get = place.api("HEAD", path), place.api("GET", path)

    assert (head.status, head.text) == (200, "")
    for name in ("Content-Type", "Content-Security-Policy", "Cache-Control"):
        assert _header(head.headers, name) == _header(get.headers, name) != ""


def _header(headers: str, name: str) -> str:
    return next((line.partition(": ")[2] for line in headers.splitlines() if line.startswith(f"{name}:")), "")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/acme", "PATCH, POST"),
        ("/acme/certificates", "GET, HEAD"),
        ("/acme/certificates/a.example.test", "DELETE, GET, HEAD"),
        ("/acme/certificates/a.example.test/renew", "POST"),
        ("/acme/events", "GET"),
        ("/health", "GET, HEAD"),
    ],
)
def test_other_methods_are_named(place: Place, path: str, allowed: str) -> None:
    """405 lists the methods; OPTIONS is not among them, since other web sites have nothing to ask."""
    for method in ("OPTIONS", "PUT", "TRACE", "BREW"):
        answer = place.api(method, path)
        assert (answer.status, _header(answer.headers, "Allow")) == (405, allowed), method
        assert answer.message == f"this resource does not support the method; it supports {allowed}"


@pytest.mark.parametrize("method", ["GET", "PUT", "TRACE", "BREW"])
def test_other_resources_have_no_method(place: Place, method: str) -> None:
    """404 for every method, and no empty list of methods."""
    answer = place.api(method, "/nothing")

    assert (answer.status, _header(answer.headers, "Allow")) == (404, "")
    assert answer.message == "there is no such resource; /openapi.json lists them"


def test_openapi_document_is_public(place: Place) -> None:
    """It needs no token, and says that the rest does."""
    reply = fetch(f"{place.api.url}/openapi.json")

    assert reply.status == 200
    assert json.loads(reply.body)["security"] == [{"token": []}]
    assert fetch(f"{place.api.url}/acme/status").status == 401
