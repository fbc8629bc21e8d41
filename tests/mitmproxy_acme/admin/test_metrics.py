"""Metrics: what moves them, what bounds them, and that Prometheus' own tool has nothing to say against the text."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from mitmproxy.test import taddons
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin.certificate_rows import CertificateDetails, CertificateRow
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.admin.metrics import Exposition, Metrics
from mitmproxy_acme.admin.node_state import ClusterState, NodeStateReader
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import IssuerUnavailable, Problem, RateLimited
from mitmproxy_acme.core.events import CertificateExpiring, CertificateObtained, CertificateRemoved
from mitmproxy_acme.core.instrumentation import Handshake, Instrumentation
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limit, Limits
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm.addon import AcmeAddon
from mitmproxy_acme.store.instrumented import InstrumentedStorage
from mitmproxy_acme.store.nodes import Node
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, Clock, FakeIssuer, make_certificate
from tests.servers.promtool import promtool

CA = "letsencrypt"
A = ServerName("a.example.test")

type Samples = dict[str, float]


def read(exposition: Exposition) -> Samples:
    """Return the samples by name and labels, without the prefix."""
    lines = (line.rpartition(" ") for line in exposition.body.decode().splitlines() if not line.startswith("#"))
    return {name.removeprefix("mitmproxy_acme_"): float(value) for name, _, value in lines}


async def scrape(
    metrics: Metrics,
    manager: Manager,
    inventory: Inventory | None = None,
    reader: NodeStateReader | None = None,
) -> Samples:
    return read(await exposed(metrics, manager, inventory, reader))


async def exposed(
    metrics: Metrics,
    manager: Manager,
    inventory: Inventory | None = None,
    reader: NodeStateReader | None = None,
    *,
    accept: str = "",
) -> Exposition:
    reader = reader or NodeStateReader(manager, inventory or Inventory(manager))
    return await metrics.exposition(await reader.read(), manager.threads, accept=accept)


def moved(before: Samples, after: Samples) -> Samples:
    """Return by how much counters and sums moved; of the process's own nothing."""
    changes = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return {
        name: by for name, by in changes.items() if by and not name.startswith("process_") and "_bucket" not in name
    }


def rows_of(count: int, first: str = "n") -> dict[ServerName, CertificateRow]:
    """Make so many rows; each tenth expired, each eleventh cannot be read."""
    made = {}
    for number in range(count):
        id = ServerName(f"{first}{number:06}.example.test")
        end = EPOCH + (-DAY if number % 10 == 0 else 60 * DAY + number)
        facts = CertificateDetails(
            (id,), CA, "R11", end - 90 * DAY, end, end - 30 * DAY, number, b"", b"", "ecdsa-p256"
        )
        made[id] = CertificateRow(id, facts if number % 11 else None)
    return made


def filled(manager: Manager, rows: dict[ServerName, CertificateRow]) -> Inventory:
    """Return an inventory that has read these rows: how it reads is another test's."""
    inventory = Inventory(manager)
    inventory._rows = rows
    inventory._all_read.set()
    return inventory


