"""mitmproxy's commands: what they return, complete and refuse, with a manager and no network."""

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.test import taddons
from mitmproxy.types import CommandTypes

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin.event_history import EventHistory
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.core.errors import ChallengeFailed
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.diagnostics.finding import Finding, fail, passed, warn
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm.command_bar import CommandBar
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED, FakeIssuer, make_certificate


@dataclass
class Serving:
    manager: Manager
    inventory: Inventory
    history: EventHistory

    async def read(self, *names: str) -> None:
        """Have the inventory read what is stored under these names."""
        for name in names:
            await self.inventory.read(ServerName(name))
        self.inventory._all_read.set()


@pytest.fixture
async def serving(make_manager: MakeManager) -> Serving:
    manager = make_manager(acme_certificates=("example.test,www.example.test",))
    return Serving(manager, Inventory(manager), EventHistory(manager))


@pytest.fixture
def commands(serving: Serving) -> Iterator[Any]:
    """mitmproxy's command manager, with ours in it."""
    with taddons.context(CommandBar(lambda: serving)) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's test tool
        yield tctx.master.commands


def store(memory: Memory, *names: str) -> None:
    for name in names:
        slot = Store(memory, UNSEALED).slot(ServerName(name))
        assert Store(memory, UNSEALED).replace(slot, make_certificate([name]))


