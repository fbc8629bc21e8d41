"""The command bar, the admin API and the command line answer alike: same name, same state, same outcome and reason."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from mitmproxy import exceptions
from mitmproxy.test import taddons

from acme_storage import StorageError
from acme_storage.memory import Memory
from mitmproxy_acme.admin.api.server import AdminServer
from mitmproxy_acme.admin.certificate_service import Outcome
from mitmproxy_acme.admin.context import AdminContext
from mitmproxy_acme.admin.event_history import EventHistory
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.admin.metrics import Metrics
from mitmproxy_acme.cli.api_backend import ApiBackend
from mitmproxy_acme.cli.backend import Backend
from mitmproxy_acme.cli.storage_backend import StorageBackend
from mitmproxy_acme.config.admin_settings import AdminAddress
from mitmproxy_acme.core.errors import AcmeError, ChallengeFailed, IssuanceError, IssuerUnavailable, RateLimited
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.thread_pools import run_in_thread
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm.command_bar import CommandBar
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import FakeIssuer, make_certificate
from tests.servers.base import free_port

NAME = ServerName("a.example.test")


@dataclass(frozen=True)
class Answer:
    """What a person reads: what became of it, and why; ``details`` are for programs, and the command bar has none."""

    outcome: str
    reason: str = ""
    details: tuple[object, ...] | None = None


@dataclass(frozen=True)
class Serving:
    manager: Manager
    inventory: Inventory
    history: EventHistory


type Ask = Callable[[Manager, str, str], Awaitable[Answer]]


async def by_storage(manager: Manager, action: str, name: str) -> Answer:
    return await _by_backend(StorageBackend(manager, []), action, ServerName(name))


async def by_api(manager: Manager, action: str, name: str) -> Answer:
    address = AdminAddress("127.0.0.1", free_port())
    server = AdminServer(AdminContext.of(manager, Inventory(manager), Metrics()), address)
    server.start()
    try:
        backend = await run_in_thread(lambda: ApiBackend.connect(address, ""))
        assert backend is not None
        answer = await _by_backend(backend, action, ServerName(name))
        await backend.close()
        return answer
    finally:
        server.stop()
        await server.close()


async def _by_backend(backend: Backend, action: str, name: ServerName) -> Answer:
    if action not in ("issue", "renew"):
        work: Awaitable[object] = backend.revoke(name, "superseded") if action == "revoke" else backend.get(name)
        try:
            await work
        except (AcmeError, StorageError) as error:
            return Answer("failed", re.sub(r"^the proxy at \S+ says ", "", str(error)))
        return Answer("done")
    result = await (backend.issue(name) if action == "issue" else backend.renew(name))
    details = (result.retry_at, result.stop, result.limited, result.unvalidated)
    return Answer(result.outcome.value, result.reason, details)


async def by_command_bar(manager: Manager, action: str, name: str) -> Answer:
    inventory = Inventory(manager)
    await inventory.load()
    lines: list[str] = []
    with (
        pytest.MonkeyPatch.context() as patch,
        taddons.context(CommandBar(lambda: Serving(manager, inventory, EventHistory(manager)))) as tctx,  # type: ignore[no-untyped-call]
    ):
        for method in ("log", "warning"):
            patch.setattr(
                f"mitmproxy_acme.mitm.command_bar.logger.{method}",
                lambda *words: lines.append(f"{words[-2]}: {words[-1]}"),
            )
        try:
            tctx.master.commands.execute(f"acme.{action} {name}")
        except exceptions.CommandError as error:
            return Answer("failed", str(error))
        if action == "show":
            return Answer("done")
        async with asyncio.timeout(10):
            while not lines:  # noqa: ASYNC110  # the log wakes no task
                await asyncio.sleep(0.001)
    said = lines[0].removeprefix(f"acme.{action} {name}: ")
    outcome = next((word for word in Outcome if said.startswith(f"{word}, valid until ")), None)
    if said.startswith("revoked"):
        return Answer("done")
    return Answer(outcome.value) if outcome else Answer("failed", said)


ENTRANCES: tuple[Ask, ...] = (by_command_bar, by_api, by_storage)


async def _same_answers(prepare: Callable[[], Manager], action: str, name: str) -> Answer:
    """Ask each entrance in a fresh state; return the answer that all gave."""
    answers = [await ask(prepare(), action, name) for ask in ENTRANCES]
    assert len({(answer.outcome, answer.reason) for answer in answers}) == 1, answers
    assert answers[1].details == answers[2].details
    return answers[2]


@pytest.fixture
def prepare(make_manager: MakeManager, memory: Memory, issuer: FakeIssuer) -> Callable[..., Manager]:
    """Make a manager on a storage that holds nothing but the ``stored`` record; the CA fails with ``error``."""

    def prepare(stored: bytes | None = None, error: IssuanceError | None = None, **options: object) -> Manager:
        for key in memory.keys(""):
            memory.delete(key)
        if stored is not None:
            memory.put(f"certificates/{NAME}", stored)
        issuer.error = error
        return make_manager(**options)

    return prepare


OURS = make_certificate([NAME]).to_record()
OF_ANOTHER_CA = make_certificate([NAME], ca="https://elsewhere.test/dir").to_record()


@pytest.mark.parametrize(
    ("stored", "action", "outcome"),
    [
        (None, "issue", "obtained"),
        (OURS, "issue", "stored already"),
        (OF_ANOTHER_CA, "issue", "obtained"),
        (OURS, "renew", "renewed"),
        (OF_ANOTHER_CA, "renew", "renewed"),
        (OURS, "revoke", "done"),
        (OURS, "show", "done"),
        (b"broken", "show", "done"),
    ],
)
async def test_success(prepare: Callable[..., Manager], stored: bytes | None, action: str, outcome: str) -> None:
    """Each entrance says what became of the certificate."""
    answer = await _same_answers(lambda: prepare(stored), action, NAME)
    assert (answer.outcome, answer.reason) == (outcome, "")


@pytest.mark.parametrize("stored", [None, OF_ANOTHER_CA])
@pytest.mark.parametrize(
    ("error", "limited", "unvalidated"),
    [
        (ChallengeFailed("connection refused"), False, True),
        (RateLimited("too many orders"), True, False),
        (IssuerUnavailable("the CA is down"), False, False),
    ],
)
async def test_order_that_fails(
    prepare: Callable[..., Manager], stored: bytes | None, error: IssuanceError, limited: bool, unvalidated: bool
) -> None:
    """It is a failure with the CA's reason, although an old certificate of another CA is still served."""
    answer = await _same_answers(lambda: prepare(stored, error), "issue", NAME)
    assert (answer.outcome, answer.reason) == ("failed", str(error))
    assert answer.details is not None
    retry_at, stop, *kinds = answer.details
    assert kinds == [limited, unvalidated]
    assert retry_at is not None
    assert stop == (str(error) if isinstance(error, IssuerUnavailable) else "")