MOVES: dict[str, list[tuple[Callable[[Metrics], None], Samples]]] = {
    "cache": [
        (lambda m: m.cache(hit=True), {'cache_requests_total{result="hit"}': 1}),
        (lambda m: m.cache(hit=False), {'cache_requests_total{result="miss"}': 1}),
    ],
    "handshake": [
        (lambda m, r=result: m.handshake(r), {f'handshakes_total{{result="{result}"}}': 1})  # type: ignore[misc]  # a default binds it
        for result in get_args(Handshake.__value__)
    ],
    "held": [
        (lambda m: m.held(0.5), {"handshake_hold_seconds_count": 1, "handshake_hold_seconds_sum": 0.5}),
    ],
    "order": [
        (
            lambda m: m.order(CA, 2.5, None),
            {
                f'orders_total{{ca="{CA}",result="success"}}': 1,
                f'order_duration_seconds_count{{ca="{CA}"}}': 1,
                f'order_duration_seconds_sum{{ca="{CA}"}}': 2.5,
            },
        ),
        (
            lambda m: m.order(CA, 0.5, RateLimited("too many", problem=Problem("rateLimited"))),
            {
                f'orders_total{{ca="{CA}",result="failure"}}': 1,
                f'order_failures_total{{ca="{CA}",error="rateLimited"}}': 1,
                f'order_duration_seconds_count{{ca="{CA}"}}': 1,
                f'order_duration_seconds_sum{{ca="{CA}"}}': 0.5,
            },
        ),
        (
            lambda m: m.order(CA, 0.25, IssuerUnavailable("gone")),
            {
                f'orders_total{{ca="{CA}",result="failure"}}': 1,
                f'order_failures_total{{ca="{CA}",error="issuer_unavailable"}}': 1,
                f'order_duration_seconds_count{{ca="{CA}"}}': 1,
                f'order_duration_seconds_sum{{ca="{CA}"}}': 0.25,
            },
        ),
    ],
    "lease_wait": [(lambda m: m.lease_wait(1.5), {"lease_wait_seconds_count": 1, "lease_wait_seconds_sum": 1.5})],
    "challenge": [
        (lambda m: m.challenge(known=True), {'challenges_total{result="answered"}': 1}),
        (lambda m: m.challenge(known=False), {'challenges_total{result="unknown"}': 1}),
    ],
    "storage": [
        (
            lambda m: m.storage("swap", 0.25, failed=False),
            {
                'storage_operation_duration_seconds_count{operation="swap"}': 1,
                'storage_operation_duration_seconds_sum{operation="swap"}': 0.25,
            },
        ),
        (
            lambda m: m.storage("get", 2.0, failed=True),
            {
                'storage_operation_duration_seconds_count{operation="get"}': 1,
                'storage_operation_duration_seconds_sum{operation="get"}': 2.0,
                'storage_errors_total{operation="get"}': 1,
            },
        ),
    ],
}


@pytest.mark.parametrize(("call", "expected"), [case for cases in MOVES.values() for case in cases])
async def test_each_measure_moves_what_it_should_and_nothing_else(
    make_manager: MakeManager, call: Callable[[Metrics], None], expected: Samples
) -> None:
    """One call, and the difference between two scrapes is what it says."""
    metrics, manager = Metrics(), make_manager()
    before = await scrape(metrics, manager)
    call(metrics)
    assert moved(before, await scrape(metrics, manager)) == expected


def test_no_measure_is_forgotten() -> None:
    """Every method of ``Instrumentation`` is overridden here, and has a case above."""
    methods = {name for name in vars(Instrumentation) if not name.startswith("_")}
    assert methods <= vars(Metrics).keys()
    assert methods == MOVES.keys()


async def test_what_happens_to_certificates_is_counted(
    make_manager: MakeManager, clock: Clock, issuer: FakeIssuer
) -> None:
    """A first order, a renewal, a revocation and a deletion of a real manager; and a warning."""
    metrics, manager = Metrics(), make_manager()
    manager.events.subscribe(metrics.happened)
    before = await scrape(metrics, manager)
    subject = Subject((A,))

    await manager.obtain(subject)
    await manager.renew(subject)
    await manager.revoke(A, "superseded")
    await manager.delete(A)
    metrics.happened(CertificateExpiring(subject, make_certificate([A]), "no", "node"))
    metrics.happened(CertificateRemoved(A, "invented", "node"))

    found = moved(before, await scrape(metrics, manager))
    assert found == {
        'certificates_obtained_total{ca="fake-ca",kind="first"}': 1,
        'certificates_obtained_total{ca="fake-ca",kind="renewal"}': 1,
        'certificates_removed_total{revocation="superseded"}': 1,
        'certificates_removed_total{revocation="none"}': 1,
        'certificates_removed_total{revocation="other"}': 1,
        "expiring_warnings_total": 1,
    }


