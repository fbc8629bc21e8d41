"""The status of one node and its cluster, field by field."""

import asyncio
import json
import threading
from collections.abc import Callable

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin import documents, node_state
from mitmproxy_acme.admin.documents import Document, timestamp
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.admin.node_state import NodeStateReader
from mitmproxy_acme.admin.status import describe_status
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import ChallengeFailed, IssuanceError, IssuerUnavailable
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limit, LimitKind
from mitmproxy_acme.core.renewal import DAY, RenewalInfo
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.keys import name_scope, revocation_scope
from mitmproxy_acme.store.nodes import Node
from mitmproxy_acme.store.rate_limiter import Remaining
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, Clock, FakeIssuer, make_certificate

_A, _B = ServerName("a.example.test"), ServerName("b.example.test")


@pytest.fixture
def manager(make_manager: MakeManager) -> Manager:
    return make_manager()


@pytest.fixture
def inventory(manager: Manager) -> Inventory:
    return Inventory(manager)


class Status:
    """The document of a node, read at each call."""

    def __init__(self, manager: Manager, inventory: Inventory) -> None:
        self.reader = NodeStateReader(manager, inventory)

    async def __call__(self) -> Document:
        return describe_status(await self.reader.read())


@pytest.fixture
def status(manager: Manager, inventory: Inventory) -> Status:
    return Status(manager, inventory)


async def test_nodes(manager: Manager, status: Status, clock: Clock) -> None:
    """Only this node before any has reported, then all that are up; one is marked as this one."""
    assert [node["self"] for node in (await status())["nodes"]] == [True]
    for node in (manager.node, Node("zz", "data", "1.0", "other", EPOCH)):
        manager.nodes.heartbeat(node, EPOCH)
    clock.advance(3)

    document = await status()

    assert [(node["id"], node["role"], node["self"]) for node in document["nodes"]] == [
        (manager.node.id, manager.node.role, True),
        ("zz", "data", False),
    ]
    assert document["node"]["id"] == manager.node.id


async def test_certificates_are_counted(memory: Memory, inventory: Inventory, status: Status) -> None:
    """By state, with the soonest times; complete when all that is stored has been read."""
    memory.put(f"certificates/{_A}", make_certificate([_A]).to_record())
    assert (await status())["certificates"]["complete"] is False

    await inventory._read_all()

    counted = (await status())["certificates"]
    assert (counted["total"], counted["valid"], counted["expired"], counted["complete"]) == (1, 1, 0, True)
    assert counted["soonest_expiry_at"] == "2027-04-15T08:00:00Z"


async def test_certificates_are_counted_by_the_days_to_their_end(
    memory: Memory, inventory: Inventory, status: Status
) -> None:
    """Each once, in the class that it fits; one without an end in none."""
    for name, days in (("a", -1), ("b", 0.5), ("c", 6), ("d", 7), ("e", 89), ("f", 300)):
        held = make_certificate([f"{name}.example.test"], now=EPOCH - 10 * DAY, lifetime=(10 + days) * DAY)
        memory.put(f"certificates/{held.id}", held.to_record())
    memory.put("certificates/broken.example.test", b"")
    await inventory._read_all()
    counted = {part["within_days"]: part["count"] for part in (await status())["expiry"]}
    assert counted == {0: 1, 1: 1, 3: 0, 7: 2, 14: 0, 30: 0, 60: 0, 90: 1, None: 1}


@pytest.mark.parametrize(
    ("error", "ca", "failing"),
    [(ChallengeFailed("no"), "ok", [_A]), (IssuerUnavailable("the CA is away"), "backing_off", [])],
)
async def test_failures_are_the_names_or_the_cas(
    manager: Manager, issuer: FakeIssuer, status: Status, error: IssuanceError, ca: str, failing: list[str]
) -> None:
    """Each in its list, with the reason and the time of the next attempt."""
    issuer.error = error
    with pytest.raises(IssuanceError):
        await manager.obtain(Subject((_A,)))

    document = await status()

    assert document["cas"][0]["state"] == ca
    assert [failure["host"] for failure in document["failing"]] == failing
    assert document["failing_total"] == len(failing)


async def test_other_nodes_failures_are_seen_and_no_ca_is_a_name(
    make_manager: MakeManager, clock: Clock, inventory: Inventory, status: Status
) -> None:
    """What another node wrote about this CA is shown; a CA that only others use is not."""
    store = make_manager().store
    store.save_backoff(_B, Backoff(2, clock() + 60, "theirs"))
    store.save_backoff(DIRECTORY, Backoff(1, clock() + 60, "busy"))
    store.save_backoff("https://other.test/dir", Backoff(1, clock() + 60, "not ours"))

    await inventory.read_failures()

    document = await status()
    assert [failure["host"] for failure in document["failing"]] == [_B]
    assert (document["cas"][0]["state"], document["cas"][0]["error"]) == ("backing_off", "busy")


async def test_stolen_keys_that_are_not_revoked_are_listed(manager: Manager, status: Status, clock: Clock) -> None:
    """With the reason and the time at which their CAs are asked again; now, for one that is due."""
    for name in (_A, _B):
        manager.store.save_compromised(make_certificate([name]))
    manager.store.save_backoff(revocation_scope(_A), Backoff(2, EPOCH + 60, "the CA is away"))

    unrevoked = (await status())["unrevoked"]

    assert [(one["host"], one["reason"], one["failures"], one["retry_at"]) for one in unrevoked] == [
        (_A, "the CA is away", 2, timestamp(EPOCH + 60)),
        (_B, "its CA is asked now", 0, timestamp(EPOCH)),
    ]