async def settled(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Return when the outcome of a command is in the log."""
    async with asyncio.timeout(10):
        while text not in caplog.text:  # noqa: ASYNC110  # the log wakes no task
            await asyncio.sleep(0.01)


async def test_list_is_a_table_with_a_row_for_each_certificate(commands: Any, serving: Serving, memory: Memory) -> None:
    """All rows have the same number of texts, as mitmproxy's table wants it; a part of a name selects."""
    store(memory, "a.example.test", "b.example.test")
    await serving.read("a.example.test", "b.example.test")
    table = commands.execute("acme.list")
    assert [row[0] for row in table] == ["name", "a.example.test", "b.example.test"]
    assert {len(row) for row in table} == {5}
    assert table[1][1:] == ["valid", "2027-04-15T08:00:00Z", "2027-03-16T08:00:00Z", "Fake Issuer"]
    assert [row[0] for row in commands.execute("acme.list B.EX")] == ["name", "b.example.test"]


async def test_events_of_all_nodes_are_a_table(
    commands: Any, serving: Serving, make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """This node's at once, the others' as soon as they are read."""
    assert commands.execute("acme.events") == [["nothing has happened yet"]]
    issuer.error = ChallengeFailed("no such host")
    for node, name in ((serving.manager, "a.example.test"), (make_manager(), "b.example.test")):
        with pytest.raises(ChallengeFailed):
            await node.obtain(Subject((ServerName(name),)))
        await node.recorder.wait_idle()
    serving.manager.now.advance(5)  # type: ignore[attr-defined]  # the clock of the tests
    assert [row[2] for row in commands.execute("acme.events")] == ["name", "a.example.test"]
    await serving.history.read()
    table = commands.execute("acme.events")
    assert {row[2] for row in table[1:]} == {"a.example.test", "b.example.test"}
    assert {len(row) for row in table} == {5}
    assert (table[1][1], table[1][4]) == (
        "failed",
        "no such host, by fake-ca in 0.00 s, next attempt at " + table[1][4][-20:],
    )


async def test_long_list_says_how_many_it_leaves_out(
    commands: Any, serving: Serving, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more rows than a person reads; the last says how to find the others."""
    monkeypatch.setattr("mitmproxy_acme.mitm.command_bar._MOST_ROWS", 2)
    names = [f"n{number}.example.test" for number in range(5)]
    store(memory, *names)
    await serving.read(*names)
    assert commands.execute("acme.list")[-1][0] == "… 3 more: acme.list PART"
    assert commands.execute("acme.list example")[-1][0] == "… more: acme.list PART"


async def test_list_of_nothing_says_that_the_storage_is_still_read(commands: Any) -> None:
    """A table is never without a row, and an answer that comes too early says so."""
    assert commands.execute("acme.list") == [["the storage is still being read; try again in a moment"]]


async def test_show_finds_a_managed_certificate_by_any_of_its_names(
    commands: Any, serving: Serving, memory: Memory
) -> None:
    """It is stored under the first; no text of it is secret."""
    store(memory, "example.test")
    await serving.read("example.test")
    shown = dict(commands.execute("acme.show www.example.test"))
    assert (shown["host"], shown["state"], shown["managed"]) == ("example.test", "valid", "true")
    assert "PRIVATE KEY" not in str(shown)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("acme.show gone.example.test", "no certificate is stored for gone.example.test"),
        ("acme.show a_b", "name: 'a_b' is not a host name; write a DNS name such as www.example.com"),
        ("acme.issue other.test", "host other.test is not included in acme_domains or acme_certificates"),
        ("acme.revoke a.example.test because", "Invalid choice."),
    ],
)
async def test_wrong_word_is_refused_in_a_sentence(commands: Any, serving: Serving, typed: str, said: str) -> None:
    """The error says at once what is wrong."""
    await serving.read()
    with pytest.raises(exceptions.CommandError, match=said):
        commands.execute(typed)


async def test_data_node_says_who_renews(make_manager: MakeManager) -> None:
    """What only a control node does is refused at once."""
    manager = make_manager(acme_role="data", acme_storage="redis://127.0.0.1/0")
    with taddons.context(CommandBar(lambda: Serving(manager, Inventory(manager), EventHistory(manager)))) as tctx:  # type: ignore[no-untyped-call]
        for typed in ("acme.renew a.example.test", "acme.revoke a.example.test"):
            with pytest.raises(exceptions.CommandError, match="ask a control node"):
                tctx.master.commands.execute(typed)


async def test_check_logs_each_finding_and_their_number(
    commands: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What did not pass is a warning; it sees mitmproxy's options, and the folder that they name."""
    caplog.set_level("INFO")
    seen = list[tuple[dict[str, Any], Path]]()

    def inspect(settings: dict[str, Any], confdir: Path) -> Iterator[Finding]:
        seen.append((settings, confdir))
        yield from (passed("port 80"), passed("port 443"), warn("the clock"), fail("the CA"))

    monkeypatch.setattr("mitmproxy_acme.mitm.command_bar.inspect", inspect)
    commands.execute("acme.check")
    await settled(caplog, "acme.check: pass 2, warn 1, fail 1")
    lines = [(line.levelname, line.getMessage()) for line in caplog.records if line.getMessage().count("  ") >= 1]
    assert lines == [
        ("INFO", "acme.check: pass  port 80"),
        ("INFO", "acme.check: pass  port 443"),
        ("WARNING", "acme.check: warn  the clock"),
        ("WARNING", "acme.check: fail  the CA"),
    ]
    ((settings, confdir),) = seen
    assert settings["confdir"] == "~/.mitmproxy"
    assert confdir == Path(os.path.expanduser("~/.mitmproxy"))  # noqa: ASYNC240  # it only reads a variable


async def test_storage_that_is_down_is_said_with_what_is_known(commands: Any, serving: Serving, memory: Memory) -> None:
    """Certificates may be missing from the table, or one from memory."""
    store(memory, "a.example.test")
    await serving.read("a.example.test")
    serving.manager.health.trouble(StorageUnavailable("the disk is gone"))
    assert [row[0] for row in commands.execute("acme.list")][1:] == ["a.example.test", "… and maybe more"]
    assert commands.execute("acme.list zz") == [["storage is down: the disk is gone"]]
    with pytest.raises(exceptions.CommandError, match=r"^storage is down: the disk is gone$"):
        commands.execute("acme.show gone.example.test")


async def test_broken_record_has_a_row(commands: Any, serving: Serving, memory: Memory) -> None:
    memory.put("certificates/a.example.test", b"broken")
    await serving.read("a.example.test")
    (row,) = commands.execute("acme.list")[1:]
    assert (row[:2], row[3:]) == (["a.example.test", "unreadable"], ["", ""])
    assert row[2]


async def test_without_any_name_commands_say_what_to_set() -> None:
    """An addon that has nothing to do answers too."""
    with taddons.context(CommandBar(lambda: None)) as tctx:  # type: ignore[no-untyped-call]
        with pytest.raises(exceptions.CommandError, match="set acme_domains or acme_certificates"):
            tctx.master.commands.execute("acme.list")
        assert tctx.master.commands.execute("acme.revoke.reasons")[0] == "unspecified"
        assert tctx.master.addons.get("acme_commands").names("a") == []


async def test_issue_obtains_once_and_renew_anew(
    commands: Any, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """A stored certificate is not issued again; it is renewed when a person says so, and only what is stored is."""
    caplog.set_level("INFO")
    commands.execute("acme.renew a.example.test")
    await settled(caplog, "acme.renew a.example.test: no certificate is stored for a.example.test")
    commands.execute("acme.issue a.example.test")
    await settled(
        caplog, "acme.issue a.example.test: obtained, valid until 2027-04-15T08:00:00Z, issued by Fake Issuer"
    )
    commands.execute("acme.issue a.example.test")
    await settled(caplog, "acme.issue a.example.test: stored already, valid until")
    assert len(issuer.orders) == 1
    commands.execute("acme.renew a.example.test")
    await settled(caplog, "acme.renew a.example.test: renewed, valid until")
    assert len(issuer.orders) == 2


async def test_failure_is_told_and_the_next_try_asks_again(
    commands: Any, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """A backoff keeps visitors from ordering, not the person who has mended what was wrong."""
    caplog.set_level("INFO")
    issuer.error = ChallengeFailed("connection refused")
    commands.execute("acme.issue a.example.test")
    await settled(caplog, "acme.issue a.example.test: connection refused")
    issuer.error = None
    commands.execute("acme.issue a.example.test")
    await settled(caplog, "acme.issue a.example.test: obtained, valid until")
    assert len(issuer.orders) == 2


async def test_revoke_revokes_with_its_reason_and_deletes(
    commands: Any, serving: Serving, issuer: FakeIssuer, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """The CA receives the chosen reason; without a certificate there is an error."""
    caplog.set_level("INFO")
    store(memory, "a.example.test")
    commands.execute("acme.revoke a.example.test superseded")
    await settled(caplog, "acme.revoke a.example.test: revoked (superseded) and deleted")
    assert issuer.revoked == [("a.example.test", "superseded")]
    commands.execute("acme.revoke a.example.test")
    await settled(caplog, "no certificate is stored for a.example.test")


async def test_stolen_key_is_replaced(
    commands: Any, serving: Serving, issuer: FakeIssuer, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """The event log says that another is in its place."""
    caplog.set_level("INFO")
    store(memory, "a.example.test")
    commands.execute("acme.revoke a.example.test keyCompromise")
    await settled(caplog, "revoked (keyCompromise) and replaced by a certificate with a new key")
    assert (issuer.revoked, len(issuer.orders)) == ([("a.example.test", "keyCompromise")], 1)


async def test_command_bar_completes_names_and_reasons(commands: Any, serving: Serving, memory: Memory) -> None:
    """Names come from what is listed and what is stored behind the letters that are typed."""
    store(memory, "a.example.test", "z.example.test")
    await serving.read("a.example.test", "z.example.test")
    name, reason = commands.commands["acme.revoke"].parameters
    assert name.type.__name__ == "Name"

    complete = CommandTypes.get(name.type)
    assert complete is not None
    assert complete.completion(commands, name.type, "z") == ["example.test", "www.example.test", "z.example.test"]
    assert complete.completion(commands, name.type, "a.example.test")[0] == "a.example.test"
    assert complete.parse(commands, name.type, "A.example.test+RSA") == "a.example.test+rsa"
    choice = CommandTypes.get(reason.type)
    assert choice is not None
    assert "keyCompromise" in choice.completion(commands, reason.type, "k")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("www.elsewhere.test", "is not included in acme_domains or acme_certificates"),
        ("*.elsewhere.test", "is not included in acme_certificates"),
        ("2001:db8::1", "is not included in acme_ip_certificates or acme_certificates"),
        ("a.example.test+rsa", "has a second kind of key; add that kind to acme_key_type"),
    ],
)
def test_name_that_no_option_allows(commands: Any, issuer: FakeIssuer, name: str, right: str) -> None:
    """The error names the options that could allow it."""
    with pytest.raises(exceptions.CommandError, match=re.escape(f"host {name} {right}")):
        commands.execute(f"acme.issue {name}")
    assert issuer.orders == []