async def test_gauges_tell_what_is_there(make_manager: MakeManager, clock: Clock, issuer: FakeIssuer) -> None:
    """What is stored, managed, failing, in memory and up is read at the scrape."""
    metrics = Metrics()
    manager = make_manager(acme_certificates=("m.example.test,www.m.example.test", "lost.example.test"))
    await manager.obtain(Subject((ServerName("m.example.test"), ServerName("www.m.example.test")), managed=True))
    issuer.error = RateLimited("too many", retry_after=60.0)
    with pytest.raises(RateLimited):
        await manager.obtain(Subject((A,)))
    manager.nodes.heartbeat(Node("c1", "control", "1", "host", clock()), clock())
    manager.nodes.heartbeat(manager.node, clock())
    inventory = Inventory(manager)
    before = await scrape(metrics, manager, inventory)
    assert "managed_certificates_missing" not in before, "what was not read yet is not missing"
    assert before["inventory_complete"] == 0
    await inventory._read_all()

    found = await scrape(metrics, manager, inventory)

    end = make_certificate(["x.test"], now=EPOCH).not_after
    me = manager.node
    expected = {
        f'build_info{{node="{me.id}",role="standalone",version="{me.version}"}}': 1,
        'certificates{state="valid"}': 1,
        'certificates{state="expired"}': 0,
        "earliest_not_after_timestamp_seconds": end,
        "earliest_renewal_timestamp_seconds": end - 30 * DAY,
        'certificate_not_after_timestamp_seconds{host="m.example.test"}': end,
        'certificate_renewal_timestamp_seconds{host="m.example.test"}': end - 30 * DAY,
        "managed_certificates_missing": 1,
        "inventory_complete": 1,
        "names_failing": 1,
        "orders_in_progress": 0,
        'ca_backing_off{ca="fake-ca"}': 0,
        "cache_entries": 2,
        "cache_limit_entries": 10_000,
        "storage_up": 1,
        'nodes{role="control"}': 1,
        'nodes{role="standalone"}': 1,
        'nodes{role="data"}': 0,
    }
    assert {name: found.get(name) for name in expected} == expected