async def test_account_is_told_when_there_is_one(manager: Manager, status: Status, clock: Clock) -> None:
    """By its URL, and never its key."""
    assert (await status())["cas"][0]["account"] is None
    manager.store.save_account(Account(DIRECTORY, "", "https://ca.test/acct/1", "the key of the account"))
    clock.advance(3)

    document = await status()

    assert document["cas"][0]["account"] == "https://ca.test/acct/1"
    assert "the key of the account" not in str(document)


async def test_order_under_way(manager: Manager, issuer: FakeIssuer, status: Status, clock: Clock) -> None:
    """Listed while it lasts, with its beginning."""
    going = asyncio.Event()
    obtain = issuer.obtain

    async def slowly(subject: Subject, replacing: object = None) -> object:
        await going.wait()
        return await obtain(subject)

    issuer.obtain = slowly  # type: ignore[method-assign,assignment]  # the CA takes its time
    order = asyncio.get_running_loop().create_task(manager.obtain(Subject((_A,))))
    await _until(lambda: manager.ordering())

    assert [order["host"] for order in (await status())["ordering"]] == [_A]
    going.set()
    await order
    assert (await status())["ordering"] == []


async def test_storage_that_is_down(
    manager: Manager, status: Status, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status gives the reason, and the nodes as they were last read."""
    manager.nodes.heartbeat(Node("zz", "data", "1.0", "other", EPOCH), EPOCH)
    before = await status()

    def fail(*_: object) -> None:
        raise StorageUnavailable("away")

    monkeypatch.setattr(manager.nodes, "list_up", fail)
    clock.advance(3)
    document = await status()

    assert document["storage"] == {"kind": "file", "state": "down", "error": "away"}
    assert document["nodes"] == before["nodes"]


async def test_slow_storage_is_heard_out(
    manager: Manager, status: Status, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading does not wait for it; its late answer, budgets included, is in the next reading."""
    manager.store.save_account(Account(DIRECTORY, "", "https://ca.test/acct/1", "the key of the account"))
    slowly, budget = threading.Event(), Remaining(LimitKind.ORDERS, "", Limit(10, 60.0), 3, EPOCH)

    def left() -> tuple[Remaining, ...]:
        slowly.wait(10)
        return (budget,)

    monkeypatch.setattr(manager.cas[0].budgets, "remaining", left)
    monkeypatch.setattr(node_state, "_WITHIN", 0.01)
    assert (await status())["cas"][0]["account"] is None

    slowly.set()
    await status.reader._readings.wait_idle()

    ca = (await status())["cas"][0]
    assert ca["account"] == "https://ca.test/acct/1"
    assert ca["budgets"][0]["left"] == 3


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0)


async def test_budgets_are_read_seldom_and_after_an_order(
    manager: Manager, status: Status, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be thousands of records: they are read twice a minute, and after this node has ordered."""
    reads: list[float] = []

    def left() -> tuple[Remaining, ...]:
        reads.append(clock())
        return ()

    monkeypatch.setattr(manager.cas[0].budgets, "remaining", left)
    for _ in range(5):
        await status()
        clock.advance(3)
    assert len(reads) == 1

    await manager.obtain(Subject((_A,)))
    await status()
    assert len(reads) == 2

    clock.advance(31)
    await status()
    assert len(reads) == 3


@pytest.mark.parametrize(("after", "reads"), [(1.99, 1), (2.0, 2), (-0.01, 2)])
async def test_cluster_is_read_again_after_two_seconds(
    manager: Manager, status: Status, clock: Clock, monkeypatch: pytest.MonkeyPatch, after: float, reads: int
) -> None:
    """However many people look; and at once where the clock was set back."""
    listed = list[float]()

    def list_up() -> list[Node]:
        listed.append(clock())
        return []

    monkeypatch.setattr(manager.nodes, "list_up", list_up)
    await status()
    clock.advance(after)
    await status()
    assert len(listed) == reads


@pytest.mark.parametrize("at", [1e300, -1e300, 1e12, -1.0, 253_402_300_800.0])
async def test_absurd_times_in_the_storage_break_nothing(
    memory: Memory, manager: Manager, inventory: Inventory, status: Status, at: float
) -> None:
    """A writer of the storage breaks no status: of a node, a name, a CA, a revocation or a renewal window."""
    stored = make_certificate([_A])
    memory.put(f"certificates/{_A}", stored.to_record())
    manager.schedule.save_renewal_info(_A, stored.renewal_id or "", RenewalInfo(at, at, at, "https://ca.test/why"))
    manager.store.save_compromised(stored)
    for scope in (_B, DIRECTORY, revocation_scope(_A), name_scope(_B, DIRECTORY)):
        manager.store.save_backoff(scope, Backoff(10**30, at, "x\n\x1b[31m" * 2_000))
    manager.nodes.heartbeat(Node("zz", "data", "1.0", "other", at), at)
    await inventory.load()

    document = json.dumps(await status())

    assert "\\u001b" not in document
    assert len(document) < 20_000
    row = await inventory.read(_A)
    assert row is not None
    assert documents.certificate(row, manager.config, EPOCH, inventory.failure_of(_B))