async def test_old_certificate_with_another_kind_of_key(prepare: Callable[..., Manager]) -> None:
    """It is still served, and the order is a failure all the same."""
    answer = await _same_answers(
        lambda: prepare(OURS, ChallengeFailed("no route"), acme_key_type=("rsa-2048", "ecdsa-p256")), "issue", NAME
    )
    assert (answer.outcome, answer.reason) == ("failed", "no route")


@pytest.mark.parametrize("action", ["renew", "revoke"])
async def test_data_node(prepare: Callable[..., Manager], action: str) -> None:
    """It neither orders nor revokes, for any name."""
    answer = await _same_answers(lambda: prepare(OURS, acme_role="data"), action, NAME)
    assert answer == Answer(
        "failed", "this is a data node, which never talks to a CA; ask a control node", answer.details
    )


@pytest.mark.parametrize(
    ("action", "name", "reason"),
    [
        ("issue", "x.test", "host x.test is not included in acme_domains or acme_certificates"),
        ("issue", f"{NAME}+rsa", f"host {NAME}+rsa has a second kind of key; add that kind to acme_key_type"),
        ("renew", NAME, f"no certificate is stored for {NAME}"),
        ("renew", "x.test", "no certificate is stored for x.test"),
        ("revoke", NAME, f"no certificate is stored for {NAME}"),
        ("show", NAME, f"no certificate is stored for {NAME}"),
    ],
)
async def test_refusal(
    prepare: Callable[..., Manager], issuer: FakeIssuer, action: str, name: str, reason: str
) -> None:
    """The reason is one sentence, the same everywhere, and nothing is ordered."""
    answer = await _same_answers(prepare, action, name)
    assert (answer.outcome, answer.reason) == ("failed", reason)
    assert issuer.orders == []


async def test_missing_certificate_says_why(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """The last failure of the name is in the reason, for either kind of key."""
    manager = make_manager(acme_key_type=("ecdsa-p256", "rsa-2048"))
    issuer.error = ChallengeFailed("no route")
    with pytest.raises(ChallengeFailed):
        await manager.issue(manager.config.subject(NAME))  # type: ignore[arg-type]  # it is allowed
    for name in (NAME, f"{NAME}+rsa"):
        answers = {await ask(manager, "show", name) for ask in ENTRANCES}
        reason = f"no certificate is stored for {name}: no route; next attempt at 2027-01-15T08:01:00Z"
        assert answers == {Answer("failed", reason)}