async def test_a_ca_that_fails_is_no_name_that_fails(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """The CA's backoff is the CA's, and a data node, which knows no CA, says nothing of one."""
    metrics, manager = Metrics(), make_manager()
    issuer.error = IssuerUnavailable("gone")
    with pytest.raises(IssuerUnavailable):
        await manager.obtain(Subject((A,)))
    found = await scrape(metrics, manager)
    assert found['ca_backing_off{ca="fake-ca"}'] == 1
    assert found["names_failing"] == 0
    data = await scrape(metrics, make_manager(acme_role="data", acme_storage="file:"))
    assert [name for name in data if name.startswith("ca_")] == []


async def test_orders_under_way_are_seen(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """An order that has not ended is in progress."""
    metrics, manager, go = Metrics(), make_manager(), asyncio.Event()
    obtain = issuer.obtain

    async def held_up(*args: object) -> object:
        await go.wait()
        return await obtain(*args)  # type: ignore[arg-type]

    issuer.obtain = held_up  # type: ignore[method-assign, assignment]
    order = asyncio.ensure_future(manager.obtain(Subject((A,))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await scrape(metrics, manager))["orders_in_progress"] == 1
    go.set()
    await order
    assert (await scrape(metrics, manager))["orders_in_progress"] == 0


async def test_budget_is_shown_where_least_is_left(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Of many domains the one with the least left, by no label that strangers invent; without limits there are none."""
    metrics = Metrics()
    assert not [name for name in await scrape(metrics, make_manager()) if "budget" in name]
    issuer.limits = Limits(certificates_per_domain=Limit(50, DAY))
    manager = make_manager(acme_domains=("re:.*",))
    for number, certificates in enumerate((10, 43, 1)):
        for _ in range(certificates):
            manager.cas[0].budgets.count_certificate((ServerName(f"a.domain{number}.test"),))
    found = {name: value for name, value in (await scrape(metrics, manager)).items() if "budget" in name}
    labels = '{ca="fake-ca",limit="certificates_per_domain"}'
    assert found == {f"ca_budget_left{labels}": 7, f"ca_budget_capacity{labels}": 50}


async def test_junk_makes_no_series(make_manager: MakeManager) -> None:
    """What strangers and CAs invent (names, problem types, operations) moves what is there, and adds no label."""
    metrics = Metrics()
    manager = make_manager(acme_certificates=tuple(f"m{number}.example.test" for number in range(1_200)))
    manager.nodes.heartbeat(Node("x", "invented", "1", "host", EPOCH), EPOCH)
    metrics.order(CA, 1.0, IssuerUnavailable("junk"))
    metrics.order(CA, 1.0, None)
    managed = {row.id: row for row in (replace(r, id=s.id) for r, s in _managed_rows(manager))}
    inventory = filled(manager, managed)
    before = await scrape(metrics, manager, inventory)

    for number in range(500):
        metrics.order(CA, 1.0, IssuerUnavailable("junk", problem=Problem(f"invented{number}")))
        metrics.storage(f"invented{number}", 0.1, failed=True)
        metrics.happened(CertificateRemoved(ServerName(f"x{number}.test"), f"invented{number}", "node"))
        certificate_of_a_stranger = Subject((ServerName(f"x{number}.example.test"),))
        metrics.happened(CertificateObtained(certificate_of_a_stranger, _CERTIFICATE, CA, 1.0, True, "node"))
    strangers = filled(manager, managed | rows_of(500))
    after = await scrape(metrics, manager, strangers)

    assert after.keys() - before.keys() == {
        'certificates_removed_total{revocation="other"}',
        f'certificates_obtained_total{{ca="{CA}",kind="renewal"}}',
    }
    assert len([name for name in after if "host=" in name]) == 2 * 1_000
    assert "invented" not in " ".join(after)


_CERTIFICATE = make_certificate(["any.test"])


def _managed_rows(manager: Manager) -> list[tuple[CertificateRow, Subject]]:
    rows = [row for row in rows_of(1_400).values() if row.details is not None]
    return list(zip(rows, manager.config.managed, strict=False))


@pytest.fixture
def busy(make_manager: MakeManager) -> tuple[Metrics, Manager, Inventory]:
    """Metrics of which every one has moved, with 10,000 certificates stored."""
    manager = make_manager()
    return lively(), manager, filled(manager, rows_of(10_000))


def lively() -> Metrics:
    """Return metrics of which every one has moved."""
    metrics = Metrics()
    for call, _ in (case for cases in MOVES.values() for case in cases):
        call(metrics)
    metrics.happened(CertificateExpiring(Subject((A,)), _CERTIFICATE, "no", "node"))
    metrics.happened(CertificateRemoved(A, None, "node"))
    metrics.happened(CertificateObtained(Subject((A,)), _CERTIFICATE, CA, 1.0, False, "node"))
    return metrics


async def test_prometheus_itself_finds_nothing_to_say(busy: tuple[Metrics, Manager, Inventory]) -> None:
    """``promtool check metrics`` reads the text of 10,000 certificates, and has no advice on names and helps."""
    metrics, manager, inventory = busy
    exposition = await exposed(metrics, manager, inventory)
    assert len(exposition.body) < 40_000, "it does not grow with what is stored"
    counts = {name: value for name, value in read(exposition).items() if name.startswith("certificates{")}
    assert sum(counts.values()) == 10_000
    assert counts['certificates{state="unreadable"}'] == 910
    said = promtool("check", "metrics", stdin=exposition.body)
    assert said == "", said  # what is only advice is said as well


@pytest.mark.parametrize("parse", [parse_text, parse_openmetrics])
async def test_the_reader_chooses_between_two_formats(
    busy: tuple[Metrics, Manager, Inventory], parse: Callable[[str], Sequence[object]]
) -> None:
    """The content type is what the Accept header prefers, and the body is in that format."""
    metrics, manager, inventory = busy
    openmetrics = parse is parse_openmetrics
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5" if openmetrics else "*/*"
    exposition = await exposed(metrics, manager, inventory, accept=accept)
    assert exposition.content_type.startswith(
        "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
    )
    assert len(list(parse(exposition.body.decode()))) > 25


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=abc", "text/plain;version=;", ";;,,", "é"])
async def test_an_odd_accept_header_gets_text(make_manager: MakeManager, accept: str) -> None:
    """Every header gets a reply."""
    manager = make_manager()
    exposition = await exposed(Metrics(), manager, accept=accept)
    assert exposition.content_type.startswith("text/plain")
    assert read(exposition)["storage_up"] == 1


class Failing(Memory):
    """A store that can go down, with an error that quotes its address."""

    down = False

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        if self.down:
            raise StorageUnavailable("the server is gone: redis://:hunter2@127.0.0.1")
        return super().keys(prefix, after=after, limit=limit)


async def test_a_storage_that_is_down_is_what_the_scrape_says(clock: Clock, issuer: FakeIssuer) -> None:
    """A scrape answers all the same, says so, and shows the nodes of before; then they are there again."""
    metrics, storage = Metrics(), Failing(now=clock)
    config = Config.from_options({"acme_domains": ("**.test",), "acme_tos_accepted": True})
    manager = Manager(config, InstrumentedStorage(storage, metrics), measures=metrics, issuers=(issuer,), now=clock)  # type: ignore[arg-type]
    reader = NodeStateReader(manager, filled(manager, rows_of(3)))
    manager.nodes.heartbeat(Node("c1", "control", "1", "host", clock()), clock())
    assert (await scrape(metrics, manager, None, reader))['nodes{role="control"}'] == 1

    storage.down = True
    clock.advance(3)
    found = await scrape(metrics, manager, None, reader)
    assert found["storage_up"] == 0
    assert found['nodes{role="control"}'] == 1
    assert found['storage_errors_total{operation="keys"}'] == 1
    assert sum(value for name, value in found.items() if name.startswith("certificates{")) == 3

    storage.down = False
    assert await manager.health.check()
    assert (await scrape(metrics, manager, None, reader))["storage_up"] == 1
    await manager.close()


async def test_a_silent_storage_holds_up_no_scrape(make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the storage says nothing the scrape gives the nodes that it knows, and scrapes share one question."""
    monkeypatch.setattr("mitmproxy_acme.admin.node_state._WITHIN", 0.01)
    metrics, manager, asked, go = Metrics(), make_manager(), [], asyncio.Event()

    async def silent(*args: object) -> ClusterState:
        asked.append(args)
        await go.wait()
        return ClusterState((manager.node, Node("c1", "control", "1", "host", EPOCH)), {}, {}, {})

    reader, storage = NodeStateReader(manager, Inventory(manager)), manager.threads.storage
    manager.threads.storage = silent  # type: ignore[method-assign, assignment]
    for _ in range(3):
        assert (await scrape(metrics, manager, None, reader))['nodes{role="standalone"}'] == 1
    assert len(asked) == 1
    go.set()
    assert (await scrape(metrics, manager, None, reader))['nodes{role="control"}'] == 1
    manager.threads.storage = storage  # type: ignore[method-assign]


async def test_no_secret_is_in_the_text(clock: Clock, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither tokens nor passwords of the options, nor what errors quote."""
    secrets = {
        "TOKEN": "0123456789abcdef-token",
        "PASSWORD": "hunter2",
        "HOOK": "webhook-secret",
        "MAC": "c2VjcmV0LW1hYw",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    config = Config.from_options(
        {
            "acme_domains": ("**.test",),
            "acme_tos_accepted": True,
            "acme_admin_listen": "127.0.0.1:8008",
            "acme_admin_token": "env:TOKEN",
            "acme_webhook": "http://127.0.0.1/hook",
            "acme_webhook_secret": "env:HOOK",
            "acme_storage": "redis://:hunter2@127.0.0.1:1/0",
            "acme_eab_kid": "kid",
            "acme_eab_hmac_key": "env:MAC",
        }
    )
    metrics, storage = Metrics(), Failing(now=clock)
    storage.down = True
    manager = Manager(config, InstrumentedStorage(storage, metrics), measures=metrics, issuers=(issuer,), now=clock)  # type: ignore[arg-type]
    metrics.order(CA, 1.0, IssuerUnavailable("hunter2 was wrong", problem=Problem("hunter2")))
    text = (await exposed(metrics, manager, filled(manager, rows_of(3)))).body.decode()
    assert "storage_up 0" in text
    assert not [secret for secret in secrets.values() if secret in text]
    await manager.close()


async def test_counters_outlive_a_changed_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addon has one ``Metrics``, which measures while the admin API is on and only then."""
    given: list[Instrumentation] = []
    make = Manager.__init__

    def noted(
        self: Manager, config: Config, storage: InstrumentedStorage, *, measures: Instrumentation, **others: Any
    ) -> None:
        given.append(measures)
        make(self, config, storage, measures=measures, **others)

    monkeypatch.setattr(Manager, "__init__", noted)
    addon = AcmeAddon()
    active = {"acme_domains": ["a.test"], "acme_tos_accepted": True, "acme_storage": "memory:test_metrics"}
    with taddons.context(addon) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        tctx.configure(addon, **active)
        tctx.configure(addon, acme_admin_listen="127.0.0.1:8008", acme_admin_token="a-token-of-the-test")
        tctx.configure(addon, acme_cache_size=100)
        assert addon._runtime is not None
        assert metrics_of(given[1]).happened in addon._runtime.manager.events._listeners
        addon.done()
    assert [type(measures) for measures in given] == [Instrumentation, Metrics, Metrics]
    assert given[1] is given[2]


def metrics_of(measures: Instrumentation) -> Metrics:
    assert isinstance(measures, Metrics)
    return measures


async def test_every_help_is_a_sentence(busy: tuple[Metrics, Manager, Inventory]) -> None:
    """Each metric of ours has a help text that ends as a sentence does."""
    metrics, manager, inventory = busy
    text = (await exposed(metrics, manager, inventory)).body.decode()
    helps = dict(re.findall(r"^# HELP (mitmproxy_acme_\w+) (.*)$", text, re.MULTILINE))
    assert len(helps) > 25
    assert {name: said for name, said in helps.items() if not re.fullmatch(r"[A-Z].{20,}\.", said)} == {}
